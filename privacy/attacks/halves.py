"""What an adversary who holds half of a scan can do: cut pictures in two, and find the samples nearest to a half."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]

GAP = 1  # voxels left out on either side of the cut: local normalisation mixes neighbours
BLOCK = 4_000_000  # similarities held at a time


def halves(views: Pictures) -> tuple[Pictures, Pictures]:
    """Cut pictures across their longest axis into two parts that share nothing.

    Parameters
    ----------
    views : ndarray, shape (n, D, H, W)

    Returns
    -------
    first, second : ndarray, shape (n, v)
    """
    axis = 1 + int(np.argmax(views.shape[1:]))
    size = views.shape[axis]
    part = max(1, size // 2 - GAP)
    cuts = (np.arange(part), np.arange(size - part, size))
    first, second = (np.take(views, cut, axis).reshape(len(views), -1) for cut in cuts)
    return first, second


def unit(parts: Pictures) -> Pictures:
    """Return each row centred and of length one, so that inner products are correlations; constant rows become 0."""
    centred = parts - parts.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-6)


def nearest(queries: Pictures, samples: Pictures, count: int) -> NDArray[np.int64]:
    """Find the samples most alike to each query by inner product, most alike first.

    Parameters
    ----------
    queries, samples : ndarray, shape (G, v) and (n, v)
    count : int

    Returns
    -------
    ndarray of int64, shape (G, min(count, n))
        On a tie the first.
    """
    count = min(count, len(samples))
    score = np.zeros((len(queries), 0), np.float32)
    index = np.zeros((len(queries), 0), np.int64)
    size = max(count, BLOCK // max(len(queries), 1))
    for start in range(0, len(samples), size):
        fresh = queries @ samples[start : start + size].T
        first = _highest(fresh, count)
        score = np.concatenate([score, np.take_along_axis(fresh, first, 1)], 1)
        index = np.concatenate([index, start + first], 1)
        order = _highest(score, count)
        score, index = np.take_along_axis(score, order, 1), np.take_along_axis(index, order, 1)
    return index


def _highest(score: Pictures, count: int) -> NDArray[np.int64]:
    """Return the places of the highest `count` of each row, highest first; on a tie the first."""
    if count == 1:
        return score.argmax(1, keepdims=True)
    return np.argsort(-score, axis=1, kind="stable")[:, :count]
