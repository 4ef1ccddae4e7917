"""Sets out of a generative model: the run's own, and MONAI's tutorial trained for the same seconds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines import tutorial
from baselines.source import Source, write_case
from baselines.tutorial import Budget
from synthmed.errors import ConfigError
from synthmed.files import atomic_path, read_json, write_json
from synthmed.models.autoencoder import one_hot
from synthmed.sampling.generate import volume_seed

SAMPLED_TOGETHER = 8


@dataclass(frozen=True)
class TutorialSettings:
    """How the tutorial is trained and sampled.

    Attributes
    ----------
    seconds : mapping of str to float
        Budgets of ``autoencoder`` and ``denoiser``.
    steps : int
        Of sampling.
    """

    seconds: Mapping[str, float]
    steps: int = 50


def make_synthmed(source: Source, out: Path, seed: int) -> dict[str, Any]:
    """Copy the run's own volumes."""
    for folder in ("images", "labels"):
        shutil.copytree(source.samples / folder, out / folder, dirs_exist_ok=True)
    return {"training_seconds": {name: source.seconds[name] for name in ("autoencoder", "denoiser")}}


def make_tutorial(
    source: Source, out: Path, seed: int, settings: TutorialSettings, *, progress: bool
) -> dict[str, Any]:
    """Train the tutorial's two stages, each for its seconds, and draw as many volumes as the run has.

    A trained stage is kept in `out`, so that a second call goes on behind it.
    """
    grid = source.space.grid
    data = stack(source)
    autoencoder, first = _autoencoder(data, out, seed, settings, progress)
    unet, scale, second = _unet(autoencoder, data, out, seed, settings, progress)
    began = time.monotonic()
    for start in range(0, source.count, SAMPLED_TOGETHER):
        indices = range(start, min(start + SAMPLED_TOGETHER, source.count))
        seeds = [volume_seed(seed, index) for index in indices]
        images, labels = tutorial.sample(autoencoder, unet, scale, grid, settings.steps, seeds)
        for index, image, label in zip(indices, images, labels, strict=True):
            write_case(out, index, image, label, source.space)
    return {
        "training_seconds": {"autoencoder": first["seconds"], "denoiser": second["seconds"]},
        "autoencoder": first,
        "denoiser": second,
        "sampling_seconds": round(time.monotonic() - began, 1),
        "sampler": f"{'DDPM' if settings.steps == tutorial.TRAINING_STEPS else 'DDIM'}, {settings.steps} steps",
        "threads": torch.get_num_threads(),
    }


def check_tutorial(grid: tuple[int, int, int], steps: int) -> None:
    """Say what the tutorial cannot take before hours are spent.

    Raises
    ------
    ConfigError
        If a side of the grid is not divisible by 4 or below 24, where the discriminator's last layers find nothing, or
        the steps of sampling do not divide 1,000.
    """
    if any(side % tutorial.DOWNSAMPLING or side < tutorial.LEAST_SIDE for side in grid):
        raise ConfigError(
            "The tutorial's networks cannot take this grid",
            found=str(grid),
            expected=f"sides divisible by {tutorial.DOWNSAMPLING}, at least {tutorial.LEAST_SIDE}",
            next_step="Leave the tutorial out with --methods",
        )
    tutorial.build_scheduler(steps)


def stack(source: Source) -> Tensor:
    """Return training images and their one-hot classes as channels, shape (N, 1 + classes, I, J, K), in [0, 1]."""
    images, labels = source.train.images, source.train.labels
    onehot = None if labels is None else one_hot(labels, source.space.num_classes)
    scaled = (images + 1) / 2
    return scaled if onehot is None else torch.cat([scaled, onehot], dim=1)


def _autoencoder(
    data: Tensor, out: Path, seed: int, settings: TutorialSettings, progress: bool
) -> tuple[tutorial.AutoencoderKL, dict[str, Any]]:
    file = out / "autoencoder.pt"
    if (kept := _kept(file)) is None:
        model, trained = tutorial.train_autoencoder(
            data, Budget(settings.seconds["autoencoder"]), seed, progress=progress
        )
        kept = _keep(file, model, trained.summary())
    model = tutorial.build_autoencoder(data.shape[1])
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval(), kept


def _unet(
    autoencoder: tutorial.AutoencoderKL,
    data: Tensor,
    out: Path,
    seed: int,
    settings: TutorialSettings,
    progress: bool,
) -> tuple[tutorial.DiffusionModelUNet, float, dict[str, Any]]:
    file = out / "denoiser.pt"
    if (kept := _kept(file)) is None:
        budget = Budget(settings.seconds["denoiser"])
        model, scale, trained = tutorial.train_unet(autoencoder, data, budget, seed, progress=progress)
        kept = _keep(file, model, trained.summary() | {"scale_factor": scale})
    model = tutorial.build_unet()
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval(), kept["scale_factor"], kept


def _kept(file: Path) -> dict[str, Any] | None:
    record = file.with_suffix(".json")
    return read_json(record) if record.is_file() and file.is_file() else None


def _keep(file: Path, model: torch.nn.Module, record: dict[str, Any]) -> dict[str, Any]:
    """Save weights, then the record that vouches for them."""
    with atomic_path(file) as part:
        torch.save(model.state_dict(), part)
    write_json(file.with_suffix(".json"), record)
    return record
