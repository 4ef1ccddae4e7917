"""Whole-volume comparisons: correlations and distances over all voxels of the training set's common grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copies.datasets import Spacing, Volume
from copies.generators import common_grid, onto_grid

CHUNK = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Codes:
    """Correlations of scans with the real ones; each scan is a row of zero mean and unit norm.

    Attributes
    ----------
    train, holdout, queries : ndarray, shape (n | h | q, n + h)
        With each training scan, then with each held-out scan.
    members : int
        Number of training scans, n.
    """

    train: Floats
    holdout: Floats
    queries: Floats
    members: int

    def to_train(self, part: Floats) -> Floats:
        """Return the Euclidean distances to the training scans, shape (len(part), n)."""
        return distance(part[:, : self.members])

    def to_holdout(self, part: Floats) -> Floats:
        """Return the Euclidean distances to the held-out scans, shape (len(part), h)."""
        return distance(part[:, self.members :])


def encode(train: Sequence[Volume], holdout: Sequence[Volume], queries: Sequence[Volume]) -> Codes:
    """Bring all scans onto the training set's common grid and compare them, a chunk at a time."""
    shape, spacing = common_grid(train)
    real = np.concatenate([normalised(volumes, shape, spacing) for volumes in (train, holdout)])
    found = [rows @ real.T for rows in _chunks(queries, shape, spacing)]
    among = (real @ real.T).astype(np.float64)
    n = len(train)
    return Codes(among[:n], among[n:], np.concatenate(found).astype(np.float64), n)


def distance(correlation: Floats) -> Floats:
    """Return the Euclidean distance of unit vectors of that correlation."""
    return np.sqrt(np.maximum(2 - 2 * correlation, 0))


def normalised(volumes: Sequence[Volume], shape: tuple[int, ...], spacing: Spacing) -> NDArray[np.float32]:
    """Return scans on a grid as rows of zero mean and unit norm."""
    rows = np.stack([onto_grid(volume, shape, spacing).ravel() for volume in volumes])
    rows -= rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _chunks(volumes: Sequence[Volume], shape: tuple[int, ...], spacing: Spacing) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(volumes), CHUNK):
        yield normalised(volumes[start : start + CHUNK], shape, spacing)
