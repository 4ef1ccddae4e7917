"""Seconds of single training steps, of this project's own loop and of the tutorial's."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from baselines import tutorial
from baselines.tutorial import Budget
from lightning_fabric import Fabric
from torch import Tensor, nn

from speed.measuring import Clock, differences
from speed.stemless import Stemless
from synthmed.config import Config, TrainingConfig
from synthmed.diffusion.process import PATHS, training_loss
from synthmed.models.augmentation import AUGMENTATION_DIM, augment, draw_augmentation
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder, one_hot
from synthmed.models.denoiser import build_denoiser
from synthmed.models.devices import make_fabric
from synthmed.prepare.prepared import PreparedSplit
from synthmed.training.denoising import denoiser_loss
from synthmed.training.fit import autoencoder_shapes, denoiser_shapes
from synthmed.training.latents import AUGMENTED_COPIES, LatentSet
from synthmed.training.loop import Task, fit
from synthmed.training.reconstruction import Adversary, autoencoder_loss
from synthmed.training.schedule import seeded

WARMING_UP = 2
NEVER = 10**9
ENCODED = 8
LOSSES = {"train_loss": 0.0, "holdout_loss": 0.0}
Loss = Callable[[nn.Module, Tensor, torch.Generator, int], Tensor]


@dataclass(frozen=True, eq=False)
class Training:
    """A stage of this project's training, ready for its loop."""

    task: Task
    model: nn.Module
    fabric: Fabric
    settings: TrainingConfig
    seed: int


def autoencoder_training(config: Config, split: PreparedSplit, *, device: str = "cpu", stem: bool = True) -> Training:
    """Return the autoencoder's training; see `our_autoencoder`."""
    settings, architecture, classes = config.autoencoder_training, config.autoencoder, max(1, split.num_classes)
    grid = _grid(split)
    fabric = make_fabric(device, settings.precision, autoencoder_shapes(grid, architecture))
    with seeded(config.seed):
        model = build_autoencoder(architecture, classes) if stem else Stemless(architecture, classes)
        adversary = Adversary(grid, architecture, settings, fabric) if architecture.adversarial_weight else None
    loss = autoencoder_loss(split, architecture, settings, adversary)
    return Training(_task("autoencoder", len(split.images), loss, adversary), model, fabric, settings, config.seed)


def denoiser_training(config: Config, latents: LatentSet, *, device: str = "cpu") -> Training:
    """Return the denoiser's training on latents, without conditions."""
    settings, architecture = config.denoiser_training, config.denoiser
    channels, i, j, k = latents.train.shape[2:]
    shape = channels, i, j, k
    fabric = make_fabric(device, settings.precision, denoiser_shapes(shape, architecture))
    with seeded(config.seed):
        model = build_denoiser(architecture, shape, 0)
    task = _task("denoiser", latents.train.shape[1], denoiser_loss(latents, None, config))
    return Training(task, model, fabric, settings, config.seed)


def our_autoencoder(
    config: Config, split: PreparedSplit, steps: int, clock: Clock, *, stem: bool = True
) -> list[float]:
    """Return seconds of `steps` steps of the autoencoder's training.

    Parameters
    ----------
    config : Config
    split : PreparedSplit
    steps : int
    clock : callable
    stem : bool
        False takes a level at full resolution in the place of the Haar stem; see `speed.stemless`.
    """
    return time_steps(autoencoder_training(config, split, stem=stem), steps + WARMING_UP, clock)[WARMING_UP:]


def our_denoiser(config: Config, split: PreparedSplit, steps: int, clock: Clock, *, cached: bool = True) -> list[float]:
    """Return seconds of `steps` steps of the denoiser's training; `cached` False encodes the scans in every step."""
    latents = made_up_latents(len(split.images), latent_shape(config, split), config.seed)
    training = denoiser_training(config, latents)
    if not cached:
        with seeded(config.seed):
            coder = build_autoencoder(config.autoencoder, max(1, split.num_classes)).eval()
        training = replace(training, task=replace(training.task, loss=encoding_loss(coder, split, config)))
    return time_steps(training, steps + WARMING_UP, clock)[WARMING_UP:]


def time_steps(training: Training, steps: int, clock: Clock) -> list[float]:
    """Run the product's loop and return the seconds from each step's beginning to the next one's, from the first on."""
    moments: list[float] = []

    def loss(model: nn.Module, cases: Tensor, generator: torch.Generator, step: int) -> Tensor:
        moments.append(clock())
        return training.task.loss(model, cases, generator, step)

    run_steps(replace(training, task=replace(training.task, loss=loss)), steps + 1)
    return differences(moments, 0)


def run_steps(training: Training, steps: int) -> None:
    """Run the product's loop for so many steps."""
    often = {"max_steps": steps, "validate_every": NEVER, "checkpoint_every": NEVER, "patience": 0}
    settings = training.settings.model_copy(update=often)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            training.fabric,
            training.task,
            training.model,
            settings,
            Path(folder),
            seed=training.seed,
            progress=False,
        )


def encoding_loss(coder: LabelledAutoencoder, split: PreparedSplit, config: Config) -> Loss:
    """Return the denoiser's loss on latents that are made anew in every step, augmented as the cached ones are."""
    path, prediction = PATHS[config.diffusion.path], config.diffusion.prediction

    def loss(model: nn.Module, cases: Tensor, generator: torch.Generator, step: int) -> Tensor:
        changes = draw_augmentation(len(cases), generator)
        labels = None if split.labels is None else split.labels[cases]
        with torch.no_grad():
            images, labels = augment(split.images[cases], labels, changes)
            x0 = coder.encode(images, None if labels is None else one_hot(labels, split.num_classes)).float()
        network = partial(model, augmentation=changes)
        return training_loss(network, path, prediction, x0, None, generator=generator).mean()

    return loss


def caching_seconds(config: Config, split: PreparedSplit, clock: Clock) -> list[float]:
    """Return the seconds that one scan takes to be encoded, once for each of the first `ENCODED` scans of the split."""
    coder = build_autoencoder(config.autoencoder, max(1, split.num_classes)).eval()
    moments = [clock()]
    with torch.no_grad():
        for case in range(min(ENCODED, len(split.images))):
            labels = None if split.labels is None else split.labels[case : case + 1]
            onehot = None if labels is None else one_hot(labels, split.num_classes)
            coder.encode(split.images[case : case + 1], onehot)
            moments.append(clock())
    return differences(moments, 0)


def optimiser_seconds(model: nn.Module, kind: str, steps: int, clock: Clock) -> list[float]:
    """Return seconds of AdamW's steps alone.

    Parameters
    ----------
    kind : {"fused", "foreach", "loop"}
        How torch updates the parameters.
    """
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=kind == "fused", foreach=kind == "foreach")
    moments = []
    for _ in range(steps + WARMING_UP + 1):
        moments.append(clock())
        optimizer.step()
    return differences(moments, WARMING_UP)


def tutorial_autoencoder(
    data: Tensor, batch: int, steps: int, clock: Clock, seed: int, *, adversarial: bool = False
) -> list[float]:
    """Return seconds of the tutorial's steps: at most five before its discriminator joins, or `steps` after.

    Parameters
    ----------
    data : Tensor
        See `baselines.tutorial`; only the first `batch` cases are used, so that a step is an epoch and the
        discriminator joins with the seventh.
    """
    moments: list[float] = []
    alone = tutorial.WARM_UP_EPOCHS
    tutorial.train_autoencoder(
        data[:batch],
        Budget(math.inf, alone + steps + 1 if adversarial else min(alone, steps + 1)),
        seed,
        progress=False,
        batch_size=batch,
        watch=lambda model, done: _note(moments, clock),
    )
    return differences(moments, alone if adversarial else 0)


def tutorial_denoiser(data: Tensor, batch: int, steps: int, clock: Clock, seed: int) -> list[float]:
    """Return seconds of the tutorial's steps with an untrained autoencoder, which encodes in every one of them."""
    moments: list[float] = []
    with seeded(seed):
        coder = tutorial.build_autoencoder(data.shape[1]).eval()
    tutorial.train_unet(
        coder,
        data[:batch],
        Budget(math.inf, steps + WARMING_UP + 1),
        seed,
        progress=False,
        batch_size=batch,
        watch=lambda model, done: _note(moments, clock),
    )
    return differences(moments, WARMING_UP)


def made_up_latents(count: int, shape: tuple[int, int, int, int], seed: int) -> LatentSet:
    """Return noise in the place of cached latents: a step takes as long whatever they hold."""
    generator = torch.Generator().manual_seed(seed)
    copies = min(AUGMENTED_COPIES, 2)
    train = torch.randn(copies, count, *shape, generator=generator)
    scale = torch.zeros(shape[0], 1, 1, 1)
    return LatentSet(train, torch.zeros(copies, count, AUGMENTATION_DIM), train[0, :1], scale, scale + 1)


def latent_shape(config: Config, split: PreparedSplit) -> tuple[int, int, int, int]:
    """Return the shape of ours' latents, (C, i, j, k)."""
    step = config.autoencoder.downsampling
    i, j, k = (side // step for side in _grid(split))
    return config.autoencoder.latent_channels, i, j, k


def _task(stage: str, count: int, loss: Loss, companion: Adversary | None = None) -> Task:
    return Task(stage, count, loss, lambda model: LOSSES, tuple(LOSSES), identity={}, companion=companion)


def _grid(split: PreparedSplit) -> tuple[int, int, int]:
    i, j, k = split.images.shape[2:]
    return i, j, k


def _note(moments: list[float], clock: Clock) -> bool:
    moments.append(clock())
    return False
