"""Do synthetic cases lie among real ones, and real ones among synthetic ones? Four shares, from nearest neighbours.

A set's manifold is the union of balls about its cases, each reaching to the case's k-th nearest neighbour of another
patient. The bootstrap resamples the cases that are judged; the other set's manifold stays as it is, because a case that
is drawn twice would be its own nearest neighbour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from synthmed.evaluation.intervals import Array, Estimate, case_mean
from synthmed.evaluation.sample import Sample, differ

NEIGHBOURS = 3
"""For precision and recall, as in their source."""
DENSITY_NEIGHBOURS = 5
"""For density and coverage, as in their source."""


def precision_and_recall(x: Sample, y: Sample, k: int = NEIGHBOURS) -> tuple[Estimate, Estimate]:
    """Return the share of `x` inside the manifold of `y`, and the share of `y` inside the manifold of `x`.

    Parameters
    ----------
    x : Sample
        Synthetic cases, or real ones in their place.
    y : Sample
        Real cases.

    References
    ----------
    Kynkaanniemi et al. 2019, "Improved precision and recall metric", arXiv:1904.06991, equations 1 and 2.
    """
    apart = cdist(x.points, y.points)
    inside = np.any(apart <= _radii(y, k)[None, :], axis=1)
    reached = np.any(apart <= _radii(x, k)[:, None], axis=0)
    return _share(inside, x), _share(reached, y)


def density_and_coverage(x: Sample, y: Sample, k: int = DENSITY_NEIGHBOURS) -> tuple[Estimate, Estimate]:
    """Return how many balls of `y` hold a case of `x`, over k, and the share of balls of `y` that hold one at all.

    References
    ----------
    Naeem et al. 2020, "Reliable fidelity and diversity metrics", arXiv:2002.09797, equations 6 and 7.
    """
    held = cdist(x.points, y.points) <= _radii(y, k)[None, :]
    return _share(np.sum(held, axis=1) / k, x), _share(np.any(held, axis=0), y)


def _share(values: Any, of: Sample) -> Estimate:
    numbers = values.astype(np.float64)
    return Estimate(float(numbers.mean()), case_mean(numbers, of.weights))


def _radii(of: Sample, k: int) -> Array:
    """Return the distance of each case to its k-th nearest of other patients, or to the last where there are fewer."""
    apart = np.where(differ(of.patients) > 0, cdist(of.points, of.points), np.inf)
    ordered = np.sort(apart, axis=1)[:, :k]
    return np.where(np.isfinite(ordered), ordered, -np.inf).max(axis=1)
