"""Trained models on disk: ``model.safetensors`` for the weights, ``model.json`` for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from synthmed.config import AutoencoderConfig, DenoiserConfig, DiffusionConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import ConfigError, InputError
from synthmed.files import atomic_path, read_json, sha256_file, write_json
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder
from synthmed.models.denoiser import Denoiser, LatentShape, build_denoiser
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.models.storage import halve, quantise, restore
from synthmed.prepare.space import Space

WEIGHTS = "model.safetensors"
RECORD = "model.json"
_FORMAT = 1
_MODEL = "model."
_MADE_FROM = "made_from_sha256"
_HEADER = ("format", "kind", "weights_sha256", "versions")
_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class LoadedAutoencoder:
    """An autoencoder ready to use, in evaluation mode.

    Attributes
    ----------
    model : LabelledAutoencoder
    space : Space
        The grid and units that it was trained on.
    digest : str
        SHA-256 of its weights.
    finish : Finish
        What decoded volumes lack of scans.
    screen : Screen
        The range that samples keep to.
    """

    model: LabelledAutoencoder
    space: Space
    digest: str
    finish: Finish
    screen: Screen


@dataclass(frozen=True, eq=False)
class LoadedDenoiser:
    """A denoiser ready to use, in evaluation mode.

    Attributes
    ----------
    model : Denoiser
    latent_mean, latent_std : Tensor, shapes (C, i, j, k) and (C, 1, 1, 1)
        A latent is ``mean + std * x_0``.
    latent_shape : tuple of int, (C, i, j, k)
    conditioning : Conditioning
    diffusion : DiffusionConfig
    digest : str
        SHA-256 of its weights.
    autoencoder_digest : str
        SHA-256 of the weights of the autoencoder whose latents it learned.
    """

    model: Denoiser
    latent_mean: Tensor
    latent_std: Tensor
    latent_shape: LatentShape
    conditioning: Conditioning
    diffusion: DiffusionConfig
    digest: str
    autoencoder_digest: str


def save_model(
    directory: Path, kind: str, weights: Mapping[str, Tensor], record: Mapping[str, Any], **tensors: Tensor
) -> str:
    """Write a model; the record goes last, so a model that has one is whole.

    Parameters
    ----------
    directory : Path
    kind : {"autoencoder", "denoiser"}
    weights : mapping of str to Tensor
        The network's state.
    record : mapping
        JSON values that `load_autoencoder` or `load_denoiser` needs, and whatever else is worth keeping.
    **tensors : Tensor
        Further tensors beside the weights, such as `latent_mean`.

    Returns
    -------
    str
        SHA-256 of the weights file.
    """
    content = {f"{_MODEL}{name}": value for name, value in weights.items()} | tensors
    with atomic_path(Path(directory) / WEIGHTS) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in content.items()}, temporary)
    digest = sha256_file(Path(directory) / WEIGHTS)
    versions = {name: version(name) for name in ("synthmed", "torch", "monai")}
    header = dict(zip(_HEADER, (_FORMAT, kind, digest, versions), strict=True))
    write_json(Path(directory) / RECORD, header | dict(record))
    return digest


def store_autoencoder(source: Path, out: Path) -> str:
    """Write an autoencoder anew in half precision; its record names the digest of the weights that it was made from.

    Returns
    -------
    str
        SHA-256 of the weights file.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind, or a weight is too large for half precision.
    """
    record, tensors = _read(Path(source), "autoencoder")
    weights, others = _split(tensors)
    return save_model(out, "autoencoder", halve(weights), _remade(record), **others)


def store_denoiser(source: Path, autoencoder: Path, out: Path) -> str:
    """Write a denoiser anew, most of its weights in eight bits; returns and raises as `store_autoencoder`.

    Parameters
    ----------
    source : Path
        The denoiser as trained.
    autoencoder : Path
        What `store_autoencoder` made of the autoencoder whose latents it learned.
    out : Path

    Raises
    ------
    ConfigError
        If `autoencoder` was made of another one.
    """
    record, tensors = _read(Path(source), "denoiser")
    coder, _ = _read(Path(autoencoder), "autoencoder")
    expected = _entry(record, "autoencoder_sha256", source)
    if coder.get(_MADE_FROM) != expected:
        raise ConfigError(
            f"The denoiser in {source} was trained on the latents of another autoencoder",
            found=str(coder.get(_MADE_FROM))[:12],
            expected=str(expected)[:12],
        )
    weights, others = _split(tensors)
    changed = _remade(record) | {"autoencoder_sha256": coder["weights_sha256"]}
    return save_model(out, "denoiser", quantise(weights), changed, **others)


def load_autoencoder(directory: Path, device: str | torch.device = "cpu") -> LoadedAutoencoder:
    """Read an autoencoder that `fit_autoencoder` wrote.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another kind.
    ConfigError
        If the weights belong to another architecture than the record says.
    """
    record, tensors = _read(Path(directory), "autoencoder")
    config = _section(record, "architecture", AutoencoderConfig, directory)
    model = build_autoencoder(config, int(_entry(record, "num_classes", directory)))
    _load_strictly(model, tensors, directory)
    space = Space.from_json(_entry(record, "space", directory))
    finish = Finish.from_json(_entry(record, "finish", directory))
    screen = Screen.from_json(_entry(record, "screen", directory))
    return LoadedAutoencoder(model.to(device).eval(), space, record["weights_sha256"], finish, screen)


def load_denoiser(directory: Path, device: str | torch.device = "cpu") -> LoadedDenoiser:
    """Read a denoiser that `fit_denoiser` wrote; raises as `load_autoencoder` does."""
    record, tensors = _read(Path(directory), "denoiser")
    config = _section(record, "architecture", DenoiserConfig, directory)
    channels, i, j, k = (int(n) for n in _entry(record, "latent_shape", directory))
    conditioning = Conditioning.from_json(_entry(record, "conditioning", directory))
    model = build_denoiser(config, (channels, i, j, k), conditioning.dimension)
    _load_strictly(model, tensors, directory)
    return LoadedDenoiser(
        model=model.to(device).eval(),
        latent_mean=_entry(tensors, "latent_mean", directory).to(device),
        latent_std=_entry(tensors, "latent_std", directory).to(device),
        latent_shape=(channels, i, j, k),
        conditioning=conditioning,
        diffusion=_section(record, "diffusion", DiffusionConfig, directory),
        digest=record["weights_sha256"],
        autoencoder_digest=str(_entry(record, "autoencoder_sha256", directory)),
    )


def _read(directory: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    record = read_json(directory / RECORD)
    if not isinstance(record, dict) or record.get("format") != _FORMAT or record.get("kind") != kind:
        found = record.get("kind", "no kind") if isinstance(record, dict) else type(record).__name__
        raise InputError(
            f"{directory / RECORD} does not describe a model that fits here", found=str(found), expected=kind
        )
    weights = directory / WEIGHTS
    try:
        digest = sha256_file(weights)
        tensors = restore(load(weights.read_bytes()))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"Cannot read {weights}", found=str(error), expected="a safetensors file", next_step="Train the stage again"
        ) from error
    if digest != record.get("weights_sha256"):
        raise InputError(
            f"{weights} is not the file that {RECORD} describes",
            found=f"SHA-256 {digest[:12]}...",
            expected=f"{str(record.get('weights_sha256'))[:12]}...",
            next_step="Train the stage again",
        )
    return record, tensors


def _split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the network's state and the tensors beside it."""
    weights = {name.removeprefix(_MODEL): value for name, value in tensors.items() if name.startswith(_MODEL)}
    return weights, {name: value for name, value in tensors.items() if not name.startswith(_MODEL)}


def _remade(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record for other weights made from a model's."""
    kept = {key: value for key, value in record.items() if key not in _HEADER}
    return kept | {_MADE_FROM: record["weights_sha256"]}


def _entry(content: Mapping[str, Any], key: str, directory: Path) -> Any:
    if key not in content:
        raise InputError(f"The model in {directory} lacks {key}", next_step="Train the stage again")
    return content[key]


def _section(record: Mapping[str, Any], key: str, section: type[_Section], directory: Path) -> _Section:
    try:
        return section.model_validate(_entry(record, key, directory))
    except ValidationError as error:
        raise InputError(
            f"The {key} in {Path(directory) / RECORD} cannot be followed", found=json.dumps(record[key])[:200]
        ) from error


def _load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], directory: Path) -> None:
    found, _ = _split(tensors)
    wanted = model.state_dict()
    differing = sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    )
    if differing:
        name = differing[0]
        raise ConfigError(
            f"The weights in {directory} belong to another architecture: {len(differing)} tensors differ, first {name}",
            found=str(tuple(found[name].shape)) if name in found else "no such tensor",
            expected=str(tuple(wanted[name].shape)) if name in wanted else "no such tensor",
        )
    model.load_state_dict(found)
