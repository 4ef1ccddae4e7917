"""A cohort of blobs and a configuration so small that both stages train in seconds."""

from __future__ import annotations

import torch

from synthmed.config import Config, parse_config
from synthmed.prepare.prepared import PreparedSplit
from synthmed.prepare.space import Space

GRID = (16, 16, 16)
SPACE = Space(GRID, (1.0, 1.0, 1.0), label_values=(0, 1))


def small_config(**sections) -> Config:
    """Return a configuration that trains in seconds, with keys of its sections replaced."""
    content = {
        "preprocess": {"grid": list(GRID)},
        "conditioning": {"scalars": ["age"]},
        "autoencoder": {"channels": [16, 16], "latent_channels": 8},
        "autoencoder_training": {"max_steps": 6, "batch_size": 2, "validate_every": 3, "checkpoint_every": 2},
        "denoiser": {"width": 32, "depth": 1, "num_head_channels": 16},
        "denoiser_training": {"max_steps": 6, "batch_size": 2, "validate_every": 3, "checkpoint_every": 2},
    }
    for stage in ("autoencoder_training", "denoiser_training"):
        content[stage] |= {"precision": "32-true", "warmup_steps": 2}
    for name, values in sections.items():
        content[name] = content.get(name, {}) | values
    return parse_config(content)


def blobs(count: int, seed: int, labels: bool = True) -> PreparedSplit:
    """Return soft balls of random radius and place, labelled where they are bright."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in GRID), indexing="ij")
    centres = torch.rand(count, 3, generator=generator) - 0.5
    radii = 0.3 + 0.3 * torch.rand(count, generator=generator)
    distance = sum((axis - centres[:, d].view(-1, 1, 1, 1)).square() for d, axis in enumerate(axes)).sqrt()
    images = torch.tanh(6 * (radii.view(-1, 1, 1, 1) - distance))[:, None]
    return PreparedSplit(
        case_ids=tuple(f"case{n}" for n in range(count)),
        subject_ids=tuple(f"patient{n}" for n in range(count)),
        images=images,
        labels=(images > 0).to(torch.uint8) if labels else None,
        covariates=tuple({"age": 40.0 + n} for n in range(count)),
        num_classes=2 if labels else 0,
    )
