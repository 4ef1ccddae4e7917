"""One patient under two names becomes one; held-out copies of training are purged."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from privacy_scans import gallery, learned, scan, scans

from privacy.cleaning import Cleaned, RealScans, clean, merge, same_person_threshold
from privacy.embedding import Embedding
from privacy.margins import Margins
from privacy.planted import DISGUISES
from privacy.policy import load_policy

POLICY = load_policy("research")


@cache
def _embedding() -> Embedding:
    """Learn once for all: what is tested here rests on no cohort's own embedding."""
    return learned(scans(range(12)))


def _clean(volumes: list[np.ndarray], patient: list[int], train: int) -> Cleaned:
    return clean(RealScans(gallery(volumes, patient, _embedding()), np.arange(len(volumes)) < train), POLICY)


def _found(patient: list[list[int]], margin: list[list[float]]) -> Margins:
    owner = np.array(patient)
    return Margins(np.zeros_like(owner), owner, owner, np.array(margin))


def test_merging_is_transitive_and_takes_the_lowest_number() -> None:
    found = _found([[6, 6], [5, 5], [6, 6], [4, 4]], [[0.95] * 2, [0.96] * 2, [0.96] * 2, [0.5] * 2])
    assert merge(np.array([4, 6, 5, 7]), found, np.array([0.9, 0.9])).tolist() == [4, 4, 4, 7]


def test_one_space_is_enough_to_merge_each_by_its_own_threshold() -> None:
    found = _found([[8, 9], [7, 9], [8, 7]], [[1.0, 3.1], [1.9, 2.0], [0.1, 3.0]])
    assert merge(np.array([7, 8, 9]), found, np.array([2.0, 3.0])).tolist() == [7, 8, 7]


def test_no_match_merges_nobody() -> None:
    found = _found([[-1, -1], [-1, -1]], [[0.0, 0.0], [0.0, 0.0]])
    assert merge(np.array([3, 5]), found, np.array([0.0, 0.0])).tolist() == [3, 5]


def test_duplicates_are_merged_and_held_out_copies_purged() -> None:
    volumes = [*scans(range(10)), scan(3, visit=1), *scans(range(20, 26)), np.roll(scan(5), 1, 0)]
    cleaned = _clean(volumes, list(range(18)), train=11)
    patient = cleaned.real.gallery.patient
    assert patient[10] == patient[3] == 3
    assert patient[17] == patient[5] == 5
    assert len(np.unique(patient)) == 16
    assert cleaned.kept.tolist() == [True] * 17 + [False]
    assert np.flatnonzero(cleaned.usable).tolist() == list(range(17))
    assert (cleaned.found.margin < cleaned.tau_same).all()


def test_disguised_held_out_copies_are_purged_each_with_its_own_source() -> None:
    sources = {"mirror": 4, "rotation": 6, "compression": 8}
    copies = [DISGUISES[name](scan(k), np.random.default_rng(2)) for name, k in sources.items()]
    cleaned = _clean([*scans(range(12)), *scans(range(30, 35)), *copies], list(range(20)), train=12)
    assert np.flatnonzero(~cleaned.kept).tolist() == [17, 18, 19]
    assert cleaned.real.gallery.patient[17:].tolist() == [4, 6, 8]


def test_a_holdout_patient_with_a_training_name_is_purged() -> None:
    cleaned = _clean(scans(range(12)), [0, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11], train=8)
    assert np.flatnonzero(~cleaned.kept).tolist() == [8]
    assert len(np.unique(cleaned.real.gallery.patient)) == 11


def test_scans_are_compared_with_the_training_scans_of_others() -> None:
    volumes, owners = [*scans(range(8)), scan(0, visit=1), *scans(range(8, 12))], [*range(8), 0, 8, 9, 10, 11]
    cleaned = _clean(volumes, owners, train=9)
    index, patient = cleaned.matches.index, cleaned.real.gallery.patient
    assert index.max() < 9
    for row in range(len(volumes)):
        assert patient[row] not in patient[index[row][index[row] >= 0]]
    assert len(np.unique(patient)) == 12


def test_people_who_differ_stay_apart() -> None:
    cleaned = _clean(scans(range(100, 124)), list(range(24)), train=16)
    assert cleaned.real.gallery.patient.tolist() == list(range(24))
    assert cleaned.kept.all()


def test_with_one_training_patient_nobody_is_merged() -> None:
    cleaned = _clean(scans(range(3)), [0, 1, 2], train=1)
    assert cleaned.real.gallery.patient.tolist() == [0, 1, 2]
    assert cleaned.usable.tolist() == [False, True, True]


def test_views_weigh_by_what_people_who_differ_make_of_them() -> None:
    cleaned = _clean(scans(range(12)), list(range(12)), train=12)
    weights = cleaned.weights
    assert (weights[0] > 0).all()
    assert weights[1, 0] > 0 == weights[1, 1]
    assert weights[2, 1] > 0 == weights[2, 0]
    assert np.median(cleaned.found.margin, 0).max() < 3  # in units of each view's median margin, two views


def test_the_threshold_of_one_person_is_placed_by_the_middle_of_the_margins() -> None:
    margin = np.random.default_rng(0).exponential(size=(40, 2))
    found = SimpleNamespace(margin=margin)
    plain = same_person_threshold(found, np.arange(40), POLICY)
    duplicates = margin.copy()
    duplicates[np.argsort(margin[:, 0])[-4:], 0] += 100
    found = SimpleNamespace(margin=duplicates)
    assert same_person_threshold(found, np.arange(40), POLICY) == pytest.approx(plain)
    assert (plain > margin.max(0)).all()
    twice = SimpleNamespace(margin=np.repeat(margin, 2, 0))
    # Each patient counts once; the rate is for every scan.
    assert (same_person_threshold(twice, np.repeat(np.arange(40), 2), POLICY) > plain).all()
