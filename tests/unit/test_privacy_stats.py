"""The audit's statistics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, chi2

from privacy import stats
from privacy.multiplicity import benjamini_hochberg, holm


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
    assert benjamini_hochberg(p, 0.05).tolist() == [False, True, False, False]
    p = np.array([0.049, 0.03, 0.04, 0.035])
    assert benjamini_hochberg(p, 0.05).all()


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def exponential(count: int) -> np.ndarray:
    """Return evenly spaced quantiles of an exponential variable of mean 1."""
    return -np.log1p(-(np.arange(count) + 0.5) / count)


def test_tail_threshold_by_hand() -> None:
    values, weight = np.array([1.0, 2.0, 3.0, 7.0]), np.ones(4)
    # The median is 2; the mean excess of 3 and 7 is 3, known from two exponential spacings: 4 degrees of freedom.
    expected = 2 + 3 * 4 / chi2.ppf(0.05, 4) * math.log(0.5 / 0.01)
    assert stats.tail_threshold(values, weight, 0.01, 0.95) == pytest.approx(expected)
    scale = (3 - 2) / math.log(0.5 / 0.3)  # the 0.7 quantile is 3
    expected = 2 + scale * 4 / chi2.ppf(0.05, 4) * math.log(0.5 / 0.01)
    assert stats.tail_threshold(values, weight, 0.01, 0.95, robust=True) == pytest.approx(expected)


@pytest.mark.parametrize("robust", [False, True])
def test_tail_threshold_with_many_values_is_the_quantile(robust: bool) -> None:
    values = 5 + 2 * exponential(200_000)
    level = stats.tail_threshold(values, np.ones(len(values)), math.exp(-6), 0.95, robust=robust)
    assert level == pytest.approx(5 + 2 * 6, rel=0.01)


@pytest.mark.parametrize(("count", "rate"), [(20, 1e-3), (60, 1e-4)])
def test_tail_threshold_keeps_its_rate_at_its_confidence(count: int, rate: float) -> None:
    """The true rate of an exponential variable at level t is exp(-t)."""
    runs, rng = 2000, np.random.default_rng(0)
    levels = [stats.tail_threshold(rng.exponential(size=count), np.ones(count), rate, 0.95) for _ in range(runs)]
    kept = int((np.exp(-np.array(levels)) <= rate).sum())
    # The median's own error takes a little off: the bound is on the scale alone.
    assert binom.ppf(0.001, runs, 0.945) <= kept <= binom.ppf(0.999, runs, 0.95)


def test_robust_tail_threshold_ignores_the_size_of_a_tenth_of_outliers() -> None:
    values, weight, outliers = exponential(300), np.ones(300), np.arange(300) >= 270
    plain = stats.tail_threshold(values, weight, 1e-4, 0.95, robust=True)
    assert stats.tail_threshold(np.where(outliers, 1e6, values), weight, 1e-4, 0.95, robust=True) == plain
    assert stats.tail_threshold(np.where(outliers, 1e6, values), weight, 1e-4, 0.95) > 1e5


def test_robust_tail_threshold_moves_as_its_quantiles_do() -> None:
    """Outliers at random places leave the others' quantiles at 5/9 and 7/9 where 1/2 and 7/10 were."""
    values = np.concatenate([exponential(4500), np.full(500, 1e6)])
    middle, scale = -math.log(4 / 9), math.log(2) / math.log(5 / 3)
    expected = middle + scale * 5000 / chi2.ppf(0.05, 5000) * math.log(0.5 / 1e-4)
    assert stats.tail_threshold(values, np.ones(5000), 1e-4, 0.95, robust=True) == pytest.approx(expected, rel=2e-3)
    assert scale < 1.4


@pytest.mark.parametrize("robust", [False, True])
def test_tail_threshold_weighs_a_patient_once(robust: bool) -> None:
    values = np.random.default_rng(1).exponential(size=24)
    once = stats.tail_threshold(values, np.ones(24), 1e-3, 0.95, robust=robust)
    patient = np.repeat(np.arange(24), np.arange(24) % 3 + 1)
    weight = stats.patient_weights(patient)
    assert stats.tail_threshold(values[patient], weight, 1e-3, 0.95, robust=robust) == pytest.approx(once)
    assert stats.tail_threshold(values[patient], np.ones(len(patient)), 1e-3, 0.95, robust=robust) != once


def test_tail_threshold_of_equal_values_is_the_value() -> None:
    assert stats.tail_threshold(np.full(9, 3.0), np.ones(9), 1e-3, 0.95) == 3.0


@pytest.mark.parametrize("robust", [False, True])
def test_tail_threshold_grows_with_scale_confidence_and_rarity(robust: bool) -> None:
    values, weight = np.random.default_rng(2).exponential(size=30), np.ones(30)

    def level(factor: float = 1.0, rate: float = 1e-3, confidence: float = 0.95) -> float:
        return stats.tail_threshold(10 + factor * values, weight, rate, confidence, robust=robust)

    assert level(2.0) - 10 == pytest.approx(2 * (level() - 10))
    assert level(rate=1e-4) > level() < level(confidence=0.99)


@pytest.mark.parametrize(("detection", "count"), [(0.96, 1), (0.9, 2), (0.5, 5), (0.0, 0)])
def test_smallest_count(detection: float, count: int) -> None:
    assert stats.smallest_count(detection, 0.95) == count
