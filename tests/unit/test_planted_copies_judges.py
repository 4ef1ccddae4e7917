"""The planted-copy benchmark: baselines on analytic cases, sets, and tables against hand-computed values."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import math

import numpy as np
import pytest
import torch
from copies import baselines, contrastive, sets, tables
from copies.datasets import Volume
from copies.judging import Problem, by_threshold
from planted_scans import scan


def test_threshold_lets_the_stated_share_pass():
    negatives = np.arange(200.0)
    level = tables.threshold_at(negatives, 0.01)
    assert level == 197.0
    assert (negatives > level).sum() == 2
    assert tables.threshold_at(negatives, 0.001) is None
    assert tables.threshold_at(np.ones(1000), 0.001) == 1.0


def test_interval_of_no_miss_is_the_closed_form():
    low, high = tables.Rate(59, 59).interval
    assert low == pytest.approx(0.025 ** (1 / 59))
    assert high == 1.0
    assert tables.Rate(0, 20).interval[1] == pytest.approx(1 - 0.025 ** (1 / 20))


def pooled() -> tables.Pooled:
    """100 negatives scoring 0 to 99, and four copies scoring 98, 98.5, 150, 200 of which the last is named wrong."""
    cell = ("rotation", 2)
    return tables.Pooled(
        np.array(["others"] * 60 + ["generated"] * 40 + ["plant"] * 4),
        [None] * 100 + [cell] * 4,
        np.array([*range(100), 98, 98.5, 150, 200], dtype=np.float64),
        np.array([*range(100), 98, 98.5, 150, 200]) >= 90,
        np.array([False] * 100 + [True, True, True, False]),
    )


def test_recall_table_equals_hand_computed():
    (row,) = tables.recall_rows("made", "judge", pooled())
    assert (row["cell"], row["strength"]) == ("rotation", "strong")
    # One of 100 negatives may pass, so the level is 98; 98 itself does not pass it.
    assert (row["fpr_1pct_hits"], row["fpr_1pct_trials"]) == (3, 4)
    assert row["fpr_0.1pct"] is None
    assert (row["own"], row["named"]) == (1.0, 0.75)


def test_false_positive_table_equals_hand_computed():
    rows = {row["kind"]: row for row in tables.fpr_rows("made", "judge", pooled())}
    assert (rows["others"]["own_hits"], rows["others"]["own_trials"]) == (0, 60)
    assert (rows["generated"]["own_hits"], rows["generated"]["own_trials"]) == (10, 40)
    assert (rows["pooled"]["own"], rows["pooled"]["fpr_1pct"]) == (0.1, 0.01)


def test_smallest_rate_needs_power_from_there_on_and_silence_without_copies():
    def rows(*alarms: float) -> list[dict[str, float]]:
        return [{"rate": rate, "alarm": alarm} for rate, alarm in zip((0, 0.01, 0.02, 0.05), alarms, strict=True)]

    assert tables.smallest_rate(rows(0.0, 0.5, 0.96, 1.0)) == 0.02
    assert tables.smallest_rate(rows(0.0, 0.99, 0.5, 1.0)) == 0.05
    assert tables.smallest_rate(rows(0.5, 1.0, 1.0, 1.0)) is None
    assert tables.smallest_rate(rows(0.0, 0.0, 0.0, 0.5)) is None


def test_sets_hold_the_planted_number_of_copies():
    dummy = scan(0)
    queries = [sets.Query(dummy, "others")] * 30 + [sets.Query(dummy, "plant", ("gamma", 0), ("P",))] * 5
    queries += [sets.Query(dummy, "plant", ("elastic", 0), ("P",))] * 5
    seen: dict[int, int] = {}

    def alarm(rows: np.ndarray) -> bool:
        copies = int((rows >= 30).sum())
        assert len(rows) == 200
        assert not (rows >= 35).any()
        seen[copies] = seen.get(copies, 0) + 1
        return copies >= 4

    scores = by_threshold(np.zeros(40), np.array(["P"] * 40), 1.0)
    scores = type(scores)(scores.score, scores.patient, 1.0, alarm)
    results = sets.draw_sets(queries, scores, 200, 7, 0)
    assert seen == {0: 7, 1: 7, 2: 7, 4: 7, 10: 7, 20: 7}
    assert [(r.rate, r.alarms) for r in results] == [(0, 0), (0.005, 0), (0.01, 0), (0.02, 7), (0.05, 7), (0.1, 7)]
    assert {r.pool for r in results} == {30}


def problem(queries: list[Volume], seed: int) -> Problem:
    """Thirty training and twenty held-out volumes of pure noise, all patients different."""
    return Problem(
        noise(30, seed), [f"T{k}" for k in range(30)], noise(20, seed + 1), [f"H{k}" for k in range(20)], queries, 50, 0
    )


def noise(count: int, seed: int) -> list[Volume]:
    rng = np.random.default_rng([seed, 9])
    return [Volume(rng.standard_normal((8, 8, 8), dtype=np.float32), (1.0, 1.0, 1.0)) for _ in range(count)]


SET_LEVEL = ("auth_pct", "c_t", "dcr_share")


def test_every_baseline_names_exact_copies():
    copies = problem(noise(30, 0), 0)
    for name in ("correlation", *SET_LEVEL):
        scores = baselines.BASELINES[name](copies)
        assert list(scores.patient) == list(copies.train_patient), name
        assert scores.alarm is not None
        assert scores.alarm(np.arange(30)), name
        if scores.threshold is not None:
            assert (scores.score >= scores.threshold).all(), name


def test_set_level_baselines_keep_their_level_on_independent_sets():
    alarms = dict.fromkeys(SET_LEVEL, 0)
    for seed in range(0, 120, 3):
        independent = problem(noise(30, seed + 2), seed)
        for name in SET_LEVEL:
            scores = baselines.BASELINES[name](independent)
            assert scores.alarm is not None
            alarms[name] += scores.alarm(np.arange(30))
    # 40 sets at 5 %: more than 7 has a probability under 0.2 %.
    assert max(alarms.values()) <= 7


def test_authenticity_of_points_on_a_line():
    train, queries = np.array([0.0, 3.0, 10.0]), np.array([1.0, 4.0, 30.0])
    ratio, nearest = baselines.authenticity(np.abs(queries[:, None] - train), np.abs(train[:, None] - train))
    np.testing.assert_allclose(ratio, [3 / 1, 3 / 1, 7 / 20])
    np.testing.assert_array_equal(nearest, [0, 1, 2])


def test_mann_whitney_z_of_separated_samples():
    # U = 0, mean 8, variance 4 * 4 * 9 / 12 = 12.
    assert baselines.mann_whitney_z(np.arange(4.0), np.arange(4.0) + 10) == pytest.approx(-8 / math.sqrt(12))
    assert baselines.mann_whitney_z(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.0


def test_contrastive_loss_of_two_orthogonal_pairs():
    rows = torch.eye(2).repeat(2, 1)
    positive = math.exp(1 / contrastive.TEMPERATURE)
    assert float(contrastive.nt_xent(rows)) == pytest.approx(-math.log(positive / (positive + 2)), abs=1e-6)


def test_dar_embedding_finds_exact_copies_among_strangers(monkeypatch):
    monkeypatch.setattr(contrastive, "STEPS", 12)
    train, holdout = [scan(k) for k in range(12)], [scan(k) for k in range(40, 52)]
    asked = [*train[:4], *(scan(k) for k in range(60, 64))]
    owners = [[f"{side}{k}" for k in range(12)] for side in "TH"]
    given_to = Problem(train, owners[0], holdout, owners[1], asked, 50, 0)
    scores = baselines.dar(given_to)
    assert list(scores.patient[:4]) == ["T0", "T1", "T2", "T3"]
    assert scores.score[:4] == pytest.approx(1.0, abs=1e-5)
    assert scores.score[4:].max() < 0.999
