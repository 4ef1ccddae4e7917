"""An untrained autoencoder and denoiser on disk, so small that they draw volumes in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from releases import make_audit

from synthmed.config import (
    AutoencoderConfig,
    ConditioningConfig,
    DenoiserConfig,
    DiffusionConfig,
    dump_config,
    parse_config,
)
from synthmed.diffusion.conditioning import Conditioning
from synthmed.models.autoencoder import build_autoencoder
from synthmed.models.checkpoint import save_model
from synthmed.models.denoiser import build_denoiser
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.prepare.space import Space
from synthmed.sampling.generate import generate
from synthmed.stages import Run

SPACE = Space(
    grid=(8, 12, 8),
    spacing=(1.0, 1.5, 2.0),
    orientation="LAS",
    intensity_range=(-200.0, 800.0),
    label_values=(0, 3, 7),
    label_names={3: "nucleus", 7: "ventricle"},
)
ROWS = [{"sex": "FM"[i % 2], "age": 40 + i} for i in range(20)]


def save_models(folder: Path, space: Space, *, conditional: bool = True, weights_seed: int = 0) -> tuple[Path, Path]:
    """Write an untrained autoencoder and denoiser, every weight perturbed so that nothing is zero."""
    config = AutoencoderConfig(channels=(8, 16), norm_num_groups=4, latent_channels=4)
    autoencoder = build_autoencoder(config, space.num_classes)
    record = {
        "architecture": config.model_dump(mode="json"),
        "num_classes": space.num_classes,
        "finish": Finish().to_json(),
        "screen": Screen().to_json(),
        "space": space.to_json(),
    }
    digest = save_model(folder / "autoencoder", "autoencoder", perturbed(autoencoder, weights_seed), record)
    covariates = ConditioningConfig(classes=("sex",), scalars=("age",)) if conditional else ConditioningConfig()
    conditioning = Conditioning.fit(ROWS, covariates)
    shape = (4, *(n // 4 for n in space.grid))
    small = DenoiserConfig(width=16, depth=1, num_head_channels=8)
    denoiser = build_denoiser(small, shape, conditioning.dimension)
    save_model(
        folder / "denoiser",
        "denoiser",
        perturbed(denoiser, weights_seed + 1),
        {
            "architecture": small.model_dump(mode="json"),
            "latent_shape": shape,
            "conditioning": conditioning.to_json(),
            "diffusion": DiffusionConfig().model_dump(mode="json"),
            "autoencoder_sha256": digest,
        },
        latent_mean=torch.full((4, 1, 1, 1), 0.3),
        latent_std=torch.full((4, 1, 1, 1), 2.0),
    )
    return folder / "autoencoder", folder / "denoiser"


def perturbed(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }


def audited_run(
    folder: Path, space: Space = SPACE, *, conditional: bool = True, export: dict[str, Any] | None = None
) -> Run:
    """Write a run of seed 1 whose models drew four samples, and a passing audit of these."""
    sampling = {"num_samples": 4, "num_inference_steps": 3, "batch_size": 2}
    config = parse_config({"seed": 1, "sampling": sampling, "export": export or {}})
    models = save_models(folder, space, conditional=conditional)
    samples = generate(*models, folder / "generate", sampling=config.sampling, seed=config.seed, progress=False)
    make_audit(folder / "audit" / "release", samples)
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return Run(config, folder)
