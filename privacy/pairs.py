"""Pairs of scans, registered to each other and compared over the content that both share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privacy.atlas import Laid
from privacy.coarse import Coarse
from privacy.features import COARSE_STEP, INNER, OUTER_FINE, mask_shares, normalise_locally
from privacy.gallery import Gallery, Queries
from privacy.poses import SIGNS, mirror_all
from privacy.registration import INSIDE, MIN_OVERLAP, Template, build_template, grid_points, register, sample
from privacy.stored import Scans, even_spans

FINE_POINTS, COARSE_POINTS = 4000, 1500
STEPS = 8
REGISTERED = 64  # pairs at a time: each needs the derivatives of its gallery scan
PAIRS = 8  # compared at a time: what the processor's cache holds
INNER_LINEAR, OUTER_LINEAR = 2.0, 6.0  # widths of the neighbourhoods of the linear view, voxels


@dataclass(frozen=True)
class Pairs:
    """How alike pairs of a query and a gallery scan are once one lies over the other.

    Attributes
    ----------
    rows, members : Tensor, shape (B,), int64
        The query and the gallery scan of each.
    views : Tensor, shape (B, 3)
        See `joint_correlation`.
    mirror : Tensor, shape (B,), int64
    pose : Tensor, shape (B, 4, 4)
        See `similarity.Matches`.
    """

    rows: Tensor
    members: Tensor
    views: Tensor
    mirror: Tensor
    pose: Tensor

    def are(self, rows: Tensor, members: Tensor) -> bool:
        """Say whether these are the pairs of such queries and gallery scans, in this order."""
        return torch.equal(self.rows, rows) and torch.equal(self.members, members)


def compare(queries: Queries, gallery: Gallery, coarse: Coarse, rows: Tensor, members: Tensor) -> Pairs:
    """Register pairs of a query and a gallery scan, numbered by `rows` and `members`, shape (B,), and compare them."""
    order = members.argsort(stable=True)  # pairs of one gallery scan together: its derivatives are made once
    groups = [order[few] for few in even_spans(len(rows), REGISTERED)]
    found = [_register(queries, gallery, coarse, rows[few], members[few]) for few in groups]
    mirror, pose = (torch.cat(parts)[order.argsort()] for parts in zip(*found, strict=True))
    views = [
        joint_correlation(
            gallery.features.intensity[members[few]],
            mirror_all(queries.features.intensity[rows[few]], mirror[few]),
            pose[few],
        )
        for few in torch.arange(len(rows)).split(PAIRS)
    ]
    return Pairs(rows, members, torch.cat(views), mirror, pose)


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


def _register(
    queries: Queries, gallery: Gallery, coarse: Coarse, rows: Tensor, members: Tensor
) -> tuple[Tensor, Tensor]:
    """Register pairs from every pose that the atlas, the coarse search and the files suggest; return the best one."""
    scans, laid = queries.features, queries.laid
    starts = [start_poses(laid, h, gallery.laid, rows, members) for h in range(laid.mirror.shape[1])]
    starts += [coarse.poses(rows, members), as_given(scans, gallery.features, rows, members)]
    known, at = members.unique(return_inverse=True)
    template = _template(gallery.features.coarse[known], COARSE_POINTS)
    tried = [register(template, at, mirror_all(scans.coarse[rows], mirror), pose, STEPS) for mirror, pose in starts]
    best = torch.stack([score for score, _ in tried], 1).argmax(1)
    pairs = torch.arange(len(rows))
    mirror = torch.stack([mirror for mirror, _ in starts], 1)[pairs, best]
    pose = torch.stack([pose for _, pose in tried], 1)[pairs, best]
    pose[:, :3, 3] *= COARSE_STEP
    template = _template(gallery.features.fine[known], FINE_POINTS)
    _, pose = register(template, at, mirror_all(scans.fine[rows], mirror), pose, STEPS)
    return mirror, pose


def _template(scans: Tensor, max_points: int) -> Template:
    return build_template(scans[:, 0], scans[:, 1], max_points)


def as_given(query: Scans, real: Scans, rows: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the middles of the files' own grids on each other: a generator's copies often lie as its training scans did.

    Parameters
    ----------
    query, real : Features or StoredFeatures
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
