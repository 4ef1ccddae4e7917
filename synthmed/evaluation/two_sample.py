"""Can a classifier tell two sets apart? 0.5 says no."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from synthmed.evaluation.intervals import Array, Estimate, pair_mean
from synthmed.evaluation.sample import Sample, estimate

FOLDS = 5
PENALTY = 1.0
NEWTON_STEPS = 12


def two_sample_auc(x: Sample, y: Sample, *, rng: np.random.Generator) -> Estimate:
    """Return the area under the curve of a classifier that tells `x` from `y`, on cases that it was not fitted to.

    Logistic regression, cross-validated; a patient's scans are in one fold, and scores are compared within a fold
    alone, since each fold has a classifier of its own. The bootstrap resamples patients, not classifiers.

    References
    ----------
    Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests", arXiv:1610.06545, section 2 (there the
    accuracy).
    """
    fold_x, fold_y = folds(x.patients, rng=rng), folds(y.patients, rng=rng)
    points = rotated(np.concatenate([x.points, y.points]))
    fold, target = np.concatenate([fold_x, fold_y]), np.repeat([1.0, 0.0], [len(x), len(y)])
    score = np.zeros(len(points))
    for index in range(FOLDS):
        test = fold == index
        if test.any():
            score[test] = decision(points[test], logistic_regression(points[~test], target[~test]))
    ahead = score[: len(x), None] - score[None, len(x) :]
    won = (ahead > 0) + 0.5 * (ahead == 0)
    together = (fold_x[:, None] == fold_y[None, :]).astype(np.float64)
    return estimate(lambda wx, wy: pair_mean(won, wx, wy, together), x, y)


def folds(patients: tuple[str, ...], *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal patients to `FOLDS` folds of nearly equal size; return each case's fold."""
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    dealt = np.arange(len(names)) % FOLDS
    return np.asarray(rng.permutation(dealt)[member])


def rotated(points: Array) -> Array:
    """Return points in the coordinates of their own span, at most N of them, scaled by 1 / sqrt(D).

    A ridge penalty does not see the rotation, so nothing is lost where D is above N.
    """
    centred = points - points.mean(axis=0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left * scales / np.sqrt(points.shape[1]))


def logistic_regression(points: Array, target: Array, penalty: float = PENALTY) -> Array:
    """Return intercept and weights that minimise log loss + penalty / 2 |weights|^2, by Newton's method.

    Parameters
    ----------
    points : ndarray, shape (N, D)
    target : ndarray, shape (N,), 0 or 1

    References
    ----------
    Hastie, Tibshirani and Friedman 2009, The elements of statistical learning, section 4.4.1, equation 4.26.
    """
    columns = np.concatenate([np.ones((len(points), 1)), points], axis=1)
    ridge = np.full(columns.shape[1], penalty)
    ridge[0] = 1e-6  # the intercept is free
    weights = np.zeros(columns.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = expit(columns @ weights)
        slope = columns.T @ (target - chance) - ridge * weights
        curvature = (columns.T * (chance * (1 - chance))) @ columns + np.diag(ridge)
        weights = weights + np.linalg.solve(curvature, slope)
    return weights


def decision(points: Array, weights: Array) -> Array:
    """Return the log odds of each point."""
    return np.asarray(weights[0] + points @ weights[1:])
