"""The disguises under which a scan must still be found: planted by the audit, and learned from by the embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

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
    """Rotate by 2 to 10 degrees about an axis."""
    axes = [(0, 1), (0, 2), (1, 2)][int(rng.integers(3))]
    angle = float(rng.uniform(2, 10) * rng.choice([-1, 1]))
    return ndimage.rotate(volume, angle, axes=axes, reshape=False, order=1, cval=float(volume.min()))


def zoom(volume: Array, rng: np.random.Generator) -> Array:
    """Scale by 0.9 to 1.1 about the centre."""
    centre, factor = (np.array(volume.shape) - 1) / 2, float(rng.uniform(0.9, 1.1))
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


def coarser(volume: Array, rng: np.random.Generator) -> Array:
    """Sample on voxels that are 1.25 to 2 times as large, and back."""
    size = np.maximum(np.round(np.array(volume.shape) / rng.uniform(1.25, 2)), 4)
    small = ndimage.zoom(volume, size / volume.shape, order=1, grid_mode=True, mode="nearest")
    return ndimage.zoom(small, np.array(volume.shape) / small.shape, order=1, grid_mode=True, mode="nearest")


def compression(volume: Array, rng: np.random.Generator) -> Array:
    """Keep the lowest 10 to 30 of 64 frequencies of each block of 4 x 4 x 4 voxels: an autoencoder's round trip."""
    padded = np.pad(volume, [(0, -n % 4) for n in volume.shape], mode="edge")
    i, j, k = (n // 4 for n in padded.shape)
    blocks = padded.reshape(i, 4, j, 4, k, 4)
    waves = fft.dctn(blocks, axes=(1, 3, 5), norm="ortho")
    order = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4)).ravel().argsort(kind="stable")
    kept = np.isin(np.arange(64), order[: int(rng.integers(10, 31))]).reshape(1, 4, 1, 4, 1, 4)
    whole = fft.idctn(waves * kept, axes=(1, 3, 5), norm="ortho").reshape(padded.shape)
    return whole[: volume.shape[0], : volume.shape[1], : volume.shape[2]].astype(np.float32)


def elastic(volume: Array, rng: np.random.Generator) -> Array:
    """Deform by a smooth field of 0.5 to 2 voxels."""
    width = max(volume.shape) / 8
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(volume.shape), width) for _ in range(3)])
    field *= rng.uniform(0.5, 2) / max(float(np.sqrt((field**2).sum(0).mean())), 1e-12)
    places = np.indices(volume.shape, dtype=np.float32) + field
    return ndimage.map_coordinates(volume, places, order=1, mode="nearest")


def cut(volume: Array, rng: np.random.Generator) -> Array:
    """Cut off up to 15 % at each face."""
    low = [int(rng.integers(0, max(1, round(0.15 * n)))) for n in volume.shape]
    high = [n - int(rng.integers(0, max(1, round(0.15 * n)))) for n in volume.shape]
    return volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]].copy()


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
        coarser,
        compression,
        mixture,
    )
}
"""What is planted: an audit that cannot find one of these does not vouch for a set."""
LESSONS: tuple[tuple[Disguise, ...], ...] = (
    (shift, subvoxel_shift, rotation, zoom, elastic, cut, identity),
    (rotation, zoom, mirror, elastic, identity),
    (gamma, rescale, bias_field, identity),
    (noise, blur, coarser, compression, identity),
)
"""What the embedding learns from: one step of each row, in this order."""


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


def lesson(volume: Array, rng: np.random.Generator) -> Array:
    """Disguise a scan for the embedding to learn from, by two random steps of `LESSONS`, in their order."""
    for row in sorted(rng.choice(len(LESSONS), 2, replace=False)):
        volume = LESSONS[row][int(rng.integers(len(LESSONS[row])))](volume, rng)
    return volume


def _unit(volume: Array) -> Array:
    low, high = np.percentile(volume, [0.5, 99.5])
    return np.clip((volume - low) / max(float(high - low), 1e-12), 0, None).astype(np.float32)
