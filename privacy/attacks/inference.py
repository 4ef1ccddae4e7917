"""Attribute inference: what do the samples tell about a person of whom the adversary knows a part?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.attacks.halves import halves, nearest, unit
from privacy.attacks.result import AttackResult, Value
from privacy.codes import Codes
from privacy.evidence import Evidence
from privacy.policy import Policy
from privacy.residual import RISK_SOURCES, Residual, patient_shares, residual_risk

LEAST_GAIN = 0.1  # in correlation: a guess hardly better than the mean sample tells nothing
TOLERANCE = 0.05  # of an attribute's range, within which a guess is right
NEIGHBOURS = 1

Table = Mapping[str, NDArray[Any]]


def inference(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Guess each scan's other half from the sample nearest to the half that is known; compare members with held-out."""
    codes, confidence = evidence.codes, policy.thresholds["risk_confidence"]
    right = guess_gain(codes.sample_views, codes.real_views) > LEAST_GAIN
    found = residual_risk(*patient_shares(right, codes.patient, codes.is_train), confidence)
    return AttackResult(_measured("inference", found), citations=RISK_SOURCES)


def attributes(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Guess attributes of real scans from those of the nearest samples; without a table nothing is measured."""
    table = evidence.attributes
    if table is None:
        return AttackResult({})
    confidence = policy.thresholds["risk_confidence"]
    return AttackResult(
        attribute_risks(evidence.codes, table.real, table.synthetic, confidence), citations=RISK_SOURCES
    )


def guess_gain(sample_views: NDArray[np.float32], real_views: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return by how much a guess from the nearest sample beats the mean sample, in correlation with the truth.

    The known half picks the sample; that sample's other half is the guess. Mean over both directions.

    Parameters
    ----------
    sample_views, real_views : ndarray, shape (n, D, H, W) and (G, D, H, W)

    Returns
    -------
    ndarray, shape (G,)
    """
    real, samples = ([unit(part) for part in halves(views)] for views in (real_views, sample_views))
    naive = [unit(part.mean(0, keepdims=True)) for part in halves(sample_views)]
    gain = np.zeros(len(real_views))
    for known, hidden in ((0, 1), (1, 0)):
        guess = samples[hidden][nearest(real[known], samples[known], 1)[:, 0]]
        gain += ((guess - naive[hidden]) * real[hidden]).sum(1, dtype=np.float64) / 2
    return gain


def attribute_risks(
    codes: Codes, real: Table, synthetic: Table, confidence: float, neighbours: int = NEIGHBOURS
) -> dict[str, Value]:
    """Guess attributes of real people from the samples nearest to their scans.

    The adversary has a person's scan and the synthetic set with its attributes; the guess is the median or the most
    frequent value of the nearest samples that have one. The baseline guesses the same of all samples, without the scan.

    Parameters
    ----------
    codes : Codes
    real, synthetic : mapping of str to ndarray, shape (G,) and (n,)
        Numeric attributes as floats, NaN where missing; others as text, empty where missing. Attributes of one table
        alone, and those of one side alone, are passed over.
    confidence : float
        Of each one-sided bound, over all attributes together (Bonferroni).
    neighbours : int

    Returns
    -------
    dict
        Lists in the order of the sorted names; the attribute with the largest lower bound, and the largest upper
        bound of all. Empty where no attribute is left.
    """
    found: list[Residual] = []
    baselines: list[float] = []
    names = sorted(name for name in set(real) & set(synthetic) if _usable(codes, real[name], synthetic[name]))
    each = 1 - (1 - confidence) / max(len(names), 1)
    for name in names:
        kept = present(real[name])
        right, naive = guess_attribute(codes, real[name], synthetic[name], neighbours)
        owners, sides = codes.patient[kept], codes.is_train[kept]
        found.append(residual_risk(*patient_shares(right[kept], owners, sides), each))
        baselines.append(float(patient_shares(naive[kept], owners, sides)[0].mean()))
    if not found:
        return {}
    worst = max(found, key=lambda residual: (residual.lower, residual.risk))
    return {
        **_measured("attribute", worst),
        "attribute_risk_upper": max(residual.upper for residual in found),
        "attribute_risks": [residual.risk for residual in found],
        "attribute_risks_lower": [residual.lower for residual in found],
        "attribute_train_rates": [residual.train for residual in found],
        "attribute_control_rates": [residual.control for residual in found],
        "attribute_baseline_rates": baselines,
    }


def guess_attribute(
    codes: Codes, real: NDArray[Any], synthetic: NDArray[Any], neighbours: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say of each real scan whether the guess from its nearest samples, and whether the baseline's, is right.

    Returns
    -------
    right, naive : ndarray of bool, shape (G,)
        False where the truth is missing.
    """
    kept = present(synthetic)
    pool = synthetic[kept]
    near = nearest(codes.real, codes.samples[kept], neighbours)
    if real.dtype.kind == "f":
        span = float(np.ptp(real[present(real)]))
        guess, fixed = np.median(pool[near], axis=1), np.median(pool)
        return np.abs(guess - real) <= TOLERANCE * span, np.abs(fixed - real) <= TOLERANCE * span
    picked = np.array([_most_frequent(pool[row]) for row in near])
    return (picked == real) & present(real), (_most_frequent(pool) == real) & present(real)


def present(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an attribute has a value."""
    return ~np.isnan(values) if values.dtype.kind == "f" else values != ""


def _usable(codes: Codes, real: NDArray[Any], synthetic: NDArray[Any]) -> bool:
    known = present(real)
    return bool(
        (real.dtype.kind == "f") == (synthetic.dtype.kind == "f")
        and present(synthetic).any()
        and (known & codes.is_train).any()
        and (known & ~codes.is_train).any()
    )


def _most_frequent(values: NDArray[Any]) -> Any:
    """Return the most frequent value; on a tie the one that comes first."""
    names, first, counts = np.unique(values, return_index=True, return_counts=True)
    return names[np.lexsort((first, -counts))[0]]


def _measured(name: str, found: Residual) -> dict[str, Value]:
    return {
        f"{name}_risk": found.risk,
        f"{name}_risk_lower": found.lower,
        f"{name}_risk_upper": found.upper,
        f"{name}_train_rate": found.train,
        f"{name}_control_rate": found.control,
    }
