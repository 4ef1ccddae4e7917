"""What the attacks look at: every comparison of an audit, made once, by the same search against the same gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy import stats
from privacy.attributes import Attributes
from privacy.cleaning import Cleaned
from privacy.codes import Codes
from privacy.margins import Best, best, margins, weigh
from privacy.policy import Policy
from privacy.similarity import VIEWS, Matches

LEAST_TAU = 1e-6
DRAWS = 200  # of the bootstrap of tau_id


@dataclass(frozen=True)
class Calibration:
    """Thresholds from real scans only, one for each space of `margins.SPACES`.

    Attributes
    ----------
    tau_id : ndarray, shape (S,)
        Margins that an honest set reaches with one sample or more at the policy's false-match rate, at most. Scores
        are in units of it.
    tau_id_interval : ndarray, shape (S, 2)
        95 % bootstrap interval over patients, as a share of tau_id.
    tau_null : float
        Score that 5 % of held-out patients reach.
    """

    tau_id: NDArray[np.float64]
    tau_id_interval: NDArray[np.float64]
    tau_null: float


@dataclass(frozen=True)
class Evidence:
    """Best matches of every set, and who is who.

    Attributes
    ----------
    samples, samples_holdout, samples_pooled : Best
        Each distinct sample against training, against holdout, and against both without telling them apart, the last
        with scores in no unit.
    null : Best
        Each held-out scan against training.
    null_train : Best
        Each training scan against the other training patients.
    null_patient : ndarray of int64
        Of `null`.
    train, holdout : ndarray of int64
        The patients on either side.
    scans : ndarray of int64
        How many scans each of these patients has among those that the pooled search looks at; training first.
    calibration : Calibration
    codes : Codes
    attributes : Attributes or None
        Of the codes' scans and samples, where a table was given.
    """

    samples: Best
    samples_holdout: Best
    samples_pooled: Best
    null: Best
    null_train: Best
    null_patient: NDArray[np.int64]
    train: NDArray[np.int64]
    holdout: NDArray[np.int64]
    scans: NDArray[np.int64]
    calibration: Calibration
    codes: Codes
    attributes: Attributes | None = None


def gather_evidence(
    cleaned: Cleaned,
    matches: Sequence[Matches],
    pooled: NDArray[np.bool_],
    codes: Codes,
    policy: Policy,
    rng: np.random.Generator,
) -> Evidence:
    """Calibrate on the real scans and score the samples.

    Parameters
    ----------
    cleaned : Cleaned
    matches : sequence of three Matches
        Of the samples with training, with the holdout, and with the pooled scans.
    pooled : ndarray of bool, shape (G,)
        The scans that the pooled search looks at.
    codes : Codes
    policy : Policy
    rng : Generator
        Of the bootstrap.
    """
    patient, is_train = cleaned.real.gallery.patient, cleaned.real.is_train
    calibration = calibrate(cleaned, len(matches[0].index), policy, rng)
    scored = [best(margins(m, patient, cleaned.weights), m, calibration.tau_id) for m in matches[:2]]
    # Weights and thresholds come from training and holdout; where the two are not told apart, they must not either.
    blind = weigh(np.ones(len(VIEWS)))
    scored.append(best(margins(matches[2], patient, blind), matches[2], np.ones(blind.shape[1])))
    null = null_rows(cleaned)
    real = best(cleaned.found, cleaned.matches, calibration.tau_id)
    train, holdout = np.unique(patient[is_train]), np.unique(patient[~is_train & cleaned.kept])
    scans = np.array([(patient[pooled] == owner).sum() for owner in (*train, *holdout)], dtype=np.int64)
    return Evidence(
        samples=scored[0],
        samples_holdout=scored[1],
        samples_pooled=scored[2],
        null=real[null],
        null_train=real[np.flatnonzero(cleaned.usable & is_train)],
        null_patient=patient[null],
        train=train,
        holdout=holdout,
        scans=scans,
        calibration=calibration,
        codes=codes,
    )


def null_rows(cleaned: Cleaned) -> NDArray[np.int64]:
    """Return the held-out scans that say what a person who was never in training looks like; all scans without any."""
    null = np.flatnonzero(cleaned.usable & ~cleaned.real.is_train)
    return null if len(null) else np.flatnonzero(cleaned.usable)


def calibrate(cleaned: Cleaned, samples: int, policy: Policy, rng: np.random.Generator) -> Calibration:
    """Place the thresholds for a set of so many distinct samples.

    Held-out scans against training and training scans against the other training patients are pooled: both are people
    who differ.
    """
    rows = np.flatnonzero(cleaned.usable)
    patient, found = cleaned.real.gallery.patient, cleaned.found.margin
    if not len(rows):
        spaces = found.shape[1]
        return Calibration(np.full(spaces, np.inf), np.ones((spaces, 2)), np.inf)
    rate = policy.thresholds["false_match_rate"] / max(samples, 1) / found.shape[1]
    tau = _taus(found[rows], patient[rows], rate, policy)
    draws = np.stack([_taus(*_drawn(found[rows], patient[rows], rng), rate, policy) for _ in range(DRAWS)])
    null = null_rows(cleaned)
    scores = (found[null] / tau).max(1)
    tau_null = stats.weighted_quantile(scores, stats.patient_weights(patient[null]), 0.95)
    return Calibration(tau, (np.quantile(draws, [0.025, 0.975], axis=0) / tau).T, tau_null)


def _taus(found: NDArray[np.float64], patient: NDArray[np.int64], rate: float, policy: Policy) -> NDArray[np.float64]:
    weight, confidence = stats.patient_weights(patient), policy.thresholds["confidence"]
    taus = [stats.tail_threshold(column, weight, rate, confidence) for column in found.T]
    return np.maximum(taus, LEAST_TAU)


def _drawn(
    found: NDArray[np.float64], patient: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw patients with replacement, each with all their scans."""
    owners, inverse = np.unique(patient, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(inverse))])
    chosen = rng.integers(len(owners), size=len(owners))
    rows = np.concatenate([order[starts[owner] : starts[owner + 1]] for owner in chosen])
    return found[rows], np.repeat(np.arange(len(chosen)), np.diff(starts)[chosen])
