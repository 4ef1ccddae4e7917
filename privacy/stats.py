"""The statistics of the audit: exact intervals, conformal p-values, multiple testing, permutation by patient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


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


def benjamini_hochberg(p: Floats, q: float) -> NDArray[np.bool_]:
    """Return which hypotheses are rejected at false discovery rate `q` (doi 10.1111/j.2517-6161.1995.tb02031.x)."""
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / len(p))
    rejected = np.zeros(len(p), bool)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (Holm 1979, Scand. J. Statist. 6:65)."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def exponential_threshold(mean: float, effective: float, rate: float, confidence: float) -> float:
    """Return the level that an exponential variable passes with probability `rate`, its mean bounded from above.

    Spacings of the largest values of a sample are exponential (Renyi's representation), whatever the tail is like
    beyond a location and a scale; `effective` is the number of independent observations behind `mean`, whose upper
    bound at `confidence` is the exact chi-squared one.
    """
    upper = mean * 2 * effective / float(stats.chi2.ppf(1 - confidence, 2 * effective))
    return upper * math.log(1 / rate)


def normal_threshold(values: Floats, effective: float, rate: float, confidence: float, least_scale: float) -> float:
    """Return an upper tolerance limit: passed with probability `rate` at most, at `confidence`.

    Location and scale are the median and the scaled median absolute deviation, so that a few duplicates among the
    values do not hide themselves (one-sided normal tolerance factor by the noncentral t distribution).
    """
    centre = float(np.median(values))
    scale = max(least_scale, 1.4826 * float(np.median(np.abs(values - centre))))
    root = math.sqrt(effective)
    factor = float(stats.nct.ppf(confidence, effective - 1, stats.norm.isf(rate) * root)) / root
    return centre + factor * scale


def member_share_test(
    nearest: NDArray[np.int64],
    similarity: Floats,
    member: NDArray[np.bool_],
    depths: Sequence[float],
    rounds: int,
    rng: np.random.Generator,
) -> tuple[list[float], list[float]]:
    """Test whether nearest neighbours are training patients more often than chance, permuting labels by patient.

    Parameters
    ----------
    nearest : ndarray of int64, shape (n,)
        Patient nearest to each sample, out of training and held-out ones, found without looking at the labels.
    similarity : ndarray, shape (n,)
        To that patient; a depth of 0.1 looks at the most similar tenth of the samples.
    member : ndarray of bool, shape (patients,)
        Whether each patient was in training.
    depths : sequence of float
    rounds : int
    rng : Generator

    Returns
    -------
    share, p : list of float
        For each depth: observed share of members, and one-sided permutation p-value.
    """
    order = np.argsort(-similarity, kind="stable")
    sizes = [min(len(order), max(5, math.ceil(depth * len(order)))) for depth in depths]
    counts = np.stack([np.bincount(nearest[order[:size]], minlength=len(member)) for size in sizes]).astype(float)
    observed = counts @ member
    labels = rng.permuted(np.tile(member.astype(float), (rounds, 1)), axis=1)
    reached = (counts @ labels.T >= observed[:, None] - 1e-9).sum(1)
    return (observed / sizes).tolist(), ((1 + reached) / (1 + rounds)).tolist()


def smallest_count(detection: float, confidence: float) -> int:
    """Return how many copies a set must hold for one to be seen with probability `confidence`."""
    if detection <= 0:
        return 0
    if detection >= confidence:
        return 1
    return math.ceil(math.log(1 - confidence) / math.log(1 - detection))
