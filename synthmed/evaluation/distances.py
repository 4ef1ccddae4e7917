"""Kernel and Frechet distance of two sets of features, each with its bootstrap draws."""

from __future__ import annotations

import numpy as np

from synthmed.evaluation.intervals import Array, Estimate, pair_mean
from synthmed.evaluation.sample import Sample, differ, estimate


def kid(x: Sample, y: Sample) -> Estimate:
    """Return the unbiased kernel distance (MMD squared) of two sets.

    The kernel is k(a, b) = (a.b / D + 1)^3. Pairs of scans of one patient are left out, as each scan's pair with
    itself is: neither is a pair of independent draws.

    References
    ----------
    Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401, equations 3 and 4.
    """
    return _mmd_squared(x, y, differ(x.patients), differ(y.patients))


def biased_kid(x: Sample, y: Sample) -> Estimate:
    """Return the V-statistic of the same distance, all pairs included: never below 0, and above it by chance."""
    return _mmd_squared(x, y, np.ones((len(x), len(x))), np.ones((len(y), len(y))))


def kid_noise(real: Sample, n: int, m: int) -> float:
    """Return what the biased (V-statistic) kernel distance of two sets of n and m independent real cases expects.

    A perfect generator's biased MMD squared is not 0 but (1/n + 1/m) (E k(x, x) - E k(x, x')), the sampling noise of
    sets of that size (Gretton et al. 2012, "A kernel two-sample test", JMLR 13, equation 5 and appendix A.2: the terms
    i = j that the unbiased form leaves out).
    """
    values = _kernel(real.points, real.points)
    apart = pair_mean(values, real.once, real.once, differ(real.patients))[0]
    return float((1 / n + 1 / m) * (np.diag(values).mean() - apart))


def kid_ratio(synthetic: Sample, floor: Sample, y: Sample, noise: float) -> Estimate:
    """Return how many times its floor a kernel distance is: 1 for a perfect generator.

    Unbiased distances have no ratio, as the floor's expectation is 0 and its sign is chance. With the sampling noise
    of `kid_noise` added both become V-statistics, which are positive: (KID + noise) / (floor's KID + noise). The noise
    is that of real cases on both sides, so that a set with too little variety does not gain by its smaller diagonal.
    The interval is that of the ratio of V-statistics, moved to the value. A ratio of 2 says that the synthetic set is
    as far away as chance alone puts a real set of the same size; it grows with the number of cases, which is stated
    beside it.
    """
    value = kid(synthetic, y).plus(noise).over(kid(floor, y).plus(noise)).value
    draws = biased_kid(synthetic, y).over(biased_kid(floor, y)).draws
    return Estimate(value, draws).recentred(least=0.0)


def frechet_distance(x: Array, y: Array, wx: Array | None = None, wy: Array | None = None) -> float:
    """Return |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) of two sets of features.

    Parameters
    ----------
    x, y : ndarray, shapes (N, D) and (M, D)
    wx, wy : ndarray, shapes (N,) and (M,), optional
        Case weights.

    References
    ----------
    Dowson and Landau 1982, doi 10.1016/0047-259X(82)90077-X, equation 4; Heusel et al. 2017, arXiv:1706.08500.
    """
    mean_x, cov_x = np.average(x, axis=0, weights=wx), np.atleast_2d(np.cov(x.T, bias=True, aweights=wx))
    mean_y, cov_y = np.average(y, axis=0, weights=wy), np.atleast_2d(np.cov(y.T, bias=True, aweights=wy))
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def frechet(x: Sample, y: Sample) -> Estimate:
    """Return the Frechet distance.

    It is biased upwards at small n, and more so in a bootstrap: recentre its draws. Compare only with a floor of the
    same n.
    """
    draws = [frechet_distance(x.points, y.points, a, b) for a, b in zip(x.weights, y.weights, strict=True)]
    return Estimate(frechet_distance(x.points, y.points), np.asarray(draws))


def _mmd_squared(x: Sample, y: Sample, among_x: Array, among_y: Array) -> Estimate:
    """Return MMD squared over the pairs that the masks allow within each set."""
    kernels = _kernel(x.points, x.points), _kernel(y.points, y.points), _kernel(x.points, y.points)

    def statistic(wx: Array, wy: Array) -> Array:
        within_x, within_y = pair_mean(kernels[0], wx, wx, among_x), pair_mean(kernels[1], wy, wy, among_y)
        return within_x + within_y - 2 * pair_mean(kernels[2], wx, wy, np.ones(kernels[2].shape))

    return estimate(statistic, x, y)


def _kernel(a: Array, b: Array) -> Array:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)
