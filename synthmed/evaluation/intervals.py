"""Bootstrap intervals that resample patients, never single scans of one patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 500
LEVEL = 0.95

Array = NDArray[np.float64]
Figure = dict[str, float]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure and what it came to in each bootstrap draw; figures of one bootstrap divide draw by draw.

    Attributes
    ----------
    value : float
    draws : ndarray, shape (R,)
    """

    value: float
    draws: Array

    def over(self, other: Estimate) -> Estimate:
        """Return the ratio, NaN where the other is not above 0."""
        value = self.value / other.value if other.value > 0 else np.nan
        above = other.draws > 0
        return Estimate(value, np.divide(self.draws, other.draws, out=np.full(len(above), np.nan), where=above))

    def plus(self, constant: float) -> Estimate:
        """Return the sum with a constant."""
        return Estimate(self.value + constant, self.draws + constant)

    def recentred(self, least: float = -np.inf, most: float = np.inf) -> Estimate:
        """Move the draws so that their mean lies on the value, and cut them: for a figure that resampling biases."""
        moved = self.draws - np.nanmean(self.draws) + self.value
        return Estimate(self.value, np.clip(moved, least, most))

    def figure(self) -> Figure | None:
        """Return ``value``, ``low`` and ``high``; None where there is no finite value."""
        if not (np.isfinite(self.value) and np.isfinite(self.draws).any()):
            return None
        low, high = percentile_interval(self.draws)
        return {"value": float(self.value), "low": low, "high": high}


def beside(synthetic: Estimate, floor: Estimate, ratio: Estimate | None = None) -> dict[str, Figure | None]:
    """Return a figure of the synthetic set, the same figure of real scans, and their ratio unless another is given."""
    times = synthetic.over(floor) if ratio is None else ratio
    return {"synthetic": synthetic.figure(), "floor": floor.figure(), "ratio": times.figure()}


def patient_weights(patients: Sequence[str], *, rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
    """Draw patients with replacement; a case weighs as often as its patient was drawn.

    Parameters
    ----------
    patients : sequence of str, length N
        Whose each case is.
    rng : numpy.random.Generator
    resamples : int

    Returns
    -------
    ndarray, shape (resamples, N)

    References
    ----------
    Field and Welsh 2007, "Bootstrapping clustered data", doi 10.1111/j.1467-9868.2007.00593.x (cluster bootstrap)
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, member].astype(np.float64)


def percentile_interval(draws: Array, level: float = LEVEL) -> tuple[float, float]:
    """Return the central interval that holds `level` of the draws, leaving out those that are not finite."""
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def pair_mean(values: Array, wa: Array, wb: Array, mask: Array) -> Array:
    """Return the weighted mean of values over pairs, for each row of weights; NaN where a row leaves no pair.

    Parameters
    ----------
    values, mask : ndarray, shape (N, M)
        A mask of 0 leaves a pair out.
    wa, wb : ndarray, shapes (R, N) and (R, M)

    Returns
    -------
    ndarray, shape (R,)
    """
    top = ((wa @ (values * mask)) * wb).sum(axis=1)
    total = ((wa @ mask) * wb).sum(axis=1)
    return np.divide(top, total, out=np.full(len(total), np.nan), where=total > 0)


def case_mean(values: Array, weights: Array) -> Array:
    """Return the weighted mean of one value a case, shape (N,), for each row of weights, shape (R, N)."""
    return np.asarray(weights @ values / weights.sum(axis=1))


def mean_interval(values: Array, patients: Sequence[str], *, rng: np.random.Generator) -> dict[str, float | int]:
    """Return mean, standard deviation and bootstrap interval of one value a case.

    Parameters
    ----------
    values : ndarray, shape (N,)
    patients : sequence of str, length N

    Returns
    -------
    dict
        ``value``, ``sd``, ``low``, ``high`` and ``n`` cases.
    """
    weights = patient_weights(patients, rng=rng)
    low, high = percentile_interval(weights @ values / weights.sum(axis=1))
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"value": float(values.mean()), "sd": sd, "low": low, "high": high, "n": len(values)}


def pair_interval(
    values: Array, pairs: NDArray[np.int64], patients: Sequence[str], *, rng: np.random.Generator
) -> dict[str, float | int]:
    """Return mean and bootstrap interval of one value a pair of cases.

    A pair weighs as the product of its two cases' weights, so that pairs which share a case move together.

    Parameters
    ----------
    values : ndarray, shape (P,)
    pairs : ndarray, shape (P, 2)
        Indices of cases.
    patients : sequence of str, length N
    """
    weights = patient_weights(patients, rng=rng)
    joint = weights[:, pairs[:, 0]] * weights[:, pairs[:, 1]]
    total = joint.sum(axis=1)
    draws = np.divide(joint @ values, total, out=np.full(len(total), np.nan), where=total > 0)
    low, high = percentile_interval(draws)
    return {"value": float(values.mean()), "low": low, "high": high, "n": len(values)}
