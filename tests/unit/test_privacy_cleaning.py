"""One patient under two names becomes one; held-out copies of training are purged; thresholds follow."""

from __future__ import annotations

import numpy as np
import pytest
from privacy_scans import SHAPE, scan, scans

from privacy.cleaning import Cleaned, RealScans, clean, merge
from privacy.evidence import calibrate
from privacy.features import extract, join_features, plan_space
from privacy.policy import load_policy
from privacy.similarity import CEILING, Matches, build_gallery

POLICY = load_policy("research")


def _clean(volumes: list[np.ndarray], patient: list[int], train: int) -> Cleaned:
    space = plan_space(np.array([SHAPE], dtype=float), 1.0)
    features = join_features([extract(np.asarray(v), (1.0, 1.0, 1.0), space) for v in volumes])
    gallery = build_gallery(features, np.array(patient), space)
    return clean(RealScans(gallery, features, np.arange(len(volumes)) < train), POLICY)


def test_merging_is_transitive_and_takes_the_lowest_number() -> None:
    index = np.array([[1, -1], [2, -1], [1, -1], [0, -1]])
    score = np.array([[0.95, -1], [0.96, -1], [0.96, -1], [0.5, -1]])
    matches = Matches(index, score, np.zeros_like(index), np.zeros((4, 2, 4, 4)))
    assert merge(np.array([4, 6, 5, 7]), matches, 0.9).tolist() == [4, 4, 4, 7]


def test_duplicates_are_merged_and_held_out_copies_purged() -> None:
    volumes = [*scans(range(10)), scan(3, visit=1), *scans(range(20, 26)), np.roll(scan(5), 1, 0)]
    cleaned = _clean(volumes, list(range(18)), train=11)
    patient = cleaned.real.gallery.patient
    assert patient[10] == patient[3]
    assert len(np.unique(patient[:11])) == 10
    assert cleaned.kept.tolist() == [True] * 17 + [False]
    assert cleaned.null_patient.tolist() == list(range(11, 17))
    assert max(cleaned.inner.margin.max(), cleaned.null.margin.max()) < 0.6


def test_a_holdout_patient_with_a_training_name_is_purged() -> None:
    cleaned = _clean(scans(range(12)), [0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11], train=8)
    assert np.flatnonzero(~cleaned.kept).tolist() == [8]
    assert len(np.unique(cleaned.real.gallery.patient)) == 11


def test_one_training_patient_gives_no_threshold_that_anything_reaches() -> None:
    cleaned = _clean(scans(range(3)), [0, 1, 2], train=1)
    assert len(cleaned.inner.margin) == 0
    assert cleaned.tau_same == pytest.approx(CEILING, abs=0.2)


def test_nobody_to_calibrate_on() -> None:
    nothing = (np.zeros(0), np.zeros(0, np.int64))
    found = calibrate(nothing, nothing, 0.9, 10, POLICY, np.random.default_rng(0))
    assert found.tau_id == pytest.approx(np.arctanh(CEILING))


def test_tau_id_grows_with_the_number_of_samples_and_counts_patients_once() -> None:
    rng = np.random.default_rng(0)
    margins, owner = rng.exponential(0.05, 40), np.arange(40)
    nothing = (np.zeros(0), np.zeros(0, np.int64))
    few, many = (
        calibrate((margins, owner), nothing, 0.9, n, POLICY, np.random.default_rng(1)).tau_id for n in (50, 5000)
    )
    assert few < many
    twice = (np.repeat(margins, 2), np.repeat(owner, 2))
    assert calibrate(twice, nothing, 0.9, 50, POLICY, np.random.default_rng(1)).tau_id == pytest.approx(few)
    low, high = calibrate((margins, owner), nothing, 0.9, 50, POLICY, np.random.default_rng(1)).tau_id_interval
    assert low < few < high
