"""Distance attack: does some sample lie nearer to one patient than to everybody else, more often for members?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.attack_stats import even_scans, membership_measurements, patient_scores
from privacy.attacks.result import AttackResult
from privacy.codes import Codes
from privacy.evidence import Evidence
from privacy.policy import Policy

BLOCK = 4_000_000  # similarities held at a time
CEILING = 0.99999  # of a similarity, before Fisher's transform


def distance(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Score each patient by their largest leak and ask whether members score higher than held-out patients."""
    codes = even_scans(evidence.codes)
    scored = patient_scores(leaks(codes), codes.patient, codes.is_train)
    return AttackResult(
        membership_measurements("distance", scored, policy.thresholds["confidence"], rng),
        citations=(
            "Chen et al. 2020, GAN-Leaks, doi 10.1145/3372297.3417238",
            "Carlini et al. 2022, Membership inference attacks from first principles, doi 10.1109/SP46214.2022.9833649",
            "Westfall and Young 1993, Resampling-based multiple testing, Wiley, ISBN 0-471-55761-7",
            "Newcombe 2006, Confidence intervals for an effect size measure, part 2, doi 10.1002/sim.2324",
        ),
    )


def leaks(codes: Codes) -> NDArray[np.float64]:
    """Return how much more alike the most telling sample is to a scan's patient than to any other patient.

    L_i = max_j [z(s_ij) - max_{k of other patients} z(s_kj)] with Fisher's z of the similarities: a scan that is like
    many others, or a sample that is like many patients, gives nothing away. The labels are not looked at.

    Parameters
    ----------
    codes : Codes

    Returns
    -------
    ndarray, shape (G,)
        The same for every scan of a patient.
    """
    owners, inverse = np.unique(codes.patient, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(owners)))
    largest = np.full(len(owners), -np.inf)
    size = max(1, BLOCK // len(order))
    for start in range(0, len(codes.samples), size):
        similarity = codes.samples[start : start + size] @ codes.real[order].T
        z = np.arctanh(np.clip(np.maximum.reduceat(similarity.astype(np.float64), starts, axis=1), 0.0, CEILING))
        largest = np.maximum(largest, (z - _best_other(z)).max(0))
    return largest[inverse]


def _best_other(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest value of each row among the other columns; 0 where there is no other."""
    rows, top = np.arange(len(z)), z.argmax(1)
    without = z.copy()
    without[rows, top] = 0.0
    other = np.repeat(z[rows, top][:, None], z.shape[1], axis=1)
    other[rows, top] = without.max(1)
    return other
