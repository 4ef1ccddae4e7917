"""Which part of a scan counts: what the mask lets through, and what the grid is centred on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthmed.errors import InputError
from synthmed.prepare.space import Space
from synthmed.volume import Volume


def inside(label: Volume | None, space: Space) -> NDArray[np.bool_] | None:
    """Return the voxels that the mask lets through, on the file's own grid; None where nothing is masked.

    Parameters
    ----------
    label : Volume, shape (1, I, J, K), as the file has it: every value but 0 is inside; or None
    space : Space

    Raises
    ------
    InputError
        If a mask is asked for and there is no label, or it is empty.
    """
    if space.mask == "none":
        return None
    return np.asarray(_labelled(label, "preprocess.mask") != 0)


def masked(image: Volume, mask: NDArray[np.bool_] | None, outside: float) -> Volume:
    """Return the image with `outside` wherever the mask lets nothing through.

    This comes before resampling, so that nothing from outside is blurred into the edge: a voxel on the edge is what a
    scanner would see of the part alone.

    Parameters
    ----------
    image : Volume, shape (1, I, J, K)
    mask : ndarray of bool, shape (1, I, J, K), or None
    outside : float, units of the file
    """
    return image if mask is None else Volume(np.where(mask, image.array, np.float32(outside)), image.affine)


def middle(image: Volume, label: Volume | None, space: Space, source_range: tuple[float, float]) -> tuple[float, ...]:
    """Return the voxel index, in fractions, that the grid's centre goes to.

    ``image``: the middle of the field of view. ``label``: the middle of the box that holds every labelled voxel.
    ``foreground``: the centre of mass of the intensities above the low end of the range.

    Parameters
    ----------
    image : Volume, shape (1, I, J, K)
    label : Volume, the same shape, as the file has it; or None
    space : Space
    source_range : tuple of float, units of the file

    Raises
    ------
    InputError
        If the label is asked for and there is none, or it is empty.
    """
    if space.centre == "label":
        places = np.argwhere(_labelled(label, "preprocess.centre")[0] != 0)
        return tuple(float(v) for v in (places.min(axis=0) + places.max(axis=0)) / 2)
    if space.centre == "foreground":
        low, high = source_range
        return tuple(float(v) for v in ndimage.center_of_mass(np.clip(image.array[0], low, high) - low))
    return tuple((n - 1) / 2 for n in image.shape)


def _labelled(label: Volume | None, key: str) -> NDArray[np.float32]:
    if label is None:
        raise InputError(f"{key} is label and there is no label", next_step=f"Add labels, or remove {key}")
    if not label.array.any():
        raise InputError(f"{key} is label and the label is empty", next_step="Correct the label, or leave the case out")
    return label.array
