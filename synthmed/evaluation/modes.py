"""Does the synthetic set have a case for every kind of patient? Shares of k-means cells, set against set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from synthmed.evaluation.intervals import Array, Estimate
from synthmed.evaluation.sample import Sample, estimate

MOST = 10
CASES_A_MODE = 8


def centres_of(points: Array, *, rng: np.random.Generator) -> Array:
    """Return k-means centres of real cases, one for every `CASES_A_MODE`, from 2 to `MOST`; shape (K, D)."""
    count = int(np.clip(len(points) // CASES_A_MODE, 2, MOST))
    found, _ = kmeans2(points, count, iter=50, minit="++", seed=rng)
    return np.asarray(found)


def mode_coverage(x: Sample, y: Sample, centres: Array) -> Estimate:
    """Return sum_k min(p_k, q_k), the share of `y` that `x` has cases for, cell by cell.

    p and q are the shares of `x` and `y` whose nearest centre is k. 1 says that every kind of case is as frequent;
    a set that leaves a mode out loses that mode's share. It is 1 less the total variation of the two histograms.

    References
    ----------
    Richardson and Weiss 2018, "On GANs and GMMs", arXiv:1805.12462, section 3 (bins by k-means).
    """
    cells = _cells(x.points, centres), _cells(y.points, centres)

    def statistic(wx: Array, wy: Array) -> Array:
        p, q = (w @ cell / w.sum(axis=1, keepdims=True) for w, cell in zip((wx, wy), cells, strict=True))
        return np.asarray(np.minimum(p, q).sum(axis=1))

    return estimate(statistic, x, y).recentred(0.0, 1.0)


def _cells(points: Array, centres: Array) -> NDArray[np.float64]:
    return np.eye(len(centres))[vq(points, centres)[0]]
