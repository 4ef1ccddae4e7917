"""A set of cases as points: their features, whose they are, and how often each bootstrap draw holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from synthmed.evaluation.intervals import Array, Estimate, patient_weights


@dataclass(frozen=True, eq=False)
class Sample:
    """Points of one set.

    Attributes
    ----------
    points : ndarray, shape (N, D)
    patients : tuple of str, length N
        Synthetic cases are each their own.
    weights : ndarray, shape (R, N)
        One row a bootstrap draw over patients.
    """

    points: Array
    patients: tuple[str, ...]
    weights: Array

    def __len__(self) -> int:
        return len(self.points)

    @property
    def once(self) -> Array:
        """The set as it is: weights of one, shape (1, N)."""
        return np.ones((1, len(self)))

    def seen_by(self, view: Callable[[Array], Array]) -> Sample:
        """Return the same cases and draws with other features."""
        return Sample(view(self.points), self.patients, self.weights)


def sample_of(points: Array, patients: Sequence[str], *, rng: np.random.Generator) -> Sample:
    """Return a `Sample` with bootstrap weights drawn for it."""
    return Sample(points, tuple(patients), patient_weights(patients, rng=rng))


def differ(patients: Sequence[str]) -> Array:
    """Return 1 for each pair of cases of different patients, else 0; shape (N, N)."""
    names = np.asarray(patients)
    return (names[:, None] != names[None, :]).astype(np.float64)


def estimate(statistic: Callable[[Array, Array], Array], x: Sample, y: Sample) -> Estimate:
    """Return a statistic of two sets under weights of one, and under the bootstrap's.

    Parameters
    ----------
    statistic : callable
        From weights of shapes (R, N) and (R, M) to values of shape (R,).
    """
    return Estimate(float(statistic(x.once, y.once)[0]), statistic(x.weights, y.weights))
