"""Where the three planes of a volume are best laid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def centre_of(mask: NDArray[Any] | None, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel the planes pass through; the middle of the grid where there is no label.

    Along each axis it is the section that cuts most structures, of those the one with most labelled voxels, of those
    the one nearest to the label's centroid.
    """
    if mask is None or not mask.any():
        i, j, k = (side // 2 for side in shape)
    else:
        i, j, k = (_best_section(np.moveaxis(mask, axis, 0)) for axis in range(3))
    return i, j, k


def _best_section(mask: NDArray[Any]) -> int:
    values = np.unique(mask[mask > 0])
    structures = np.sum([(mask == value).any(axis=(1, 2)) for value in values], axis=0)
    voxels = (mask > 0).sum(axis=(1, 2))
    index = np.arange(len(mask))
    off_centre = np.abs(index - (index * voxels).sum() / voxels.sum())
    return int(np.lexsort((off_centre, -voxels, -structures))[0])
