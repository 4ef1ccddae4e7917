"""How alike are two scans, whatever their margins, intensities and pose: search, registration, correlation.

`coarse_search` compares every query with every gallery volume over mirror images, rotations, zooms and shifts by matrix
products; `refine` registers the best candidates and scores each by the correlation of the two scans, normalised anew
over the content they share. The same two steps serve every comparison of an audit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy.features import COARSE_STEP, INNER, OUTER_FINE, Features, Space, normalise_locally
from privacy.registration import INSIDE, MIN_OVERLAP, Template, build_template, grid_points, register, warp

FINE_POINTS, COARSE_POINTS = 4000, 1500
STEPS = 8
CANDIDATES, FINALISTS, PER_PATIENT = 24, 4, 2
BATCH = 32
MIRRORS = tuple(itertools.product((False, True), repeat=3))
SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=3))
ANGLE, ZOOM = np.deg2rad(9.0), 0.9
NONE = -2.0  # below any correlation
CEILING = 0.99999  # of a correlation, before Fisher's transform


@dataclass(frozen=True)
class Gallery:
    """What queries are searched in: G volumes, and which patient each belongs to (ndarray of int64, shape (G,))."""

    space: Space
    patient: NDArray[np.int64]
    intensity: Tensor
    fine: Template
    coarse: Template

    def __len__(self) -> int:
        return len(self.intensity)


@dataclass(frozen=True)
class Coarse:
    """The best coarse correlation of each query (n) with each gallery volume (G), and where it was found."""

    score: Tensor
    pose: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Matches:
    """The finalists of each query, best first.

    Attributes
    ----------
    index : ndarray, shape (n, FINALISTS), int64
        Gallery volume; -1 where there is none.
    score : ndarray, shape (n, FINALISTS)
        Registered correlation, at most 1; -1 where there is none.
    mirror : ndarray, shape (n, FINALISTS), int64
        Index into `MIRRORS`: along which axes the query was mirrored.
    pose : ndarray, shape (n, FINALISTS, 4, 4)
        From the gallery volume's fine grid to the mirrored query's.
    """

    index: NDArray[np.int64]
    score: NDArray[np.float64]
    mirror: NDArray[np.int64]
    pose: NDArray[np.float64]


def join(parts: list[Matches]) -> Matches:
    """Join the matches of several batches of queries."""
    fields = ("index", "score", "mirror", "pose")
    return Matches(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


@dataclass(frozen=True)
class Best:
    """The best match of each query (arrays of length n).

    Attributes
    ----------
    scan, patient : ndarray of int64
        Of the best match; -1 where a query has none.
    similarity : ndarray
        Its registered correlation.
    margin : ndarray
        Fisher's z of the similarity, minus the same for the best match of any other patient: how much more alike the
        query is to one patient than to everybody else. Samples that are all average are like many, copies like one.
    """

    scan: NDArray[np.int64]
    patient: NDArray[np.int64]
    similarity: NDArray[np.float64]
    margin: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.int64]) -> Best:
        return Best(self.scan[rows], self.patient[rows], self.similarity[rows], self.margin[rows])


def best(matches: Matches, patient: NDArray[np.int64]) -> Best:
    """Reduce finalists to the best match and its margin over the best other patient.

    Parameters
    ----------
    matches : Matches
    patient : ndarray of int64, shape (G,)
        Patient of each gallery volume.
    """
    owner = np.where(matches.index >= 0, patient[matches.index], -1)
    z = np.arctanh(np.clip(matches.score, 0.0, CEILING))
    other = np.where((owner != owner[:, :1]) & (owner >= 0), z, 0.0).max(1)
    return Best(matches.index[:, 0], owner[:, 0], matches.score[:, 0], z[:, 0] - other)


def build_gallery(features: Features, patient: NDArray[np.int64], space: Space) -> Gallery:
    """Prepare volumes to be searched in."""
    fine = build_template(features.fine[:, 0], features.fine[:, 1], FINE_POINTS)
    coarse = build_template(features.coarse[:, 0], features.coarse[:, 1], COARSE_POINTS)
    return Gallery(space, patient, features.intensity, fine, coarse)


def coarse_search(queries: Features, gallery: Gallery) -> Coarse:
    """Correlate every query with every gallery volume over all starting poses and shifts, by matrix products."""
    target = gallery.coarse.features.flatten(1)
    inside = gallery.coarse.mask.flatten(1)
    right = torch.cat([inside, target * target]).T.contiguous()
    best = torch.full((len(queries), len(gallery)), NONE)
    pose, shift = torch.zeros_like(best, dtype=torch.int64), torch.zeros_like(best, dtype=torch.int64)
    points = grid_points(gallery.coarse.shape)
    for p, (mirror, matrix) in enumerate(_starts()):
        moved, mask = warp(flip(queries.coarse, mirror), matrix.expand(len(queries), 4, 4), points)
        hard = (mask > 0.5).float()
        posed = torch.stack([moved * hard, hard], 1).view(len(queries), 2, *gallery.coarse.shape)
        for s, step in enumerate(SHIFTS):
            score = _masked_correlation(torch.roll(posed, step, (2, 3, 4)), target, right)
            better = score > best
            best = torch.where(better, score, best)
            pose[better], shift[better] = p, s
    return Coarse(best, pose, shift)


def refine(queries: Features, gallery: Gallery, coarse: Coarse, sides: Sequence[Tensor]) -> list[Matches]:
    """Register the best candidates of each query, in each of several parts of the gallery, and return the finalists.

    What is found in a part does not depend on the other parts; a pair that several parts share is registered once.

    Parameters
    ----------
    queries : Features, n of them
    gallery : Gallery, of G volumes
    coarse : Coarse
        What `coarse_search` returned for the two.
    sides : sequence of Tensor, shape (n, G), bool
        Which gallery volumes each query may match.

    Returns
    -------
    list of Matches
        One for each side.
    """
    parts: list[list[Matches]] = [[] for _ in sides]
    for start in range(0, len(queries), BATCH):
        rows = slice(start, start + BATCH)
        found = Coarse(coarse.score[rows], coarse.pose[rows], coarse.shift[rows])
        batch = _refine_batch(queries[rows], gallery, found, [side[rows] for side in sides])
        for part, matches in zip(parts, batch, strict=True):
            part.append(matches)
    return [join(part) for part in parts]


def joint_correlation(fixed: Tensor, moving: Tensor, pose: Tensor) -> Tensor:
    """Correlate pairs of scans over the content they share, each normalised within it.

    Parameters
    ----------
    fixed, moving : Tensor, shape (B, 2, D, H, W), float32
        Intensities and content mask.
    pose : Tensor, shape (B, 4, 4)
        From the fixed grid to the moving one.

    Returns
    -------
    Tensor, shape (B,)
        Scaled down in proportion where less than half of the smaller content is shared.
    """
    grid = fixed[:, 0].shape
    moved, inside = warp(moving, pose, grid_points((grid[1], grid[2], grid[3])))
    shared = (inside > INSIDE).float().view(grid) * fixed[:, 1]
    a = normalise_locally(fixed[:, 0], shared, INNER, OUTER_FINE).flatten(1)
    b = normalise_locally(moved.view(grid), shared, INNER, OUTER_FINE).flatten(1)
    value = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).clamp_min(1e-12).sqrt()
    area = torch.minimum(fixed[:, 1].flatten(1).sum(1), moving[:, 1].flatten(1).sum(1))
    return value * (shared.flatten(1).sum(1) / (MIN_OVERLAP * area).clamp_min(1)).clamp(max=1)


def flip(volumes: Tensor, mirror: tuple[bool, ...]) -> Tensor:
    """Mirror the last three axes where `mirror` says so."""
    axes = [volumes.ndim - 3 + axis for axis, on in enumerate(mirror) if on]
    return torch.flip(volumes, axes) if axes else volumes


def _starts() -> list[tuple[tuple[bool, ...], Tensor]]:
    """List the starting poses: every mirror image, and rotations and zooms of those along at most one axis."""
    turned = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        for angle in (-ANGLE, ANGLE):
            matrix = torch.eye(4)
            matrix[i, i] = matrix[j, j] = float(np.cos(angle))
            matrix[i, j], matrix[j, i] = -float(np.sin(angle)), float(np.sin(angle))
            turned.append(matrix)
    turned += [torch.diag(torch.tensor([z, z, z, 1.0])) for z in (ZOOM, 1 / ZOOM)]
    simple = [mirror for mirror in MIRRORS if sum(mirror) <= 1]
    return [(mirror, torch.eye(4)) for mirror in MIRRORS] + list(itertools.product(simple, turned))


def _masked_correlation(posed: Tensor, target: Tensor, right: Tensor) -> Tensor:
    features, mask = posed[:, 0].flatten(1), posed[:, 1].flatten(1)
    overlap, energy = (mask @ right).chunk(2, 1)
    own = (features * features).sum(1, keepdim=True) * overlap / mask.sum(1, keepdim=True).clamp_min(1)
    score = features @ target.T / (own * energy).clamp_min(1e-9).sqrt()
    area = torch.minimum(mask.sum(1, keepdim=True), right[:, : len(target)].sum(0))
    return torch.where(overlap >= 0.5 * area, score, -1.0)


def _refine_batch(queries: Features, gallery: Gallery, coarse: Coarse, sides: Sequence[Tensor]) -> list[Matches]:
    candidates = [_few_a_patient(torch.where(side, coarse.score, NONE), gallery.patient, CANDIDATES) for side in sides]
    rows, members = torch.stack(candidates).any(0).nonzero(as_tuple=True)
    if not len(rows):
        return [_no_matches(len(queries)) for _ in sides]
    mirror, pose = _start_poses(coarse, rows, members)
    middle, pose = register(gallery.coarse, members, _mirrored(queries.coarse, rows, mirror), pose, STEPS)
    ranked = torch.full_like(coarse.score, NONE)
    ranked[rows, members] = middle
    finalists = [_top(torch.where(allowed, ranked, NONE), FINALISTS) for allowed in candidates]
    keep = torch.stack(finalists).any(0)[rows, members]
    rows, members, mirror, pose = rows[keep], members[keep], mirror[keep], pose[keep]
    pose[:, :3, 3] *= COARSE_STEP
    _, pose = register(gallery.fine, members, _mirrored(queries.fine, rows, mirror), pose, STEPS)
    score = joint_correlation(gallery.intensity[members], _mirrored(queries.intensity, rows, mirror), pose)
    place = torch.full_like(coarse.score, -1, dtype=torch.int64)
    place[rows, members] = torch.arange(len(rows))
    return [_gather(torch.where(allowed, place, -1), score, mirror, pose) for allowed in finalists]


def _top(score: Tensor, count: int) -> Tensor:
    """Mark the best `count` of each row that are above `NONE`; on a tie the first."""
    order = score.argsort(dim=1, descending=True, stable=True)[:, :count]
    marked = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)
    return marked & (score > NONE)


def _gather(place: Tensor, score: Tensor, mirror: Tensor, pose: Tensor) -> Matches:
    """Sort the finalists of each row, best first; `place` (n, G) says where each pair's values lie, or -1."""
    values = torch.where(place >= 0, score[place.clamp_min(0)], NONE)
    order = values.argsort(dim=1, descending=True, stable=True)[:, :FINALISTS]
    matches = _no_matches(len(place))
    at, real = place.gather(1, order), values.gather(1, order) > NONE
    width = order.shape[1]
    matches.index[:, :width] = torch.where(real, order, -1).numpy()
    matches.score[:, :width] = torch.where(real, score[at], -1.0).numpy()
    matches.mirror[:, :width] = mirror[at].numpy()
    matches.pose[:, :width] = pose[at].numpy()
    return matches


def _no_matches(n: int) -> Matches:
    shape = (n, FINALISTS)
    return Matches(
        np.full(shape, -1), np.full(shape, -1.0), np.zeros(shape, np.int64), np.tile(np.eye(4), (*shape, 1, 1))
    )


def _few_a_patient(score: Tensor, patient: NDArray[np.int64], count: int) -> Tensor:
    """Mark the best `count` of each row, at most `PER_PATIENT` of one patient, so that others stay in sight."""
    kept = score.clone()
    for row, ranked in enumerate(score.argsort(dim=1, descending=True, stable=True).numpy()):
        seen: dict[int, int] = {}
        for member in ranked:
            owner = int(patient[member])
            seen[owner] = seen.get(owner, 0) + 1
            if seen[owner] > PER_PATIENT:
                kept[row, member] = NONE
    return _top(kept, count)


def _start_poses(coarse: Coarse, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    starts = _starts()
    index = coarse.pose[rows, members]
    mirror = torch.tensor([MIRRORS.index(m) for m, _ in starts])[index]
    back = torch.eye(4).repeat(len(rows), 1, 1)
    back[:, :3, 3] = -torch.tensor(SHIFTS, dtype=torch.float32)[coarse.shift[rows, members]]
    return mirror, torch.stack([matrix for _, matrix in starts])[index] @ back


def _mirrored(volumes: Tensor, rows: Tensor, mirror: Tensor) -> Tensor:
    pairs = zip(rows.tolist(), mirror.tolist(), strict=True)
    return torch.stack([flip(volumes[row], MIRRORS[m]) for row, m in pairs])
