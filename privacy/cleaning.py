"""The real scans against each other: one patient under two names becomes one, held-out copies of training go."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from privacy import stats
from privacy.features import Features
from privacy.policy import Policy
from privacy.similarity import CEILING, Best, Coarse, Gallery, Matches, best, coarse_search, refine

LEAST_SCALE = 0.02  # of Fisher's z, where a cohort's best matches hardly differ


@dataclass(frozen=True)
class RealScans:
    """Training and held-out scans in one gallery, training first.

    Attributes
    ----------
    gallery : Gallery
        Its ``patient`` numbers patients by identifier, or by cluster once cleaned.
    features : Features
    is_train : ndarray of bool, shape (G,)
    """

    gallery: Gallery
    features: Features
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
    inner, null : Best
        Training scans against the other training patients; kept held-out scans against training.
    inner_patient, null_patient : ndarray of int64
        Their owners.
    tau_same : float
        Similarity from which two scans are held to be one.
    """

    real: RealScans
    kept: NDArray[np.bool_]
    inner: Best
    inner_patient: NDArray[np.int64]
    null: Best
    null_patient: NDArray[np.int64]
    tau_same: float


def clean(real: RealScans, policy: Policy) -> Cleaned:
    """Compare the real scans, merge training patients that are one, and purge held-out ones that occur in training.

    Parameters
    ----------
    real : RealScans
    policy : Policy
        Its false-match rate and confidence place tau_same.
    """
    coarse = coarse_search(real.features, real.gallery)
    matches = _against_others(real, coarse, np.arange(len(real.is_train)))
    tau_same = same_scan_threshold(real, matches, policy)
    merged = merge(real.gallery.patient, matches, tau_same)
    before, real = real, replace(real, gallery=replace(real.gallery, patient=merged))
    changed = np.flatnonzero(np.isin(merged, merged[before.gallery.patient != merged]))
    if len(changed):
        _assign(matches, changed, _against_others(real, coarse, changed))
    kept = ~np.isin(merged, merged[real.is_train]) | real.is_train
    found = best(matches, merged)
    inner = np.flatnonzero(real.is_train & (found.scan >= 0))
    null = np.flatnonzero(~real.is_train & kept & (found.scan >= 0))
    return Cleaned(real, kept, found[inner], merged[inner], found[null], merged[null], tau_same)


def same_scan_threshold(real: RealScans, matches: Matches, policy: Policy) -> float:
    """Return the similarity that best matches between patients do not reach, at the policy's rate and confidence."""
    z = np.arctanh(np.clip(matches.score[matches.index[:, 0] >= 0, 0], 0, CEILING))
    patients = len(np.unique(real.gallery.patient))
    if patients < 3 or len(z) < 3:
        return CEILING
    rate, confidence = policy.thresholds["false_match_rate"] / len(z), policy.thresholds["confidence"]
    level = stats.normal_threshold(z, max(2.0, patients / 2), rate, confidence, LEAST_SCALE)
    return float(min(np.tanh(level), CEILING))


def merge(patient: NDArray[np.int64], matches: Matches, tau_same: float) -> NDArray[np.int64]:
    """Give patients whose scans match at tau_same one number: the lowest of theirs."""
    owner = {int(p): int(p) for p in patient}

    def root(p: int) -> int:
        while owner[p] != p:
            p = owner[p]
        return p

    for row, column in np.argwhere((matches.score >= tau_same) & (matches.index >= 0)):
        a, b = root(int(patient[row])), root(int(patient[matches.index[row, column]]))
        owner[max(a, b)] = min(a, b)
    return np.array([root(int(p)) for p in patient])


def _against_others(real: RealScans, coarse: Coarse, rows: NDArray[np.int64]) -> Matches:
    """Match some real scans against the training scans of all other patients."""
    patient = real.gallery.patient
    allowed = torch.from_numpy((patient[rows, None] != patient[None]) & real.is_train[None])
    index = torch.from_numpy(rows)
    part = Features(*(field[index] for field in (real.features.intensity, real.features.fine, real.features.coarse)))
    found = Coarse(coarse.score[index], coarse.pose[index], coarse.shift[index])
    return refine(part, real.gallery, found, [allowed])[0]


def _assign(matches: Matches, rows: NDArray[np.int64], new: Matches) -> None:
    for field in ("index", "score", "mirror", "pose"):
        getattr(matches, field)[rows] = getattr(new, field)
