"""Whatever the cohort, no patient is on two sides, and nothing but seed and patient ids decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.read import MIN_PATIENTS, split_by_subject

SUBJECTS = st.lists(st.text(min_size=1, max_size=5), min_size=8, max_size=25, unique=True)


def cohort(subjects: list[str], scans: list[int]) -> Cohort:
    pairs = [(s, n) for s, count in zip(subjects, scans, strict=False) for n in range(count)]
    return Cohort(tuple(Case(f"{s}_{n}", s, Path(f"{n}")) for s, n in pairs))


COHORTS = st.builds(cohort, SUBJECTS, st.lists(st.integers(1, 4), min_size=25, max_size=25))
FRACTIONS = st.floats(0.3, 0.6)
SEEDS = st.integers(0, 2**31)


@settings(max_examples=100, deadline=None)
@given(COHORTS, FRACTIONS, SEEDS)
def test_every_case_is_on_one_side_and_every_patient_too(whole: Cohort, fraction: float, seed: int) -> None:
    train, holdout = split_by_subject(whole, fraction, seed)
    assert sorted(c.case_id for side in (train, holdout) for c in side.cases) == sorted(c.case_id for c in whole.cases)
    assert not set(train.subject_ids) & set(holdout.subject_ids)
    assert min(len(train.subject_ids), len(holdout.subject_ids)) >= MIN_PATIENTS
    assert abs(len(holdout.subject_ids) - fraction * len(whole.subject_ids)) <= 0.5


@settings(max_examples=50, deadline=None)
@given(COHORTS, FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_neither_order_nor_number_of_scans_matters(whole: Cohort, fraction: float, seed: int, random: object) -> None:
    shuffled = list(whole.cases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    once = {c.subject_id: c for c in shuffled}
    wanted = split_by_subject(whole, fraction, seed)[1].subject_ids
    for cases in (shuffled, list(once.values())):
        assert split_by_subject(replace(whole, cases=tuple(cases)), fraction, seed)[1].subject_ids == wanted


@settings(max_examples=50, deadline=None)
@given(COHORTS, SEEDS, st.data())
def test_linked_patients_are_not_parted(whole: Cohort, seed: int, data: st.DataObject) -> None:
    person = st.sampled_from(whole.subject_ids)
    links = data.draw(st.lists(st.tuples(person, person), max_size=3))
    train, holdout = split_by_subject(whole, 0.5, seed, links)
    for a, b in links:
        assert (a in holdout.subject_ids) == (b in holdout.subject_ids)
    assert not set(train.subject_ids) & set(holdout.subject_ids)
