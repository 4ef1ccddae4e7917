"""How the scores of an audit lie: counts by bin, which a release may carry, for they tell of nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.evidence import Evidence

BINS = 24


def score_distributions(evidence: Evidence) -> dict[str, Any]:
    """Count scores by bin: of the samples, and of the real scans that show what chance gives.

    Returns
    -------
    dict
        ``edges``, the `BINS` + 1 bounds in units of tau_id, which hold every score and 1; ``counts``, one list a set:
        samples and held-out scans to training, training scans to the other training patients, samples to held-out
        patients.
    """
    scores = {
        "samples_to_training": evidence.samples.score,
        "samples_to_holdout": evidence.samples_holdout.score,
        "holdout_to_training": evidence.null.score,
        "training_to_training": evidence.null_train.score,
    }
    edges = bin_edges(np.concatenate([np.zeros(1), np.ones(1), *scores.values()]))
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in scores.items()}
    return {"edges": edges.tolist(), "counts": counts}


def bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `BINS` + 1 equidistant bounds of few digits that hold every value, shape (B + 1,)."""
    low, high = float(values.min()), float(values.max())
    digits = 3 - int(np.floor(np.log10((high - low) / BINS)))
    width = np.ceil((high - low) * 1.02 / BINS * 10**digits) / 10**digits
    start = np.floor(low * 10**digits) / 10**digits
    return np.round(start + width * np.arange(BINS + 1), digits)
