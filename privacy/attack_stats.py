"""What the membership and inference attacks share: one score a patient, its tail, the risk beyond control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as distributions

from privacy import stats

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEPTHS = (1.0, 0.5, 0.25, 0.1)
LEAST = 5  # patients that the smallest depth looks at
ROUNDS = 9999
RATES = (0.1, 0.01, 0.001)
FALSE_POSITIVES = 3  # held-out patients beyond the threshold, below which no rate is claimed
BLOCK = 4_000_000  # labels permuted at a time
RISK_SOURCES = (
    "Giomi et al. 2023, A unified framework for quantifying privacy risk in synthetic data,"
    " doi 10.56553/popets-2023-0055",
    "Donner and Zou 2012, Closed-form confidence intervals for functions of the normal mean and standard deviation,"
    " doi 10.1177/0962280210383082",
)
EDGE = 1e-9  # a bound is not the value itself


@dataclass(frozen=True)
class Residual:
    """Success of an attack on members beyond its success on held-out patients.

    Attributes
    ----------
    train, control : float
        Share of members and of held-out patients on whom the attack succeeds.
    risk, lower, upper : float
        (train - control) / (1 - control), 0 where it is negative, and its two one-sided bounds.
    """

    train: float
    control: float
    risk: float
    lower: float
    upper: float


def patient_scores(values: Floats, patient: NDArray[np.int64], is_train: Mask) -> tuple[Floats, Mask]:
    """Reduce scans to patients: a patient's score is the largest of their scans'.

    Parameters
    ----------
    values : ndarray, shape (G,)
    patient : ndarray of int64, shape (G,)
    is_train : ndarray of bool, shape (G,)

    Returns
    -------
    scores, member : ndarray, shape (patients,)
    """
    owners, first, inverse = np.unique(patient, return_index=True, return_inverse=True)
    scores = np.full(len(owners), -np.inf)
    np.maximum.at(scores, inverse, values)
    return scores, is_train[first]


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
    scores: Floats, member: Mask, rng: np.random.Generator, depths: Sequence[float] = DEPTHS, rounds: int = ROUNDS
) -> tuple[float, list[float]]:
    """Test whether the highest scores are members' more than chance, permuting labels by patient.

    At each depth, a patient counts by how far their score exceeds that of the first patient beyond the depth, and the
    members' counts are summed. The smallest p-value over the depths is compared with its own distribution under the
    same permutations, so that correlated depths cost little (Westfall and Young 1993). Exact whatever the scores are,
    as long as they were made without the labels.

    Parameters
    ----------
    scores : ndarray, shape (patients,)
    member : ndarray of bool, shape (patients,)
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
    counts = _excess(scores, depths)
    sums = [counts @ member.astype(float)[:, None]]
    block = max(1, BLOCK // max(len(member), 1))
    for start in range(0, rounds, block):
        labels = np.tile(member.astype(float), (min(block, rounds - start), 1))
        sums.append(counts @ rng.permuted(labels, axis=1).T)
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
    name: str, scores: Floats, member: Mask, confidence: float, rng: np.random.Generator
) -> dict[str, float | list[float]]:
    """Describe how well a score by patient tells members from held-out patients.

    Parameters
    ----------
    name : str
        Prefix of the measurements.
    scores : ndarray, shape (patients,)
        Higher for members, if anything.
    member : ndarray of bool, shape (patients,)
    confidence : float
        Of each one-sided bound.
    rng : Generator

    Returns
    -------
    dict
        ``_p`` and ``_depth_p`` (`tail_test`), ``_auc`` with bounds, and lists ``_fpr``, ``_tpr``, ``_tpr_lower``: the
        rates that the number of held-out patients supports, empty where it supports none.
    """
    members, controls = scores[member], scores[~member]
    p, by_depth = tail_test(scores, member, rng)
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


def residual_risk(success: Mask, member: Mask, confidence: float) -> Residual:
    """Compare an attack's success on members with its success on held-out patients.

    Where a side has no patients, its rate is given as 0 and nothing is claimed.

    Parameters
    ----------
    success, member : ndarray of bool, shape (patients,)
    confidence : float
        Of each one-sided bound.

    References
    ----------
    Giomi et al. 2023, the residual risk, doi 10.56553/popets-2023-0055.
    """
    hits = [int(success[side].sum()) for side in (member, ~member)]
    sizes = [int(side.sum()) for side in (member, ~member)]
    train, control = (k / n if n else 0.0 for k, n in zip(hits, sizes, strict=True))
    risk = (train - control) / (1 - control) if all(sizes) and control < 1 else 0.0
    lower, upper = _residual_bounds(hits, sizes, confidence)
    return Residual(train, control, max(0.0, risk), lower, upper)


def _residual_bounds(hits: Sequence[int], sizes: Sequence[int], confidence: float) -> tuple[float, float]:
    """Return the two one-sided bounds of 1 - (1 - train) / (1 - control), within [0, 1].

    Donner and Zou 2012, doi 10.1177/0962280210383082: the bounds of a ratio recovered from those of its two parts, here
    the exact ones of the rates of failure (Clopper and Pearson 1934, doi 10.1093/biomet/26.4.404).
    """
    (train, train_low, train_high), (control, control_low, control_high) = (
        (1 - k / max(n, 1), *(1 - bound for bound in reversed(stats.clopper_pearson(k, n, confidence))))
        for k, n in zip(hits, sizes, strict=True)
    )
    product = train * control
    most = control_low * (2 * control - control_low)
    root = math.sqrt(max(0.0, product**2 - train_high * (2 * train - train_high) * most))
    largest = (product + root) / most if most > 0 else math.inf
    least = train_low * (2 * train - train_low)
    root = math.sqrt(max(0.0, product**2 - control_high * (2 * control - control_high) * least))
    smallest = least / (product + root) if least > 0 else 0.0
    return min(1.0, max(0.0, 1 - largest)), min(1.0, max(0.0, 1 - smallest))
