"""A small MONAI segmenter: what it learns from a set of pairs is what the set is worth to its receiver."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from torch.nn import functional

from synthmed.evaluation.augmentation import augment_pair
from synthmed.evaluation.intervals import Array
from synthmed.evaluation.learning import build, fit, shuffled
from synthmed.evaluation.reconstruction import dice_per_structure

CHANNELS = (32, 64, 128)
STRIDES = (2, 2)
LEARNING_RATE = 3e-3


def train_segmenter(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    device: str | torch.device = "cpu",
    progress: str = "",
    boundary: int = 0,
) -> nn.Module:
    """Train a thin MONAI ``UNet`` with Dice and cross-entropy, AdamW and a one-cycle learning rate.

    Parameters
    ----------
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), integer class index, background 0
    num_classes : int
        Background included.
    steps, batch_size : int
        The whole budget: the same for every set that is to be compared.
    seed : int
        Decides initial weights, order of cases and augmentation; the global generators stay untouched.
    progress : str, optional
        Caption of a progress bar; empty shows none.
    boundary : int
        Where cases of a second source begin, each giving half of the draws; 0: there is one source.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build_segmenter(num_classes, seed).to(device)
    criterion = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = augment_pair(images[batch].to(device), labels[batch].to(device), generator)
        value: Tensor = criterion(model(pad_to_multiple(x)), pad_to_multiple(y))
        return value

    order = shuffled(len(images), steps * batch_size, generator, boundary)
    return fit(
        model, loss_of, order, batch_size, learning_rate=LEARNING_RATE, title=progress and f"segmenter {progress}"
    )


def build_segmenter(num_classes: int, seed: int) -> UNet:
    """Return the untrained segmenter; its weights depend on `seed` alone.

    Its first convolution already halves the grid: on a CPU the full resolution would cost most of a step.
    """
    return build(lambda: UNet(3, 1, num_classes, CHANNELS, STRIDES, norm=("INSTANCE", {"affine": True})), seed)


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 8) -> Tensor:
    """Return the most likely class of every voxel, shape (N, 1, I, J, K), uint8."""
    device = next(model.parameters()).device
    i, j, k = images.shape[2:]
    parts = [
        model(pad_to_multiple(x.to(device)))[..., :i, :j, :k].argmax(1, keepdim=True) for x in images.split(batch_size)
    ]
    return torch.cat(parts).to("cpu", torch.uint8)


def dice_on(model: nn.Module, images: Tensor, labels: Tensor, num_classes: int) -> Array:
    """Return a segmenter's Dice of each case and structure, shape (N, num_classes - 1)."""
    return dice_per_structure(predict(model, images), labels, num_classes)


def pad_to_multiple(volumes: Tensor, multiple: int = 2 ** len(STRIDES)) -> Tensor:
    """Append repeated edge voxels until every side divides; shape (B, C, I, J, K) in and out."""
    missing = [-side % multiple for side in volumes.shape[2:]]
    if not any(missing):
        return volumes
    amounts = [n for side in reversed(missing) for n in (0, side)]
    return functional.pad(volumes.float(), amounts, mode="replicate").to(volumes.dtype)
