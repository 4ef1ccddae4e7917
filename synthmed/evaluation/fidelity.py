"""How close synthetic volumes are to real ones, in one space of features.

Every figure comes with the real-against-real floor, training patients in the place of the synthetic set at the same
number of cases, because neither value means anything alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthmed.evaluation.distances import frechet, kid, kid_noise, kid_ratio
from synthmed.evaluation.features import LEAST_SD, standardiser_of
from synthmed.evaluation.intervals import Array, Estimate, beside
from synthmed.evaluation.manifold import density_and_coverage, precision_and_recall
from synthmed.evaluation.modes import centres_of, mode_coverage
from synthmed.evaluation.sample import Sample, sample_of
from synthmed.evaluation.two_sample import two_sample_auc

COMPONENTS = 16


def distances(
    synthetic: Array,
    train: Array,
    holdout: Array,
    train_groups: Sequence[str],
    holdout_groups: Sequence[str],
    *,
    seed: int,
) -> dict[str, Any]:
    """Compare the synthetic set with the held-out one, beside the training set with the held-out one.

    Both sides use the same number of cases, `n`. Features are standardised by all real cases. The Frechet distance
    is taken on their leading principal components, each of unit variance among real cases, since a covariance needs
    more cases than dimensions; the other figures see all features, because what a generator adds or lacks (noise,
    sharpness) may lie where real scans hardly differ.

    Parameters
    ----------
    synthetic, train, holdout : ndarray, shape (N, D)
        Raw features.
    train_groups, holdout_groups : sequence of str
        Patients.

    Returns
    -------
    dict
        ``n``, ``n_holdout``, ``dimensions``, ``components`` and, for each of kid, frechet, precision, recall, density,
        coverage, auc and modes, ``synthetic``, ``floor`` and ``ratio`` of the two.
    """
    rng = np.random.default_rng(seed)
    standardise = standardiser_of(np.concatenate([train, holdout]))
    n = min(len(synthetic), len(train))
    s = np.sort(rng.permutation(len(synthetic))[:n])
    t = np.sort(rng.permutation(len(train))[:n])
    judge = sample_of(standardise(holdout), holdout_groups, rng=rng)
    drawn = sample_of(standardise(synthetic[s]), [f"synthetic {i}" for i in s], rng=rng)
    known = sample_of(standardise(train[t]), [train_groups[i] for i in t], rng=rng)
    real = sample_of(standardise(np.concatenate([train, holdout])), [*train_groups, *holdout_groups], rng=rng)
    noise, centres = kid_noise(real, n, len(holdout)), centres_of(real.points, rng=rng)
    axes = whitening_of(real.points)
    found, floor = (_figures(part, judge, centres, axes, rng) for part in (drawn, known))
    ratios = {
        "kid": kid_ratio(drawn, known, judge, noise),
        "frechet": found["frechet"].over(floor["frechet"]).recentred(least=0.0),
    }
    for part in (found, floor):
        part["frechet"] = part["frechet"].recentred(least=0.0)
    result: dict[str, Any] = {"n": n, "n_holdout": len(holdout), "dimensions": train.shape[1]}
    result["components"] = axes.shape[1]
    return result | {name: beside(found[name], floor[name], ratios.get(name)) for name in found}


def _figures(x: Sample, y: Sample, centres: Array, axes: Array, rng: np.random.Generator) -> dict[str, Estimate]:
    precision, recall = precision_and_recall(x, y)
    density, coverage = density_and_coverage(x, y)
    return {
        "kid": kid(x, y),
        "frechet": frechet(*(part.seen_by(lambda points: points @ axes) for part in (x, y))),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "modes": mode_coverage(x, y, centres),
        "auc": two_sample_auc(x, y, rng=rng),
    }


def whitening_of(features: Array, components: int = COMPONENTS) -> Array:
    """Return the projection to leading principal components of unit variance, shape (D, at most `components`).

    Parameters
    ----------
    features : ndarray, shape (N, D)
    """
    _, scales, rows = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    kept = min(components, len(features) - 1)
    sd = np.maximum(scales[:kept] / np.sqrt(len(features)), LEAST_SD)
    return rows[:kept].T / sd
