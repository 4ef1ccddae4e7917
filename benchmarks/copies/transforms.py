"""The disguises of a planted copy: steps on one scan, mixtures of them, and mixtures of two scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from copies.datasets import Array, Volume
from copies.steps import (
    Step,
    bias,
    blur,
    coarser,
    contrast,
    elastic,
    flip,
    gamma,
    noise,
    regrid,
    resample,
    rotation,
    shift_between,
    shift_whole,
    zoom,
)

STRENGTHS = ("mild", "medium", "strong")
PARTIAL = (0.70, 0.50, 0.35)
BLEND = (0.70, 0.60, 0.50)


@dataclass(frozen=True)
class Material:
    """A training scan, and whatever its copy may be mixed with.

    Attributes
    ----------
    source : Volume
    stranger, colleague : Volume
        A scan of somebody outside training; a scan of another training patient.
    other_scan : Volume or None
        A scan of the same patient that is not in training.
    round_trip : callable (Volume, strength 0-2) -> ndarray, or None
        Through an autoencoder.
    """

    source: Volume
    stranger: Volume
    colleague: Volume
    other_scan: Volume | None = None
    round_trip: Callable[[Volume, int], Array] | None = None


Transform = Callable[[Material, int, np.random.Generator], Volume]


def _pipe(*steps: tuple[Step, int]) -> Transform:
    """Chain steps, each weaker than the whole by so many strengths."""

    def apply(material: Material, strength: int, rng: np.random.Generator) -> Volume:
        volume = material.source
        for step, weaker in steps:
            volume = step(volume, max(0, strength - weaker), rng)
        return volume

    return apply


def _flip_any(volume: Volume, strength: int, rng: np.random.Generator) -> Volume:
    return flip(volume, int(rng.integers(3)), rng)


def identity(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Leave the scan as it is."""
    return material.source


def autoencoder(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Encode and decode; the latent shrinks with the strength.

    Raises
    ------
    ValueError
        If the material has no autoencoder.
    """
    if material.round_trip is None:
        raise ValueError("The autoencoder cell needs a fitted autoencoder")
    return material.source._replace(array=material.round_trip(material.source, strength))


def partial(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Keep 70, 50 or 35 % of the volume on one side of a plane; the rest is somebody outside training."""
    array, axis = material.source.array, int(rng.integers(3))
    width = round(PARTIAL[strength] * array.shape[axis])
    kept = np.arange(array.shape[axis]) < width
    kept = (kept if rng.random() < 0.5 else kept[::-1]).reshape([-1 if k == axis else 1 for k in range(3)])
    return material.source._replace(array=np.where(kept, array, resample(material.stranger, material.source)))


def blend_stranger(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Mix 70, 60 or 50 % of the scan with somebody outside training."""
    return _blend(material.source, material.stranger, BLEND[strength])


def blend_colleague(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Mix 70, 60 or 50 % of the scan with another training patient."""
    return _blend(material.source, material.colleague, BLEND[strength])


def same_patient(material: Material, strength: int, rng: np.random.Generator) -> Volume:
    """Return the same person's other scan, which is not in training.

    Raises
    ------
    ValueError
        If there is none.
    """
    if material.other_scan is None:
        raise ValueError("This patient has no other scan")
    return material.other_scan


TRANSFORMS: dict[str, Transform] = {
    "identity": identity,
    "autoencoder": autoencoder,
    "flip": _pipe((flip, 0)),
    "rotation": _pipe((rotation, 0)),
    "shift_whole": _pipe((shift_whole, 0)),
    "shift_between": _pipe((shift_between, 0)),
    "zoom": _pipe((zoom, 0)),
    "gamma": _pipe((gamma, 0)),
    "bias": _pipe((bias, 0)),
    "contrast": _pipe((contrast, 0)),
    "noise": _pipe((noise, 0)),
    "blur": _pipe((blur, 0)),
    "coarser": _pipe((coarser, 0)),
    "regrid": _pipe((regrid, 0)),
    "mixture_pose": _pipe((rotation, 0), (shift_between, 1), (gamma, 1), (noise, 1)),
    "mixture_zoom": _pipe((zoom, 0), (_flip_any, 0), (blur, 0)),
    "mixture_elastic": _pipe((elastic, 0), (gamma, 0), (bias, 0)),
    "elastic": _pipe((elastic, 0)),
    "partial": partial,
    "blend_stranger": blend_stranger,
    "blend_colleague": blend_colleague,
    "same_patient": same_patient,
}
ONE_STRENGTH = ("identity", "same_patient")
PUBLISHED_ONLY = ("mixture_elastic", "elastic", "partial", "blend_stranger", "blend_colleague", "same_patient")
"""Cells without a target; every other one belongs to the family that must be found."""
CHANGES_GRID = ("regrid", "same_patient")
Cell = tuple[str, int]


def cells(names: list[str] | None = None) -> list[Cell]:
    """List (transform, strength) of the named transforms, or of all.

    Raises
    ------
    ValueError
        If a name is unknown.
    """
    unknown = sorted(set(names or ()) - set(TRANSFORMS))
    if unknown:
        raise ValueError(f"No transform named {', '.join(unknown)}; expected some of {', '.join(TRANSFORMS)}")
    chosen = [name for name in TRANSFORMS if names is None or name in names]
    return [(name, k) for name in chosen for k in range(1 if name in ONE_STRENGTH else len(STRENGTHS))]


def _blend(source: Volume, other: Volume, share: float) -> Volume:
    mixed = np.float32(share) * source.array + np.float32(1 - share) * resample(other, source)
    return source._replace(array=mixed)
