"""The training set as latents: encoded once, augmented copies included, standardised by the whole set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from synthmed import processes
from synthmed.models.augmentation import AUGMENTATION_DIM, augment, draw_augmentation
from synthmed.models.autoencoder import LabelledAutoencoder
from synthmed.models.tiling import cases_at_once, encode_scans
from synthmed.prepare.prepared import PreparedSplit

AUGMENTED_COPIES = 16
SPECTRUM = 0.5
"""Power of a channel's energy in the decoded volume that its standardised deviation keeps.

At 0 every channel has unit variance, and noise covers coarse anatomy and fine texture alike; at 1 the latent has the
volume's own spectrum. Between them coarse channels emerge from noise first and weigh more in the loss.
"""
_MAX_CACHED_VALUES = 250_000_000
_BATCH = 8


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Scaled latents of a training set and its held-out patients, of unit variance over all channels together.

    Attributes
    ----------
    train : Tensor, shape (copies, N, C, i, j, k)
        The first copy is not augmented.
    augmentation : Tensor, shape (copies, N, AUGMENTATION_DIM)
    holdout : Tensor, shape (M, C, i, j, k)
    mean, std : Tensor, shape (C, 1, 1, 1)
        What takes latents to this scale: ``(latent - mean) / std``.
    """

    train: Tensor
    augmentation: Tensor
    holdout: Tensor
    mean: Tensor
    std: Tensor


@torch.no_grad()
def encode_split(
    model: LabelledAutoencoder, split: PreparedSplit, augmentation: Tensor | None, fabric: Fabric
) -> Tensor:
    """Return posterior means on the CPU, shape (N, C, i, j, k); augmented by parameters (N, AUGMENTATION_DIM)."""
    parts = []
    batch = cases_at_once(math.prod(split.images.shape[2:]), _BATCH)
    for cases in torch.arange(len(split.images)).split(batch):
        images = fabric.to_device(split.images[cases])
        labels = None if split.labels is None else fabric.to_device(split.labels[cases])
        if augmentation is not None:
            images, labels = augment(images, labels, fabric.to_device(augmentation[cases]))
        parts.append(encode_scans(model, images, labels).float().cpu())
    return torch.cat(parts)


def encode_cohort(
    model: LabelledAutoencoder,
    train: PreparedSplit,
    holdout: PreparedSplit,
    fabric: Fabric,
    *,
    copies: int,
    generator: torch.Generator,
) -> LatentSet:
    """Encode both sides of the split, the training side `copies` times, all but the first augmented.

    Many processes share the augmented copies out among themselves.

    Parameters
    ----------
    model : LabelledAutoencoder
        In evaluation mode, on Fabric's device.
    train, holdout : PreparedSplit
    fabric : Fabric
    copies : int
        1 for no augmentation.
    generator : torch.Generator
        Draws the augmentations.
    """
    first = encode_split(model, train, None, fabric)
    mean, std = latent_scale(first, model.channel_gain())
    copies = max(1, min(copies, _MAX_CACHED_VALUES // first.numel()))
    augmentation = torch.zeros(copies, len(first), AUGMENTATION_DIM)
    for copy in range(1, copies):
        augmentation[copy] = draw_augmentation(len(first), generator)
    mine = [encode_split(model, train, each, fabric) for each in augmentation[1:][processes.share()]]
    made = processes.gather(mine)
    encoded = [made[copy % len(made)][copy // len(made)] for copy in range(copies - 1)]
    held_out = encode_split(model, holdout, None, fabric)
    return LatentSet((torch.stack([first, *encoded]) - mean) / std, augmentation, (held_out - mean) / std, mean, std)


def latent_scale(latents: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and divisor that give each channel the variance energy^(2 SPECTRUM), 1 on average.

    Parameters
    ----------
    latents : Tensor, shape (N, C, i, j, k)
    gain : Tensor, shape (C,)
        How far a channel's unit moves the decoded volume; see `LabelledAutoencoder.channel_gain`.

    Returns
    -------
    mean, std : Tensor, shape (C, 1, 1, 1)
    """
    mean, deviation = channel_statistics(latents)
    spread = (deviation * gain.view(-1, 1, 1, 1)) ** SPECTRUM
    return mean, deviation / (spread / spread.square().mean().sqrt())


def channel_statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and standard deviation over cases and cells, shape (C, 1, 1, 1)."""
    values = latents.double()
    mean = values.mean(dim=(0, 2, 3, 4))
    std = values.std(dim=(0, 2, 3, 4), correction=0).clamp_min(1e-6)
    return mean.float().view(-1, 1, 1, 1), std.float().view(-1, 1, 1, 1)
