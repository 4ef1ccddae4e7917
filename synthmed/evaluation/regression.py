"""How one number follows another, or a class: slope, correlation and area under the curve, with bootstrap draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from synthmed.evaluation.intervals import Array, Estimate
from synthmed.evaluation.sample import Sample


def slope(x: Array, y: Array, sample: Sample) -> Estimate:
    """Return the least-squares slope of y on x, shapes (N,).

    Parameters
    ----------
    sample : Sample
        Whose weights resample the cases.
    """
    moments = [_moments(x, y, w) for w in (sample.once, sample.weights)]
    value, draws = (_divide(m[1], m[0]) for m in moments)
    return Estimate(float(value[0]), draws)


def correlation(x: Array, y: Array, sample: Sample) -> Estimate:
    """Return Pearson's correlation of x and y, shapes (N,)."""
    moments = [_moments(x, y, w) for w in (sample.once, sample.weights)]
    value, draws = (_divide(m[1], np.sqrt(np.maximum(m[0] * m[2], 0))) for m in moments)
    return Estimate(float(value[0]), draws)


def mean_absolute_error(x: Array, y: Array, sample: Sample) -> Estimate:
    """Return the mean of |y - x|, shapes (N,)."""
    apart = np.abs(y - x)
    value, draws = (w @ apart / w.sum(axis=1) for w in (sample.once, sample.weights))
    return Estimate(float(value[0]), draws)


def accuracy(target: NDArray[np.int64], chances: Array, sample: Sample) -> Estimate:
    """Return the mean over classes of the share of a class's cases that are given it (balanced accuracy).

    Parameters
    ----------
    target : ndarray, shape (N,), class index
    chances : ndarray, shape (N, K)
    """
    right = (chances.argmax(axis=1) == target).astype(np.float64)

    def of(weights: Array) -> Array:
        rates = [_divide(weights @ (right * (target == k)), weights @ (target == k)) for k in np.unique(target)]
        return np.asarray(np.mean(rates, axis=0))

    return Estimate(float(of(sample.once)[0]), of(sample.weights))


def class_auc(target: NDArray[np.int64], chances: Array, sample: Sample) -> Estimate:
    """Return the mean over classes of the area under the curve of a class against the others.

    References
    ----------
    Fawcett 2006, doi 10.1016/j.patrec.2005.10.010, section 10 (one class against the rest).
    """

    def of(weights: Array) -> Array:
        areas = [_auc(target == k, chances[:, k], weights) for k in np.unique(target)]
        return np.asarray(np.mean(areas, axis=0))

    return Estimate(float(of(sample.once)[0]), of(sample.weights))


def _auc(inside: NDArray[np.bool_], score: Array, weights: Array) -> Array:
    ahead = score[inside][:, None] - score[~inside][None, :]
    won = (ahead > 0) + 0.5 * (ahead == 0)
    first, second = weights[:, inside], weights[:, ~inside]
    return _divide(((first @ won) * second).sum(axis=1), first.sum(axis=1) * second.sum(axis=1))


def _moments(x: Array, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return variance of x, covariance and variance of y for each row of weights."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = shares @ x, shares @ y
    return shares @ x**2 - mean_x**2, shares @ (x * y) - mean_x * mean_y, shares @ y**2 - mean_y**2


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(len(b), np.nan), where=b > 1e-12)
