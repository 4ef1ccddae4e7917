"""What a decoded volume lacks of a scan: noise, an exact background, labels without crumbs.

A decoder that minimises a distance returns the mean of p(image | latent). A scan has a residual as well. Its part that
neighbouring voxels do not share is noise, whose spread is measured on training scans and drawn anew, voxel by voxel;
the rest is detail, which noise would only imitate badly. What is kept describes the cohort: a curve, two numbers and a
size a structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthmed.errors import InputError

Array = NDArray[np.float32]
Classes = NDArray[np.uint8]

BINS = 32
FEWEST_VOXELS = 200
"""A bin of the noise curve with fewer voxels takes the value of its neighbours."""
LEAST_BACKGROUND = 0.01
"""Share of voxels at the low end of the range from which on a cohort has an exact background."""
HIGHEST_FLOOR = -0.9
CRUMBS = 5.0
"""Percentile of the sizes of training pieces below which a piece is a crumb."""


@dataclass(frozen=True)
class Finish:
    """How samples are finished; the default changes nothing.

    Attributes
    ----------
    noise : tuple of float, length BINS or 0
        Standard deviation of the noise in equal bins of the decoded intensity over [-1, 1].
    spread : float
        Standard deviation of the logarithm of a scan's own noise level about that curve.
    floor : float
        Decoded intensities up to here are background, -1.
    pieces : tuple of int
        For each class, background first, the smallest connected piece in voxels; the largest of a class always stays.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, appendix C.2: the decoder's Gaussian, here with a standard deviation
    that depends on the decoded intensity. Matheron 1963, doi 10.2113/gsecongeo.58.8.1246: the nugget effect.
    """

    noise: tuple[float, ...] = ()
    spread: float = 0.0
    floor: float = -1.0
    pieces: tuple[int, ...] = ()

    @classmethod
    def fit(cls, images: Array, decoded: Array, classes: Classes | None, num_classes: int) -> Finish:
        """Measure what the decoder leaves out of training scans.

        Parameters
        ----------
        images, decoded : ndarray, shape (N, I, J, K), float32, images in [-1, 1]
        classes : ndarray, shape (N, I, J, K), uint8 class index of the images; or None without labels
        num_classes : int
            Background included.
        """
        floor = _floor(images, decoded)
        inside = decoded > floor
        residual = np.where(inside, images - decoded, 0.0)
        curve = _noise_curve(decoded[inside], residual[inside])
        standard = residual / np.maximum(_at(curve, decoded), 1e-6)
        noise = curve * np.sqrt(_nugget(standard, inside))
        scaled = np.square(standard)
        level = 0.5 * np.log([max(s[i].mean(), 1e-6) if i.any() else 1.0 for s, i in zip(scaled, inside, strict=True)])
        pieces = () if classes is None else _piece_sizes(classes, num_classes)
        return cls(tuple(round(float(n), 6) for n in noise), round(float(np.std(level)), 6), round(floor, 6), pieces)

    def image(self, decoded: Array, rng: np.random.Generator) -> Array:
        """Return a decoded image with noise and an exact background, clipped to [-1, 1].

        Parameters
        ----------
        decoded : ndarray, shape (1, I, J, K), float32
        rng : numpy.random.Generator
            Draws the level and the noise.
        """
        background = decoded <= self.floor
        if self.noise:
            # The factor has a mean square of 1.
            level = np.exp(self.spread * rng.standard_normal() - self.spread**2)
            curve = _at(np.asarray(self.noise), decoded)
            decoded = decoded + level * curve * rng.standard_normal(decoded.shape)
        return np.where(background, -1.0, decoded).clip(-1.0, 1.0).astype(np.float32)

    def labels(self, classes: Classes) -> Classes:
        """Give every crumb the class of its nearest voxel that is none.

        Parameters
        ----------
        classes : ndarray, shape (1, I, J, K), uint8
        """
        volume = classes[0]
        crumbs = np.zeros(volume.shape, dtype=bool)
        for index, smallest in enumerate(self.pieces):
            pieces, _ = ndimage.label(volume == index)
            sizes = np.bincount(pieces.ravel())[1:]
            if len(sizes) > 1:
                small = 1 + np.flatnonzero((sizes < smallest) & (np.arange(len(sizes)) != sizes.argmax()))
                crumbs |= np.isin(pieces, small)
        if not crumbs.any():
            return classes
        nearest = ndimage.distance_transform_edt(crumbs, return_distances=False, return_indices=True)
        return volume[tuple(nearest)][None]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `from_json` reads them back to an equal value."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finish:
        """Read what `to_json` wrote; raise `InputError` where it is something else."""
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise InputError("This is not a model's finish", found=str(error)) from error


def _floor(images: Array, decoded: Array) -> float:
    """Return the decoded intensity below which lie as many voxels as are background in the images."""
    share = float((images <= -1.0 + 1e-4).mean())
    if share < LEAST_BACKGROUND:
        return -1.0
    values = decoded.ravel()[:: max(1, decoded.size // 4_000_000)]
    return min(float(np.quantile(values, share)), HIGHEST_FLOOR)


def _noise_curve(decoded: Array, residual: Array) -> NDArray[np.float64]:
    """Return the standard deviation of the residual about each bin's mean, shape (BINS,)."""
    if not decoded.size:
        return np.zeros(BINS)
    bins = ((decoded + 1.0) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    mean = np.bincount(bins, residual, BINS) / np.maximum(count, 1)
    variance = np.bincount(bins, np.square(residual), BINS) / np.maximum(count, 1) - mean**2
    kept = count >= min(FEWEST_VOXELS, int(count.max()))
    return np.interp(_centres(), _centres()[kept], np.sqrt(np.maximum(variance[kept], 0.0)))


def _nugget(residual: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the share of the residual's variance that neighbours do not share, from lags 1 and 2 along each axis.

    The variogram gamma(h) = 1 - rho(h), continued in a straight line to h = 0, ends at 2 gamma(1) - gamma(2).
    """
    variance = float(np.square(residual[inside]).mean()) if inside.any() else 0.0
    if variance == 0.0:
        return 0.0
    near, far = (np.mean([_covariance(residual, inside, axis, lag) for axis in (1, 2, 3)]) for lag in (1, 2))
    return float(np.clip(1.0 - (2.0 * near - far) / variance, 0.0, 1.0))


def _covariance(residual: NDArray[np.float64], inside: NDArray[np.bool_], axis: int, lag: int) -> float:
    before, after = (slice(None),) * axis + (slice(None, -lag),), (slice(None),) * axis + (slice(lag, None),)
    both = inside[before] & inside[after]
    return float((residual[before] * residual[after])[both].mean()) if both.any() else 0.0


def _at(curve: NDArray[np.float64], decoded: Array) -> NDArray[np.float64]:
    return np.asarray(np.interp(decoded, _centres(), curve), dtype=np.float64)


def _centres() -> NDArray[np.float64]:
    return np.asarray((np.arange(BINS) + 0.5) * (2.0 / BINS) - 1.0, dtype=np.float64)


def _piece_sizes(classes: Classes, num_classes: int) -> tuple[int, ...]:
    smallest = []
    for index in range(num_classes):
        labelled = (ndimage.label(volume == index)[0] for volume in classes)
        sizes = np.concatenate([np.bincount(pieces.ravel())[1:] for pieces in labelled])
        smallest.append(int(np.percentile(sizes, CRUMBS)) if sizes.size else 1)
    return tuple(smallest)
