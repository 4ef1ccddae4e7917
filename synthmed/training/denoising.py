"""What the denoiser learns from: the path's target on latents, each case in one of its augmented copies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from synthmed import processes
from synthmed.config import Config
from synthmed.diffusion.process import PATHS, holdout_loss, training_loss
from synthmed.models.augmentation import augmented
from synthmed.training.latents import LatentSet

DENOISER_MEASUREMENTS = ("train_loss", "holdout_loss")
_EVALUATED_LATENTS = 64


def denoiser_loss(
    latents: LatentSet, conditions: Tensor | None, config: Config
) -> Callable[[nn.Module, Tensor, torch.Generator, int], Tensor]:
    """Return the denoiser's loss of a step, each case in one of its augmented copies."""
    path, prediction = PATHS[config.diffusion.path], config.diffusion.prediction

    def loss(model: nn.Module, cases: Tensor, generator: torch.Generator, step: int) -> Tensor:
        device, share = next(model.parameters()).device, processes.share()
        copies = torch.randint(len(latents.train), cases.shape, generator=generator)
        copies = copies * augmented(len(cases), config.denoiser_training.augment, generator)
        network = partial(model, augmentation=latents.augmentation[copies, cases][share].to(device))
        condition = None if conditions is None else conditions[cases].to(device)
        x0 = latents.train[copies, cases].to(device)
        drop = config.conditioning.drop_probability
        return training_loss(
            network, path, prediction, x0, condition, generator=generator, drop_probability=drop, share=share
        ).mean()

    return loss


def denoiser_evaluation(
    latents: LatentSet, conditions: tuple[Tensor | None, Tensor | None], config: Config, fabric: Fabric
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that measures the denoising loss of like numbers of training and held-out cases."""
    path, prediction = PATHS[config.diffusion.path], config.diffusion.prediction

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = {}
        sides = zip(("train", "holdout"), (latents.train[0], latents.holdout), conditions, strict=True)
        for side, values, condition in sides:
            count = min(_EVALUATED_LATENTS, len(values))
            cases = torch.linspace(0, len(values) - 1, count).round().long()
            given = None if condition is None else fabric.to_device(condition[cases])
            with torch.no_grad(), fabric.autocast():
                losses = holdout_loss(model, path, prediction, fabric.to_device(values[cases]), given)
            found[f"{side}_loss"] = float(losses.mean())
        return found

    return evaluate
