"""Membership: do the samples lie nearer to training patients than to held-out ones, beyond chance?"""

from __future__ import annotations

import math

import numpy as np

from privacy import stats
from privacy.attacks.result import AttackResult
from privacy.evidence import Evidence
from privacy.policy import Policy

DEPTHS = (1.0, 0.5, 0.25, 0.1)
ROUNDS = 9999


def membership(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Permute the labels of training and held-out patients over the samples' nearest neighbours.

    Exact whatever the samples look like, because the neighbours are found without the labels; Holm's correction over
    the depths of the tail. A sample without any match counts for neither side.
    """
    patients = np.concatenate([evidence.train, evidence.holdout])
    position = {int(patient): k for k, patient in enumerate(patients)}
    member = np.arange(len(patients)) < len(evidence.train)
    found = evidence.samples_pooled[np.flatnonzero(evidence.samples_pooled.patient >= 0)]
    nearest = np.array([position[int(patient)] for patient in found.patient], dtype=np.int64)
    if len(nearest):
        share, p = stats.member_share_test(nearest, found.similarity, member, DEPTHS, ROUNDS, rng)
    else:
        share, p = [float(member.mean())] * len(DEPTHS), [1.0] * len(DEPTHS)
    return AttackResult(
        {
            "membership_p": min(stats.holm(p)),
            "member_share": share,
            "member_share_depth": list(DEPTHS),
            "member_share_p": p,
            "member_share_expected": float(member.mean()),
            "membership_smallest_patients": _smallest(member, policy.thresholds["min_membership_p"]),
        },
        {},
        ("Holm 1979, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6:65-70",),
    )


def _smallest(member: np.ndarray, alpha: float) -> int:
    """Return how many copied patients, and nothing else, would reach `alpha`: ln(alpha) / ln(share of members)."""
    share = float(member.mean())
    return math.ceil(math.log(alpha) / math.log(share)) if 0 < share < 1 else 0
