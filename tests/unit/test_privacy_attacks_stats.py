"""What the attacks share: scores by patient, AUC, true positives, the tail test and the residual risk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from privacy.attack_stats import (
    Scored,
    auc,
    auc_bounds,
    even_scans,
    membership_measurements,
    patient_scores,
    supported_rates,
    tail_test,
    true_positives,
)
from privacy.codes import Codes
from privacy.residual import patient_shares, residual_risk


def one_scan(scores: np.ndarray, member: np.ndarray) -> Scored:
    return Scored(scores, member, np.ones(len(scores), np.int64))


def test_a_patient_scores_as_their_most_telling_scan() -> None:
    found = patient_scores(
        np.array([1.0, 5.0, 2.0, 3.0, 0.0]), np.array([9, 4, 9, 4, 9]), np.array([True, False, True, False, True])
    )
    assert found.scores.tolist() == [5.0, 2.0]
    assert found.member.tolist() == [False, True]
    assert found.scans.tolist() == [2, 3]


def test_a_share_of_a_patient_is_of_their_scans() -> None:
    share, member = patient_shares(np.array([1, 0, 1], bool), np.array([3, 3, 8]), np.array([True, True, False]))
    assert share.tolist() == [0.5, 1.0]
    assert member.tolist() == [True, False]


@pytest.mark.parametrize(
    ("patient", "members", "kept"),
    [
        ([5, 5, 5, 2, 2, 9], 5, [0, 3, 5]),  # a held-out patient has one scan
        ([5, 2, 5, 5, 9, 9], 4, [0, 1, 2, 4, 5]),  # two
        ([5, 5, 2, 2], 4, [0, 2]),  # nobody is held out
    ],
)
def test_scans_that_have_nothing_to_be_compared_with_are_left_out(
    patient: list[int], members: int, kept: list[int]
) -> None:
    rows = np.arange(6.0)[: len(patient)]
    given = Codes(rows, rows, rows, rows, np.array(patient), np.arange(len(patient)) < members)
    found = even_scans(given)
    assert found.real.tolist() == found.real_views.tolist() == kept
    assert found.patient.tolist() == [patient[k] for k in kept]
    assert found.is_train.tolist() == [k < members for k in kept]


def test_auc_by_hand() -> None:
    assert auc(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == 0.75
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert auc(np.zeros(0), np.array([1.0])) == 0.5


def test_bounds_of_an_auc_solve_their_equation() -> None:
    lower, upper = auc_bounds(0.5, 11, 11, 0.95)
    assert lower == pytest.approx(1 - upper)
    # (0.5 - t)^2 = 1.645^2 t (1 - t) (1 + 10 (1 - t) / (2 - t) + 10 t / (1 + t)) / 121
    t = lower
    spread = t * (1 - t) * (1 + 10 * (1 - t) / (2 - t) + 10 * t / (1 + t)) / 121
    assert (0.5 - t) ** 2 == pytest.approx(1.6448536**2 * spread, rel=1e-6)
    low, high = auc_bounds(1.0, 20, 20, 0.95)
    assert 0.8 < low < 1
    assert high == 1
    assert auc_bounds(0.0, 20, 20, 0.95) == pytest.approx((0, 1 - low), abs=1e-6)
    assert auc_bounds(0.5, 0, 20, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_bounds_of_an_auc_cover_it(shift: float) -> None:
    rng, runs = np.random.default_rng(0), 400
    truth = auc(rng.normal(shift, 1, 20000), rng.normal(0, 1, 20000))
    covered = np.zeros(2)
    for _ in range(runs):
        value = auc(rng.normal(shift, 1, 30), rng.normal(0, 1, 15))
        lower, upper = auc_bounds(value, 30, 15, 0.95)
        covered += (lower <= truth, truth <= upper)
    assert covered.min() >= binom.ppf(0.001, runs, 0.93)


def test_true_positives_pass_the_level_that_few_held_out_patients_pass() -> None:
    controls = np.arange(30.0)
    assert true_positives(np.array([26.0, 26.5, 27.0, 99.0]), controls, 0.1) == 3  # 27, 28 and 29 pass 26
    assert true_positives(np.array([29.0, 29.5]), controls, 0.01) == 1
    assert true_positives(np.ones(5), np.ones(30), 0.1) == 0


def test_a_rate_is_claimed_where_enough_patients_are_held_out() -> None:
    assert supported_rates(29) == []
    assert supported_rates(30) == [0.1]
    assert supported_rates(299) == [0.1]
    assert supported_rates(300) == [0.1, 0.01]
    assert supported_rates(3000) == [0.1, 0.01, 0.001]


def test_tail_test_agrees_with_counting() -> None:
    scores, member = np.array([0.0] * 7 + [1.0, 1.0, 1.0]), np.arange(10) >= 5
    p, by_depth = tail_test(one_scan(scores, member), np.random.default_rng(0), depths=(1.0,), rounds=20000)
    exact = 5 * 4 * 3 / (10 * 9 * 8)  # all three are members
    assert p == pytest.approx(exact, abs=0.006)
    assert by_depth == [p]


@pytest.mark.parametrize("patients", [1, 2, 4, 6])
def test_tail_test_of_equal_scores_says_nothing(patients: int) -> None:
    scored = one_scan(np.ones(patients), np.arange(patients) < 1)
    p, by_depth = tail_test(scored, np.random.default_rng(0), rounds=99)
    assert p == 1
    assert by_depth == [1.0] * 4


def test_labels_are_exchanged_among_patients_with_equally_many_scans() -> None:
    scored = Scored(np.array([9.0, 8.0, 7.0, 1.0, 2.0, 0.0]), np.arange(6) < 3, np.array([2, 2, 2, 1, 1, 1]))
    assert tail_test(scored, np.random.default_rng(0), rounds=99)[0] == 1
    mixed = Scored(np.array([9.0, 0.0, 8.0, 0.0]), np.array([True, False, True, False]), np.array([2, 2, 1, 1]))
    p, _ = tail_test(mixed, np.random.default_rng(0), depths=(1.0,), rounds=20000)
    assert p == pytest.approx(0.25, abs=0.015)


def test_tail_test_without_a_side_says_nothing() -> None:
    scores = np.random.default_rng(0).normal(size=12)
    for member in (np.ones(12, bool), np.zeros(12, bool)):
        assert tail_test(one_scan(scores, member), np.random.default_rng(0), rounds=99)[0] == 1


def test_tail_test_sees_a_few_outliers_and_keeps_its_rate() -> None:
    member, seen, alarms, runs = np.arange(90) < 60, 0, 0, 300
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=90)
        alarms += tail_test(one_scan(scores, member), rng, rounds=199)[0] <= 0.05
        scores[:10] += 5
        seen += tail_test(one_scan(scores, member), rng, rounds=199)[0] <= 0.05
    assert binomtest(alarms, runs, 0.05).pvalue > 0.001
    assert seen / runs > 0.95


def test_measurements_are_numbers_whatever_is_missing() -> None:
    rng = np.random.default_rng(0)
    for member in (np.arange(8) < 7, np.arange(8) < 8, np.arange(1) < 1):
        found = membership_measurements("x", one_scan(np.ones(len(member)), member), 0.95, rng)
        assert found["x_p"] == 1
        assert found["x_auc"] == 0.5
        assert found["x_tpr"] == found["x_fpr"] == found["x_tpr_lower"] == []


def test_residual_risk_by_hand() -> None:
    success = np.array([True] * 6 + [False] * 4 + [True] * 2 + [False] * 8)
    found = residual_risk(success, np.arange(20) < 10, 0.95)
    assert (found.train, found.control) == (0.6, 0.2)
    assert found.risk == pytest.approx(0.5)  # (0.6 - 0.2) / 0.8


def test_bounds_of_a_residual_risk_with_certain_success() -> None:
    found = residual_risk(np.arange(60) < 30, np.arange(60) < 30, 0.95)
    a = 1 - 0.05 ** (1 / 30)  # upper bound of a rate without hits in 30; the ratio's is a / sqrt(1 - a^2)
    assert found.risk == found.upper == 1
    assert found.lower == pytest.approx(1 - a / math.sqrt(1 - a * a))


@pytest.mark.parametrize(("members", "controls"), [(20, 10), (40, 30)])
@pytest.mark.parametrize("control", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("risk", [0.0, 0.1, 0.4])
def test_bounds_of_a_residual_risk_hold_exactly(members: int, controls: int, control: float, risk: float) -> None:
    train = control + risk * (1 - control)
    chance = np.outer(*(binom.pmf(np.arange(n + 1), n, p) for n, p in ((members, train), (controls, control))))
    member, missed = np.arange(members + controls) < members, np.zeros(2)
    for k, c in np.argwhere(chance > 1e-7):
        success = np.concatenate([np.arange(members) < k, np.arange(controls) < c])
        found = residual_risk(success, member, 0.95)
        missed += chance[k, c] * np.array([found.lower > risk + 1e-12, found.upper < risk - 1e-12])
    assert missed.max() <= 0.0501


def test_parts_of_patients_widen_the_bounds() -> None:
    member = np.arange(40) < 20
    halves = residual_risk(np.concatenate([np.full(13, 0.5), np.zeros(27)]), member, 0.95)
    fewer = residual_risk(np.arange(40) < 6, member, 0.95)
    more = residual_risk(np.arange(40) < 7, member, 0.95)
    assert halves.train == pytest.approx(6.5 / 20)
    assert fewer.risk < halves.risk < more.risk
    assert halves.lower <= more.lower
    assert halves.upper >= fewer.upper
    assert halves.upper - halves.lower > max(fewer.upper - fewer.lower, more.upper - more.lower)


def test_residual_risk_of_a_hopeless_control_is_nothing() -> None:
    found = residual_risk(np.ones(9, bool), np.arange(9) < 5, 0.95)
    assert (found.risk, found.lower) == (0, 0)
    alone = residual_risk(np.ones(5, bool), np.ones(5, bool), 0.95)
    assert (alone.risk, alone.lower, alone.upper) == (0, 0, 1)


@given(st.integers(1, 80), st.integers(1, 80), st.data())
def test_residual_risk_lies_between_its_bounds(members: int, controls: int, data: st.DataObject) -> None:
    hits, chance = data.draw(st.integers(0, members)), data.draw(st.integers(0, controls))
    success = np.concatenate([np.arange(members) < hits, np.arange(controls) < chance])
    found = residual_risk(success, np.arange(members + controls) < members, 0.95)
    assert 0 <= found.lower <= found.risk <= found.upper <= 1
