"""Small affine changes of training scans: drawn as parameters, applied by them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

AUGMENTATION_DIM = 9
"""Three rotations, three log scales and three shifts, each a standard normal value cut at 2."""
ROTATION = 0.07
"""Radians a unit."""
LOG_SCALE = 0.04
SHIFT = 0.03
"""Share of half the grid a unit."""


def draw_augmentation(count: int, generator: torch.Generator) -> Tensor:
    """Return parameters of random augmentations, shape (count, AUGMENTATION_DIM); zeros change nothing."""
    return torch.randn(count, AUGMENTATION_DIM, generator=generator).clamp(-2.0, 2.0)


def augmented(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Return which of `count` cases are augmented, each with the chance `share`, shape (count,), bool.

    References
    ----------
    Karras et al. 2022, arXiv:2206.00364, section 5: a part suffices for a denoiser that is told of the augmentation.
    """
    if share >= 1.0:
        return torch.ones(count, dtype=torch.bool)
    return torch.rand(count, generator=generator) < share


def affine_matrices(parameters: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return the output -> input maps in normalised coordinates that `torch.nn.functional.affine_grid` takes.

    Parameters
    ----------
    parameters : Tensor, shape (B, AUGMENTATION_DIM)
    shape : tuple of int, (I, J, K)
        A rotation is rigid in voxels, so it depends on the grid's proportions.

    Returns
    -------
    Tensor, shape (B, 3, 4), coordinates in torch's order (k, j, i)
    """
    rotation, log_scale, shift = parameters.split(3, dim=1)
    angle = ROTATION * rotation
    generator = torch.zeros(len(parameters), 3, 3, device=parameters.device)
    for axis, (row, column) in enumerate(((1, 2), (0, 2), (0, 1))):
        generator[:, row, column] = -angle[:, axis]
        generator[:, column, row] = angle[:, axis]
    linear = torch.linalg.matrix_exp(generator) * (LOG_SCALE * log_scale).exp()[:, None, :]
    half = torch.tensor(shape[::-1], device=parameters.device) / 2.0
    normalised = linear * half[None, None, :] / half[None, :, None]
    return torch.cat([normalised, SHIFT * shift[:, :, None]], dim=2)


def augment(images: Tensor, labels: Tensor | None, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
    """Warp images linearly and labels by their nearest voxel; beyond the grid the border goes on.

    Parameters
    ----------
    images : Tensor, shape (B, 1, I, J, K)
    labels : Tensor, shape (B, 1, I, J, K), uint8, or None
    parameters : Tensor, shape (B, AUGMENTATION_DIM)
    """
    i, j, k = images.shape[2:]
    grid = functional.affine_grid(affine_matrices(parameters, (i, j, k)), list(images.shape), align_corners=False)
    warped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if labels is None:
        return warped, None
    nearest = functional.grid_sample(labels.float(), grid, mode="nearest", padding_mode="border", align_corners=False)
    return warped, nearest.to(labels.dtype)
