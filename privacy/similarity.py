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

from privacy.atlas import Laid
from privacy.coarse import Coarse, coarse_search
from privacy.embedding import Embedding
from privacy.features import COARSE_STEP, INNER, OUTER_FINE, Features, Space, mask_shares, normalise_locally
from privacy.poses import SIGNS, mirror_all
from privacy.registration import INSIDE, MIN_OVERLAP, Template, build_template, grid_points, register, sample

FINE_POINTS, COARSE_POINTS = 4000, 1500
STEPS = 8
BY_CODE, BY_COARSE, PER_PATIENT = 6, 4, 2
CANDIDATES = BY_CODE + BY_COARSE
SHORTLIST = 64  # scores of a row that are sorted before all of them are
BATCH = 32
PAIRS = 8  # compared at a time: what the processor's cache holds
NONE = -2.0  # below any correlation
VIEWS = ("embedding", "registered", "half", "linear")
INNER_LINEAR, OUTER_LINEAR = 2.0, 6.0  # widths of the neighbourhoods of the linear view, voxels


@dataclass(frozen=True)
class Gallery:
    """What queries are searched in: G real scans.

    Attributes
    ----------
    space : Space
    embedding : Embedding
    patient : ndarray of int64, shape (G,)
        Which patient each belongs to.
    features : Features
    fine, coarse : Template
    codes : Tensor, shape (G, H, D)
        One code for each pose over the atlas, the best first.
    laid : Laid
    """

    space: Space
    embedding: Embedding
    patient: NDArray[np.int64]
    features: Features
    fine: Template
    coarse: Template
    codes: Tensor
    laid: Laid

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def queries(self) -> Queries:
        """The scans of the gallery as queries."""
        return Queries(self.features, self.codes, self.laid)


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
class Queries:
    """Scans to be searched for, with their codes, shape (n, H, D), and poses over the atlas."""

    features: Features
    codes: Tensor
    laid: Laid

    def __getitem__(self, rows: slice) -> Queries:
        laid = Laid(self.laid.mirror[rows], self.laid.pose[rows], self.laid.score[rows])
        return Queries(self.features[rows], self.codes[rows], laid)


def build_gallery(features: Features, patient: NDArray[np.int64], space: Space, embedding: Embedding) -> Gallery:
    """Prepare real scans to be searched in."""
    fine = build_template(features.fine[:, 0], features.fine[:, 1], FINE_POINTS)
    coarse = build_template(features.coarse[:, 0], features.coarse[:, 1], COARSE_POINTS)
    return Gallery(space, embedding, patient, features, fine, coarse, *embedding.encode(features))


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
    parts: list[list[Matches]] = [[] for _ in sides]
    for start in range(0, len(queries.codes), BATCH):
        rows = slice(start, start + BATCH)
        batch = _match_batch(queries[rows], gallery, [side[rows] for side in sides])
        for part, matches in zip(parts, batch, strict=True):
            part.append(matches)
    return [join(part) for part in parts]


def join(parts: list[Matches]) -> Matches:
    """Join the matches of several batches of queries."""
    fields = ("index", "views", "mirror", "pose")
    return Matches(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def joint_correlation(fixed: Tensor, moving: Tensor, pose: Tensor) -> Tensor:
    """Correlate pairs of scans over the content they share, each normalised within it.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, 3, D, H, W), float32
        Ranks, intensities and content mask.
    pose : Tensor, shape (B, 4, 4)
        From the fixed grid to the moving one.

    Returns
    -------
    Tensor, shape (B, 3)
        Of fine detail in the ranks, over everything and over the best of the six halves on either side of the grid's
        centre; and of coarse detail in the intensities, where the brightest organs weigh most and noise least. Scaled
        down in proportion where less than half of the smaller content is shared.
    """
    shape = fixed.shape[2:]
    points = grid_points((shape[0], shape[1], shape[2]))
    ranks, linear, inside = sample(moving, pose, points).view(-1, 3, *shape).unbind(1)
    shared = (inside > INSIDE).float() * fixed[:, 2]
    parts = torch.cat([torch.ones(1, len(points)), (points.T < 0).float(), (points.T > 0).float()]).T
    fine = _correlate(fixed[:, 0], ranks, shared, (INNER, OUTER_FINE), parts)
    coarse = _correlate(fixed[:, 1], linear, shared, (INNER_LINEAR, OUTER_LINEAR), parts[:, :1])
    area = torch.minimum(fixed[:, 2].flatten(1).sum(1), moving[:, 2].flatten(1).sum(1))
    covered = (shared.flatten(1).sum(1) / (MIN_OVERLAP * area).clamp_min(1)).clamp(max=1)
    return torch.stack([fine[:, 0], fine[:, 1:].amax(1), coarse[:, 0]], 1) * covered[:, None]


def _correlate(fixed: Tensor, moved: Tensor, shared: Tensor, widths: tuple[float, float], parts: Tensor) -> Tensor:
    """Correlate pairs over each of several parts of the grid, a column of `parts` each; shape (B, parts)."""
    shares = mask_shares(shared, *widths)
    a = normalise_locally(fixed, shared, *widths, shares).flatten(1)
    b = normalise_locally(moved, shared, *widths, shares).flatten(1)
    energy = ((a * a) @ parts) * ((b * b) @ parts)
    return ((a * b) @ parts) / energy.clamp_min(1e-12).sqrt()


def _match_batch(queries: Queries, gallery: Gallery, sides: Sequence[Tensor]) -> list[Matches]:
    alike = likeness(queries.codes, gallery.codes[:, 0])
    coarse = coarse_search(queries.features.coarse, gallery.coarse)
    candidates = [
        few_a_patient(torch.where(side, alike, NONE), gallery.patient, BY_CODE)
        | few_a_patient(torch.where(side, coarse.score, NONE), gallery.patient, BY_COARSE)
        for side in sides
    ]
    rows, members = torch.stack(candidates).any(0).nonzero(as_tuple=True)
    if not len(rows):
        return [_no_matches(len(alike)) for _ in sides]
    mirror, pose = _register(queries, gallery, coarse, rows, members)
    parts = [
        joint_correlation(
            gallery.features.intensity[members[few]],
            mirror_all(queries.features.intensity[rows[few]], mirror[few]),
            pose[few],
        )
        for few in torch.arange(len(rows)).split(PAIRS)
    ]
    views = torch.cat([alike[rows, members, None], torch.cat(parts)], 1)
    place = torch.full_like(alike, -1, dtype=torch.int64)
    place[rows, members] = torch.arange(len(rows))
    return [_gather(torch.where(allowed, place, -1), views, mirror, pose) for allowed in candidates]


def _register(
    queries: Queries, gallery: Gallery, coarse: Coarse, rows: Tensor, members: Tensor
) -> tuple[Tensor, Tensor]:
    """Register pairs from every pose that the atlas, the coarse search and the files suggest; return the best one."""
    scans, laid = queries.features, queries.laid
    starts = [start_poses(laid, h, gallery.laid, rows, members) for h in range(laid.mirror.shape[1])]
    starts += [coarse.poses(rows, members), as_given(scans, gallery.features, rows, members)]
    tried = [
        register(gallery.coarse, members, mirror_all(scans.coarse[rows], mirror), pose, STEPS)
        for mirror, pose in starts
    ]
    best = torch.stack([score for score, _ in tried], 1).argmax(1)
    pairs = torch.arange(len(rows))
    mirror = torch.stack([mirror for mirror, _ in starts], 1)[pairs, best]
    pose = torch.stack([pose for _, pose in tried], 1)[pairs, best]
    pose[:, :3, 3] *= COARSE_STEP
    _, pose = register(gallery.fine, members, mirror_all(scans.fine[rows], mirror), pose, STEPS)
    return mirror, pose


def as_given(query: Features, real: Features, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the middles of the files' own grids on each other: a generator's copies often lie as its training scans did.

    Parameters
    ----------
    query, real : Features
        Of the queries and of the gallery.
    rows, members : Tensor, shape (B,), int64
        The pairs.

    Returns
    -------
    mirror : Tensor, shape (B,), int64
        No mirroring.
    pose : Tensor, shape (B, 4, 4)
        A shift on the coarse grids.
    """
    pose = torch.eye(4).repeat(len(rows), 1, 1)
    pose[:, :3, 3] = (real.centre[members] - query.centre[rows]) / COARSE_STEP
    return torch.zeros(len(rows), dtype=torch.int64), pose


def start_poses(query: Laid, hypothesis: int, real: Laid, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Compose the poses of a query and a gallery scan over the atlas into one from the scan to the mirrored query.

    Parameters
    ----------
    query, real : Laid
        Of the queries and of the gallery.
    hypothesis : int
        Which pose of the queries.
    rows, members : Tensor, shape (B,), int64
        The pairs.

    Returns
    -------
    mirror : Tensor, shape (B,), int64
    pose : Tensor, shape (B, 4, 4)
        On the coarse grids.
    """
    mine, theirs = query.mirror[rows, hypothesis], real.mirror[members, 0]
    signs = torch.tensor(SIGNS, dtype=torch.float32)[theirs]
    turned = torch.cat([signs, torch.ones(len(rows), 1)], 1)
    pose = query.pose[rows, hypothesis] @ torch.linalg.inv(real.pose[members, 0])
    return mine ^ theirs, turned[:, :, None] * pose * turned[:, None, :]


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
