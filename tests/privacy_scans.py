"""Small made-up scans for tests of the audit: one anatomy, a body for each patient, noise for each visit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
from scipy import ndimage

from privacy.embedding import Embedding, learn
from privacy.features import Features, extract, join_features, plan_space
from privacy.gallery import Gallery, build_gallery
from privacy.records import Scan

SHAPE = (18, 22, 16)
SPACING = (1.0, 1.0, 1.0)
SPACE = plan_space(np.array([SHAPE], dtype=float), 1.0, [0.0])
LESSONS = 64  # enough for made-up scans, and quick


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


def records(volumes: Iterable[np.ndarray]) -> list[Scan]:
    """Return volumes as the audit holds them, in the order given, each its own patient."""
    out = []
    for k, volume in enumerate(volumes):
        values = np.ascontiguousarray(volume, dtype=np.float32)
        content = hashlib.sha256(values.tobytes()).hexdigest()
        out.append(Scan(f"{k}", None, f"p{k}", content, content, values.shape, SPACING, values))
    return out


def features(volumes: Iterable[np.ndarray]) -> Features:
    """Extract features on the grids of `SPACE`."""
    return join_features([extract(np.ascontiguousarray(v, dtype=np.float32), SPACING, SPACE) for v in volumes])


def voxels(volumes: Iterable[np.ndarray]) -> list[tuple[np.ndarray, tuple[float, ...]]]:
    """Return volumes with their spacing, as the search and the embedding take them."""
    return [(np.ascontiguousarray(v, dtype=np.float32), SPACING) for v in volumes]


def learned(volumes: Sequence[np.ndarray], seed: int = 0, lessons: int = LESSONS) -> Embedding:
    """Learn an embedding from few lessons."""
    with mock.patch("privacy.embedding.LESSONS", lessons):
        return learn(features(volumes), voxels(volumes), SPACE, seed)


def gallery(
    volumes: Sequence[np.ndarray], patient: Sequence[int] | None = None, embedding: Embedding | None = None
) -> Gallery:
    """Make a gallery of volumes, of whom the embedding is learned unless given; without `patient`, each is its own."""
    owners = np.arange(len(volumes)) if patient is None else np.array(patient)
    return build_gallery(features(volumes), owners, SPACE, embedding or learned(volumes))


def _field(seed: int) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng([seed, 3]).standard_normal(SHAPE), 1.8)
    return smooth / smooth.std()
