"""The autoencoder's stem: image and one-hot label in one stack, and its lossless Haar sub-bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LABEL_SCALE = 0.5
"""Weight of a one-hot channel beside the image's range of 2, in the stack that is encoded."""


def haar(volume: Tensor) -> Tensor:
    """Split each channel into its eight orthonormal Haar sub-bands at half the resolution.

    Parameters
    ----------
    volume : Tensor, shape (B, C, I, J, K), every side even

    Returns
    -------
    Tensor, shape (B, 8 C, I/2, J/2, K/2)
        For every channel the sub-bands LLL, LLH, LHL, ..., HHH.

    References
    ----------
    Mallat 1989, equation 7 with the Haar filter, doi 10.1109/34.192463.
    """
    for axis in (2, 3, 4):
        even, odd = volume.unflatten(axis, (-1, 2)).unbind(axis + 1)
        volume = torch.stack([even + odd, even - odd], dim=2).flatten(1, 2) * math.sqrt(0.5)
    return volume


def inverse_haar(bands: Tensor) -> Tensor:
    """Invert `haar`: shape (B, 8 C, I, J, K) -> (B, C, 2 I, 2 J, 2 K)."""
    for axis in (4, 3, 2):
        low, high = bands.unflatten(1, (-1, 2)).unbind(2)
        bands = torch.stack([low + high, low - high], dim=axis + 1).flatten(axis, axis + 1) * math.sqrt(0.5)
    return bands


def one_hot(labels: Tensor, num_classes: int) -> Tensor | None:
    """Return float32 one-hot channels (B, K, I, J, K) of class indices (B, 1, I, J, K), or None for one class."""
    if num_classes < 2:
        return None
    classes = torch.arange(num_classes, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels == classes).float()


def stacked(image: Tensor, onehot: Tensor | None) -> Tensor:
    """Return the image (B, 1, I, J, K) and the scaled one-hot channels, if any, as one tensor."""
    return image if onehot is None else torch.cat([image, LABEL_SCALE * onehot], dim=1)
