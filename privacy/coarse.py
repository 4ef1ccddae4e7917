"""A search that needs no common anatomy: every query against every gallery scan over mirror images, turns and shifts.

All of it is matrix products at the coarse resolution. Where the scans of a cohort have no common pose, so that an atlas
cannot tell how one lies, this finds the candidates that the embedding misses.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privacy.poses import MIRRORS, SHIFTS, flip
from privacy.registration import grid_points, warp
from privacy.stored import even_spans

ANGLE, ZOOM = np.deg2rad(9.0), 0.9
LEAST_OVERLAP = 0.5  # of the smaller content
NONE = -1.0
PART = 1000  # gallery scans at a time


@dataclass(frozen=True)
class Coarse:
    """The best coarse correlation of each query (n) with each gallery scan (G), and where it was found.

    Attributes
    ----------
    score : Tensor, shape (n, G)
    start, shift : Tensor, shape (n, G), int64
        Indices into `starts` and `poses.SHIFTS`.
    """

    score: Tensor
    start: Tensor
    shift: Tensor

    def poses(self, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mirror images, shape (B,), and the poses, shape (B, 4, 4), of pairs on the coarse grid."""
        index = self.start[rows, members]
        back = torch.eye(4).repeat(len(rows), 1, 1)
        back[:, :3, 3] = -torch.tensor(SHIFTS, dtype=torch.float32)[self.shift[rows, members]]
        mirror = torch.tensor([MIRRORS.index(mirror) for mirror, _ in starts()])[index]
        return mirror, torch.stack([matrix for _, matrix in starts()])[index] @ back


def coarse_search(coarse: Tensor, gallery: Tensor) -> Coarse:
    """Correlate a few queries, shape (n, 2, D, H, W), with every gallery scan, (G, 2, D, H, W), over poses and shifts.

    A turned or scaled pose is shifted along one axis at a time. Scores of all shifts are held at once, of
    `PART` gallery scans.
    """
    parts = [_search(coarse, gallery[part]) for part in even_spans(len(gallery), PART)]
    return Coarse(*(torch.cat([getattr(part, field) for part in parts], 1) for field in ("score", "start", "shift")))


def _search(coarse: Tensor, gallery: Tensor) -> Coarse:
    scans = gallery.flatten(2)
    # The grid has a voxel to spare on each side, where no scan of the gallery has anything to compare.
    held = scans.any(0).any(0).nonzero()[:, 0]
    target = _target(scans[:, :, held])
    best = torch.full((len(coarse), len(scans)), 2 * NONE)
    start, shift = torch.zeros_like(best, dtype=torch.int64), torch.zeros_like(best, dtype=torch.int64)
    for p, posed in enumerate(_posed(coarse, held)):
        score, step = _masked_correlation(posed, target).max(1)
        better = score > best
        best[better] = score[better]
        start[better], shift[better] = p, posed.steps[step[better]]
    return Coarse(best, start, shift)


@dataclass(frozen=True)
class _Posed:
    """Queries in one starting pose, shape (n, S, V): S shifts, numbered by `steps`, over the V voxels to compare."""

    features: Tensor
    mask: Tensor
    size: Tensor
    steps: Tensor


@dataclass(frozen=True)
class _Target:
    """Gallery scans as columns: features, shape (V, G); masks and squared features side by side, (V, 2 G)."""

    features: Tensor
    weights: Tensor
    size: Tensor


def _target(scans: Tensor) -> _Target:
    features, mask = scans.unbind(1)
    weights = torch.cat([mask, features.square()]).T.contiguous()
    return _Target(features.T.contiguous(), weights, mask.sum(1))


def _posed(coarse: Tensor, held: Tensor) -> Iterator[_Posed]:
    shape = coarse.shape[2:]
    points = grid_points((shape[0], shape[1], shape[2]))
    places = torch.arange(shape.numel()).view(shape)
    sources = torch.stack([torch.roll(places, step, (0, 1, 2)).flatten()[held] for step in SHIFTS])
    every = torch.arange(len(SHIFTS))
    straight = every[torch.tensor(SHIFTS).abs().sum(1) <= 1]
    for mirror, matrix in starts():
        moved, inside = warp(flip(coarse, mirror), matrix.expand(len(coarse), 4, 4), points)
        mask = (inside > LEAST_OVERLAP).float()
        size = mask.sum(1, keepdim=True)
        energy = (moved * mask).square().sum(1, keepdim=True) / size.clamp_min(1)  # of a voxel
        features = moved * mask / energy.clamp_min(1e-9).sqrt()
        steps = every if bool((matrix == torch.eye(4)).all()) else straight
        yield _Posed(features[:, sources[steps]], mask[:, sources[steps]], size[:, None], steps)


def starts() -> list[tuple[tuple[bool, ...], Tensor]]:
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


def _masked_correlation(posed: _Posed, target: _Target) -> Tensor:
    """Return scores, shape (n, S, G), of posed queries and gallery scans; `NONE` where contents hardly overlap."""
    overlap, energy = (posed.mask @ target.weights).chunk(2, 2)
    score = (posed.features @ target.features).mul_((overlap * energy).clamp_min_(1e-9).rsqrt_())
    return score.masked_fill_(overlap < LEAST_OVERLAP * torch.minimum(posed.size, target.size), NONE)
