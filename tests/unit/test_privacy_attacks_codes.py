"""The four attacks on codes as an audit calls them: numbers only, seeded, and awake to copies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from privacy.attacks.density import density
from privacy.attacks.distance import distance
from privacy.attacks.halves import unit
from privacy.attacks.inference import inference
from privacy.attacks.linkability import linkability
from privacy.attacks.result import AttackResult
from privacy.codes import Codes
from privacy.policy import load_policy

POLICY = load_policy("default")
SHAPE = (6, 9, 5)
SEEN: dict[str, Callable[[dict[str, float]], bool]] = {
    "distance": lambda m: m["distance_p"] < 0.001 and m["distance_auc_lower"] > 0.6,
    "density": lambda m: m["density_p"] < 0.001 and m["density_auc_lower"] > 0.6,
    "linkability": lambda m: m["linkability_risk_lower"] > 0.3,
    "inference": lambda m: m["inference_risk_lower"] > 0.3,
}
ATTACKS = {"distance": distance, "density": density, "linkability": linkability, "inference": inference}


def evidence(copies: int, seed: int = 0, samples: int = 90, members: int = 50, held: int = 40) -> SimpleNamespace:
    """Draw pictures of people with a common anatomy; members are scanned twice, and the first ones are copied."""
    rng = np.random.default_rng(seed)
    anatomy = rng.normal(size=SHAPE)
    people, made = (anatomy + rng.normal(size=(count, *SHAPE)) for count in (members + held, samples))
    patient = np.concatenate([np.arange(members), np.arange(members + held)])
    real = (people[patient] + 0.05 * rng.normal(size=(len(patient), *SHAPE))).astype(np.float32)
    made[:copies] = people[:copies] + 0.1 * rng.normal(size=(copies, *SHAPE))
    flat = (unit(volumes.reshape(len(volumes), -1).astype(np.float32)) for volumes in (made, real))
    return SimpleNamespace(codes=Codes(*flat, made.astype(np.float32), real, patient, patient < members))


def run(name: str, given: SimpleNamespace) -> AttackResult:
    return ATTACKS[name](given, POLICY, np.random.default_rng(0))


@pytest.mark.parametrize("name", ATTACKS)
def test_copies_are_seen_and_their_absence_too(name: str) -> None:
    assert SEEN[name](dict(run(name, evidence(40)).measurements))
    assert not any(SEEN[name](dict(run(name, evidence(0, seed)).measurements)) for seed in range(20))


@pytest.mark.parametrize("name", ATTACKS)
def test_results_are_seeded_finite_and_cited(name: str) -> None:
    first, second = run(name, evidence(3)), run(name, evidence(3))
    assert first == second
    json.dumps(dict(first.measurements), allow_nan=False)
    assert all(key.startswith(name) for key in first.measurements)
    assert all(re.search(r"doi 10\.|arXiv \d|ISBN \d|\d+:\d+", text) for text in first.citations)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("samples", "held"), [(1, 40), (90, 1), (1, 1), (90, 0)])
def test_small_audits_claim_nothing(name: str, samples: int, held: int) -> None:
    found = run(name, evidence(0, samples=samples, held=held)).measurements
    json.dumps(dict(found), allow_nan=False)
    assert found.get(f"{name}_p", 1) > 0.02
    assert found.get(f"{name}_risk_lower", 0) == 0
