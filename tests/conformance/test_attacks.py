"""Every attack sees planted copies, stays silent when held-out patients stand in, and depends on its seed only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from privacy_scans import SHAPE, scan

from privacy.attacks import ATTACKS, AttackResult
from privacy.attacks.halves import unit
from privacy.attributes import Attributes
from privacy.codes import Codes
from privacy.evidence import Calibration, Evidence
from privacy.margins import Best
from privacy.planted import DISGUISES, LESSONS, PER_DISGUISE, lesson, plan
from privacy.policy import judge, load_policy

POLICY = load_policy("default")
TRAIN, HOLDOUT, SAMPLES = 60, 40, 80
VIEW = (6, 9, 5)


def _best(patient: np.ndarray, rng: np.random.Generator, score: np.ndarray | None = None) -> Best:
    n = len(patient)
    own = rng.exponential(0.07, n) if score is None else score
    return Best(np.zeros(n, np.int64), patient.copy(), patient, np.tanh(0.5 + own), own)


def _codes(copies: int, rng: np.random.Generator) -> Codes:
    """Draw pictures of people with a common anatomy; of some members the samples are noisy copies."""
    anatomy = rng.normal(size=VIEW)
    people, made = (anatomy + rng.normal(size=(count, *VIEW)) for count in (TRAIN + HOLDOUT, SAMPLES))
    patient = np.arange(TRAIN + HOLDOUT)
    made[:copies] = people[:copies] + 0.1 * rng.normal(size=(copies, *VIEW))
    real, samples = people.astype(np.float32), made.astype(np.float32)
    flat = (unit(volumes.reshape(len(volumes), -1)) for volumes in (samples, real))
    return Codes(*flat, samples, real, patient, patient < TRAIN)


def _attributes(copies: int, rng: np.random.Generator) -> Attributes:
    """Draw an age for everyone; copies have that of the member they are copies of."""
    real, made = rng.uniform(20, 90, TRAIN + HOLDOUT), rng.uniform(20, 90, SAMPLES)
    made[:copies] = real[:copies]
    return Attributes({"age": real}, {"age": made})


@lru_cache(maxsize=64)
def _evidence(copies: int, seed: int) -> Evidence:
    """Draw what a search would return where `copies` samples are training scans of as many patients."""
    rng = np.random.default_rng(seed)
    near = rng.integers(TRAIN, size=SAMPLES)
    near[:copies] = np.arange(copies) % TRAIN
    score = rng.exponential(0.07, SAMPLES)
    score[:copies] = 2.1
    pooled = rng.integers(TRAIN + HOLDOUT, size=SAMPLES)
    pooled[:copies] = near[:copies]
    held = np.arange(TRAIN, TRAIN + HOLDOUT)
    return Evidence(
        samples=_best(near, rng, score),
        samples_holdout=_best(rng.integers(TRAIN, TRAIN + HOLDOUT, size=SAMPLES), rng),
        samples_pooled=_best(pooled, rng, score),
        null=_best(rng.integers(TRAIN, size=HOLDOUT), rng),
        null_train=_best(rng.integers(TRAIN, size=TRAIN), rng),
        null_patient=held,
        train=np.arange(TRAIN),
        holdout=held,
        scans=np.ones(TRAIN + HOLDOUT, np.int64),
        calibration=Calibration(np.array([0.7, 0.9]), np.array([[0.9, 1.1], [0.8, 1.2]]), 0.2),
        codes=_codes(copies, rng),
        attributes=_attributes(copies, rng),
    )


SEEN: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "copying": lambda m: m["flagged"] >= 50,
    "identity": lambda m: m["identity_matches"] == 60 and m["match_excess"] > 0.2 and m["copy_rate_lower"] > 0.6,
    "membership": lambda m: m["membership_p"] < 0.001,
    "distance": lambda m: m["distance_p"] < 0.001 and m["distance_auc_lower"] > 0.6,
    "density": lambda m: m["density_p"] < 0.001 and m["density_auc_lower"] > 0.6,
    "linkability": lambda m: m["linkability_risk_lower"] > 0.3,
    "inference": lambda m: m["inference_risk_lower"] > 0.3,
    "attributes": lambda m: m["attribute_risk_lower"] > 0.3,
}
ALARMS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "copying": lambda m: m["flagged"] > 0,
    "identity": lambda m: m["identity_matches"] > 0,
    "membership": lambda m: m["membership_p"] <= 0.05,
    "distance": lambda m: m["distance_p"] <= 0.05,
    "density": lambda m: m["density_p"] <= 0.05,
    "linkability": lambda m: m["linkability_risk_lower"] > 0,
    "inference": lambda m: m["inference_risk_lower"] > 0,
    "attributes": lambda m: m["attribute_risk_lower"] > 0,
}
PREFIX = {"copying": "", "identity": "", "membership": "member", "attributes": "attribute"}


def _run(name: str, given: Evidence, seed: int = 0) -> AttackResult:
    return ATTACKS[name](given, POLICY, np.random.default_rng(seed))


def test_every_attack_is_held_to_this() -> None:
    assert set(SEEN) == set(ALARMS) == set(ATTACKS)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_sees_copies(name: str) -> None:
    assert SEEN[name](_run(name, _evidence(60, 0)).measurements)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_silent_without_copies(name: str) -> None:
    found = [_run(name, _evidence(0, seed), seed).measurements for seed in range(40)]
    assert not any(SEEN[name](measured) for measured in found)
    assert sum(ALARMS[name](measured) for measured in found) <= 7  # 99.9 % of Binomial(40, 0.05)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_seeded_and_returns_numbers(name: str) -> None:
    first, second = (_run(name, _evidence(3, 1), seed=5) for _ in range(2))
    assert first.measurements == second.measurements
    json.dumps(dict(first.measurements), allow_nan=False)
    assert all(len(column) == SAMPLES for column in first.per_sample.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_names_its_sources_and_its_measurements(name: str) -> None:
    result = _run(name, _evidence(3, 1))
    assert result.citations
    assert all(re.search(r"doi 10\.|arXiv \d|ISBN \d|\d+:\d+", text) for text in result.citations)
    assert all(key.startswith(PREFIX.get(name, name)) for key in result.measurements)


def test_without_a_table_no_attribute_is_measured() -> None:
    result = _run("attributes", replace(_evidence(3, 1), attributes=None))
    assert (result.measurements, result.citations) == ({}, ())


def test_no_two_attacks_measure_under_one_name() -> None:
    keys = [key for name in ATTACKS for key in _run(name, _evidence(3, 1)).measurements]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", ["distance", "density", "linkability", "inference", "attributes"])
def test_an_attack_on_codes_knows_no_patient_by_number(name: str) -> None:
    given = _evidence(20, 2)
    renamed = replace(given, codes=replace(given.codes, patient=3 * given.codes.patient + 11))
    assert _run(name, renamed).measurements == _run(name, given).measurements


def _judged(copies: int, carried: Mapping[str, int]) -> tuple[str, list[str]]:
    measurements: dict[str, object] = {"samples": SAMPLES, "train_patients": TRAIN, "holdout_patients": HOLDOUT}
    measurements |= {"recall": 1.0, "recall_lower": 0.96, "least_disguise_recall": 0.9}
    measurements |= {"identifying_headers": 0, "burned_in": 0, "faces": 0} | carried
    for name in ATTACKS:
        measurements |= _run(name, _evidence(copies, 3)).measurements
    return judge(measurements, POLICY)


def test_one_copy_among_the_samples_decides() -> None:
    assert _judged(0, {})[0] == "PASS"
    verdict, reasons = _judged(1, {})
    assert verdict == "FAIL"
    assert reasons[0].startswith(f"1 of {SAMPLES}")


@pytest.mark.parametrize("key", ["identifying_headers", "burned_in", "faces"])
def test_what_the_files_carry_decides(key: str) -> None:
    verdict, reasons = _judged(0, {key: 1})
    assert verdict == "FAIL"
    assert len(reasons) == 1


def test_many_copies_are_seen_by_every_question() -> None:
    text = " ".join(_judged(60, {})[1])
    for words in (
        "match one training patient",
        "permutation p",
        "can be linked",
        "tells the other",
        "tells an attribute",
    ):
        assert words in text


def test_the_bound_of_the_excess_is_exact_without_matches() -> None:
    found = _run("identity", _evidence(0, 0)).measurements
    assert found["match_excess"] == 0
    assert found["match_excess_upper"] == pytest.approx(1 - 0.05 ** (1 / SAMPLES))


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguise_keeps_the_grid_and_is_seeded(name: str) -> None:
    one, two, other = (DISGUISES[name](scan(0), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == SHAPE
    assert np.isfinite(one).all()
    assert one.std() > 0
    assert np.array_equal(one, two)
    if name not in ("identity", "mirror"):
        assert not np.array_equal(one, other)
    assert (name == "identity") == np.array_equal(one, scan(0))


@pytest.mark.parametrize("step", sorted({step for row in LESSONS for step in row}, key=lambda step: step.__name__))
def test_a_step_of_a_lesson_leaves_a_scan(step: Callable[..., np.ndarray]) -> None:
    for seed in range(5):
        seen = step(scan(0), np.random.default_rng(seed))
        assert np.isfinite(seen).all()
        assert seen.std() > 0
        assert min(np.array(seen.shape) / SHAPE) >= 0.7


def test_lessons_are_seeded_and_teach_every_disguise_but_planted_mixtures() -> None:
    one, two, other = (lesson(scan(0), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert one.shape != other.shape or not np.array_equal(one, other)
    taught = {step.__name__ for row in LESSONS for step in row}
    assert set(DISGUISES) - taught == {"mixture"}


def test_the_plan_spreads_over_scans_and_disguises() -> None:
    planned = plan(1000, 0)
    assert len(planned) == len(DISGUISES) * PER_DISGUISE
    assert len({k for _, k, _ in planned}) == len(planned)
    assert [(name, k) for name, k, _ in planned] == [(name, k) for name, k, _ in plan(1000, 0)]
    assert [k for _, k, _ in planned] != [k for _, k, _ in plan(1000, 1)]
    assert {k for _, k, _ in plan(3, 0)} == {0, 1, 2}
