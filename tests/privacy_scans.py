"""Small made-up scans for tests of the audit: one anatomy, a body for each patient, noise for each visit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE = (18, 22, 16)


@lru_cache(maxsize=1024)
def scan(patient: int, visit: int = 0, own: float = 1.0) -> np.ndarray:
    """Return one scan, shape `SHAPE`, float32; `own` weighs what is the patient's against what all share."""
    value = (
        _field(10_000)
        + own * _field(patient)
        + 0.02 * np.random.default_rng([patient, visit, 7]).standard_normal(SHAPE)
    )
    value = (value - value.min() + 0.3).astype(np.float32)
    value.setflags(write=False)
    return value


def scans(patients: Iterable[int], own: float = 1.0) -> list[np.ndarray]:
    """Return one scan of each patient."""
    return [scan(patient, own=own) for patient in patients]


def write(
    folder: Path, volumes: Iterable[np.ndarray], prefix: str = "case", affine: np.ndarray | None = None
) -> list[Path]:
    """Write volumes as NIfTI and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, volume in enumerate(volumes):
        paths.append(folder / f"{prefix}_{k:03d}.nii.gz")
        nib.save(nib.Nifti1Image(volume, np.eye(4) if affine is None else affine), paths[-1])
    return paths


def _field(seed: int) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng([seed, 3]).standard_normal(SHAPE), 1.8)
    return smooth / smooth.std()
