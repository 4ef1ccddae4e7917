"""Membership: do the samples lie nearer to training patients than to held-out ones, beyond chance?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.attack_stats import permutation_test
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.policy import MEMBERSHIP, Policy

DEPTHS = (1.0, 0.5, 0.25, 0.1)
LEAST = 5  # samples at a depth


def membership(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Permute the labels of training and held-out patients over the samples' nearest neighbours.

    Exact whatever the samples look like, because the neighbours are found without the labels and the labels are
    permuted among patients with equally many scans. A sample without any match counts for neither side.
    """
    patients = np.concatenate([evidence.train, evidence.holdout])
    member = np.arange(len(patients)) < len(evidence.train)
    counts = nearest_counts(evidence.samples_pooled.patient, evidence.samples_pooled.score, patients)
    p, each = permutation_test(counts, member, evidence.scans, rng)
    sizes, expected = counts.sum(1), float(member.mean())
    return AttackResult(
        {
            "membership_p": p,
            "member_share": np.where(sizes > 0, counts @ member / np.maximum(sizes, 1), expected).tolist(),
            "member_share_depth": list(DEPTHS),
            "member_share_p": each,
            "member_share_expected": expected,
            "membership_smallest_patients": _smallest(member, policy.thresholds["min_membership_p"] / len(MEMBERSHIP)),
        },
        {},
        (
            "Westfall and Young 1993, Resampling-based multiple testing, Wiley, ISBN 0-471-55761-7",
            "Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6:65-70",
        ),
    )


def nearest_counts(
    nearest: NDArray[np.int64], score: NDArray[np.float64], patients: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Count how often each patient is a sample's nearest, over samples of several depths.

    Parameters
    ----------
    nearest : ndarray of int64, shape (n,)
        Patient nearest to each sample; -1 where there is none.
    score : ndarray, shape (n,)
        A depth of 0.1 looks at the tenth of the samples with the largest.
    patients : ndarray of int64, shape (P,)

    Returns
    -------
    ndarray, shape (depths, P)
    """
    found = np.flatnonzero(nearest >= 0)
    order = found[np.argsort(-score[found], kind="stable")]
    position = {int(patient): k for k, patient in enumerate(patients)}
    column = np.array([position[int(patient)] for patient in nearest[order]], dtype=np.int64)
    sizes = [min(len(order), max(LEAST, math.ceil(depth * len(order)))) for depth in DEPTHS]
    return np.stack([np.bincount(column[:size], minlength=len(patients)) for size in sizes]).astype(np.float64)


def _smallest(member: NDArray[np.bool_], alpha: float) -> int:
    """Return how many copied patients, and nothing else, would reach `alpha`: ln(alpha) / ln(share of members)."""
    share = float(member.mean())
    return math.ceil(math.log(alpha) / math.log(share)) if 0 < share < 1 else 0
