"""Every attack sees planted copies, stays silent when held-out patients stand in, and depends on its seed only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from privacy_scans import SHAPE, scan

from privacy.attacks import ATTACKS
from privacy.evidence import Calibration, Evidence
from privacy.planted import DISGUISES, PER_DISGUISE, plan
from privacy.policy import judge, load_policy
from privacy.similarity import Best

POLICY = load_policy("default")
TRAIN, HOLDOUT, SAMPLES = 60, 30, 80


def _best(patient: np.ndarray, rng: np.random.Generator, margin: np.ndarray | None = None) -> Best:
    n = len(patient)
    own = rng.exponential(0.05, n) if margin is None else margin
    return Best(patient.copy(), patient, np.tanh(1.0 + own), own)


def _evidence(copies: int, seed: int) -> Evidence:
    """Draw what a search would return where `copies` samples are training scans of as many patients."""
    rng = np.random.default_rng(seed)
    near = rng.integers(TRAIN, size=SAMPLES)
    near[:copies] = np.arange(copies) % TRAIN
    margin = rng.exponential(0.05, SAMPLES)
    margin[:copies] = 1.5
    pooled = rng.integers(TRAIN + HOLDOUT, size=SAMPLES)
    pooled[:copies] = near[:copies]
    null = np.arange(TRAIN, TRAIN + HOLDOUT)
    return Evidence(
        samples=_best(near, rng, margin),
        samples_holdout=_best(rng.integers(TRAIN, TRAIN + HOLDOUT, size=SAMPLES), rng),
        samples_pooled=_best(pooled, rng, margin),
        null=_best(rng.integers(TRAIN, size=HOLDOUT), rng),
        null_patient=null,
        train=np.arange(TRAIN),
        holdout=null,
        calibration=Calibration(0.15, 0.7, (0.6, 0.8), 0.9),
    )


SEEN = {
    "copying": lambda m: m["flagged"] >= 50,
    "identity": lambda m: m["identity_matches"] == 60 and m["match_excess"] > 0.2 and m["copy_rate_lower"] > 0.6,
    "membership": lambda m: m["membership_p"] < 0.001,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_sees_copies(name: str) -> None:
    result = ATTACKS[name](_evidence(60, 0), POLICY, np.random.default_rng(0))
    assert SEEN[name](result.measurements)
    assert result.citations


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_silent_without_copies(name: str) -> None:
    results = [ATTACKS[name](_evidence(0, seed), POLICY, np.random.default_rng(seed)) for seed in range(40)]
    assert sum(SEEN[name](result.measurements) for result in results) == 0
    if name == "membership":
        assert sum(result.measurements["membership_p"] < 0.05 for result in results) <= 6  # 99 % of Binomial(40, 0.05)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_seeded_and_returns_numbers(name: str) -> None:
    first, second = (ATTACKS[name](_evidence(3, 1), POLICY, np.random.default_rng(5)) for _ in range(2))
    assert first.measurements == second.measurements
    json.dumps(dict(first.measurements), allow_nan=False)
    assert all(len(column) == SAMPLES for column in first.per_sample.values())


def test_one_copy_among_the_samples_decides() -> None:
    measurements: dict[str, object] = {"samples": SAMPLES, "train_patients": TRAIN, "holdout_patients": HOLDOUT}
    measurements |= {"recall": 1.0, "recall_lower": 0.96}
    for copies, verdict in ((0, "PASS"), (1, "FAIL")):
        for attack in ATTACKS.values():
            measurements |= attack(_evidence(copies, 3), POLICY, np.random.default_rng(0)).measurements
        assert judge(measurements, POLICY)[0] == verdict


def test_the_bound_of_the_excess_is_exact_without_matches() -> None:
    found = ATTACKS["identity"](_evidence(0, 0), POLICY, np.random.default_rng(0)).measurements
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


def test_the_plan_spreads_over_scans_and_disguises() -> None:
    planned = plan(1000, 0)
    assert len(planned) == len(DISGUISES) * PER_DISGUISE
    assert len({k for _, k, _ in planned}) == len(planned)
    assert [(name, k) for name, k, _ in planned] == [(name, k) for name, k, _ in plan(1000, 0)]
    assert [k for _, k, _ in planned] != [k for _, k, _ in plan(1000, 1)]
    assert {k for _, k, _ in plan(3, 0)} == {0, 1, 2}
