"""Utility: a small segmenter trained on synthetic pairs, and on real ones, tested on held-out real patients.

Esteban et al. 2017, "Real-valued (medical) time series generation with recurrent conditional GANs",
arXiv:1706.02633, section 4.2: train on synthetic, test on real (TSTR), beside train on real, test on real (TRTR).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from synthmed.evaluation.cases import Cases
from synthmed.evaluation.fidelity import dice_per_structure
from synthmed.evaluation.intervals import Array, mean_interval, patient_weights, percentile_interval

CHANNELS = (32, 64, 128)
STRIDES = (2, 2)
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
WARM_UP = 0.1

ROTATION = 0.2  # radians
SCALING = 0.15  # log of the factor
SHIFT = 0.1  # half-sides of the grid
GAMMA = 0.3  # log of the exponent
CONTRAST = 0.15
BRIGHTNESS = 0.1
NOISE = 0.05


def measure_utility(
    training_sets: Mapping[str, Cases],
    test: Cases,
    structures: Sequence[str],
    *,
    steps: int,
    batch_size: int,
    seeds: Sequence[int],
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Train one segmenter a set and seed, all with the same budget, and test each on the same patients.

    Parameters
    ----------
    training_sets : mapping of str to Cases
        Such as ``{"tstr": synthetic, "trtr": real}``.
    test : Cases
        Real patients that neither generator nor segmenters saw.
    structures : sequence of str
        Names of classes 1, 2, ...

    Returns
    -------
    dict
        For each set: mean Dice over structures, seeds and cases with its interval over patients, the same for each
        structure, and the mean of each seed; ``ratio`` of ``tstr`` to ``trtr`` where both are there.
    """
    rng = np.random.default_rng(seeds[0])
    scores = {}
    for name, data in training_sets.items():
        per_seed = []
        for seed in seeds:
            model = train_segmenter(
                data.images,
                data.segmentations,
                len(structures) + 1,
                steps=steps,
                batch_size=batch_size,
                seed=seed,
                device=device,
                progress=name if progress else "",
            )
            per_seed.append(dice_on(model, test.images, test.segmentations, len(structures) + 1))
        scores[name] = np.stack(per_seed)
    result: dict[str, Any] = {"measured": True, "steps": steps, "batch_size": batch_size, "seeds": list(seeds)}
    result["sets"] = {
        name: _summary(dice, structures, test.patients, rng) | {"n_training": len(training_sets[name].images)}
        for name, dice in scores.items()
    }
    if {"tstr", "trtr"} <= scores.keys():
        result["ratio"] = _ratio(scores["tstr"], scores["trtr"], test.patients, rng)
    return result


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
    """
    generator = torch.Generator().manual_seed(seed)
    model = build_segmenter(num_classes, seed).to(device)
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    warm_up = max(WARM_UP, 1.5 / steps)  # one-cycle needs a rise of more than one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=min(warm_up, 0.9)
    )
    order = _epochs(len(images), steps * batch_size, generator)
    bar = tqdm(order.split(batch_size), desc=f"segmenter {progress}", disable=not progress)
    for chosen in bar:
        x, y = augment(images[chosen].to(device), labels[chosen].to(device), generator)
        loss = loss_of(model(pad_to_multiple(x)), pad_to_multiple(y))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def build_segmenter(num_classes: int, seed: int) -> UNet:
    """Return the untrained segmenter; its weights depend on `seed` alone.

    Its first convolution already halves the grid: on a CPU the full resolution would cost most of a step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(3, 1, num_classes, CHANNELS, STRIDES, norm=("INSTANCE", {"affine": True}))


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


def augment(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Change pose, contrast, brightness and noise a little, never the side: anatomy is not symmetric.

    Parameters
    ----------
    images : Tensor, shape (B, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (B, 1, I, J, K), integer
    generator : torch.Generator
        On the CPU.
    """
    theta = _poses(len(images), images.shape[2:], generator).to(images.device)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    regions = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    return _intensities(moved, generator), regions.long()


def pad_to_multiple(volumes: Tensor, multiple: int = 2 ** len(STRIDES)) -> Tensor:
    """Append repeated edge voxels until every side divides; shape (B, C, I, J, K) in and out."""
    missing = [-side % multiple for side in volumes.shape[2:]]
    if not any(missing):
        return volumes
    amounts = [n for side in reversed(missing) for n in (0, side)]
    return functional.pad(volumes.float(), amounts, mode="replicate").to(volumes.dtype)


def _epochs(num_cases: int, draws: int, generator: torch.Generator) -> Tensor:
    """Return `draws` indices: whole shuffled passes over the cases, one after the other."""
    passes = -(-draws // num_cases)
    return torch.cat([torch.randperm(num_cases, generator=generator) for _ in range(passes)])[:draws]


def _uniform(shape: tuple[int, ...], extent: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * extent


def _poses(count: int, sides: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return affine maps of the normalised grid, shape (B, 3, 4): rotation, scaling, shift.

    A rotation about the axis r by its length is expm([r]x); it is conjugated with the sides, because
    normalised coordinates stretch a grid that is not a cube.
    """
    r = _uniform((count, 3), ROTATION, generator)
    cross = torch.zeros(count, 3, 3)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -r[:, 2], r[:, 1], -r[:, 0]
    rotation = torch.linalg.matrix_exp(cross - cross.transpose(1, 2))
    scaled = rotation * torch.exp(_uniform((count, 1, 1), SCALING, generator))
    side = torch.tensor([float(n) for n in reversed(sides)])
    linear = scaled * (side[None, None, :] / side[None, :, None])
    return torch.cat([linear, _uniform((count, 3, 1), SHIFT, generator)], dim=2)


def _intensities(images: Tensor, generator: torch.Generator) -> Tensor:
    each = (len(images), 1, 1, 1, 1)
    gamma = torch.exp(_uniform(each, GAMMA, generator)).to(images.device)
    contrast = 1 + _uniform(each, CONTRAST, generator).to(images.device)
    brightness = _uniform(each, BRIGHTNESS, generator).to(images.device)
    noise = torch.randn(images.shape, generator=generator) * torch.rand(each, generator=generator) * NOISE
    unit = ((images + 1) / 2).clamp(0, 1) ** gamma
    return contrast * (2 * unit - 1) + brightness + noise.to(images.device)


def _summary(
    dice: Array, structures: Sequence[str], patients: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
    """Summarise Dice of shape (seeds, N, structures)."""
    cases = dice.mean(axis=0)
    return {
        "dice": mean_interval(cases.mean(axis=1), patients, rng=rng),
        "structures": {
            name: mean_interval(cases[:, index], patients, rng=rng) for index, name in enumerate(structures)
        },
        "dice_of_seeds": [float(mean) for mean in dice.mean(axis=(1, 2))],
    }


def _ratio(synthetic: Array, real: Array, patients: Sequence[str], rng: np.random.Generator) -> dict[str, float] | None:
    """Return the ratio of mean Dice with an interval over the same resampled patients, or None where real is 0."""
    top, bottom = synthetic.mean(axis=(0, 2)), real.mean(axis=(0, 2))
    if bottom.mean() <= 0:
        return None
    weights = patient_weights(patients, rng=rng)
    below = weights @ bottom
    draws = np.divide(weights @ top, below, out=np.full(len(below), np.nan), where=below > 0)
    low, high = percentile_interval(draws)
    return {"value": float(top.mean() / bottom.mean()), "low": low, "high": high}
