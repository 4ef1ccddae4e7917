"""What the membership attacks share: one score a patient, what it separates, and the test of its tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as distributions

from privacy import stats
from privacy.codes import Codes

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEPTHS = (1.0, 0.5, 0.25, 0.1)
LEAST = 5  # patients that the smallest depth looks at
ROUNDS = 9999
RATES = (0.1, 0.01, 0.001)
FALSE_POSITIVES = 3  # held-out patients beyond the threshold, below which no rate is claimed
BLOCK = 4_000_000  # labels permuted at a time
EDGE = 1e-9  # a bound is not the value itself


@dataclass(frozen=True)
class Scored:
    """One score a patient: the largest of their scans' (arrays of length patients).

    Attributes
    ----------
    scores : ndarray
    member : ndarray of bool
    scans : ndarray of int64
        How many scans the score is the largest of: with more of them, chance reaches higher.
    """

    scores: Floats
    member: Mask
    scans: NDArray[np.int64]


def patient_scores(values: Floats, patient: NDArray[np.int64], is_train: Mask) -> Scored:
    """Reduce scans to patients by the largest value (all arrays of shape (G,))."""
    owners, first, inverse, scans = np.unique(patient, return_index=True, return_inverse=True, return_counts=True)
    scores = np.full(len(owners), -np.inf)
    np.maximum.at(scores, inverse, values)
    return Scored(scores, is_train[first], scans)


def even_rows(patient: NDArray[np.int64], is_train: Mask) -> Mask:
    """Mark of no patient more scans than the other side has of anyone: the first ones.

    Where one side alone has patients with several scans, they would otherwise have nobody to be compared with.
    """
    if not len(patient):
        return np.zeros(0, dtype=bool)
    _, inverse, scans = np.unique(patient, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - (np.cumsum(scans) - scans)[inverse[order]]
    return place < min(int(scans[inverse][side].max(initial=1)) for side in (is_train, ~is_train))


def even_scans(codes: Codes) -> Codes:
    """Keep the scans that `even_rows` marks."""
    kept = even_rows(codes.patient, codes.is_train)
    return replace(
        codes,
        real=codes.real[kept],
        real_views=codes.real_views[kept],
        patient=codes.patient[kept],
        is_train=codes.is_train[kept],
    )


def auc(members: Floats, controls: Floats) -> float:
    """Return the chance that a member scores above a held-out patient, ties as half; 0.5 where a side is empty."""
    if not len(members) or not len(controls):
        return 0.5
    ranks = distributions.rankdata(np.concatenate([members, controls]))[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(controls)))


def auc_bounds(value: float, members: int, controls: int, confidence: float) -> tuple[float, float]:
    """Return the one-sided lower and upper bound of an AUC, each at `confidence`: (0, 1) where a side is empty.

    Score-type bounds: the values whose own standard error, by the Hanley-McNeil formula with sizes averaged, puts
    `value` just at the edge. They keep a width where the AUC is 0 or 1.

    References
    ----------
    Newcombe 2006, method 5, doi 10.1002/sim.2324.
    """
    if not members or not controls:
        return 0.0, 1.0
    z, n = float(distributions.norm.ppf(confidence)), (members + controls) / 2 - 1

    def gap(true: float) -> float:
        variance = true * (1 - true) * (1 + n * (1 - true) / (2 - true) + n * true / (1 + true)) / (members * controls)
        return abs(value - true) - z * math.sqrt(max(variance, 0.0))

    lower = 0.0 if value <= 0 else float(optimize.brentq(gap, 0.0, value - EDGE))
    upper = 1.0 if value >= 1 else float(optimize.brentq(gap, value + EDGE, 1.0))
    return lower, upper


def true_positives(members: Floats, controls: Floats, rate: float) -> int:
    """Count members strictly above the level that at most a share `rate` of the held-out patients pass."""
    allowed = math.floor(rate * len(controls) + 1e-9)
    return int((members > np.sort(controls)[::-1][allowed]).sum())


def supported_rates(controls: int) -> list[float]:
    """Return the false-positive rates that so many held-out patients can show: three of them beyond the threshold."""
    return [rate for rate in RATES if rate * controls >= FALSE_POSITIVES - 1e-9]


def tail_test(
    scored: Scored, rng: np.random.Generator, depths: Sequence[float] = DEPTHS, rounds: int = ROUNDS
) -> tuple[float, list[float]]:
    """Test whether the highest scores are members' more than chance (`permutation_test`).

    At each depth, a patient counts by how far their score exceeds that of the first patient beyond the depth. Exact
    whatever the scores are, as long as they were made without the labels.

    Parameters
    ----------
    scored : Scored
    rng : Generator
    depths : sequence of float
        Shares of the patients.
    rounds : int

    Returns
    -------
    p : float
        Over all depths.
    by_depth : list of float
        Of each depth alone.
    """
    return permutation_test(_excess(scored.scores, depths), scored.member, scored.scans, rng, rounds)


def permutation_test(
    counts: Floats, member: Mask, scans: NDArray[np.int64], rng: np.random.Generator, rounds: int = ROUNDS
) -> tuple[float, list[float]]:
    """Test whether members have more of what is counted than chance gives them, by several counts at once.

    Labels are permuted by patient, among patients with equally many scans. The smallest p-value over the counts is
    compared with its own distribution under the same permutations, so that counts alike cost little.

    Parameters
    ----------
    counts : ndarray, shape (K, patients)
        Made without the labels.
    member : ndarray of bool, shape (patients,)
    scans : ndarray of int64, shape (patients,)
    rng : Generator
    rounds : int

    Returns
    -------
    p : float
        Over all counts.
    each : list of float
        Of each count alone.

    References
    ----------
    Westfall and Young 1993, Resampling-based multiple testing, ISBN 0-471-55761-7.
    """
    strata = [np.flatnonzero(scans == number) for number in np.unique(scans)]
    observed = member.astype(float)
    sums = [counts @ observed[:, None]]
    block = max(1, BLOCK // max(len(member), 1))
    for start in range(0, rounds, block):
        labels = np.tile(observed, (min(block, rounds - start), 1))
        for stratum in strata:
            labels[:, stratum] = rng.permuted(labels[:, stratum], axis=1)
        sums.append(counts @ labels.T)
    # Rounded, so that sums of the same counts in another order are ties.
    p = np.stack([distributions.rankdata(-np.round(row, 9), method="max") for row in np.concatenate(sums, 1)])
    smallest = p.min(0)
    return float((smallest <= smallest[0]).mean()), (p[:, 0] / (rounds + 1)).tolist()


def _excess(scores: Floats, depths: Sequence[float]) -> Floats:
    """Return by how much each score exceeds the first one beyond each depth, in units of the largest excess."""
    order = np.sort(scores)[::-1]
    sizes = [max(LEAST, math.ceil(depth * len(order))) for depth in depths]
    floors = [order[size] if size < len(order) else order[-1] for size in sizes]
    counts = np.stack([np.maximum(scores - floor, 0.0) for floor in floors])
    return counts / np.maximum(counts.max(1, keepdims=True), 1e-12)


def membership_measurements(
    name: str, scored: Scored, confidence: float, rng: np.random.Generator
) -> dict[str, float | list[float]]:
    """Describe how well a score by patient tells members from held-out patients.

    Parameters
    ----------
    name : str
        Prefix of the measurements.
    scored : Scored
        Higher for members, if anything.
    confidence : float
        Of each one-sided bound.
    rng : Generator

    Returns
    -------
    dict
        ``_p`` and ``_depth_p`` (`tail_test`), ``_auc`` with bounds, and lists ``_fpr``, ``_tpr``, ``_tpr_lower``: the
        rates that the number of held-out patients supports, empty where it supports none.
    """
    members, controls = scored.scores[scored.member], scored.scores[~scored.member]
    p, by_depth = tail_test(scored, rng)
    value = auc(members, controls)
    lower, upper = auc_bounds(value, len(members), len(controls), confidence)
    rates = supported_rates(len(controls))
    found = [true_positives(members, controls, rate) for rate in rates]
    bounds = [stats.clopper_pearson(count, len(members), confidence) for count in found]
    return {
        f"{name}_p": p,
        f"{name}_depth_p": by_depth,
        f"{name}_auc": value,
        f"{name}_auc_lower": lower,
        f"{name}_auc_upper": upper,
        f"{name}_fpr": rates,
        f"{name}_tpr": [count / max(len(members), 1) for count in found],
        f"{name}_tpr_lower": [low for low, _ in bounds],
    }
