"""From matches to one score a sample: how much more alike it is to one patient than to the others it is most like.

Samples that are all average are like many patients, copies like one. Each of two spaces adds the embedding's similarity
to that of the registered scans, as a whole or in their best half, each in units of what it makes of people who differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.similarity import VIEWS, Matches

SPACES = {"whole": ("embedding", "registered", "linear"), "half": ("embedding", "half")}
OTHERS = 5  # patients after the best, whose mean is the background
CEILING = 0.9999  # of a correlation, before Fisher's transform
LOWEST = -1e9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Margins:
    """The best match of n queries by each of S pieces of evidence (arrays of shape (n, S)).

    Attributes
    ----------
    place : ndarray of int64
        Which of a query's candidates.
    scan, patient : ndarray of int64
        Of that candidate; -1 where a query has none.
    margin : ndarray
        Its evidence minus the mean evidence of the best matches of the next `OTHERS` patients; 0 where there is none
        to compare with.
    """

    place: NDArray[np.int64]
    scan: NDArray[np.int64]
    patient: NDArray[np.int64]
    margin: Floats


@dataclass(frozen=True)
class Best:
    """The best match of each query over the spaces (arrays of length n).

    Attributes
    ----------
    place : ndarray of int64
        Which of the query's candidates; see `similarity.Matches`.
    scan, patient : ndarray of int64
        -1 where a query has none.
    similarity : ndarray
        Registered correlation.
    score : ndarray
        The largest margin in units of its tau_id: a match from 1.
    """

    place: NDArray[np.int64]
    scan: NDArray[np.int64]
    patient: NDArray[np.int64]
    similarity: Floats
    score: Floats

    def __getitem__(self, rows: NDArray[np.int64]) -> Best:
        return Best(self.place[rows], self.scan[rows], self.patient[rows], self.similarity[rows], self.score[rows])


def fisher(matches: Matches) -> Floats:
    """Return Fisher's z of the similarities, shape (n, candidates, views)."""
    return np.arctanh(np.clip(matches.views, -CEILING, CEILING))


def margins(matches: Matches, patient: NDArray[np.int64], weights: Floats) -> Margins:
    """Weigh the evidence on each pair and take the best patient's over the others'.

    Parameters
    ----------
    matches : Matches
    patient : ndarray of int64, shape (G,)
        Patient of each gallery scan.
    weights : ndarray, shape (views, S)
        Of each view in each piece of evidence.
    """
    real = matches.index >= 0
    owner = np.where(real, patient[matches.index], -1)
    evidence = np.where(real[..., None], fisher(matches) @ weights, LOWEST)
    columns = [_margins(evidence[..., s], owner) for s in range(weights.shape[1])]
    place = np.stack([where for where, _ in columns], 1)
    margin = np.stack([value for _, value in columns], 1)
    rows = np.arange(len(owner))[:, None]
    return Margins(place, matches.index[rows, place], owner[rows, place], margin)


def _margins(evidence: Floats, owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    order = np.argsort(-evidence, axis=1, kind="stable")
    ranked, owners = np.take_along_axis(evidence, order, 1), np.take_along_axis(owner, order, 1)
    again = np.tril(owners[:, :, None] == owners[:, None, :], -1).any(2)
    others = ~again & (owners >= 0)
    others[:, 0] = False
    others &= np.cumsum(others, 1) <= OTHERS
    background = np.where(others, ranked, 0).sum(1) / np.maximum(others.sum(1), 1)
    return order[:, 0], np.where(others.any(1), ranked[:, 0] - background, 0.0)


def best(found: Margins, matches: Matches, tau: Floats) -> Best:
    """Take the space with the largest margin in units of its threshold, shape (S,)."""
    ratio = found.margin / tau
    rows, space = np.arange(len(ratio)), ratio.argmax(1)
    place = found.place[rows, space]
    registered = matches.views[rows, place, VIEWS.index("registered")]
    return Best(place, found.scan[rows, space], found.patient[rows, space], registered, ratio[rows, space])


def weigh(scale: Floats) -> Floats:
    """Return the weights of the spaces, shape (views, S), from the scale of each view's margins, shape (views,)."""
    weights = np.zeros((len(VIEWS), len(SPACES)))
    for s, views in enumerate(SPACES.values()):
        for view in views:
            weights[VIEWS.index(view), s] = 1 / scale[VIEWS.index(view)]
    return weights
