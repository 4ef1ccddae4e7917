"""What the attacks look at: every comparison of an audit, made once, by the same search against the same gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy import stats
from privacy.policy import Policy
from privacy.similarity import Best


@dataclass(frozen=True)
class Calibration:
    """Thresholds from real scans only, on the scale of the margin (`similarity.Best`).

    Attributes
    ----------
    tau_null : float
        Level that 5 % of held-out patients reach.
    tau_id : float
        Level that an honest set reaches with one sample or more at the policy's false-match rate, at most.
    tau_id_interval : tuple of float
        95 % bootstrap interval of tau_id, over patients.
    tau_same : float
        Similarity from which two scans under different names are held to be one.
    """

    tau_null: float
    tau_id: float
    tau_id_interval: tuple[float, float]
    tau_same: float


@dataclass(frozen=True)
class Evidence:
    """Best matches of every set, and who is who.

    Attributes
    ----------
    samples, samples_holdout, samples_pooled : Best
        Each distinct sample against training, against holdout, and against both without telling them apart.
    null : Best
        Each held-out scan against training.
    null_patient : ndarray of int64
    train, holdout : ndarray of int64
        The patients on either side.
    calibration : Calibration
    """

    samples: Best
    samples_holdout: Best
    samples_pooled: Best
    null: Best
    null_patient: NDArray[np.int64]
    train: NDArray[np.int64]
    holdout: NDArray[np.int64]
    calibration: Calibration


def calibrate(
    null: tuple[NDArray[np.float64], NDArray[np.int64]],
    inner: tuple[NDArray[np.float64], NDArray[np.int64]],
    tau_same: float,
    samples: int,
    policy: Policy,
    rng: np.random.Generator,
) -> Calibration:
    """Place the thresholds.

    Parameters
    ----------
    null, inner : tuple of (margins, patients)
        Held-out scans against training; training scans against the other training patients.
    tau_same : float
    samples : int
        Number of distinct samples to be judged.
    policy : Policy
    rng : Generator
    """
    rate = policy.thresholds["false_match_rate"] / max(samples, 1)
    means = np.concatenate([_patient_means(*null), _patient_means(*inner)])
    if len(means) < 2 or means.mean() <= 0:
        top = float(np.arctanh(0.99999))
        return Calibration(top, top, (top, top), tau_same)
    # Training patients are compared with each other, which counts every pair twice.
    outer = len(np.unique(null[1]))
    effective = outer + (len(means) - outer) / 2
    confidence = policy.thresholds["confidence"]
    tau_id = stats.exponential_threshold(float(means.mean()), effective, rate, confidence)
    draws = means[rng.integers(len(means), size=(2000, len(means)))].mean(1)
    levels = [
        stats.exponential_threshold(float(q), effective, rate, confidence) for q in np.quantile(draws, [0.025, 0.975])
    ]
    margins, owners = null if outer else inner
    tau_null = stats.weighted_quantile(margins, stats.patient_weights(owners), 0.95)
    return Calibration(tau_null, tau_id, (levels[0], levels[1]), tau_same)


def _patient_means(margins: NDArray[np.float64], patient: NDArray[np.int64]) -> NDArray[np.float64]:
    owners, inverse = np.unique(patient, return_inverse=True)
    return np.bincount(inverse, margins, minlength=len(owners)) / np.maximum(
        np.bincount(inverse, minlength=len(owners)), 1
    )
