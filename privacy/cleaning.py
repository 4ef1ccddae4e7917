"""The real scans against each other: one patient under two names becomes one, held-out copies of training go."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from privacy import stats
from privacy.gallery import Gallery
from privacy.margins import Margins, margins, weigh
from privacy.policy import Policy
from privacy.rounds import Rounds
from privacy.similarity import VIEWS, Matches

LEAST_SCALE = 1e-3  # of a view's margins, where a cohort's scans hardly differ
ROUNDS = 3  # of merging; each uncovers what the round before hid


@dataclass(frozen=True)
class RealScans:
    """Training and held-out scans in one gallery, training first.

    Attributes
    ----------
    gallery : Gallery
        Its ``patient`` numbers patients by identifier, or by cluster once cleaned.
    is_train : ndarray of bool, shape (G,)
    """

    gallery: Gallery
    is_train: NDArray[np.bool_]


@dataclass(frozen=True)
class Cleaned:
    """What remains, and how the real scans match each other.

    Attributes
    ----------
    real : RealScans
        With one number for each patient after merging.
    kept : ndarray of bool, shape (G,)
        False for held-out scans whose patient also occurs in training.
    weights : ndarray, shape (views, S)
        Of the evidence; see `margins.weigh`.
    matches : Matches
        Of every real scan with the training scans of all other patients.
    found : Margins
    tau_same : ndarray, shape (S,)
        Margins from which two scans are held to be one person's.
    """

    real: RealScans
    kept: NDArray[np.bool_]
    weights: NDArray[np.float64]
    matches: Matches
    found: Margins
    tau_same: NDArray[np.float64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Scans that are kept and have a match."""
        return self.kept & (self.found.patient[:, 0] >= 0)


def clean(real: RealScans, policy: Policy) -> Cleaned:
    """Compare the real scans, merge patients that are one, and purge held-out ones that occur in training.

    Parameters
    ----------
    real : RealScans
    policy : Policy
        Its false-match rate and confidence place tau_same.
    """
    rounds = Rounds()
    for _ in range(ROUNDS):
        cleaned, anywhere = _compare(real, policy, rounds)
        merged = merge(real.gallery.patient, anywhere, cleaned.tau_same)
        if (merged == real.gallery.patient).all():
            return cleaned
        real = replace(real, gallery=replace(real.gallery, patient=merged))
    return _compare(real, policy, rounds)[0]


def _compare(real: RealScans, policy: Policy, rounds: Rounds) -> tuple[Cleaned, Margins]:
    """Compare every real scan with the training scans of others, and with all scans of others: one person may have two
    names on either side."""
    patient = real.gallery.patient
    matches, everywhere = rounds.match(real.gallery, real.is_train)
    weights = weigh(np.maximum(_scales(matches, patient), LEAST_SCALE))
    anywhere = margins(everywhere, patient, weights)
    kept = ~np.isin(patient, patient[real.is_train]) | real.is_train
    tau_same = same_person_threshold(anywhere, patient, policy)
    return Cleaned(real, kept, weights, matches, margins(matches, patient, weights), tau_same), anywhere


def same_person_threshold(found: Margins, patient: NDArray[np.int64], policy: Policy) -> NDArray[np.float64]:
    """Return the margins that scans of people who differ do not reach, at the policy's rate and confidence.

    The tail's scale comes from the middle of the margins, so that duplicates among them do not hide themselves.
    """
    weight = stats.patient_weights(patient)
    rate = policy.thresholds["false_match_rate"] / max(len(patient), 1)
    return np.array(
        [
            stats.tail_threshold(column, weight, rate, policy.thresholds["confidence"], robust=True)
            for column in found.margin.T
        ]
    )


def merge(patient: NDArray[np.int64], found: Margins, tau_same: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give patients whose scans match beyond tau_same one number: the lowest of theirs."""
    owner = {int(p): int(p) for p in patient}

    def root(p: int) -> int:
        while owner[p] != p:
            p = owner[p]
        return p

    for row, space in np.argwhere((found.margin > tau_same) & (found.patient >= 0)):
        a, b = root(int(patient[row])), root(int(found.patient[row, space]))
        owner[max(a, b)] = min(a, b)
    return np.array([root(int(p)) for p in patient])


def _scales(matches: Matches, patient: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median margin of each view alone, shape (views,)."""
    return np.median(margins(matches, patient, np.eye(len(VIEWS))).margin, 0)
