"""Identity: is a sample recognisably one training patient, and what rate of such samples can be excluded?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy import stats
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.policy import Policy

DRAWS = 2000


def identity(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Count samples at or beyond tau_id, bound their rate, and compare it with chance matches to held-out patients."""
    calibration, confidence = evidence.calibration, policy.thresholds["confidence"]
    hits, chance = evidence.samples.score >= 1, evidence.samples_holdout.score >= 1
    lower, upper = stats.clopper_pearson(int(hits.sum()), len(hits), confidence)
    excess, excess_upper = match_excess(evidence, hits, chance, confidence, rng)
    return AttackResult(
        {
            "identity_matches": int(hits.sum()),
            "holdout_matches": int(chance.sum()),
            "matched_patients": len(np.unique(evidence.samples.patient[hits])),
            "copy_rate": float(hits.mean()),
            "copy_rate_lower": lower,
            "copy_rate_upper": upper,
            "match_excess": excess,
            "match_excess_upper": excess_upper,
            "tau_id": calibration.tau_id.tolist(),
            "tau_id_lower": calibration.tau_id_interval[:, 0].tolist(),
            "tau_id_upper": calibration.tau_id_interval[:, 1].tolist(),
            "largest_score": float(evidence.samples.score.max()),
            "largest_null_score": float(evidence.null.score.max()) if len(evidence.null.score) else 0.0,
            "null_matches": int((evidence.null.score >= 1).sum()),
            "null_scans": len(evidence.null.score),
        },
        {"match": hits},
        (
            "Clopper and Pearson 1934, The use of confidence or fiducial limits, doi 10.1093/biomet/26.4.404",
            "Renyi 1953, On the theory of order statistics, doi 10.1007/BF02127580",
            "Davison and Smith 1990, Exceedances over high thresholds, doi 10.1111/j.2517-6161.1990.tb01796.x",
        ),
    )


def match_excess(
    evidence: Evidence,
    hits: NDArray[np.bool_],
    chance: NDArray[np.bool_],
    confidence: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the match rate to training minus that to held-out patients, at equal numbers of patients, and its bound.

    The bound is a bootstrap over patients and samples; where neither side has a match, it is the exact one.
    """
    if not hits.any() and not chance.any():
        return 0.0, stats.clopper_pearson(0, len(hits), confidence)[1]
    size = min(len(evidence.train), len(evidence.holdout)) or len(evidence.train)
    n = len(hits)
    sides = (
        (evidence.train, evidence.samples.patient, hits, 1.0),
        (evidence.holdout, evidence.samples_holdout.patient, chance, -1.0),
    )
    point, draws = 0.0, np.zeros(DRAWS)
    taken = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    for patients, nearest, found, sign in sides:
        if len(patients):
            scale = sign * size / len(patients) / n
            column = np.searchsorted(patients, nearest[found])
            weight = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=DRAWS)
            point += scale * found.sum()
            draws += scale * (taken[:, found] * weight[:, column]).sum(1)
    return float(point), float(np.quantile(draws, confidence))
