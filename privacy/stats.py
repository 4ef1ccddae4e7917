"""The statistics of the audit: exact intervals, conformal p-values, thresholds from a tail."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
ROBUST = 0.7  # quantile that a robust scale is taken from


def clopper_pearson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the one-sided lower and the one-sided upper bound of a rate, each at `confidence`.

    References
    ----------
    Clopper and Pearson 1934, doi 10.1093/biomet/26.4.404.
    """
    if trials == 0:
        return 0.0, 1.0
    alpha = 1 - confidence
    low = 0.0 if successes == 0 else float(stats.beta.ppf(alpha, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(stats.beta.ppf(1 - alpha, successes + 1, trials - successes))
    return low, high


def conformal_p(scores: Floats, null: Floats, patient: NDArray[np.int64]) -> Floats:
    """Return (1 + weight of null scores at or above each score) / (number of null patients + 1).

    Each null patient weighs one in all, however many scans there are of them.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    null : ndarray, shape (m,)
    patient : ndarray of int64, shape (m,)
        Owner of each null score.

    References
    ----------
    Vovk, Gammerman and Shafer 2005, doi 10.1007/b106715; Bates et al. 2023, doi 10.1214/22-AOS2244.
    """
    weight = patient_weights(patient)
    above = (null[None, :] >= scores[:, None]) @ weight
    return (1 + above) / (1 + len(np.unique(patient)))


def patient_weights(patient: NDArray[np.int64]) -> Floats:
    """Return one over the number of scans of each scan's patient."""
    _, inverse, counts = np.unique(patient, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def weighted_quantile(values: Floats, weight: Floats, q: float) -> float:
    """Return the smallest value at or below which a share `q` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(reached, q - 1e-12)), len(values) - 1)])


def tail_threshold(values: Floats, weight: Floats, rate: float, confidence: float, *, robust: bool = False) -> float:
    """Return the level that a fresh value passes with probability `rate`, from the upper half of the values.

    Beyond their median the values are taken to fall off exponentially, as spacings of largest values do (Renyi 1953,
    doi 10.1007/BF02127580; peaks over threshold, Davison and Smith 1990, doi 10.1111/j.2517-6161.1990.tb01796.x with
    shape 0). The scale is bounded from above at `confidence` by the exact chi-squared bound.

    Parameters
    ----------
    values, weight : ndarray, shape (n,)
        The weights sum to the number of independent values.
    rate, confidence : float
    robust : bool
        Take the scale from the middle of the values, where a few outliers do not show; else the mean excess.
    """
    middle = weighted_quantile(values, weight, 0.5)
    above = values > middle
    if robust or not above.any():
        scale = (weighted_quantile(values, weight, ROBUST) - middle) / math.log(0.5 / (1 - ROBUST))
    else:
        scale = float(np.average(values[above] - middle, weights=weight[above]))
    degrees = max(2.0, float(weight.sum()))  # twice the number of values in the upper half
    upper = scale * degrees / float(stats.chi2.ppf(1 - confidence, degrees))
    return middle + upper * math.log(0.5 / rate)


def smallest_count(detection: float, confidence: float) -> int:
    """Return how many copies a set must hold for one to be seen with probability `confidence`."""
    if detection <= 0:
        return 0
    if detection >= confidence:
        return 1
    return math.ceil(math.log(1 - confidence) / math.log(1 - detection))
