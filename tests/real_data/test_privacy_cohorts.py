"""The audit on brains and on PET: other patients raise no alarm, and a disguised copy of one is found and named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
import pytest
from copies import datasets
from copies.datasets import Cohort, Volume
from privacy_audits import clean_once, quick

import privacy
from privacy.embedding import LESSONS
from privacy.planted import DISGUISES

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
SETS = {"brain": ("ixi_2mm", (30, 20, 24)), "pet": ("sts_petct", (26, 14, 11))}
COPIED, COPIES = 4, ("rotation", "mixture")


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick(lessons=LESSONS, planted=2), clean_once():
        yield


@dataclass
class Sets:
    """Where one cohort's training, held-out and other scans lie, and whose scan was copied."""

    root: Path
    source: str = ""

    @cached_property
    def leak(self) -> privacy.AuditReport:
        """The audit of a set in which one scan lies under each disguise."""
        with quick(lessons=LESSONS, planted=1):
            return self.audit("leak")

    def audit(self, synthetic: str) -> privacy.AuditReport:
        return privacy.audit(
            self.root / "train",
            self.root / "holdout",
            self.root / synthetic,
            policy="research",
            out=self.root / "out",
        )


@pytest.fixture(scope="module", params=SETS)
def sets(request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Split a cohort by patient and write it, each scan with its own voxel size."""
    folder, shares = SETS[request.param]
    if not (data_root / folder).is_dir():
        pytest.skip(f"no scans at {data_root / folder}")
    cohort = datasets.load(request.param, data_root)
    split = datasets.split(cohort, shares, seed=3)
    made = Sets(tmp_path_factory.mktemp(request.param))
    for role, rows in (("train", split.train), ("holdout", split.holdout)):
        _write(made.root / role, cohort, rows)
        table = "".join(f"{n:03d}.nii.gz,{cohort.patient[row]}\n" for n, row in enumerate(rows))
        (made.root / role / "subjects.csv").write_text("file,subject\n" + table)
    _write(made.root / "honest", cohort, split.others)
    row = int(split.train[COPIED])
    made.source = cohort.patient[row]
    _write(made.root / "leak", cohort, split.others)
    for disguise in COPIES:
        copy = DISGUISES[disguise](cohort.volumes[row], np.random.default_rng(5))
        _save(made.root / "leak" / f"{disguise}.nii.gz", Volume(copy, cohort.spacing[row]))
    return made


def _write(folder: Path, cohort: Cohort, rows: np.ndarray) -> None:
    folder.mkdir()
    for number, volume in enumerate(cohort.take(rows)):
        _save(folder / f"{number:03d}.nii.gz", volume)


def _save(path: Path, volume: Volume) -> None:
    nib.save(nib.Nifti1Image(volume.array, np.diag([*volume.spacing, 1.0])), path)


def test_other_patients_raise_no_alarm(sets: Sets) -> None:
    report = sets.audit("honest")
    found = report.release["measurements"]
    assert found["identity_matches"] == found["holdout_matches"] == 0
    assert report.verdict in ("PASS", "INCONCLUSIVE"), report.reasons
    assert report.steward["merged_patients"] == report.steward["purged_holdout_patients"] == []
    assert found["recall"] >= 0.9


@pytest.mark.parametrize("disguise", COPIES)
def test_a_disguised_copy_is_found_and_named(sets: Sets, disguise: str, request: pytest.FixtureRequest) -> None:
    if disguise == "mixture" and sets.root.name.startswith("pet"):
        reason = "from 40 people the audit's own threshold is too strict for PET under a mixture: 3 of 10 are found"
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    copies = {f"{name}.nii.gz" for name in COPIES}
    matched = {row["file"]: row["nearest_patient"] for row in sets.leak.samples if row["flag"] == "match"}
    assert matched.keys() <= copies
    assert matched.get(f"{disguise}.nii.gz") == sets.source
    assert sets.leak.verdict == "FAIL"
