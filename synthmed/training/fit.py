"""The two training stages: the autoencoder on scans, the denoiser on their latents."""

from __future__ import annotations

import gc
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from synthmed import processes
from synthmed.config import AutoencoderConfig, Config, DenoiserConfig, TrainingConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import ConfigError
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder
from synthmed.models.checkpoint import LoadedAutoencoder, LoadedDenoiser, load_autoencoder, save_model
from synthmed.models.denoiser import Denoiser, build_denoiser
from synthmed.models.devices import make_fabric
from synthmed.prepare.prepared import PreparedSplit, load_space, load_split
from synthmed.prepare.space import Space
from synthmed.training.appearance import fit_finish, fit_screen
from synthmed.training.calibration import calibrate
from synthmed.training.denoising import DENOISER_MEASUREMENTS, denoiser_evaluation, denoiser_loss
from synthmed.training.latents import AUGMENTED_COPIES, LatentSet, encode_cohort
from synthmed.training.loop import Outcome, Task, fit
from synthmed.training.reconstruction import (
    AUTOENCODER_MEASUREMENTS,
    Adversary,
    autoencoder_evaluation,
    autoencoder_loss,
    measure_autoencoder,
)
from synthmed.training.resume import CHECKPOINT
from synthmed.training.schedule import seeded, step_generator


def fit_autoencoder(
    config: Config, prepare_dir: Path, out: Path, *, device: str = "auto", progress: bool = True
) -> dict[str, Any]:
    """Train the autoencoder on a prepared cohort and write it to `out`, resuming what a kill left there.

    Parameters
    ----------
    config : Config
        Uses `seed`, `autoencoder` and `autoencoder_training`.
    prepare_dir : Path
        What `prepare` wrote.
    out : Path
        Gets ``model.safetensors``, ``model.json``, ``log.csv`` and ``tensorboard/``.
    device : {"auto", "cpu", "cuda", "mps"}
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    dict
        The measurements in ``model.json``: losses, PSNR (dB) and Dice of training and of held-out patients.

    Raises
    ------
    ConfigError, InputError, TrainingDiverged, StorageError, KeyboardInterrupt
        See `synthmed.training.loop.fit`.
    """
    splits = load_split(prepare_dir, "train"), load_split(prepare_dir, "holdout")
    return train_autoencoder(config, *splits, load_space(prepare_dir), Path(out), device=device, progress=progress)


def fit_denoiser(
    config: Config,
    prepare_dir: Path,
    autoencoder_dir: Path,
    out: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train the denoiser on the latents of a prepared cohort and write it to `out`; as `fit_autoencoder`.

    Parameters
    ----------
    config : Config
        Uses `seed`, `conditioning`, `denoiser`, `diffusion` and `denoiser_training`.
    prepare_dir, autoencoder_dir, out : Path
    device, progress
        See `fit_autoencoder`.

    Returns
    -------
    dict
        Training and held-out denoising losses, whose difference is the first sign of memorisation.
    """
    splits = load_split(prepare_dir, "train"), load_split(prepare_dir, "holdout")
    autoencoder = load_autoencoder(autoencoder_dir)
    return train_denoiser(config, *splits, autoencoder, Path(out), device=device, progress=progress)


def train_autoencoder(
    config: Config,
    train: PreparedSplit,
    holdout: PreparedSplit,
    space: Space,
    out: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train the autoencoder on splits in memory; see `fit_autoencoder`."""
    settings, architecture = config.autoencoder_training, config.autoencoder
    _check_batch("autoencoder", settings)
    num_classes = max(1, train.num_classes)
    grid = _grid(train)
    fabric = make_fabric(device, settings.precision, autoencoder_shapes(grid, architecture))
    with seeded(config.seed):
        model = build_autoencoder(architecture, num_classes)
        adversary = Adversary(grid, architecture, settings, fabric) if architecture.adversarial_weight else None
    model.fit_shortcut(train.images, train.labels, step_generator(config.seed, 0, stream=1000))
    task = Task(
        stage="autoencoder",
        count=len(train.images),
        loss=autoencoder_loss(train, architecture, settings, adversary),
        evaluate=autoencoder_evaluation(train, holdout, architecture, fabric),
        measurements=AUTOENCODER_MEASUREMENTS,
        identity={"autoencoder": architecture.model_dump(mode="json"), "data": data_digest(train, holdout)},
        companion=adversary,
    )
    outcome = fit(fabric, task, model, settings, out, seed=config.seed, progress=progress)

    def write() -> dict[str, Any]:
        model.load_state_dict(outcome.weights)
        measured = measure_autoencoder(model.eval(), holdout, architecture, fabric, limit=len(holdout.images))
        measurements = outcome.measurements | {f"holdout_{name}": value for name, value in measured.items()}
        record = {
            "architecture": architecture.model_dump(mode="json"),
            "num_classes": num_classes,
            "space": space.to_json(),
            "finish": fit_finish(model, train, fabric).to_json(),
            "screen": fit_screen(train).to_json(),
            **_history(config, outcome, fabric, measurements),
        }
        return _write(out, "autoencoder", outcome, record)

    return processes.from_first(write)


def train_denoiser(
    config: Config,
    train: PreparedSplit,
    holdout: PreparedSplit,
    autoencoder: LoadedAutoencoder,
    out: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train the denoiser on splits in memory; see `fit_denoiser`."""
    settings, architecture = config.denoiser_training, config.denoiser
    _check_batch("denoiser", settings)
    _check_labels(autoencoder, train)
    conditioning = Conditioning.fit(train.covariates, config.conditioning)
    latent_shape = _latent_shape(autoencoder, train)
    shapes = denoiser_shapes(latent_shape, architecture)
    fabric = make_fabric(device, settings.precision, shapes, sharded=settings.sharded)
    latents = encoded(autoencoder.model.to(fabric.device), train, holdout, config, fabric)

    def build() -> Denoiser:
        with seeded(config.seed):
            return build_denoiser(architecture, latent_shape, conditioning.dimension)

    conditions = conditioning.encode(train.covariates), conditioning.encode(holdout.covariates, strict=False)
    task = Task(
        stage="denoiser",
        count=len(train.images),
        loss=denoiser_loss(latents, conditions[0], config),
        evaluate=denoiser_evaluation(latents, conditions, config, fabric),
        measurements=DENOISER_MEASUREMENTS,
        identity=_denoiser_identity(config, autoencoder, train, holdout),
    )
    outcome = fit(fabric, task, build(), settings, out, seed=config.seed, progress=progress)

    def write() -> dict[str, Any]:
        record = {
            "architecture": architecture.model_dump(mode="json"),
            "latent_shape": list(latent_shape),
            "conditioning": conditioning.to_json(),
            "diffusion": config.diffusion.model_dump(mode="json"),
            "autoencoder_sha256": autoencoder.digest,
            **_history(config, outcome, fabric, outcome.measurements),
        }
        gc.collect()  # the network that was trained may lie in parts, held by cycles; another is made for its weights
        model = build().to(fabric.device)
        model.load_state_dict(outcome.weights)
        fitted = calibrated(model.eval(), latents, conditioning, config)
        scale = {"latent_mean": fitted.latent_mean, "latent_std": fitted.latent_std}
        return _write(out, "denoiser", outcome, record, **scale)

    return processes.from_first(write)


def encoded(
    model: LabelledAutoencoder, train: PreparedSplit, holdout: PreparedSplit, config: Config, fabric: Fabric
) -> LatentSet:
    """Return a cohort as the denoiser learns it: with augmented copies where the configuration asks for any."""
    copies = AUGMENTED_COPIES if config.denoiser_training.augment else 1
    draws = step_generator(config.seed, 0, stream=1001)
    return encode_cohort(model, train, holdout, fabric, copies=copies, generator=draws)


def calibrated(model: Denoiser, latents: LatentSet, conditioning: Conditioning, config: Config) -> LoadedDenoiser:
    """Return a trained denoiser as it draws: its latents scaled so that samples spread as the training set does."""
    device = next(model.parameters()).device
    channels, i, j, k = latents.train.shape[2:]
    loaded = LoadedDenoiser(
        model=model,
        latent_mean=latents.mean.to(device),
        latent_std=latents.std.to(device),
        latent_shape=(channels, i, j, k),
        conditioning=conditioning,
        diffusion=config.diffusion,
        digest="",
        autoencoder_digest="",
    )
    mean, std = calibrate(loaded, latents.train[0], config.seed)
    return replace(loaded, latent_mean=mean, latent_std=std)


def autoencoder_shapes(grid: tuple[int, int, int], config: AutoencoderConfig) -> list[tuple[int, ...]]:
    """Return the spatial shape of each level of the autoencoder's network, behind the stem."""
    return [tuple(side // 2 ** (level + 1) for side in grid) for level in range(len(config.channels))]


def denoiser_shapes(latent_shape: tuple[int, int, int, int], config: DenoiserConfig) -> list[tuple[int, ...]]:
    """Return the spatial shape of each level of the denoiser that convolves."""
    levels = len(config.channels) if config.kind == "unet" else 1
    return [tuple(side // 2**level for side in latent_shape[1:]) for level in range(levels)]


def data_digest(*splits: PreparedSplit) -> str:
    """Return the SHA-256 of the images, labels and covariates of prepared splits."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(json.dumps([split.case_ids, split.covariates], sort_keys=True, default=str).encode())
        for tensor in (split.images, split.labels):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_batch(stage: str, settings: TrainingConfig) -> None:
    if settings.batch_size % processes.world():
        raise ConfigError(
            f"{stage}_training.batch_size does not divide among the processes",
            found=str(settings.batch_size),
            expected=f"a multiple of {processes.world()}",
        )


def _check_labels(autoencoder: LoadedAutoencoder, train: PreparedSplit) -> None:
    found, expected = autoencoder.model.num_classes, max(1, train.num_classes)
    if found != expected:
        raise ConfigError(
            "The autoencoder was trained on other labels", found=f"{found} classes", expected=str(expected)
        )


def _grid(split: PreparedSplit) -> tuple[int, int, int]:
    i, j, k = split.images.shape[2:]
    return i, j, k


def _latent_shape(autoencoder: LoadedAutoencoder, split: PreparedSplit) -> tuple[int, int, int, int]:
    step = autoencoder.model.downsampling
    i, j, k = _grid(split)
    return autoencoder.model.latent_channels, i // step, j // step, k // step


def _denoiser_identity(
    config: Config, autoencoder: LoadedAutoencoder, train: PreparedSplit, holdout: PreparedSplit
) -> dict[str, Any]:
    sections = {
        name: getattr(config, name).model_dump(mode="json") for name in ("denoiser", "diffusion", "conditioning")
    }
    return {**sections, "autoencoder": autoencoder.digest, "data": data_digest(train, holdout)}


def _history(config: Config, outcome: Outcome, fabric: Fabric, measurements: dict[str, float]) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "steps": outcome.steps,
        "precision": fabric.strategy.precision.precision,
        "measurements": measurements,
    }


def _write(out: Path, kind: str, outcome: Outcome, record: dict[str, Any], **tensors: Tensor) -> dict[str, Any]:
    save_model(out, kind, outcome.weights, record, **tensors)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return record["measurements"]
