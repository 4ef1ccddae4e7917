"""Small random changes of scans, for the networks that judge: pose, contrast, brightness and noise, never the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Changes:
    """How far each change may go.

    Attributes
    ----------
    rotation : float, radians
    scaling : float, log of the factor
    shift : float, half-sides of the grid
    gamma : float, log of the exponent
    contrast, brightness, noise : float, half-ranges of the intensities
    """

    rotation: float = 0.2
    scaling: float = 0.15
    shift: float = 0.1
    gamma: float = 0.3
    contrast: float = 0.15
    brightness: float = 0.1
    noise: float = 0.05


POSE_AND_CONTRAST = Changes()
KEEPING_SIZE = Changes(rotation=0.1, scaling=0.0, shift=0.05, gamma=0.1, contrast=0.05, brightness=0.05, noise=0.05)
"""Where sizes and intensities are what is to be learned."""


def augment(images: Tensor, generator: torch.Generator, changes: Changes = POSE_AND_CONTRAST) -> Tensor:
    """Change images; anatomy is not symmetric, so nothing is mirrored.

    Parameters
    ----------
    images : Tensor, shape (B, 1, I, J, K), float32 in [-1, 1]
    generator : torch.Generator
        On the CPU.
    """
    return _intensities(_moved(images, _grid(images, changes, generator)), changes, generator)


def augment_pair(
    images: Tensor, labels: Tensor, generator: torch.Generator, changes: Changes = POSE_AND_CONTRAST
) -> tuple[Tensor, Tensor]:
    """Change images, and move their labels alike.

    Parameters
    ----------
    images : Tensor, shape (B, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (B, 1, I, J, K), integer
    generator : torch.Generator
        On the CPU.
    """
    grid = _grid(images, changes, generator)
    regions = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    return _intensities(_moved(images, grid), changes, generator), regions.long()


def _grid(images: Tensor, changes: Changes, generator: torch.Generator) -> Tensor:
    theta = _poses(len(images), images.shape[2:], changes, generator).to(images.device)
    return functional.affine_grid(theta, list(images.shape), align_corners=False)


def _moved(images: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _uniform(shape: tuple[int, ...], extent: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * extent


def _poses(count: int, sides: Sequence[int], changes: Changes, generator: torch.Generator) -> Tensor:
    """Return affine maps of the normalised grid, shape (B, 3, 4): rotation, scaling, shift.

    A rotation about the axis r by its length is expm([r]x); it is conjugated with the sides, because
    normalised coordinates stretch a grid that is not a cube.
    """
    r = _uniform((count, 3), changes.rotation, generator)
    cross = torch.zeros(count, 3, 3)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -r[:, 2], r[:, 1], -r[:, 0]
    rotation = torch.linalg.matrix_exp(cross - cross.transpose(1, 2))
    scaled = rotation * torch.exp(_uniform((count, 1, 1), changes.scaling, generator))
    side = torch.tensor([float(n) for n in reversed(sides)])
    linear = scaled * (side[None, None, :] / side[None, :, None])
    return torch.cat([linear, _uniform((count, 3, 1), changes.shift, generator)], dim=2)


def _intensities(images: Tensor, changes: Changes, generator: torch.Generator) -> Tensor:
    each = (len(images), 1, 1, 1, 1)
    gamma = torch.exp(_uniform(each, changes.gamma, generator)).to(images.device)
    contrast = 1 + _uniform(each, changes.contrast, generator).to(images.device)
    brightness = _uniform(each, changes.brightness, generator).to(images.device)
    noise = torch.randn(images.shape, generator=generator) * torch.rand(each, generator=generator) * changes.noise
    unit = ((images + 1) / 2).clamp(0, 1) ** gamma
    return contrast * (2 * unit - 1) + brightness + noise.to(images.device)
