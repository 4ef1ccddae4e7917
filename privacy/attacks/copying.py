"""Copying: which samples resemble one training patient more than held-out patients do? A filter, not the gate."""

from __future__ import annotations

import numpy as np

from privacy import stats
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.multiplicity import benjamini_hochberg
from privacy.policy import Policy


def copying(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Give each sample a conformal p-value against held-out patients; flag at a false discovery rate.

    With n held-out patients no p-value falls below 1 / (n + 1), so that a few copies among many samples are left to
    the identity attack.
    """
    p = stats.conformal_p(evidence.samples.score, evidence.null.score, evidence.null_patient)
    flagged = benjamini_hochberg(p, policy.thresholds["fdr"])
    return AttackResult(
        {
            "flagged": int(flagged.sum()),
            "smallest_p": float(p.min()),
            "tau_null": evidence.calibration.tau_null,
            "share_above_tau_null": float((evidence.samples.score > evidence.calibration.tau_null).mean()),
        },
        {"p_value": p, "flagged": flagged},
        (
            "Bates et al. 2023, Testing for outliers with conformal p-values, doi 10.1214/22-AOS2244",
            "Benjamini and Hochberg 1995, Controlling the false discovery rate, doi 10.1111/j.2517-6161.1995.tb02031.x",
        ),
    )
