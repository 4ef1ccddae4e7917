"""What a judge is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from copies.codes import Codes, encode
from copies.datasets import Volume

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Real scans with their patients, and the scans to be judged.

    Attributes
    ----------
    train, holdout, queries : sequence of Volume
    train_patient, holdout_patient : sequence of str
    set_size : int
        Number of samples in the sets that an own threshold has to serve.
    seed : int
    """

    train: Sequence[Volume]
    train_patient: Sequence[str]
    holdout: Sequence[Volume]
    holdout_patient: Sequence[str]
    queries: Sequence[Volume]
    set_size: int
    seed: int

    @cached_property
    def codes(self) -> Codes:
        """What the whole-volume judges share, computed once."""
        return encode(self.train, self.holdout, self.queries)


@dataclass(frozen=True)
class Scores:
    """A judge's answer.

    Attributes
    ----------
    score : ndarray, shape (n,)
        The higher, the more a copy.
    patient : ndarray of str, shape (n,)
        Whose copy it would be.
    threshold : float or None
        Score from which the judge itself speaks of a copy.
    alarm : callable (rows) -> bool, or None
        Whether the judge objects to the set of these queries; None where it never does.
    """

    score: Floats
    patient: NDArray[np.str_]
    threshold: float | None
    alarm: Callable[[NDArray[np.int64]], bool] | None


Judge = Callable[[Problem], Scores]


def by_threshold(score: Floats, patient: NDArray[np.str_], threshold: float) -> Scores:
    """Return scores that object to a set as soon as one of its samples reaches the threshold."""
    return Scores(score, patient, threshold, lambda rows: bool((score[rows] >= threshold).any()))
