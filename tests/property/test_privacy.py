"""Properties of the audit: order, names and duplicates do not matter; p-values are uniform under the null."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_scans import scans, write
from scipy.stats import kstest

from privacy import stats
from privacy.attack_stats import permutation_test
from privacy.attacks.membership import nearest_counts
from privacy.multiplicity import benjamini_hochberg, holm
from privacy.policy import judge, load_policy
from privacy.records import collect
from privacy.suite import distinct

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.8, 0.999))
def test_bounds_enclose_the_rate(successes: int, trials: int, confidence: float) -> None:
    successes = min(successes, trials)
    low, high = stats.clopper_pearson(successes, trials, confidence)
    assert 0 <= low <= successes / trials <= high <= 1


@given(probabilities)
def test_holm_never_lowers_a_p_value(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b or a == 1 for a, b in zip(adjusted, p, strict=True))


@given(probabilities, st.floats(0.01, 0.4), st.randoms())
def test_false_discovery_control_ignores_the_order(p: list[float], q: float, random: object) -> None:
    values = np.array(p)
    order = np.random.default_rng(random.randrange(2**32)).permutation(len(p))  # type: ignore[attr-defined]
    assert np.array_equal(benjamini_hochberg(values, q)[order], benjamini_hochberg(values[order], q))


@given(st.integers(0, 5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 100), st.floats(0, 1))
def test_worse_measurements_never_help(hits: int, upper: float, p: float, holdout: int, recall: float) -> None:
    rank = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}
    base = {
        "samples": 100,
        "train_patients": 60,
        "holdout_patients": holdout,
        "identity_matches": hits,
        "holdout_matches": 0,
        "copy_rate": hits / 100,
        "copy_rate_upper": upper,
        "match_excess": 0.0,
        "match_excess_upper": upper,
        "membership_p": p,
        "distance_p": 0.5,
        "density_p": 0.5,
        "linkability_risk": 0.0,
        "linkability_risk_lower": 0.0,
        "inference_risk": 0.0,
        "inference_risk_lower": 0.0,
        "identifying_headers": 0,
        "burned_in": 0,
        "faces": 0,
        "recall": recall,
        "recall_lower": recall,
        "least_disguise_recall": recall,
    }
    worse = base | {
        "identity_matches": hits + 1,
        "membership_p": p / 2,
        "recall_lower": recall / 2,
        "holdout_patients": 1,
    }
    policy = load_policy("default")
    assert rank[judge(worse, policy)[0]] >= rank[judge(base, policy)[0]]


def test_p_values_are_uniform_when_samples_are_held_out_patients() -> None:
    p = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        person = rng.exponential(size=31)
        null = np.repeat(person[:30], 2) * rng.uniform(0.9, 1.1, 60)
        p.append(stats.conformal_p(person[30:] * rng.uniform(0.9, 1.1, 1), null, np.repeat(np.arange(30), 2))[0])
    smoothed = np.array(p) - np.random.default_rng(0).uniform(0, 1 / 31, len(p))
    assert kstest(smoothed, "uniform").pvalue > 0.01


def test_permutation_p_values_are_valid_when_members_are_drawn_at_random() -> None:
    p = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        nearest = rng.zipf(1.8, 60) % 45  # a few patients attract many samples
        member = rng.permutation(45) < 30
        counts = nearest_counts(nearest, rng.random(60), np.arange(45))
        over_all, each = permutation_test(counts, member, np.ones(45, np.int64), rng, rounds=199)
        p.append([over_all, each[0]])
    assert (np.mean(np.array(p) <= 0.05, axis=0) < 0.09).all()
    assert np.mean(np.array(p)[:, 0] <= 0.5) < 0.6
    assert np.mean(np.array(p)[:, 1] <= 0.5) == pytest.approx(0.5, abs=0.1)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 4), st.text("abcxyz", min_size=1, max_size=5))
def test_order_names_and_duplicates_leave_the_samples_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], again: int, prefix: str
) -> None:
    root: Path = tmp_path_factory.mktemp("sets")
    write(root / "plain", scans(range(5)))
    write(root / "other", scans([*order, again]), prefix=prefix)
    plain, other = (distinct(collect("synthetic", root / name)) for name in ("plain", "other"))
    assert [scan.content for scan in plain] == [scan.content for scan in other]
