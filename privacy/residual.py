"""The residual risk of an attack: its success on members beyond its success on held-out patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy import stats

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RISK_SOURCES = (
    "Giomi et al. 2023, A unified framework for quantifying privacy risk in synthetic data,"
    " doi 10.56553/popets-2023-0055",
    "Donner and Zou 2012, Closed-form confidence intervals for functions of the normal mean and standard deviation,"
    " Stat. Methods Med. Res. 21:347-359",
)


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


def patient_shares(success: Mask, patient: NDArray[np.int64], is_train: Mask) -> tuple[Floats, Mask]:
    """Return the share of each patient's scans on which an attack succeeds, and whether the patient is a member.

    A share, unlike a largest value, does not grow with the number of scans.
    """
    _, first, inverse, scans = np.unique(patient, return_index=True, return_inverse=True, return_counts=True)
    return np.bincount(inverse, success) / scans, is_train[first]


def residual_risk(success: Floats, member: Mask, confidence: float) -> Residual:
    """Compare an attack's success on members with its success on held-out patients.

    Where a side has no patients, its rate is given as 0 and nothing is claimed.

    Parameters
    ----------
    success : ndarray, shape (patients,)
        Share of each patient's scans on which the attack succeeds.
    member : ndarray of bool, shape (patients,)
    confidence : float
        Of each one-sided bound.

    References
    ----------
    Giomi et al. 2023, the residual risk, doi 10.56553/popets-2023-0055.
    """
    sides = success[member], success[~member]
    train, control = (float(side.mean()) if len(side) else 0.0 for side in sides)
    claimed = len(sides[0]) and len(sides[1]) and control < 1
    risk = (train - control) / (1 - control) if claimed else 0.0
    lower, upper = _ratio_bounds(_failures(sides[0], confidence), _failures(sides[1], confidence))
    return Residual(train, control, max(0.0, risk), min(1.0, max(0.0, 1 - upper)), min(1.0, max(0.0, 1 - lower)))


def _failures(success: Floats, confidence: float) -> tuple[float, float, float]:
    """Return the rate of failure and its bounds; parts of a patient are rounded to the wider side (Hoeffding 1956)."""
    total, n = float(success.sum()), len(success)
    low, _ = stats.clopper_pearson(math.floor(total + 1e-9), n, confidence)
    _, high = stats.clopper_pearson(math.ceil(total - 1e-9), n, confidence)
    return 1 - total / max(n, 1), 1 - high, 1 - low


def _ratio_bounds(above: tuple[float, float, float], below: tuple[float, float, float]) -> tuple[float, float]:
    """Return the two one-sided bounds of a ratio of rates, each given with its own bounds.

    Donner and Zou 2012, Stat. Methods Med. Res. 21:347-359, section 3; here from exact bounds (Clopper and Pearson
    1934, doi 10.1093/biomet/26.4.404).
    """
    (top, top_low, top_high), (base, base_low, base_high) = above, below
    product = top * base
    least, most = top_low * (2 * top - top_low), base_low * (2 * base - base_low)
    root = math.sqrt(max(0.0, product**2 - base_high * (2 * base - base_high) * least))
    lower = least / (product + root) if least > 0 else 0.0
    root = math.sqrt(max(0.0, product**2 - top_high * (2 * top - top_high) * most))
    return lower, (product + root) / most if most > 0 else math.inf
