"""How alike are two scans, whatever their margins, intensities and pose: the search that every comparison uses.

The embedding proposes, by an exact inner-product search over all gallery scans, and so does a coarse search that needs
no atlas. The best candidates are registered to the query, from every pose that the two suggest, and correlated over
the content that both share: by the ranks of their intensities, as a whole and in halves, and by the intensities. These
similarities are the evidence on each pair; `margins` weighs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy.coarse import Coarse, coarse_search
from privacy.gallery import Gallery, Queries
from privacy.pairs import Pairs, compare
from privacy.stored import even_spans

BY_CODE, BY_COARSE, PER_PATIENT = 6, 4, 2
CANDIDATES = BY_CODE + BY_COARSE
SHORTLIST = 64  # scores of a row that are sorted before all of them are
BATCH = 16
NONE = -2.0  # below any correlation
VIEWS = ("embedding", "registered", "half", "linear")


@dataclass(frozen=True)
class Matches:
    """The candidates of each query, best by embedding first.

    Attributes
    ----------
    index : ndarray, shape (n, CANDIDATES), int64
        Gallery scan; -1 where there is none.
    views : ndarray, shape (n, CANDIDATES, 4)
        Correlations, one for each of `VIEWS`; -1 where there is none.
    mirror : ndarray, shape (n, CANDIDATES), int64
        Index into `poses.MIRRORS`: along which axes the query was mirrored.
    pose : ndarray, shape (n, CANDIDATES, 4, 4)
        From the gallery scan's fine grid to the mirrored query's.
    """

    index: NDArray[np.int64]
    views: NDArray[np.float64]
    mirror: NDArray[np.int64]
    pose: NDArray[np.float64]


@dataclass(frozen=True)
class Searched:
    """What a search of some queries found, whoever is whose: a search among other owners need not find it again.

    Attributes
    ----------
    coarse : Coarse
    pairs : Pairs or None
        Of the candidates; None where there were none.
    """

    coarse: Coarse
    pairs: Pairs | None


def match(queries: Queries, gallery: Gallery, sides: Sequence[Tensor]) -> list[Matches]:
    """Find the candidates of each query in each of several parts of the gallery.

    What is found in a part does not depend on the other parts; a pair that several parts share is registered once.

    Parameters
    ----------
    queries : Queries, n of them
    gallery : Gallery, of G scans
    sides : sequence of Tensor, shape (n, G), bool
        Which gallery scans each query may match.
    """
    batches = even_spans(len(queries.codes), BATCH)
    found = [match_batch(queries[rows], gallery, [side[rows] for side in sides])[0] for rows in batches]
    return [join(part) for part in zip(*found, strict=True)]


def join(parts: Sequence[Matches]) -> Matches:
    """Join the matches of several batches of queries."""
    fields = ("index", "views", "mirror", "pose")
    return Matches(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def match_batch(
    queries: Queries, gallery: Gallery, sides: Sequence[Tensor], before: Searched | None = None
) -> tuple[list[Matches], Searched]:
    """Do what `match` does for so few queries that all of their pairs are held at once.

    Parameters
    ----------
    queries, gallery, sides
        See `match`.
    before : Searched or None
        Of these very queries in this gallery, its patients perhaps numbered otherwise. Pairs are taken over where all
        candidates are the same, so that the last bit does not depend on it.
    """
    alike = likeness(queries.codes, gallery.codes[:, 0])
    coarse = before.coarse if before else coarse_search(queries.features.coarse, gallery.features.coarse)
    candidates = [
        few_a_patient(torch.where(side, alike, NONE), gallery.patient, BY_CODE)
        | few_a_patient(torch.where(side, coarse.score, NONE), gallery.patient, BY_COARSE)
        for side in sides
    ]
    rows, members = torch.stack(candidates).any(0).nonzero(as_tuple=True)
    if not len(rows):
        return [_no_matches(len(alike)) for _ in sides], Searched(coarse, None)
    known = before.pairs if before else None
    pairs = known if known and known.are(rows, members) else compare(queries, gallery, coarse, rows, members)
    views = torch.cat([alike[rows, members, None], pairs.views], 1)
    place = torch.full_like(alike, -1, dtype=torch.int64)
    place[rows, members] = torch.arange(len(rows))
    found = [_gather(torch.where(allowed, place, -1), views, pairs.mirror, pairs.pose) for allowed in candidates]
    return found, Searched(coarse, pairs)


def likeness(codes: Tensor, real: Tensor) -> Tensor:
    """Return how alike queries, codes of shape (n, H, D), and scans, (G, D), are in the best pose: shape (n, G)."""
    return (codes @ real.T).amax(1)


def few_a_patient(score: Tensor, patient: NDArray[np.int64], count: int) -> Tensor:
    """Mark the best `count` of each row above `NONE`, at most `PER_PATIENT` of one patient; on a tie the first.

    A row is sorted from its highest `SHORTLIST` scores, with all that tie with the last of them; the whole row only
    where these are of too few patients.
    """
    marked = torch.zeros_like(score, dtype=torch.bool)
    least = score.topk(min(SHORTLIST, score.shape[1]), dim=1).values[:, -1:]
    for row, (near, known) in enumerate(zip((score >= least) & (score > NONE), score > NONE, strict=True)):
        chosen = _few(score[row], near, patient, count)
        if len(chosen) < count:
            chosen = _few(score[row], known, patient, count)
        marked[row, chosen] = True
    return marked


def _few(score: Tensor, allowed: Tensor, patient: NDArray[np.int64], count: int) -> list[int]:
    """Return the best `count` members of a row among those allowed, at most `PER_PATIENT` of one patient."""
    members = allowed.nonzero()[:, 0]
    chosen: list[int] = []
    seen: dict[int, int] = {}
    for member in members[score[members].argsort(descending=True, stable=True)].tolist():
        owner = int(patient[member])
        if seen.get(owner, 0) < PER_PATIENT:
            seen[owner] = seen.get(owner, 0) + 1
            chosen.append(member)
        if len(chosen) == count:
            break
    return chosen


def _gather(place: Tensor, views: Tensor, mirror: Tensor, pose: Tensor) -> Matches:
    """Sort the candidates of each row, best first; `place` (n, G) says where each pair's values lie, or -1."""
    values = torch.where(place >= 0, views[place.clamp_min(0), 0], NONE)
    # No row has more candidates than these; in the gallery's order first, so that ties are broken by it.
    top = values.topk(min(CANDIDATES, values.shape[1]), dim=1).indices.sort(dim=1).values
    order = top.gather(1, values.gather(1, top).argsort(dim=1, descending=True, stable=True))
    at, real = place.gather(1, order), values.gather(1, order) > NONE
    matches, width = _no_matches(len(place)), order.shape[1]
    matches.index[:, :width] = torch.where(real, order, -1).numpy()
    matches.views[:, :width] = torch.where(real[..., None], views[at], -1.0).numpy()
    matches.mirror[:, :width] = mirror[at].numpy()
    matches.pose[:, :width] = pose[at].numpy()
    return matches


def _no_matches(n: int) -> Matches:
    shape = (n, CANDIDATES)
    views, poses = np.full((*shape, len(VIEWS)), -1.0), np.tile(np.eye(4), (*shape, 1, 1))
    return Matches(np.full(shape, -1), views, np.zeros(shape, np.int64), poses)
