"""The audit's statistics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from privacy import stats


def test_bounds_of_a_rate_without_hits_are_powers_of_alpha() -> None:
    low, high = stats.clopper_pearson(0, 60, 0.95)
    assert low == 0
    assert high == pytest.approx(1 - 0.05 ** (1 / 60))
    low, high = stats.clopper_pearson(29, 29, 0.95)
    assert low == pytest.approx(0.05 ** (1 / 29))
    assert high == 1
    assert stats.clopper_pearson(0, 0, 0.95) == (0.0, 1.0)


def test_bounds_of_one_in_two_solve_the_binomial_tail() -> None:
    low, high = stats.clopper_pearson(1, 2, 0.95)
    assert low == pytest.approx(1 - math.sqrt(0.95))  # P(X >= 1) = 1 - (1 - p)^2 = 0.05
    assert high == pytest.approx(math.sqrt(0.95))  # P(X <= 1) = 1 - p^2 = 0.05


def test_conformal_p_counts_a_patient_once() -> None:
    null, owner = np.array([1.0, 2.0, 3.0, 5.0]), np.array([7, 7, 8, 9])
    p = stats.conformal_p(np.array([0.0, 2.0, 4.0, 6.0]), null, owner)
    assert p.tolist() == pytest.approx([4 / 4, 3.5 / 4, 2 / 4, 1 / 4])


def test_conformal_p_without_a_holdout_says_nothing() -> None:
    assert stats.conformal_p(np.array([9.0]), np.zeros(0), np.zeros(0, np.int64)).tolist() == [1.0]


def test_weighted_quantile() -> None:
    values, weight = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])
    assert stats.weighted_quantile(values, weight, 0.25) == 1.0
    assert stats.weighted_quantile(values, weight, 0.5) == 2.0
    assert stats.weighted_quantile(values, weight, 0.75) == 2.0
    assert stats.weighted_quantile(values, weight, 0.95) == 3.0


def test_benjamini_hochberg_rejects_up_to_the_last_that_passes() -> None:
    p = np.array([0.9, 0.01, 0.04, 0.035])  # limits at q = 0.05 by rank: 0.0125, 0.025, 0.0375, 0.05
    assert stats.benjamini_hochberg(p, 0.05).tolist() == [False, True, False, False]
    p = np.array([0.049, 0.03, 0.04, 0.035])
    assert stats.benjamini_hochberg(p, 0.05).all()


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_exponential_threshold_with_many_observations_is_the_quantile() -> None:
    level = stats.exponential_threshold(2.0, 1e7, math.exp(-3), 0.95)
    assert level == pytest.approx(6.0, rel=2e-3)
    assert stats.exponential_threshold(2.0, 20, math.exp(-3), 0.95) > 7


def test_exponential_threshold_keeps_its_rate() -> None:
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(400):
        level = stats.exponential_threshold(float(rng.exponential(size=30).mean()), 30, 0.01, 0.95)
        passed.append(math.exp(-level))  # the true rate at this level
    assert np.mean(np.array(passed) <= 0.01) == pytest.approx(0.95, abs=0.04)


def test_normal_threshold_is_not_moved_by_a_few_duplicates() -> None:
    values = 1 + 0.1 * norm.ppf((np.arange(200) + 0.5) / 200)
    clean = stats.normal_threshold(values, 200, 1e-4, 0.95, 0.01)
    values[:10] = 6.0
    assert 1 + 0.1 * 3.7 < clean < 1 + 0.1 * 5.2
    assert stats.normal_threshold(values, 200, 1e-4, 0.95, 0.01) == pytest.approx(clean, abs=0.08)


def test_normal_threshold_has_a_least_scale() -> None:
    assert stats.normal_threshold(np.ones(50), 50, 1e-3, 0.95, 0.02) > 1.06


def test_copies_of_many_members_are_seen_and_of_one_member_are_not() -> None:
    member, rng = np.arange(30) < 15, np.random.default_rng(0)
    similarity = np.linspace(0.5, 0.9, 15)
    share, p = stats.member_share_test(np.arange(15), similarity, member, (1.0, 0.5), 999, rng)
    assert share == [1.0, 1.0]
    assert p[0] == pytest.approx(0.001)
    _, p = stats.member_share_test(np.zeros(15, int), similarity, member, (1.0,), 999, rng)
    assert p[0] == pytest.approx(0.5, abs=0.06)  # one patient is a member with probability 1 / 2


def test_depth_looks_at_the_most_similar() -> None:
    nearest = np.array([0, 1, 2, 3, 4, 10, 11, 12, 13, 14])
    member, similarity = np.arange(20) < 10, np.linspace(1, 0, 10)
    share, _ = stats.member_share_test(nearest, similarity, member, (1.0, 0.5), 99, np.random.default_rng(0))
    assert share == [0.5, 1.0]


@pytest.mark.parametrize(("detection", "count"), [(0.96, 1), (0.9, 2), (0.5, 5), (0.0, 0)])
def test_smallest_count(detection: float, count: int) -> None:
    assert stats.smallest_count(detection, 0.95) == count
