"""The audit on the hippocampus scans: other patients pass as synthetic, and a copy among them is found and named."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from privacy_audits import Pool, clean_once, honest_set, outside, pool, quick, relabelled
from scipy import ndimage
from scipy.stats import binom

import privacy
from privacy.embedding import LESSONS
from privacy.policy import MEMBERSHIP, load_policy
from privacy.records import collect

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
Patient = tuple[str, list[Path]]
TRAIN, HOLDOUT, SAMPLES, ODD = 40, 24, 60, 36
SHAPE = (36, 50, 36)
SEEDS = 200


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick(lessons=LESSONS, planted=5), clean_once():
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the embedding between audits."""
    return tmp_path_factory.mktemp("audit")


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


def _read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]


def _others(patients: list[Patient]) -> list[np.ndarray]:
    """Return scans of people on neither side."""
    return [_read(path) for path in _flat(patients[TRAIN + HOLDOUT :])[0]]


def _audit(patients: list[Patient], samples: list[np.ndarray], out: Path) -> privacy.AuditReport:
    train, train_names = _flat(patients[:TRAIN])
    holdout, holdout_names = _flat(patients[TRAIN : TRAIN + HOLDOUT])
    return privacy.audit(train, holdout, samples, train_patients=train_names, holdout_patients=holdout_names, out=out)


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


def test_other_patients_pass_as_a_perfect_generator(patients: list[Patient], out: Path) -> None:
    report = _audit(patients, _others(patients)[:SAMPLES], out)
    assert report.verdict == "PASS", report.reasons
    assert report.release["power"]["recall_lower"] > 0.9
    assert report.steward["purged_holdout_patients"] == report.steward["merged_patients"] == []


def test_copies_among_the_samples_are_found_and_named(patients: list[Patient], out: Path) -> None:
    copied = {f"synthetic-{k:05d}": patients[3 * k] for k in range(len(COPIES))}
    changed = [change(_read(paths[0])) for change, (_, paths) in zip(COPIES.values(), copied.values(), strict=True)]
    with quick(lessons=LESSONS, planted=1):
        report = _audit(patients, [*changed, *_others(patients)[: SAMPLES - len(COPIES)]], out)
    assert report.verdict == "FAIL"
    matched = {row["file"]: row["nearest_patient"] for row in report.samples if row["flag"] == "match"}
    assert matched == {file: name for file, (name, _) in copied.items()}


def _fitted(volume: np.ndarray) -> np.ndarray:
    """Bring a scan onto a common grid and to a common scale."""
    return np.clip(ndimage.zoom(_unit(volume), np.array(SHAPE) / volume.shape, order=1), 0, 1.5).astype(np.float32)


def _collapsed(others: list[np.ndarray], k: int) -> np.ndarray:
    """Jitter the mean of all."""
    rng = np.random.default_rng(k)
    moved = ndimage.shift(np.mean(others, 0), rng.uniform(-1, 1, 3), order=1, mode="nearest")
    return moved + 0.02 * rng.standard_normal(SHAPE).astype(np.float32)


def _over_dispersed(others: list[np.ndarray], k: int) -> np.ndarray:
    """Exaggerate what tells a person, or a blend of two, from the mean."""
    mean, one, two = np.mean(others, 0), others[k], others[k + 1]
    return mean + 1.5 * (one - mean) if k % 2 else mean + 2.0 * ((one + two) / 2 - mean)


@pytest.mark.parametrize("kind", [_collapsed, _over_dispersed])
def test_a_collapsed_or_an_over_dispersed_set_is_no_set_of_copies(
    patients: list[Patient], out: Path, kind: Callable[[list[np.ndarray], int], np.ndarray]
) -> None:
    others = [_fitted(volume) for volume in _others(patients)[: ODD + 1]]
    with quick(lessons=LESSONS, planted=1):
        report = _audit(patients, [kind(others, k) for k in range(ODD)], out)
    assert [row["file"] for row in report.samples if row["flag"] == "match"] == []
    assert report.release["measurements"]["holdout_matches"] == 0
    assert report.verdict != "FAIL", report.reasons


@pytest.fixture(scope="module")
def people(patients: list[Patient]) -> Pool:
    """Compare some of the people with each other, once; people are exchangeable under any embedding."""
    paths, names = _flat(patients[:46])
    with quick():
        return pool(collect("train", paths, names), samples=12, train=10)


def test_p_values_of_the_attacks_are_uniform_when_samples_are_other_people(people: Pool) -> None:
    drawn = [relabelled(people, seed, 20, load_policy("default")) for seed in range(SEEDS)]
    for name in MEMBERSHIP:
        assert outside([p[name] for p in drawn]) == [], name


def test_samples_of_other_people_have_uniform_p_values_and_match_no_more_often_than_stated(people: Pool) -> None:
    policy = load_policy("default")
    sets = [honest_set(people, seed, 20, 16, policy) for seed in range(SEEDS)]
    assert outside([p for p, _ in sets]) == []
    assert sum(matched for _, matched in sets) <= binom.ppf(0.9999, SEEDS, policy.thresholds["false_match_rate"])
