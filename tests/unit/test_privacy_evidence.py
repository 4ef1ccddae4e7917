"""Thresholds come from people who differ, and every comparison is scored in their units."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from privacy_scans import features, gallery, scan, scans

from privacy import stats
from privacy.cleaning import Cleaned, RealScans, clean
from privacy.codes import Codes, assemble
from privacy.evidence import LEAST_TAU, Evidence, calibrate, gather_evidence, null_rows
from privacy.margins import Margins
from privacy.policy import load_policy
from privacy.suite import search

POLICY = load_policy("research")
RATE, CONFIDENCE = (POLICY.thresholds[key] for key in ("false_match_rate", "confidence"))


def cleaned(margin: np.ndarray, patient: np.ndarray, train: int, kept: np.ndarray | None = None) -> Cleaned:
    """Return what cleaning leaves, with known margins, shape (n, 2)."""
    n = len(margin)
    near = np.zeros((n, 2), np.int64)
    real = RealScans(SimpleNamespace(patient=patient), np.arange(n) < train)  # type: ignore[arg-type]
    found = Margins(near, near, near, margin)
    return Cleaned(real, np.ones(n, bool) if kept is None else kept, np.eye(3)[:, :2], None, found, np.ones(2))  # type: ignore[arg-type]


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential((0.05, 0.2), (count, 2))


def test_tau_id_is_the_tail_threshold_of_each_space() -> None:
    margin = draws(40)
    found = calibrate(cleaned(margin, np.arange(40), 25), 50, POLICY, np.random.default_rng(1))
    expected = [stats.tail_threshold(column, np.ones(40), RATE / 50 / 2, CONFIDENCE) for column in margin.T]
    assert found.tau_id == pytest.approx(expected)
    assert (found.tau_id > margin.max(0)).all()


def test_tau_id_grows_with_the_number_of_samples_and_counts_patients_once() -> None:
    margin = draws(40)
    few, many = (
        calibrate(cleaned(margin, np.arange(40), 25), n, POLICY, np.random.default_rng(1)).tau_id for n in (50, 5000)
    )
    assert (few < many).all()
    twice = cleaned(np.repeat(margin, 2, 0), np.repeat(np.arange(40), 2), 50)
    assert calibrate(twice, 50, POLICY, np.random.default_rng(1)).tau_id == pytest.approx(few)


def test_the_interval_of_tau_id_encloses_it_and_is_seeded() -> None:
    given = cleaned(draws(40), np.arange(40), 25)
    one, two = (calibrate(given, 50, POLICY, np.random.default_rng(3)).tau_id_interval for _ in range(2))
    assert one.shape == (2, 2)
    assert (one[:, 0] < 1).all()
    assert (one[:, 1] > 1).all()
    assert np.array_equal(one, two)
    wide = calibrate(cleaned(draws(12), np.arange(12), 8), 50, POLICY, np.random.default_rng(3)).tau_id_interval
    assert (np.diff(wide) > np.diff(one)).all()


def test_honest_sets_hold_no_sample_beyond_tau_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sets of 50 samples that are people who differ, at most the policy's share has one beyond tau_id."""
    monkeypatch.setattr("privacy.evidence.DRAWS", 1)  # the interval is not looked at
    hit, runs = 0, 1500
    for seed in range(runs):
        rng = np.random.default_rng([seed, 1])
        tau = calibrate(cleaned(draws(40, seed), np.arange(40), 25), 50, POLICY, rng).tau_id
        hit += bool((rng.exponential((0.05, 0.2), (50, 2)) >= tau).any())
    assert hit / runs <= RATE


def test_tau_null_is_the_score_that_one_held_out_patient_in_twenty_reaches() -> None:
    margin = draws(60)
    found = calibrate(cleaned(margin, np.arange(60), 20), 50, POLICY, np.random.default_rng(1))
    scores = np.sort((margin[20:] / found.tau_id).max(1))
    assert found.tau_null == pytest.approx(scores[37])  # 38 of 40 lie at or below it


def test_the_null_is_held_out_scans_or_without_them_all() -> None:
    margin = draws(6)
    assert null_rows(cleaned(margin, np.arange(6), 4)).tolist() == [4, 5]
    kept = np.array([True, True, True, True, False, False])
    assert null_rows(cleaned(margin, np.arange(6), 4, kept)).tolist() == [0, 1, 2, 3]


def test_purged_scans_calibrate_nothing() -> None:
    margin = draws(40)
    margin[39] = 50
    kept = np.arange(40) < 39
    with_copy = calibrate(cleaned(margin, np.arange(40), 25, kept), 50, POLICY, np.random.default_rng(1))
    without = calibrate(cleaned(margin[:39], np.arange(39), 25), 50, POLICY, np.random.default_rng(1))
    assert with_copy.tau_id == pytest.approx(without.tau_id)


def test_with_nobody_to_calibrate_on_nothing_matches() -> None:
    found = calibrate(cleaned(draws(3), np.arange(3), 3, np.zeros(3, bool)), 10, POLICY, np.random.default_rng(0))
    assert np.isinf(found.tau_id).all()
    assert np.isinf(found.tau_null)


def test_tau_id_is_positive_where_nobody_has_a_margin() -> None:
    found = calibrate(cleaned(np.zeros((30, 2)), np.arange(30), 20), 10, POLICY, np.random.default_rng(0))
    assert found.tau_id.tolist() == [LEAST_TAU, LEAST_TAU]
    assert np.isfinite(found.tau_id_interval).all()


@pytest.fixture(scope="module")
def audited() -> tuple[Cleaned, Evidence]:
    """Search three samples, the last one a mirrored training scan, as an audit does."""
    volumes = [*scans(range(10)), scan(0, visit=1), *scans(range(20, 26))]
    real = RealScans(gallery(volumes, [*range(10), 0, *range(11, 17)]), np.arange(17) < 11)
    cohort = clean(real, POLICY)
    samples = [features([volume]) for volume in (*scans(range(200, 202)), scan(7)[::-1])]
    sides = (real.is_train, ~real.is_train, np.arange(17) != 10)
    found = search(samples, cohort.real.gallery, sides)
    codes = assemble(found.vectors, cohort.real.gallery, cohort.kept, real.is_train)
    return cohort, gather_evidence(cohort, found.sides, sides[2], codes, POLICY, np.random.default_rng(0))


def test_a_copy_is_beyond_tau_id_and_others_are_not(audited: tuple[Cleaned, Evidence]) -> None:
    _, evidence = audited
    assert (evidence.samples.score >= 1).tolist() == [False, False, True]
    assert evidence.samples.patient[2] == evidence.samples_pooled.patient[2] == 7
    assert (evidence.samples_holdout.score < 1).all()
    assert np.isin(evidence.samples_holdout.patient, evidence.holdout).all()
    assert (evidence.null.score < 1).all()


def test_who_is_who(audited: tuple[Cleaned, Evidence]) -> None:
    _, evidence = audited
    assert evidence.train.tolist() == list(range(10))
    assert evidence.holdout.tolist() == list(range(11, 17))
    assert evidence.null_patient.tolist() == list(range(11, 17))
    assert evidence.scans.tolist() == [1] * 16  # the second scan of patient 0 is not pooled


def test_the_pooled_search_does_not_depend_on_who_was_in_training(audited: tuple[Cleaned, Evidence]) -> None:
    cohort, evidence = audited
    turned = RealScans(cohort.real.gallery, ~cohort.real.is_train)
    other = clean(turned, POLICY)
    samples = [features([volume]) for volume in (*scans(range(200, 202)), scan(7)[::-1])]
    pooled = np.arange(17) != 10
    found = search(samples, turned.gallery, (turned.is_train, ~turned.is_train, pooled))
    again = gather_evidence(other, found.sides, pooled, evidence.codes, POLICY, np.random.default_rng(0))
    assert again.samples_pooled.patient.tolist() == evidence.samples_pooled.patient.tolist()
    assert again.samples_pooled.score == pytest.approx(evidence.samples_pooled.score)
    assert again.samples.score != pytest.approx(evidence.samples.score)


def test_codes_are_unit_vectors_of_the_scans_that_are_kept(audited: tuple[Cleaned, Evidence]) -> None:
    codes: Codes = audited[1].codes
    assert codes.real.shape[0] == codes.real_views.shape[0] == len(codes.patient) == 17
    assert codes.samples.shape == (3, codes.real.shape[1])
    assert np.linalg.norm(codes.real, axis=1) == pytest.approx(1, abs=1e-5)
    assert codes.is_train.tolist() == [True] * 11 + [False] * 6
    alike = codes.samples[2] @ codes.real.T
    assert alike.argmax() == 7
    assert alike[7] > 0.95


def test_a_search_ignores_the_size_of_its_chunks(
    audited: tuple[Cleaned, Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, _ = audited
    volumes = [features([volume]) for volume in scans(range(30, 35))]
    whole = search(volumes, cohort.real.gallery, (np.ones(17, bool),))
    monkeypatch.setattr("privacy.suite.BATCH", 2)
    ticks: list[int] = []
    parts = search(volumes, cohort.real.gallery, (np.ones(17, bool),), ticks.append)
    assert sorted(ticks) == [1, 2, 2]
    assert np.array_equal(parts.sides[0].index, whole.sides[0].index)
    assert np.allclose(parts.sides[0].views, whole.sides[0].views, atol=1e-4)
    assert np.allclose(np.concatenate([codes for codes, _ in parts.vectors]), whole.vectors[0][0], atol=1e-5)
