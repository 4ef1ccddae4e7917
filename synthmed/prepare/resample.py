"""From one spacing to another along the axes: images by point spread, labels by the share that each fills."""

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
_HEAVIEST = 2.0
"""A value may win a voxel of which another fills at most this many times as much."""
_ROUNDS = 16
Share = tuple[NDArray[np.intp], Array]


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
    """Give every target voxel the value that fills most of it, volumes kept; where nowhere coarser, the nearest one.

    Each value is seen through the point spread of the image, so that label and image agree about partial volume. The
    largest share alone would thin out what is thin: 4 mm voxels would lose a fifth of the ventricles. So shares are
    weighed, by at most `_HEAVIEST`, until every value has the volume that it came with. A tie goes to the lowest value.

    Parameters
    ----------
    array : ndarray, shape (1, I, J, K), whole numbers from 0
    how : Resampling

    References
    ----------
    Aurenhammer, Hoffmann and Aronov 1998, doi 10.1007/PL00009187: weights exist that make the best assignment one of
    given sizes.
    """
    if not any(how.sigma):
        return interpolate(array, how, order=0)
    values = array[0].astype(np.int32)
    boxes = ndimage.find_objects(values)
    everywhere = tuple(slice(0, n) for n in values.shape)
    places = [(0, everywhere), *((value, box) for value, box in enumerate(boxes, 1) if box is not None)]
    shares = [_share(values, value, box, how) for value, box in places]
    kinds = np.asarray([value for value, _ in places], dtype=np.float32)
    return kinds[_assign(shares, math.prod(how.shape))].reshape(1, *how.shape)


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


def _share(values: NDArray[np.int32], value: int, box: Sequence[slice], how: Resampling) -> Share:
    """Return the target voxels that a value fills in part, and how much, to four decimals; `box` holds the value."""
    sigma = how.sigma
    reach = [math.ceil(_REACH * s) + 1 for s in sigma]
    near = tuple(
        slice(max(b.start - r, 0), min(b.stop + r, n)) for b, r, n in zip(box, reach, values.shape, strict=True)
    )
    blurred = _blur((values[near] == value).astype(np.float32), sigma)
    target, part = _around(near, values.shape, how)
    share = np.zeros(how.shape, dtype=np.float32)
    if min(part.shape) > 0:
        share[target] = interpolate(blurred[None], part, order=1)[0].round(4)
    places = np.flatnonzero(share)
    return places, share.ravel()[places]


def _around(box: Sequence[slice], source: Sequence[int], how: Resampling) -> tuple[tuple[slice, ...], Resampling]:
    """Return the target voxels that lie less than a voxel from a box of the source, and how the box comes to them.

    Where the box touches the edge of the source, all that lie beyond it are among them.
    """
    sides = list(zip(box, how.ratio, how.first, how.shape, strict=True))
    bounds = [
        (
            math.floor((b.start - 1 - a) / r) if b.start else 0,
            math.ceil((b.stop - a) / r) + 1 if b.stop < length else n,
        )
        for (b, r, a, n), length in zip(sides, source, strict=True)
    ]
    ends = [(min(max(0, low), n), min(max(0, high), n)) for (low, high), n in zip(bounds, how.shape, strict=True)]
    target = tuple(slice(low, high) for low, high in ends)
    first = tuple(a + t.start * r - b.start for t, (b, r, a, _) in zip(target, sides, strict=True))
    i, j, k = (t.stop - t.start for t in target)
    return target, Resampling(how.ratio, first, (i, j, k))


def _assign(shares: Sequence[Share], voxels: int) -> NDArray[np.intp]:
    """Return the index of each voxel's value, the shares weighed until the values' volumes are those of the shares.

    Where many voxels have the same share no weights lead there; of what was tried, the nearest is returned. Only voxels
    that several values share are weighed: the others have their value whatever the weights are.
    """
    wanted = 1 + np.array([share.sum(dtype=np.float64) for _, share in shares])
    weights, least = np.ones(len(shares)), np.inf
    winner = _largest(shares, weights, voxels)
    disputed = np.bincount(np.concatenate([places for places, _ in shares]), minlength=voxels) > 1
    certain = np.bincount(winner[~disputed], minlength=len(shares))
    within, few = np.cumsum(disputed) - 1, int(disputed.sum())
    contested = [(within[places[mask]], share[mask]) for places, share in shares for mask in [disputed[places]]]
    nearest = winner[disputed]
    for _ in range(_ROUNDS):
        among = _largest(contested, weights, few)
        excess = np.log((1 + certain + np.bincount(among, minlength=len(shares))) / wanted)
        if (error := float(np.abs(excess).sum())) < least:
            least, nearest = error, among
        weights *= np.exp(-excess / 2)
        weights = np.clip(weights / np.exp(np.log(weights).mean()), 1 / _HEAVIEST, _HEAVIEST)
    winner[disputed] = nearest
    return winner


def _largest(shares: Sequence[Share], weights: NDArray[np.float64], voxels: int) -> NDArray[np.intp]:
    best, winner = np.zeros(voxels), np.zeros(voxels, dtype=np.intp)
    for index, (places, share) in enumerate(shares):
        score = share * weights[index]
        better = score > best[places]
        best[places[better]] = score[better]
        winner[places[better]] = index
    return winner


def _blur(channel: Array, sigma: Sequence[float]) -> Array:
    return ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=_REACH)  # type: ignore[no-any-return]
