"""From similarities to one score, by hand: weights, margins over other patients, and the choice between spaces."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.margins import CEILING, OTHERS, SPACES, Margins, best, fisher, margins, weigh
from privacy.similarity import VIEWS, Matches

EMBEDDING = np.eye(len(VIEWS))[:, :1]  # one piece of evidence: the embedding's similarity alone


def found(index: list[list[int]], z: list[list[float]], registered: list[list[float]] | None = None) -> Matches:
    """Make matches whose Fisher's z by the embedding, and by all that is measured after registration, are given."""
    at = np.array(index)
    views = np.stack([np.tanh(np.array(z)), *3 * [np.tanh(np.array(z if registered is None else registered))]], 2)
    views[at < 0] = -1.0
    return Matches(at, views, np.zeros_like(at), np.zeros((*at.shape, 4, 4)))


def test_two_scans_of_a_patient_are_not_their_own_background() -> None:
    matches = found([[0, 1, 2, 3, 4, 5]], [[2.0, 1.9, 1.0, 0.7, 0.5, 0.2]])
    patient = np.array([7, 7, 8, 8, 9, 9])  # each other patient counts by their better scan
    got = margins(matches, patient, EMBEDDING)
    assert got.margin == pytest.approx(np.array([[2.0 - (1.0 + 0.5) / 2]]))
    assert (got.place.item(), got.scan.item(), got.patient.item()) == (0, 0, 7)


def test_the_background_is_the_mean_of_the_next_five_patients() -> None:
    z = [3.0, 1.5, 1.2, 1.0, 0.8, 0.5, -0.4, -0.8]
    got = margins(found([list(range(8))], [z]), np.arange(8), EMBEDDING)
    assert OTHERS == 5
    assert got.margin.item() == pytest.approx(3.0 - np.mean([1.5, 1.2, 1.0, 0.8, 0.5]))


def test_fewer_others_than_five_are_all_there_are() -> None:
    got = margins(found([[4, 2, 0, -1, -1]], [[1.0, 0.6, 0.2, 0, 0]]), np.arange(5), EMBEDDING)
    assert got.margin.item() == pytest.approx(1.0 - 0.4)
    assert got.scan.item() == 4


def test_without_others_there_is_nothing_to_compare_with() -> None:
    got = margins(found([[1, 0, -1]], [[1.3, 1.1, 0]]), np.array([6, 6]), EMBEDDING)
    assert got.margin.item() == 0.0
    assert (got.scan.item(), got.patient.item()) == (1, 6)


def test_without_any_match_there_is_no_margin() -> None:
    got = margins(found([[-1, -1]], [[0, 0]]), np.array([6]), np.ones((len(VIEWS), 2)))
    assert got.margin.tolist() == [[0.0, 0.0]]
    assert got.patient.tolist() == [[-1, -1]]
    assert got.scan.tolist() == [[-1, -1]]


def test_evidence_that_is_not_first_by_embedding_can_be_best() -> None:
    matches = found([[3, 1, 0]], [[0.5, 0.4, 0.1]], [[0.2, 1.4, 0.2]])
    got = margins(matches, np.arange(4), np.eye(len(VIEWS))[:, :3])
    assert got.scan.tolist() == [[3, 1, 1]]
    assert got.place.tolist() == [[0, 1, 1]]
    assert got.margin == pytest.approx(np.array([[0.5 - 0.25, 1.4 - 0.2, 1.4 - 0.2]]))


def test_on_a_tie_the_first_is_best_by_nothing() -> None:
    got = margins(found([[2, 1]], [[0.7, 0.7]]), np.arange(3), EMBEDDING)
    assert got.scan.item() == 2
    assert got.margin.item() == 0


def test_rows_do_not_touch_each_other() -> None:
    index, z = [[0, 1, 2], [2, 1, -1], [-1, -1, -1]], [[0.9, 0.5, 0.1], [0.3, -0.2, 0], [0, 0, 0]]
    together = margins(found(index, z), np.arange(3), EMBEDDING)
    alone = [margins(found([i], [v]), np.arange(3), EMBEDDING) for i, v in zip(index, z, strict=True)]
    assert together.margin.tolist() == [row.margin[0].tolist() for row in alone]
    assert together.margin[:, 0] == pytest.approx([0.6, 0.5, 0.0])


def test_negative_evidence_is_evidence() -> None:
    got = margins(found([[0, 1]], [[-0.2, -0.9]]), np.arange(2), EMBEDDING)
    assert got.margin.item() == pytest.approx(0.7)


def test_a_perfect_correlation_is_finite() -> None:
    matches = Matches(np.zeros((1, 1), int), np.ones((1, 1, 3)), np.zeros((1, 1), int), np.zeros((1, 1, 4, 4)))
    assert fisher(matches) == pytest.approx(np.full((1, 1, 3), np.arctanh(CEILING)))


def test_each_view_weighs_one_over_its_scale() -> None:
    weights = weigh(np.array([0.5, 0.25, 0.1, 0.2]))
    assert list(SPACES) == ["whole", "half"]
    assert VIEWS == ("embedding", "registered", "half", "linear")
    assert weights.tolist() == [[2.0, 2.0], [4.0, 0.0], [0.0, 10.0], [5.0, 0.0]]


def test_evidence_is_the_weighted_sum() -> None:
    matches = found([[0, 1]], [[1.0, 0.5]], [[0.8, 0.1]])
    got = margins(matches, np.arange(2), weigh(np.array([0.5, 0.25, 0.1, 0.2])))
    assert got.margin == pytest.approx(np.array([[2 * 0.5 + (4 + 5) * 0.7, 2 * 0.5 + 10 * 0.7]]))


def test_the_space_with_the_largest_margin_in_units_of_its_threshold_is_taken() -> None:
    matches = found([[0, 1], [0, 1]], [[0.9, 0.2], [0.9, 0.2]], [[0.1, 1.1], [0.1, 1.1]])
    given = Margins(
        place=np.array([[0, 1], [0, 1]]),
        scan=np.array([[0, 1], [0, 1]]),
        patient=np.array([[5, 6], [5, 6]]),
        margin=np.array([[3.0, 4.0], [1.0, 4.0]]),
    )
    got = best(given, matches, np.array([2.0, 4.0]))
    assert got.score == pytest.approx([1.5, 1.0])
    assert got.place.tolist() == [0, 1]
    assert got.scan.tolist() == [0, 1]
    assert got.patient.tolist() == [5, 6]
    assert got.similarity == pytest.approx(np.tanh([0.1, 1.1]))
    second = got[np.array([1])]
    assert (second.score.tolist(), second.patient.tolist()) == ([1.0], [6])
