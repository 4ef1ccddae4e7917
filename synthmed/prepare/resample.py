"""From one spacing to another along the axes: images by point spread and interpolation, labels by majority."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Triple = tuple[int, int, int]
Array = NDArray[np.float32]
_REACH = 4.0
"""Standard deviations after which the point spread is cut off, as scipy does."""


@dataclass(frozen=True)
class Resampling:
    """Where the voxels of another spacing lie among those that are there.

    Attributes
    ----------
    ratio : tuple of float
        Target over source spacing; 1 along axes that stay as they are.
    first : tuple of float
        Source index of the first target voxel.
    shape : tuple of int
        Target voxels.
    """

    ratio: tuple[float, ...]
    first: tuple[float, ...]
    shape: Triple

    @property
    def sigma(self) -> list[float]:
        """Standard deviation of the point spread between both spacings, source voxels; 0 where the target is finer.

        References
        ----------
        Cardoso et al. 2015, scale factor point spread function matching, doi 10.1007/978-3-319-24571-3_81: the
        Gaussian that takes a voxel of width s to one of width t has variance (t^2 - s^2) / (8 ln 2).
        """
        return [math.sqrt(max(0.0, r * r - 1.0) / (8 * math.log(2))) for r in self.ratio]


def resample_image(array: Array, how: Resampling) -> Array:
    """Blur to the target's point spread where that is coarser, then interpolate linearly.

    Parameters
    ----------
    array : ndarray, shape (C, I, J, K)
    how : Resampling
    """
    sigma = how.sigma
    if any(sigma):
        array = np.stack([_blur(channel, sigma) for channel in array])
    return interpolate(array, how, order=1)


def resample_label(array: Array, how: Resampling) -> Array:
    """Give every target voxel the value that fills most of it; where the target is nowhere coarser, the nearest one.

    Each value is seen through the point spread of the image, so that label and image agree about partial volume. What
    is thinner than half a target voxel is lost; a tie goes to the lowest value.

    Parameters
    ----------
    array : ndarray, shape (1, I, J, K), whole numbers from 0
    how : Resampling
    """
    if not any(how.sigma):
        return interpolate(array, how, order=0)
    values = array[0].astype(np.int32)
    boxes = ndimage.find_objects(values)
    everywhere = tuple(slice(0, n) for n in values.shape)
    places = [(0, everywhere), *((value, box) for value, box in enumerate(boxes, 1) if box is not None)]
    most = np.full(how.shape, -1.0, dtype=np.float32)
    winner = np.zeros(how.shape, dtype=np.float32)
    for value, box in places:
        share = _share(values, value, box, how)
        better = share > most
        most[better], winner[better] = share[better], value
    return winner[None]


def interpolate(array: Array, how: Resampling, *, order: int) -> Array:
    """Interpolate by nearest neighbour (order 0) or linearly (order 1); the edge goes on outside.

    Parameters
    ----------
    array : ndarray, shape (C, I, J, K)
    how : Resampling
    order : {0, 1}
    """
    if all(r == 1.0 for r in how.ratio):
        return array
    moved = [
        ndimage.affine_transform(
            channel, how.ratio, how.first, output_shape=how.shape, order=order, mode="nearest", prefilter=False
        )
        for channel in array
    ]
    return np.stack(moved)


def _share(values: NDArray[np.int32], value: int, box: Sequence[slice], how: Resampling) -> Array:
    """Return how much of each target voxel a value fills, to four decimals; `box` holds every voxel of the value."""
    sigma = how.sigma
    reach = [math.ceil(_REACH * s) + 1 for s in sigma]
    near = tuple(
        slice(max(b.start - r, 0), min(b.stop + r, n)) for b, r, n in zip(box, reach, values.shape, strict=True)
    )
    blurred = np.zeros(values.shape, dtype=np.float32)
    blurred[near] = _blur((values[near] == value).astype(np.float32), sigma)
    return interpolate(blurred[None], how, order=1)[0].round(4)


def _blur(channel: Array, sigma: Sequence[float]) -> Array:
    return ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=_REACH)  # type: ignore[no-any-return]
