"""A cohort's common pose: the mean of its real scans, and every scan laid over it.

Scans that are laid over the same atlas lie over each other, so that comparing two of them costs one inner product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from privacy.features import Numbers
from privacy.poses import MIRRORS, SHIFTS, flip, mirror_all
from privacy.registration import Template, build_template, register, warp
from privacy.stored import Scans, even_spans
from privacy.threads import in_order

POINTS = 1500
STEPS = 8
ROUNDS = 2
LIKELY = 3  # mirror images that are registered
HYPOTHESES = 2  # poses that are kept
INSIDE = 0.5
BATCH = 16
PART = 128  # scans laid out at a time


@dataclass(frozen=True)
class Laid:
    """How n scans lie over the atlas: the H poses that fit best, best first.

    Attributes
    ----------
    mirror : Tensor, shape (n, H), int64
        Index into `poses.MIRRORS`.
    pose : Tensor, shape (n, H, 4, 4)
        From the atlas's coarse grid to the mirrored scan's.
    score : Tensor, shape (n, H)
        Correlation with the atlas.
    """

    mirror: Tensor
    pose: Tensor
    score: Tensor

    def __getitem__(self, rows: Numbers) -> Laid:
        return Laid(self.mirror[rows], self.pose[rows], self.score[rows])


def build_atlas(real: Scans) -> Template:
    """Average real scans, each laid over the average of the round before.

    Parameters
    ----------
    real : Features
        Of all real scans, held-out ones too: the atlas knows no sides.
    """
    atlas = _mean(real.coarse[:, 0], real.coarse[:, 1])
    for _ in range(ROUNDS):
        atlas = _mean(*pictures(real, lay(real, atlas), atlas))
    return atlas


def pictures(scans: Scans, laid: Laid, atlas: Template) -> tuple[Tensor, Tensor]:
    """Return coarse features and content masks over the atlas, each of shape (n, D, H, W), in the best pose."""
    parts = [_pictures(scans.coarse[rows], laid[rows], atlas) for rows in even_spans(len(scans), PART)]
    return torch.cat([values for values, _ in parts]), torch.cat([mask for _, mask in parts])


def _pictures(coarse: Tensor, laid: Laid, atlas: Template) -> tuple[Tensor, Tensor]:
    moved, inside = warp(mirror_all(coarse, laid.mirror[:, 0]), laid.pose[:, 0], atlas.points)
    mask = (inside.view(-1, *atlas.shape) > INSIDE).float()
    return moved.view(-1, *atlas.shape) * mask, mask


def lay(scans: Scans, atlas: Template) -> Laid:
    """Register the likeliest mirror images of each scan to the atlas and keep the best."""
    parts = list(in_order(lambda rows: _lay(scans.coarse[rows], atlas), even_spans(len(scans), BATCH)))
    return Laid(*(torch.cat([getattr(part, field) for part in parts]) for field in ("mirror", "pose", "score")))


def _lay(coarse: Tensor, atlas: Template) -> Laid:
    starts = [_start(flip(coarse, mirror), atlas) for mirror in MIRRORS]
    likely = torch.stack([score for score, _ in starts], 1).topk(LIKELY, 1).indices
    rows = torch.arange(len(coarse)).repeat_interleave(LIKELY)
    images = mirror_all(coarse[rows], likely.flatten())
    start = torch.stack([pose for _, pose in starts], 1)[rows, likely.flatten()]
    score, pose = register(atlas, torch.zeros_like(rows), images, start, STEPS)
    score, pose = score.view(-1, LIKELY), pose.view(-1, LIKELY, 4, 4)
    best = score.argsort(dim=1, descending=True, stable=True)[:, :HYPOTHESES]
    return Laid(likely.gather(1, best), pose[torch.arange(len(pose))[:, None], best], score.gather(1, best))


def _start(image: Tensor, atlas: Template) -> tuple[Tensor, Tensor]:
    """Find the best shift by one voxel along each axis: its correlation with the atlas, and its pose."""
    target, inside = atlas.features[0].flatten(), atlas.mask[0].flatten()
    scores = []
    for shift in SHIFTS:
        values, mask = torch.roll(image, shift, (2, 3, 4)).flatten(2).unbind(1)
        energy = (values.square() @ inside) * (mask @ target.square())
        scores.append(values @ target / energy.clamp_min(1e-9).sqrt())
    score, best = torch.stack(scores, 1).max(1)
    pose = torch.eye(4).repeat(len(image), 1, 1)
    pose[:, :3, 3] = -torch.tensor(SHIFTS, dtype=torch.float32)[best]
    return score, pose


def _mean(values: Tensor, mask: Tensor) -> Template:
    weight = mask.sum(0)
    covered = (weight >= INSIDE * len(values)).float()
    mean = (values * mask).sum(0) / weight.clamp_min(1) * covered
    return build_template(mean[None], covered[None], POINTS)
