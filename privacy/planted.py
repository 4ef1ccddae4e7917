"""Copies that the audit plants itself: the family of disguises under which it must still find a training scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Disguise = Callable[[Array, np.random.Generator], Array]
PER_DISGUISE = 10


def identity(volume: Array, rng: np.random.Generator) -> Array:
    """Leave the scan as it is."""
    return volume


def shift(volume: Array, rng: np.random.Generator) -> Array:
    """Shift by up to 4 voxels along each axis, content leaving the grid."""
    return ndimage.shift(volume, rng.integers(-4, 5, size=3), order=0, cval=float(volume.min()))


def subvoxel_shift(volume: Array, rng: np.random.Generator) -> Array:
    """Shift by up to 2 voxels along each axis, between voxels."""
    return ndimage.shift(volume, rng.uniform(-2, 2, size=3), order=1, mode="nearest")


def rotation(volume: Array, rng: np.random.Generator) -> Array:
    """Rotate by 2 to 8 degrees about an axis."""
    axes = [(0, 1), (0, 2), (1, 2)][int(rng.integers(3))]
    angle = float(rng.uniform(2, 8) * rng.choice([-1, 1]))
    return ndimage.rotate(volume, angle, axes=axes, reshape=False, order=1, cval=float(volume.min()))


def zoom(volume: Array, rng: np.random.Generator) -> Array:
    """Scale by 0.93 to 1.07 about the centre."""
    centre, factor = (np.array(volume.shape) - 1) / 2, float(rng.uniform(0.93, 1.07))
    return ndimage.affine_transform(volume, np.full(3, factor), centre * (1 - factor), order=1, mode="nearest")


def mirror(volume: Array, rng: np.random.Generator) -> Array:
    """Mirror one axis."""
    return np.flip(volume, int(rng.integers(3))).copy()


def gamma(volume: Array, rng: np.random.Generator) -> Array:
    """Raise intensities to a power of 0.6 to 1.6."""
    return _unit(volume) ** np.float32(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))


def rescale(volume: Array, rng: np.random.Generator) -> Array:
    """Multiply by up to a thousand and clip the brightest 2 %."""
    return np.clip(volume, None, np.percentile(volume, 98)) * np.float32(10 ** rng.uniform(-3, 3))


def bias_field(volume: Array, rng: np.random.Generator) -> Array:
    """Multiply by a smooth field between 0.7 and 1.3."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape), indexing="ij", sparse=True)
    slope = sum(weight * axis for weight, axis in zip(rng.uniform(-1, 1, size=3), axes, strict=True))
    return _unit(volume) * (1 + 0.3 * slope / np.abs(slope).max()).astype(np.float32)


def noise(volume: Array, rng: np.random.Generator) -> Array:
    """Add Gaussian noise of 5 to 12 % of the intensity range."""
    return _unit(volume) + (rng.uniform(0.05, 0.12) * rng.standard_normal(volume.shape)).astype(np.float32)


def blur(volume: Array, rng: np.random.Generator) -> Array:
    """Blur with a Gaussian of 0.5 to 1.2 voxels."""
    return ndimage.gaussian_filter(volume, float(rng.uniform(0.5, 1.2)))


def mixture(volume: Array, rng: np.random.Generator) -> Array:
    """Rotate, shift between voxels, change gamma and add a little noise, all at once."""
    moved = subvoxel_shift(rotation(volume, rng), rng)
    return gamma(moved, rng) + (0.03 * rng.standard_normal(volume.shape)).astype(np.float32)


DISGUISES: dict[str, Disguise] = {
    function.__name__: function
    for function in (
        identity,
        shift,
        subvoxel_shift,
        rotation,
        zoom,
        mirror,
        gamma,
        rescale,
        bias_field,
        noise,
        blur,
        mixture,
    )
}


def plan(scans: int, seed: int) -> list[tuple[str, int, np.random.Generator]]:
    """List which scan is planted under which disguise, each with its own generator.

    Parameters
    ----------
    scans : int
        Number of training scans to draw from.
    seed : int
    """
    order = np.random.default_rng([seed, 1]).permutation(scans)
    names = [name for name in DISGUISES for _ in range(PER_DISGUISE)]
    return [(name, int(order[k % scans]), np.random.default_rng([seed, 2, k])) for k, name in enumerate(names)]


def _unit(volume: Array) -> Array:
    low, high = np.percentile(volume, [0.5, 99.5])
    return np.clip((volume - low) / max(float(high - low), 1e-12), 0, None).astype(np.float32)
