"""Mirror images and small shifts of volumes: the discrete part of a pose."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

MIRRORS = tuple(itertools.product((False, True), repeat=3))
"""Along which axes a volume is mirrored; the index of two in a row is the exclusive or of theirs."""
SIGNS = tuple(tuple(-1.0 if on else 1.0 for on in mirror) for mirror in MIRRORS)
SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=3))


def flip(volumes: Tensor, mirror: tuple[bool, ...]) -> Tensor:
    """Mirror the last three axes where `mirror` says so."""
    axes = [volumes.ndim - 3 + axis for axis, on in enumerate(mirror) if on]
    return torch.flip(volumes, axes) if axes else volumes


def mirror_all(volumes: Tensor, mirror: Tensor) -> Tensor:
    """Mirror each of the volumes, shape (n, C, D, H, W), by its own index into `MIRRORS`, shape (n,)."""
    pairs = zip(volumes, mirror.tolist(), strict=True)
    return torch.stack([flip(volume, MIRRORS[index]) for volume, index in pairs]) if len(volumes) else volumes
