"""Variants of a recipe: named changes of a run's configuration, trained for equal seconds and measured alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baselines.judging import conditions_of, fidelity_of, segmenter_scores
from baselines.source import Source
from synthmed.config import Config, apply_overrides
from synthmed.diffusion.conditioning import Conditioning
from synthmed.diffusion.process import PATHS, training_loss
from synthmed.errors import ConfigError
from synthmed.evaluation.cases import synthetic_cases
from synthmed.files import read_json, sha256_json, write_json
from synthmed.models.checkpoint import load_autoencoder
from synthmed.models.denoiser import build_denoiser
from synthmed.models.devices import make_fabric
from synthmed.sampling.generate import generate
from synthmed.training.fit import denoiser_shapes, fit_autoencoder, fit_denoiser
from synthmed.training.schedule import seeded

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "base": (),
    # sampling alone: the denoiser of `base` serves all of these
    "steps_10": ("sampling.num_inference_steps=10",),
    "steps_40": ("sampling.num_inference_steps=40",),
    "ddim": ("sampling.sampler=ddim",),
    "heun_10": ("sampling.sampler=heun", "sampling.num_inference_steps=10"),
    "shift_1": ("sampling.timestep_shift=1",),
    "shift_5": ("sampling.timestep_shift=5",),
    "no_finish": ("sampling.finish=false",),
    "no_screen": ("sampling.redraws=0",),
    "guidance_0": ("sampling.guidance_scale=0",),
    "guidance_1.5": ("sampling.guidance_scale=1.5",),
    "guidance_3": ("sampling.guidance_scale=3",),
    # the denoiser
    "no_augmentation": ("denoiser_training.augment=0",),
    "all_augmented": ("denoiser_training.augment=1",),
    "no_average": ("denoiser_training.ema_decay=0",),
    "no_patience": ("denoiser_training.patience=0",),
    "dropout": ("denoiser.dropout=0.1",),
    "width_128": ("denoiser.width=128",),
    "width_384": ("denoiser.width=384",),
    "depth_6": ("denoiser.depth=6",),
    "epsilon_linear": ("diffusion.path=linear", "diffusion.prediction=epsilon"),
    "velocity_cosine": ("diffusion.path=cosine", "diffusion.prediction=velocity"),
    "sample_rectified": ("diffusion.path=rectified", "diffusion.prediction=sample"),
    # the autoencoder, trained anew for each
    "no_latent_noise": ("autoencoder.latent_noise=0",),
    "no_shortcut": ("autoencoder.linear_shortcut=false",),
    "latent_64": ("autoencoder.latent_channels=64",),
    "adversary": ("autoencoder.adversarial_weight=0.05",),
}
AUTOENCODER = ("autoencoder", "autoencoder_training")
DENOISER = ("denoiser", "diffusion", "conditioning", "denoiser_training")
VALIDATIONS = 5
_PROBED, _WARMING_UP = 24, 4


@dataclass(frozen=True)
class Trial:
    """What all variants of a table share.

    Attributes
    ----------
    seconds : float, or None
        Of the denoiser's training steps; encoding, validation and sampling come on top. None takes the run's own.
    samples : int
        Volumes that are drawn and measured.
    segmenter_steps : int
        0 leaves the utility out.
    """

    seconds: float | None
    samples: int
    segmenter_steps: int


def measure_variant(
    source: Source, overrides: tuple[str, ...], seed: int, trial: Trial, out: Path, *, progress: bool
) -> dict[str, Any]:
    """Train what a variant changes, draw from it and measure the volumes; what is on disk already is used.

    Parameters
    ----------
    seed : int
        Of the denoiser, the volumes and the segmenter. The autoencoder has the run's.
    out : Path
        Receives ``autoencoders/``, ``denoisers/``, ``sets/`` and ``measured/``, all named by what decides them.

    Raises
    ------
    ConfigError
        If the variant does not fit the cohort, is no configuration, or would need a denoiser that is not to be trained.
    TrainingDiverged
        If none of its volumes is in the real range.
    """
    config = apply_overrides(source.run.config, (*overrides, f"seed={seed}"))
    autoencoder = autoencoder_of(source, config, out, progress=progress)
    if trial.seconds is None:
        denoiser = own_denoiser(source, config)
    else:
        steps = steps_of(source, config, autoencoder, trial.seconds, out)
        denoiser = denoiser_of(source, config, autoencoder, steps, out, progress=progress)
    samples = out / "sets" / _digest(denoiser.name, config.sampling.model_dump(mode="json"), seed)
    generate(
        autoencoder,
        denoiser,
        samples,
        sampling=config.sampling,
        seed=seed,
        num_samples=trial.samples,
        progress=progress,
    )
    file = out / "measured" / f"{_digest(samples.name, trial.samples, trial.segmenter_steps)}.json"
    if not file.is_file():
        measured = {"fidelity": fidelity_of(source, samples, seed), "conditions": conditions_of(source, samples, seed)}
        if trial.segmenter_steps:
            cases = synthetic_cases(samples, source.space)
            shown = "synthetic" if progress else ""
            measured["scores"] = segmenter_scores(source, cases, [seed], trial.segmenter_steps, progress=shown)
        write_json(file, measured)
    record, kept = (read_json(folder / "model.json") for folder in (denoiser, autoencoder))
    return read_json(file) | {
        "steps": record["steps"],
        "loss": record["measurements"]["holdout_loss"],
        "training_loss": record["measurements"]["train_loss"],
        "psnr": kept["measurements"].get("holdout_psnr"),
    }


def autoencoder_of(source: Source, config: Config, out: Path, *, progress: bool) -> Path:
    """Return the run's autoencoder where a variant changes nothing in it, else one trained as often."""
    own = source.run.config
    if _sections(config, AUTOENCODER) == _sections(own, AUTOENCODER):
        return source.run.stage("autoencoder")
    folder = out / "autoencoders" / _digest(_sections(config, AUTOENCODER), own.seed)
    if not (folder / "model.json").is_file():
        prepared = source.run.stage("prepare")
        fit_autoencoder(apply_overrides(config, [f"seed={own.seed}"]), prepared, folder, progress=progress)
    return folder


def denoiser_of(source: Source, config: Config, autoencoder: Path, steps: int, out: Path, *, progress: bool) -> Path:
    """Train a variant's denoiser in `steps`, validated five times, unless that was done before."""
    counted = (
        f"denoiser_training.max_steps={steps}",
        f"denoiser_training.validate_every={max(1, steps // VALIDATIONS)}",
    )
    changed = apply_overrides(config, counted)
    weights = read_json(autoencoder / "model.json")
    folder = out / "denoisers" / _digest(_sections(changed, DENOISER), weights, config.seed)
    if not (folder / "model.json").is_file():
        fit_denoiser(changed, source.run.stage("prepare"), autoencoder, folder, progress=progress)
    return folder


def own_denoiser(source: Source, config: Config) -> Path:
    """Return the run's own denoiser; raise `ConfigError` where a variant would train another."""
    trained = (*AUTOENCODER, *DENOISER)
    if _sections(config, trained) != _sections(source.run.config, trained):
        raise ConfigError("it changes what is trained", next_step="Give it seconds instead of --trained")
    return source.run.stage("denoiser")


def steps_of(source: Source, config: Config, autoencoder: Path, seconds: float, out: Path) -> int:
    """Return how many of a variant's steps the budget holds; timed once, so that a second call does the same."""
    loaded = load_autoencoder(autoencoder).model
    i, j, k = (side // loaded.downsampling for side in source.space.grid)
    shape = loaded.latent_channels, i, j, k
    settings = {name: getattr(config.denoiser_training, name) for name in ("batch_size", "precision")}
    file = out / "timings" / f"{_digest(config.denoiser.model_dump(mode='json'), shape, settings)}.json"
    if not file.is_file():
        dimension = Conditioning.fit(source.train.covariates, config.conditioning).dimension
        write_json(file, {"seconds_a_step": seconds_a_step(config, shape, dimension)})
    return max(1, round(seconds / read_json(file)["seconds_a_step"]))


def seconds_a_step(config: Config, latent_shape: tuple[int, int, int, int], condition_dim: int) -> float:
    """Time training steps on noise and return the median; on the CPU, waiting for other processes does not count."""
    fabric = make_fabric("auto", config.denoiser_training.precision, denoiser_shapes(latent_shape, config.denoiser))
    with seeded(0):
        bare = build_denoiser(config.denoiser, latent_shape, condition_dim)
    model, optimizer = fabric.setup(bare, torch.optim.AdamW(bare.parameters(), fused=True))
    generator = torch.Generator().manual_seed(0)
    batch = config.denoiser_training.batch_size
    x0 = fabric.to_device(torch.randn(batch, *latent_shape, generator=generator))
    condition: Tensor | None = fabric.to_device(torch.zeros(batch, condition_dim)) if condition_dim else None
    path, prediction = PATHS[config.diffusion.path], config.diffusion.prediction
    on_cpu, times = fabric.device.type == "cpu", []
    for _ in range(_PROBED):
        times.append(_now(on_cpu))
        with fabric.autocast():
            loss = training_loss(model, path, prediction, x0, condition, generator=generator).mean()
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())  # waits for the device
    return statistics.median(b - a for a, b in zip(times[_WARMING_UP:], times[_WARMING_UP + 1 :], strict=False))


def _now(on_cpu: bool) -> float:
    return time.process_time() / torch.get_num_threads() if on_cpu else time.monotonic()


def _sections(config: Config, names: tuple[str, ...]) -> dict[str, Any]:
    content = config.model_dump(mode="json")
    return {name: content[name] for name in names}


def _digest(*parts: Any) -> str:
    return sha256_json(list(parts))[:12]
