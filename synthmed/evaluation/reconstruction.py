"""What the autoencoder loses, and how well two segmentations agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthmed.evaluation.intervals import Array, mean_interval

DATA_RANGE = 2.0
LEAST_MSE = 1e-10


def psnr(reference: Tensor, other: Tensor, data_range: float = DATA_RANGE) -> Array:
    """Return the peak signal-to-noise ratio of each case, dB: 10 log10(data_range^2 / MSE).

    Parameters
    ----------
    reference, other : Tensor, shape (N, ...)
    data_range : float
        Whole width of the intensity scale; 2 for [-1, 1].

    Returns
    -------
    ndarray, shape (N,)
        At most 106 dB on [-1, 1]: an error below 1e-5 (root mean square) counts as 1e-5.
    """
    squared = (reference.double() - other.double()) ** 2
    mse = squared.flatten(1).mean(1).clamp_min(LEAST_MSE)
    return (10 * torch.log10(data_range**2 / mse)).numpy()


def dice_per_structure(predicted: Tensor, reference: Tensor, num_classes: int) -> Array:
    """Return 2 |A and B| / (|A| + |B|) of each case and structure.

    A structure absent from both counts as 1, absent from one alone as 0.

    Parameters
    ----------
    predicted, reference : Tensor, shape (N, 1, I, J, K), integer class index, background 0
    num_classes : int
        Background included.

    Returns
    -------
    ndarray, shape (N, num_classes - 1)
    """
    scores = []
    for index in range(1, num_classes):
        a, b = (predicted == index).flatten(1), (reference == index).flatten(1)
        both = (a & b).sum(1).double()
        total = a.sum(1) + b.sum(1)
        scores.append(torch.where(total == 0, torch.ones_like(both), 2 * both / total.clamp_min(1)))
    return torch.stack(scores, 1).numpy()


@torch.no_grad()
def reconstruction(
    model: Any, images: Tensor, labels: Tensor | None, structures: Sequence[str], patients: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Return what the autoencoder keeps of real cases: PSNR (dB) and Dice of each structure.

    Parameters
    ----------
    model : Autoencoder
        With ``reconstruct(image, labels) -> (image, logits)``.
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), integer class index, or None
    """
    rng = np.random.default_rng(seed)
    num_classes = len(structures) + 1
    ratios, overlaps = [], []
    for start in range(0, len(images), 8):
        image = images[start : start + 8]
        label = None if labels is None else labels[start : start + 8]
        device = next(model.parameters()).device
        decoded, logits = model.reconstruct(image.to(device), None if label is None else label.to(device))
        ratios.append(psnr(image, decoded.float().clamp(-1, 1).cpu()))
        if label is not None and logits is not None:
            overlaps.append(dice_per_structure(logits.argmax(1, keepdim=True).cpu(), label, num_classes))
    result: dict[str, Any] = {"psnr_db": mean_interval(np.concatenate(ratios), patients, rng=rng)}
    if overlaps:
        dice = np.concatenate(overlaps)
        result["dice"] = {n: mean_interval(dice[:, i], patients, rng=rng) for i, n in enumerate(structures)}
    return result
