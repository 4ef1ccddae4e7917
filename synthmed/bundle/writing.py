"""Writing a bundle's directory, whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from synthmed.bundle.card import render_license, render_model_card
from synthmed.bundle.components import WEIGHTS_DIGEST
from synthmed.bundle.metadata import AUTOENCODER, DENOISER, inference_config, metadata
from synthmed.bundle.source import ApprovedModel, open_model
from synthmed.files import atomic_directory, sha256_file, write_json, write_text
from synthmed.stages import Run


def write_bundle(run: Run, out: Path) -> Path:
    """Write a run's model as a MONAI bundle.

    Parameters
    ----------
    run : Run
        With an audit of its samples that says PASS.
    out : Path
        The bundle; must not exist. Nothing in it names a path, so it can be copied anywhere.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ReleaseRefused, AuditInconclusive, InputError
        As `open_model`.
    ConfigError
        If `out` exists.
    StorageError
        If the disk is full or read-only.
    """
    with atomic_directory(out) as part:
        _write(open_model(run), part)
    return out


def _write(model: ApprovedModel, part: Path) -> None:
    _write_network(part / "models" / AUTOENCODER, model.autoencoder.model, _autoencoder_record(model))
    _write_network(part / "models" / DENOISER, model.denoiser.model, _denoiser_record(model))
    write_json(part / "configs" / "metadata.json", metadata(model))
    write_json(part / "configs" / "inference.json", inference_config(model))
    (part / "docs" / "audit").mkdir(parents=True)
    for name, content in model.audit.items():
        (part / "docs" / "audit" / name).write_bytes(content)
    write_text(part / "docs" / "README.md", render_model_card(model))
    write_text(part / "LICENSE", render_license(model))


def _write_network(stem: Path, network: nn.Module, record: Mapping[str, Any]) -> None:
    """Write a network's state as MONAI's loader reads it, and beside it what the state does not say."""
    stem.parent.mkdir(exist_ok=True)
    weights = stem.with_suffix(".pt")
    buffer = io.BytesIO()  # torch's own writer of files does not say that a disk is full
    torch.save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, buffer)
    weights.write_bytes(buffer.getvalue())
    write_json(stem.with_suffix(".json"), {WEIGHTS_DIGEST: sha256_file(weights), **record})


def _autoencoder_record(model: ApprovedModel) -> dict[str, Any]:
    autoencoder = model.autoencoder
    parts = {name: getattr(autoencoder, name).to_json() for name in ("space", "finish", "screen")}
    return {"digest": autoencoder.digest, **parts}


def _denoiser_record(model: ApprovedModel) -> dict[str, Any]:
    denoiser = model.denoiser
    return {
        "digest": denoiser.digest,
        "autoencoder_digest": denoiser.autoencoder_digest,
        "latent_shape": list(denoiser.latent_shape),
        "latent_mean": denoiser.latent_mean.tolist(),
        "latent_std": denoiser.latent_std.tolist(),
        "diffusion": denoiser.diffusion.model_dump(mode="json"),
        "conditioning": denoiser.conditioning.to_json(),
    }
