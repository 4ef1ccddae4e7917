"""Linkability: can two disjoint parts of a person's scan be linked through the samples?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from privacy.attacks.halves import halves, nearest, unit
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.policy import Policy
from privacy.residual import RISK_SOURCES, patient_shares, residual_risk

NEIGHBOURS = 1  # with three of 120 samples, chance links most people already


def linkability(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Measure how much more often members' halves are linked than held-out patients'."""
    codes, confidence = evidence.codes, policy.thresholds["risk_confidence"]
    linked = link(codes.sample_views, codes.real_views, NEIGHBOURS)
    found = residual_risk(*patient_shares(linked, codes.patient, codes.is_train), confidence)
    return AttackResult(
        {
            "linkability_risk": found.risk,
            "linkability_risk_lower": found.lower,
            "linkability_risk_upper": found.upper,
            "linkability_train_rate": found.train,
            "linkability_control_rate": found.control,
            "linkability_chance_rate": chance(len(codes.samples), NEIGHBOURS),
        },
        citations=RISK_SOURCES,
    )


def link(sample_views: NDArray[np.float32], real_views: NDArray[np.float32], neighbours: int) -> NDArray[np.bool_]:
    """Say of each scan whether its two halves have a nearest sample in common.

    Parameters
    ----------
    sample_views, real_views : ndarray, shape (n, D, H, W) and (G, D, H, W)
    neighbours : int
        Samples looked at for each half.

    Returns
    -------
    ndarray of bool, shape (G,)

    References
    ----------
    Giomi et al. 2023, section 5.3, doi 10.56553/popets-2023-0055.
    """
    first, second = (
        nearest(unit(known), unit(part), neighbours)
        for known, part in zip(halves(real_views), halves(sample_views), strict=True)
    )
    return (first[:, :, None] == second[:, None, :]).any((1, 2))


def chance(samples: int, neighbours: int) -> float:
    """Return how often two random choices of `neighbours` samples share one."""
    count = min(neighbours, samples)
    return float(hypergeom.sf(0, samples, count, count))
