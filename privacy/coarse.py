"""A search that needs no common anatomy: every query against every gallery scan over mirror images, turns and shifts.

All of it is matrix products at the coarse resolution. Where the scans of a cohort have no common pose, so that an atlas
cannot tell how one lies, this finds the candidates that the embedding misses.
"""

from __future__ import annotations

import itertools
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
    """Correlate queries, shape (n, 2, D, H, W), with every gallery scan, (G, 2, D, H, W), over all poses and shifts.

    A turned or scaled pose is shifted along one axis at a time.
    """
    parts = [_search(coarse, gallery[part]) for part in even_spans(len(gallery), PART)]
    return Coarse(*(torch.cat([getattr(part, field) for part in parts], 1) for field in ("score", "start", "shift")))


def _search(coarse: Tensor, gallery: Tensor) -> Coarse:
    shape, scans = gallery.shape[2:], gallery.flatten(2)
    # The grid has a voxel to spare on each side, where no scan of the gallery has anything to compare.
    held = scans.any(0).any(0).nonzero()[:, 0]
    target, inside = scans[:, 0, held], scans[:, 1, held]
    right = torch.cat([inside, target * target]).T.contiguous()
    best = torch.full((len(coarse), len(target)), 2 * NONE)
    start, shift = torch.zeros_like(best, dtype=torch.int64), torch.zeros_like(best, dtype=torch.int64)
    points = grid_points((shape[0], shape[1], shape[2]))
    places = torch.arange(shape.numel()).view(shape)
    sources = [torch.roll(places, step, (0, 1, 2)).flatten()[held] for step in SHIFTS]
    for p, (mirror, matrix) in enumerate(starts()):
        moved, mask = warp(flip(coarse, mirror), matrix.expand(len(coarse), 4, 4), points)
        hard = (mask > LEAST_OVERLAP).float()
        posed = torch.stack([moved * hard, hard], 1).flatten(2)
        upright = bool((matrix == torch.eye(4)).all())
        for s, step in enumerate(SHIFTS):
            if not upright and sum(map(abs, step)) > 1:
                continue
            score = _masked_correlation(posed, sources[s], target, right)
            better = score > best
            best = torch.where(better, score, best)
            start[better], shift[better] = p, s
    return Coarse(best, start, shift)


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


def _masked_correlation(posed: Tensor, source: Tensor, target: Tensor, right: Tensor) -> Tensor:
    """Return scores, shape (n, G), of queries, shape (n, 2, V), of which `source` lists the voxels to compare."""
    size = posed[:, 1].sum(1, keepdim=True)
    features, mask = posed[:, 0, source], posed[:, 1, source]
    overlap, energy = (mask @ right).chunk(2, 1)
    own = posed[:, 0].square().sum(1, keepdim=True) * overlap / size.clamp_min(1)
    score = features @ target.T / (own * energy).clamp_min(1e-9).sqrt()
    area = torch.minimum(size, right[:, : len(target)].sum(0))
    return torch.where(overlap >= LEAST_OVERLAP * area, score, NONE)
