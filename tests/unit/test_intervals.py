"""Intervals: patients are drawn, not scans, and figures of one bootstrap divide draw by draw."""

import numpy as np
import pytest

from synthmed.evaluation.intervals import Estimate, beside, mean_interval, pair_interval, pair_mean, patient_weights


def own(n):
    return [f"p{i}" for i in range(n)]


class TestIntervals:
    def test_a_patients_cases_are_drawn_together(self):
        weights = patient_weights(["a", "a", "b", "c"], rng=np.random.default_rng(0), resamples=50)
        assert np.array_equal(weights[:, 0], weights[:, 1])
        assert (weights[:, 1:].sum(axis=1) == 3).all()

    def test_width_matches_the_standard_error_of_patients_not_of_scans(self):
        rng = np.random.default_rng(1)
        means = rng.standard_normal(200)
        values, patients = np.repeat(means, 4), np.repeat(np.arange(200), 4)
        interval = mean_interval(values, patients, rng=rng)
        standard_error = means.std() / np.sqrt(200)
        assert interval["high"] - interval["low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.15)

    def test_mean_interval_covers_the_truth_as_often_as_it_says(self):
        hits = 0
        for seed in range(100):
            rng = np.random.default_rng(seed)
            found = mean_interval(rng.normal(3.0, 1.0, 60), own(60), rng=rng)
            hits += found["low"] <= 3.0 <= found["high"]
        assert 87 <= hits <= 99

    def test_pairs_of_equal_value_have_no_width(self):
        pairs = np.array([[0, 1], [1, 2], [0, 2]])
        found = pair_interval(np.full(3, 0.7), pairs, own(3), rng=np.random.default_rng(0))
        assert (found["low"], found["high"]) == (pytest.approx(0.7), pytest.approx(0.7))


class TestEstimate:
    def test_ratio_is_taken_draw_by_draw(self):
        top, bottom = Estimate(2.0, np.array([1.0, 2.0, 3.0])), Estimate(4.0, np.array([2.0, 4.0, 6.0]))
        assert beside(top, bottom)["ratio"] == {"value": 0.5, "low": 0.5, "high": 0.5}

    def test_what_has_no_value_is_none(self):
        nothing = Estimate(0.0, np.zeros(3))
        assert nothing.over(nothing).figure() is None
        assert Estimate(1.0, np.full(3, np.nan)).figure() is None
        assert beside(nothing, nothing)["ratio"] is None

    def test_recentring_moves_the_draws_to_the_value_and_cuts_them(self):
        moved = Estimate(0.1, np.array([1.0, 2.0, 3.0])).recentred(least=0.0)
        assert moved.draws == pytest.approx([0.0, 0.1, 1.1])

    def test_pairs_that_are_left_out_do_not_count(self):
        values, mask = np.array([[1.0, 5.0], [3.0, 7.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
        assert pair_mean(values, np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]), mask) == pytest.approx([3.5])
        assert np.isnan(pair_mean(values, np.zeros((1, 2)), np.ones((1, 2)), mask)).all()
