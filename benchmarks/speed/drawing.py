"""Seconds and evaluations of drawing volumes from one model by several samplers, decoding apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from speed.measuring import Clock
from synthmed.config import SamplingConfig
from synthmed.errors import ConfigError
from synthmed.models.checkpoint import LoadedAutoencoder, LoadedDenoiser, load_autoencoder, load_denoiser
from synthmed.models.library import find_model, read_entry
from synthmed.pipeline import open_run
from synthmed.sampling.generate import decode_latent, sample_latents, volume_seed

DDPM, DDIM = "DDPM-1000", "DDIM-50"
STANDARD: Mapping[str, Mapping[str, object]] = {
    DDIM: {"sampler": "ddim", "num_inference_steps": 50, "timestep_shift": 1.0},
    DDPM: {"sampler": "ddpm", "num_inference_steps": 1000, "timestep_shift": 1.0},
}
"""Evenly spaced times, as where they come from."""


@dataclass(frozen=True, eq=False)
class Models:
    """What is drawn from, with its own way to draw."""

    autoencoder: LoadedAutoencoder
    denoiser: LoadedDenoiser
    sampling: SamplingConfig
    seed: int
    prepared: Path | None


@dataclass(frozen=True, eq=False)
class Batch:
    """Latents of one batch, and what they took.

    Attributes
    ----------
    latents : Tensor, shape (B, C, i, j, k)
    seeds : tuple of int
    evaluations : float
        Of the network, a volume.
    seconds : float
        A volume.
    """

    latents: Tensor
    seeds: tuple[int, ...]
    evaluations: float
    seconds: float


def open_models(target: str) -> Models:
    """Open a run's directory, a pretrained model by its name, or the folder of one.

    Raises
    ------
    ConfigError
        If it is none of them.
    """
    folder = Path(target)
    if (folder / "config.yaml").is_file():
        run = open_run(folder)
        parts = [run.stage(name) for name in ("autoencoder", "denoiser")]
        missing = [part.name for part in parts if not (part / "model.json").is_file()]
        if missing:
            raise ConfigError(f"{folder} has no trained {missing[0]}", next_step=f"Finish it: synthmed run {folder}")
        prepared = run.stage("prepare")
        kept = prepared if (prepared / "cases.csv").is_file() else None
        sampling, seed = run.config.sampling, run.config.seed
    else:
        model = find_model(target)
        entry = read_entry(model)
        parts, kept, sampling, seed = [model / "autoencoder", model / "denoiser"], None, entry.sampling, entry.seed
    return Models(load_autoencoder(parts[0]), load_denoiser(parts[1]), sampling, seed, kept)


def contenders(own: SamplingConfig, steps: Sequence[int] = ()) -> dict[str, SamplingConfig]:
    """Return the ways to draw by name: the model's own, also in other numbers of steps, then the standards."""
    counts = (own.num_inference_steps, *steps)
    mine = {f"own: {own.sampler}, {n} steps": own.model_copy(update={"num_inference_steps": n}) for n in counts}
    return mine | {name: own.model_copy(update=dict(change)) for name, change in STANDARD.items()}


def draw(models: Models, sampling: SamplingConfig, size: int, first: int, clock: Clock) -> Batch:
    """Draw the latents of volumes `first`, `first` + 1, ... in one batch.

    Parameters
    ----------
    sampling : SamplingConfig
    size : int
        Volumes.
    first : int
        Index; with the model's seed it decides noise and conditions, whatever the sampler.
    clock : callable
    """
    denoiser, counted = models.denoiser, [0]

    def count(*_: object) -> None:
        counted[0] += 1

    seeds = tuple(volume_seed(models.seed, index) for index in range(first, first + size))
    conditions = [denoiser.conditioning.draw(seed) for seed in seeds]
    hook = denoiser.model.register_forward_hook(count)
    try:
        began = clock()
        latents = sample_latents(denoiser, seeds, conditions, sampling)
        seconds = clock() - began
    finally:
        hook.remove()
    return Batch(latents, seeds, float(counted[0]), seconds / size)


def decode(models: Models, batch: Batch, clock: Clock) -> tuple[Tensor, list[float]]:
    """Return the batch's images, shape (B, 1, I, J, K), in [-1, 1], and the seconds that each took with its finish."""
    images, seconds = [], []
    for latent, seed in zip(batch.latents, batch.seeds, strict=True):
        began = clock()
        drawn = decode_latent(models.autoencoder, latent, seed, models.sampling)
        seconds.append(clock() - began)
        images.append(torch.from_numpy(drawn.image))
    return torch.stack(images).clamp(-1.0, 1.0), seconds
