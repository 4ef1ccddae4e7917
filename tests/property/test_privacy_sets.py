"""Whole sets: honest ones give uniform p-values, odd ones raise no alarm, and one copy among many is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from privacy_audits import LEVELS, Pool, clean_once, honest_set, outside, pool, quick, relabelled
from privacy_scans import SHAPE, scan, scans
from scipy import ndimage
from scipy.stats import binom

import privacy
from privacy.planted import DISGUISES
from privacy.policy import MEMBERSHIP, load_policy
from privacy.records import collect

POLICY = load_policy("research")
TRAIN, HOLDOUT = range(12), range(100, 111)
PEOPLE, SEEDS = 32, 300


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick(), clean_once():
        yield


@pytest.fixture(scope="module")
def people() -> Pool:
    """Compare people of whom every other one was scanned twice."""
    owners = [k for k in range(PEOPLE) for _ in range(1 + k % 2)]
    visits = [scan(k, visit) for k in range(PEOPLE) for visit in range(1 + k % 2)]
    return pool(collect("train", visits, [f"p{k}" for k in owners]), samples=8, train=8)


@pytest.mark.slow
def test_p_values_of_the_attacks_are_uniform_when_samples_are_other_people(people: Pool) -> None:
    drawn = [relabelled(people, seed, 14, POLICY) for seed in range(200)]
    for name in MEMBERSHIP:
        assert outside([p[name] for p in drawn]) == [], name


@pytest.mark.slow
def test_samples_of_other_people_have_uniform_p_values_and_match_no_more_often_than_stated(people: Pool) -> None:
    sets = [honest_set(people, seed, 14, 10, POLICY) for seed in range(SEEDS)]
    assert outside([p for p, _ in sets]) == []
    alarms = sum(matched for _, matched in sets)
    assert alarms <= binom.ppf(0.9999, SEEDS, POLICY.thresholds["false_match_rate"])


def test_the_interval_notices_p_values_that_are_not_uniform() -> None:
    uniform = np.random.default_rng(1).uniform(size=SEEDS)
    assert outside(uniform.tolist()) == []
    assert len(outside((uniform**1.5).tolist())) >= len(LEVELS) - 2
    assert outside((uniform**0.6).tolist())


def _jittered(volume: np.ndarray, seed: int) -> np.ndarray:
    """Shift a volume a little between voxels and add a little noise."""
    rng = np.random.default_rng([seed, 20])
    moved = ndimage.shift(volume, rng.uniform(-0.7, 0.7, 3), order=1, mode="nearest")
    return (moved + 0.03 * rng.standard_normal(volume.shape)).astype(np.float32)


def _fresh(seed: int) -> np.ndarray:
    """Draw one scan of nobody in the cohort."""
    return scan(3000 + seed)


def _mean() -> np.ndarray:
    return np.mean(scans(TRAIN), axis=0)


ODD_SETS: dict[str, Callable[[int], np.ndarray]] = {
    "all nearly the mean": lambda k: (_mean() + 0.1 * (_fresh(k) - _mean())).astype(np.float32),
    "one mean, jittered": lambda k: _jittered(_mean(), k),
    "over-dispersed": lambda k: (_mean() + 1.5 * (_fresh(k) - _mean())).astype(np.float32),
    "exaggerated blends": lambda k: (_mean() + 1.8 * ((_fresh(k) + _fresh(k + 1)) / 2 - _mean())).astype(np.float32),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD_SETS)
def test_a_collapsed_or_an_over_dispersed_set_is_no_set_of_copies(kind: str, cache: Path) -> None:
    samples = [ODD_SETS[kind](k) for k in range(24)]
    with quick(planted=1):
        report = privacy.audit(scans(TRAIN), scans(HOLDOUT), samples, policy="research", out=cache)
    found = report.release["measurements"]
    assert found["samples"] == 24
    assert found["identity_matches"] == found["holdout_matches"] == 0
    assert [row["file"] for row in report.samples if row["flag"] == "match"] == []
    assert report.verdict != "FAIL", report.reasons


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the embedding of the cohort between audits."""
    return tmp_path_factory.mktemp("audits")


def _pair(patient: int) -> list[np.ndarray]:
    """Return two visits, the second in another pose."""
    return [scan(patient), np.roll(scan(patient, 1), (1, 0, -1), (0, 1, 2))]


@pytest.mark.slow
def test_two_scans_a_patient_and_a_scan_under_two_names_do_not_fool_the_audit(tmp_path: Path) -> None:
    again = (1.1 * scan(4) + 0.02 * np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)
    train = [*(visit for k in TRAIN for visit in _pair(k)), again, scan(5)]
    owners = [*(f"P{k}" for k in TRAIN for _ in (0, 1)), "P4 once more", "P5 once more"]
    holdout = [*(visit for k in HOLDOUT for visit in _pair(k)), np.roll(scan(6, 2), 1, 0)]
    held_out = [*(f"H{k}" for k in HOLDOUT for _ in (0, 1)), "P6 held out"]
    names = {"train_patients": owners, "holdout_patients": held_out, "policy": "research", "out": tmp_path / "out"}
    fresh = [_fresh(k) for k in range(24)]
    clean = privacy.audit(train, holdout, fresh, **names)  # type: ignore[arg-type]
    assert clean.verdict == "PASS", clean.reasons
    assert clean.steward["merged_patients"] == [["P4", "P4 once more"], ["P5", "P5 once more"], ["P6", "P6 held out"]]
    assert clean.steward["purged_holdout_patients"] == ["P6 held out"]
    assert clean.release["measurements"]["train_patients"] == len(TRAIN)
    assert clean.release["measurements"]["merged_patients"] == 3
    copies = {f"synthetic-{k:05d}": patient for k, patient in enumerate((4, 5, 6) * 3)}
    disguised = [DISGUISES["mixture"](scan(p), np.random.default_rng([p, k])) for k, p in enumerate(copies.values())]
    leak = privacy.audit(train, holdout, [*disguised, *fresh], **names)  # type: ignore[arg-type]
    assert leak.verdict == "FAIL"
    found = {row["file"]: row["nearest_patient"].split()[0] for row in leak.samples if row["flag"] == "match"}
    assert found.items() <= {name: f"P{patient}" for name, patient in copies.items()}.items()
    assert set(found.values()) == {"P4", "P5", "P6"}
    assert len(found) >= 7  # of nine: what the planted copies of this cohort let expect


@pytest.mark.slow
def test_one_copied_patient_among_five_hundred_samples_is_found_and_named() -> None:
    copy = DISGUISES["mixture"](scan(7), np.random.default_rng(3))
    samples = [_fresh(k) for k in range(250)] + [copy] + [_fresh(k) for k in range(250, 499)]
    report = privacy.audit(scans(TRAIN), scans(HOLDOUT), samples, train_patients=[f"P{k}" for k in TRAIN])
    assert report.verdict == "FAIL"
    assert report.release["measurements"]["samples"] == 500
    matched = [(row["file"], row["nearest_patient"]) for row in report.samples if row["flag"] == "match"]
    assert matched == [("synthetic-00250", "P7")]
    assert report.release["power"]["by_disguise"] == dict.fromkeys(DISGUISES, 1.0)
