"""A procedural cohort of head-like scans whose segmentation, age and sex are known exactly.

Every subject is an individual: an own head, ventricles, nucleus, folding and texture. A second scan of a subject has
the same anatomy under new noise and a new bias field, so that identity can be told from appearance. Intensities imitate
a T1-weighted image; nothing is symmetric, so a flip is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthmed.volume import Volume

Field = NDArray[np.float64]

LABEL_NAMES = {1: "ventricles", 2: "nucleus"}
GENERATOR = 1
"""Version of the procedure: part of a phantom's digest, raised whenever the voxels change."""


@dataclass(frozen=True)
class Phantom:
    """One scan of one procedural subject; equal values give equal voxels.

    Attributes
    ----------
    seed, subject, scan : int
        Cohort, person, and which of the person's scans.
    shape : tuple of int, (I, J, K), voxels of 1 mm
    """

    seed: int
    subject: int
    shape: tuple[int, int, int] = (32, 32, 32)
    scan: int = 0

    @property
    def covariates(self) -> dict[str, float | str]:
        """``age`` in years, which enlarges the ventricles, and ``sex``, which scales the head."""
        rng = np.random.default_rng([self.seed, self.subject])
        return {"age": round(float(rng.uniform(20, 90)), 1), "sex": str(rng.choice(["F", "M"]))}

    def render(self) -> tuple[Volume, Volume]:
        """Return image and label, each of shape (1, I, J, K), RAS, 1 mm, centred on the world's origin."""
        anatomy = np.random.default_rng([self.seed, self.subject, 1])
        covariates = self.covariates
        points = _warp(_coordinates(self.shape), anatomy)
        size = 1.0 if covariates["sex"] == "M" else 0.9
        image, label = _draw(points, size, float(covariates["age"]), anatomy)
        scanner = np.random.default_rng([self.seed, self.subject, 2, self.scan])
        affine = np.eye(4)
        affine[:3, 3] = -(np.asarray(self.shape) - 1) / 2
        return Volume(_scan(image, scanner)[None], affine), Volume(label[None], affine)


def _coordinates(shape: tuple[int, int, int]) -> Field:
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _warp(points: Field, rng: np.random.Generator) -> Field:
    """Rotate a little and bend by three plane waves a direction: smooth, and different in everybody."""
    angles = rng.normal(0, 0.08, 3)
    turned = points
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        cos, sin = np.cos(angle), np.sin(angle)
        turned = turned.copy()
        turned[a], turned[b] = cos * turned[a] - sin * turned[b], sin * turned[a] + cos * turned[b]
    bent = turned.copy()
    for axis in range(3):
        for _ in range(3):
            wave = rng.uniform(-2.6, 2.6, 3)
            bent[axis] += rng.normal(0, 0.035) * np.sin(np.tensordot(wave, turned, 1) + rng.uniform(0, 2 * np.pi))
    return bent


def _depth(points: Field, centre: Field, radii: Field) -> Field:
    """Signed distance into an ellipsoid, about 0 at its surface, in units of the half-width of the grid."""
    scaled = (points - centre[:, None, None, None]) / radii[:, None, None, None]
    return (1 - np.linalg.norm(scaled, axis=0)) * radii.min()


def _soft(depth: Field) -> Field:
    return 1 / (1 + np.exp(-np.clip(depth / 0.03, -30, 30)))


def _draw(points: Field, size: float, age: float, rng: np.random.Generator) -> tuple[Field, NDArray[np.float32]]:
    """Head, brain, two unequal ventricles that grow with age, and a bright nucleus off to one side."""
    head = np.array([0.74, 0.9, 0.78]) * size * rng.normal(1, 0.03, 3)
    brain = head - 0.13 - 0.03 * rng.random()
    centre = rng.normal(0, 0.03, 3)
    left, right = (
        _depth(points, centre + np.array([side, rng.normal(0, 0.08), 0.08 + rng.normal(0, 0.05)]), radii)
        for side, radii in (
            (-0.2, np.array([0.11, 0.26, 0.13]) * (0.65 + 0.9 * (age - 20) / 70) * rng.normal(1, 0.1, 3)),
            (0.17, np.array([0.09, 0.2, 0.11]) * (0.65 + 0.9 * (age - 20) / 70) * rng.normal(1, 0.1, 3)),
        )
    )
    ventricles = np.maximum(left, right)
    place = centre + np.array([0.27, rng.uniform(-0.35, 0.35), rng.uniform(-0.35, -0.1)])
    nucleus = _depth(points, place, np.array([0.15, 0.2, 0.16]) * rng.uniform(0.75, 1.3, 3))
    nucleus = np.minimum(nucleus, -ventricles)

    tissue = 0.62 + 0.28 * _texture(points.shape[1:], rng) + 0.06 * points[0]
    skin, inside = _soft(_depth(points, centre, head)), _soft(_depth(points, centre, brain))
    image = skin * (0.32 * (1 - inside) + inside * tissue)
    image += _soft(ventricles) * inside * (0.18 - image)
    image += _soft(nucleus) * inside * (0.95 - image)
    label = np.zeros(image.shape, dtype=np.float32)
    label[(ventricles > 0) & (inside > 0.5)] = 1
    label[(nucleus > 0) & (inside > 0.5)] = 2
    return image, label


def _texture(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), np.asarray(shape) / 16, mode="wrap")
    return noise / noise.std()


def _scan(image: Field, rng: np.random.Generator) -> NDArray[np.float32]:
    """Bias field, gain and Rician-like noise of one acquisition."""
    grid = _coordinates(image.shape)  # type: ignore[arg-type]
    bias = 1 + np.tensordot(rng.normal(0, 0.05, 3), grid, 1) + np.tensordot(rng.normal(0, 0.03, 3), grid**2, 1)
    noisy = image * bias + 0.02 * rng.standard_normal(image.shape)
    quadrature = 0.02 * rng.standard_normal(image.shape)
    return np.asarray(np.hypot(noisy, quadrature) * rng.uniform(600, 1400), dtype=np.float32)
