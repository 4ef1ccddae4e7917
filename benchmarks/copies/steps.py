"""What may be done to one scan, at three strengths, drawn from an explicit generator.

Lengths are in voxels of the scan at hand, angles hold in millimetres. What a turned or shifted scan does not show is
filled with its lowest value or with the nearest voxel, at random.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from copies.datasets import Array, Spacing, Volume

DEGREES = (3.0, 6.0, 10.0)
SHIFT = (1, 2, 4)
ZOOM = (0.03, 0.06, 0.10)
GAMMA = (1.2, 1.5, 2.0)
BIAS = (0.15, 0.3, 0.5)
CLIPPED = (1.0, 3.0, 6.0)  # per cent at either end
NOISE = (0.03, 0.07, 0.12)  # of the intensity range
BLUR = (0.5, 0.8, 1.2)
COARSER = (1.25, 1.6, 2.0)
VOXEL = (0.8, 1.3, 1.7)  # times the voxel's edge
ELASTIC = (1.0, 2.0, 3.0)  # root mean square length of the displacement

Step = Callable[[Volume, int, np.random.Generator], Volume]


def value_range(array: Array) -> tuple[float, float]:
    """Return the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(array, [0.5, 99.5])
    return float(low), max(float(high), float(low) + 1e-6)


def resample(volume: Volume, like: Volume) -> Array:
    """Bring a scan onto another's grid, centre on centre, and its intensities to the other's range."""
    factor = np.array(like.spacing) / volume.spacing
    offset = (np.array(volume.array.shape) - 1) / 2 - (np.array(like.array.shape) - 1) / 2 * factor
    smooth = ndimage.gaussian_filter(volume.array, 0.5 * np.sqrt(np.maximum(factor**2 - 1, 0)))
    moved = ndimage.affine_transform(smooth, factor, offset, output_shape=like.array.shape, order=1, mode="nearest")
    (low, high), (to_low, to_high) = value_range(volume.array), value_range(like.array)
    return ((moved - low) / (high - low) * (to_high - to_low) + to_low).astype(np.float32)


def flip(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Mirror one axis: left-right, front-back, up-down for the three strengths."""
    return volume._replace(array=np.flip(volume.array, strength).copy())


def rotation(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Rotate by 3, 6 or 10 degrees about a random axis through the centre."""
    axis = rng.standard_normal(3)
    turn = Rotation.from_rotvec(np.deg2rad(DEGREES[strength]) * axis / np.linalg.norm(axis)).as_matrix()
    return _affine(volume, turn, rng)


def shift_whole(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Shift by whole voxels, up to 1, 2 or 4 along each axis, one axis by that much; content leaves the grid."""
    step = rng.integers(-SHIFT[strength], SHIFT[strength] + 1, size=3)
    step[rng.integers(3)] = SHIFT[strength] * rng.choice([-1, 1])
    return volume._replace(array=ndimage.shift(volume.array, step, order=0, **_fill(volume.array, rng)))


def shift_between(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Shift as `shift_whole` does, but by fractions of voxels."""
    step = rng.uniform(-SHIFT[strength], SHIFT[strength], size=3)
    step[rng.integers(3)] = (SHIFT[strength] - 0.5) * rng.choice([-1, 1])
    return volume._replace(array=ndimage.shift(volume.array, step, order=1, **_fill(volume.array, rng)))


def zoom(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Scale about the centre by 3, 6 or 10 %, up or down."""
    return _affine(volume, np.eye(3) / (1 + ZOOM[strength] * rng.choice([-1, 1])), rng)


def gamma(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Raise intensities to a power of 1.2, 1.5 or 2, or to its inverse."""
    low, high = value_range(volume.array)
    unit = np.clip((volume.array - low) / (high - low), 0, None)
    power = GAMMA[strength] ** float(rng.choice([-1, 1]))
    return volume._replace(array=(unit**power * (high - low) + low).astype(np.float32))


def bias(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Multiply by a smooth field, a quadratic whose logarithm reaches 0.15, 0.3 or 0.5."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.array.shape), indexing="ij", sparse=True)
    x, y, z = axes
    weights = rng.uniform(-1, 1, size=6)
    field = sum(w * term for w, term in zip(weights, (x, y, z, x * y, y * z, z * x), strict=True))
    low = float(volume.array.min())
    factor = np.exp(BIAS[strength] * field / np.abs(field).max())
    return volume._replace(array=((volume.array - low) * factor + low).astype(np.float32))


def contrast(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Clip 1, 3 or 6 % at either end and scale by a factor between 0.001 and 1000."""
    low, high = np.percentile(volume.array, [CLIPPED[strength], 100 - CLIPPED[strength]])
    high = max(high, low + 0.05 * (volume.array.max() - low))
    return volume._replace(array=(np.clip(volume.array, low, high) * 10 ** rng.uniform(-3, 3)).astype(np.float32))


def noise(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Add Gaussian noise of 3, 7 or 12 % of the intensity range."""
    low, high = value_range(volume.array)
    grain = rng.standard_normal(volume.array.shape, dtype=np.float32)
    return volume._replace(array=volume.array + np.float32(NOISE[strength] * (high - low)) * grain)


def blur(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Blur with a Gaussian of 0.5, 0.8 or 1.2 voxels."""
    return volume._replace(array=ndimage.gaussian_filter(volume.array, BLUR[strength]))


def coarser(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Resample to voxels 1.25, 1.6 or 2 times as long, and back."""
    small = _regrid(volume, COARSER[strength])
    return volume._replace(array=_zoom_to(small.array, volume.array.shape))


def regrid(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Resample to voxels 0.8, 1.3 or 1.7 times as long, and stay there: the shape changes with the spacing."""
    return _regrid(volume, VOXEL[strength])


def elastic(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    """Deform by a smooth random field of 1, 2 or 3 voxels root mean square."""
    shape = volume.array.shape
    width = max(shape) / 7
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="reflect") for _ in range(3)])
    field *= ELASTIC[strength] / np.sqrt((field**2).sum(0).mean())
    at = np.indices(shape) + field
    moved = ndimage.map_coordinates(volume.array, at, order=1, **_fill(volume.array, rng))
    return volume._replace(array=moved)


def _affine(volume: Volume, matrix: NDArray[np.float64], rng: np.random.Generator) -> Volume:
    """Sample the scan at matrix @ x, x in mm from the centre of the grid."""
    step = np.diag(1 / np.array(volume.spacing)) @ matrix @ np.diag(volume.spacing)
    centre = (np.array(volume.array.shape) - 1) / 2
    moved = ndimage.affine_transform(volume.array, step, centre - step @ centre, order=1, **_fill(volume.array, rng))
    return volume._replace(array=moved)


def _fill(array: Array, rng: np.random.Generator) -> dict[str, object]:
    return {"mode": "constant", "cval": float(array.min())} if rng.random() < 0.5 else {"mode": "nearest"}


def _regrid(volume: Volume, factor: float) -> Volume:
    shape = tuple(max(8, round(n / factor)) for n in volume.array.shape)
    smooth = ndimage.gaussian_filter(volume.array, 0.5 * np.sqrt(max(factor**2 - 1, 0)))
    x, y, z = (edge * n / m for edge, n, m in zip(volume.spacing, volume.array.shape, shape, strict=True))
    spacing: Spacing = (x, y, z)
    return Volume(_zoom_to(smooth, shape), spacing)


def _zoom_to(array: Array, shape: tuple[int, ...]) -> Array:
    factor = np.array(array.shape) / shape
    return ndimage.affine_transform(array, factor, (factor - 1) / 2, output_shape=shape, order=1, mode="nearest")
