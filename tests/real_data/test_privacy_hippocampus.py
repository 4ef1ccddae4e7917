"""The audit on the hippocampus scans: other patients pass as synthetic, and a copy among them is found and named."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

import privacy

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
Patient = tuple[str, list[Path]]


@pytest.fixture(scope="module")
def patients(data_root: Path) -> list[Patient]:
    """List the patients, each with the two sides or the one there is, in a seeded order."""
    folder = data_root / "msd_hippocampus"
    if not folder.is_dir():
        pytest.skip(f"no hippocampus scans at {folder}")
    owner: dict[str, list[Path]] = {}
    with (folder / "subjects.csv").open() as stream:
        for row in csv.DictReader(stream):
            owner.setdefault(row["subject"], []).append(folder / "imagesTr" / f"{row['volume']}.nii.gz")
    names = np.random.default_rng(11).permutation(sorted(owner))
    return [(str(name), owner[str(name)]) for name in names]


def _flat(patients: list[Patient]) -> tuple[list[Path], list[str]]:
    return [p for _, paths in patients for p in paths], [name for name, paths in patients for _ in paths]


def _audit(patients: list[Patient], changed: list[np.ndarray]) -> privacy.AuditReport:
    train, train_names = _flat(patients[:60])
    holdout, holdout_names = _flat(patients[60:90])
    others = [_read(path) for path in _flat(patients[90:])[0]][: 60 - len(changed)]
    return privacy.audit(
        train, holdout, [*others, *changed], train_patients=train_names, holdout_patients=holdout_names
    )


def _read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]


def _unit(volume: np.ndarray) -> np.ndarray:
    return np.clip(volume / np.percentile(volume, 99.5), 0, None)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda v: v,
    "shifted": lambda v: ndimage.shift(v, (4, -3, 2), order=0),
    "rotated": lambda v: ndimage.rotate(v, 5, axes=(0, 1), reshape=False, order=1),
    "gamma": lambda v: _unit(v) ** 0.7,
    "noisy": lambda v: _unit(v) + 0.08 * np.random.default_rng(0).standard_normal(v.shape),
    "blurred": lambda v: ndimage.gaussian_filter(v, 1.0),
}


def test_other_patients_pass_as_a_perfect_generator(patients: list[Patient]) -> None:
    report = _audit(patients, [])
    assert report.verdict == "PASS", report.reasons
    assert report.release["power"]["recall_lower"] > 0.9
    assert report.steward["purged_holdout_patients"] == report.steward["merged_patients"] == []


@pytest.mark.parametrize("name", COPIES)
def test_one_copy_among_sixty_samples_is_found_and_named(patients: list[Patient], name: str) -> None:
    owner, paths = patients[17]
    report = _audit(patients, [COPIES[name](_read(paths[0]))])
    assert report.verdict == "FAIL"
    assert [pair["nearest_patient"] for pair in report.steward["pairs"] if pair["flag"] == "match"] == [owner]
