"""What a bundle's ``configs/inference.json`` names: networks, models with their weights, and the drawing of volumes.

The arithmetic is that of `synthmed.sampling`, so a seed means the same volume in a bundle and in the run it came from.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from synthmed.config import AutoencoderConfig, DenoiserConfig, DiffusionConfig, SamplingConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import ConfigError, InputError
from synthmed.files import read_json
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder
from synthmed.models.checkpoint import LoadedAutoencoder, LoadedDenoiser
from synthmed.models.denoiser import Denoiser, build_denoiser
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.prepare.space import Space
from synthmed.sampling.generate import Order, generate_volumes

WEIGHTS_DIGEST = "weights_file_sha256"


def autoencoder_network(num_classes: int, architecture: Mapping[str, Any]) -> LabelledAutoencoder:
    """Return an autoencoder without its weights; `architecture` holds the values of an `AutoencoderConfig`."""
    return build_autoencoder(AutoencoderConfig(**architecture), num_classes)


def denoiser_network(latent_shape: Sequence[int], condition_dim: int, architecture: Mapping[str, Any]) -> Denoiser:
    """Return a denoiser without its weights; `architecture` holds the values of a `DenoiserConfig`.

    Parameters
    ----------
    latent_shape : sequence of int, (C, i, j, k)
    condition_dim : int
        Length of an encoded condition; 0 for none.
    """
    channels, i, j, k = latent_shape
    return build_denoiser(DenoiserConfig(**architecture), (channels, i, j, k), condition_dim)


def load_autoencoder(
    network: LabelledAutoencoder, weights: str | Path, record: str | Path, device: str | torch.device = "cpu"
) -> LoadedAutoencoder:
    """Put weights into an autoencoder and say what its volumes mean.

    Parameters
    ----------
    network : LabelledAutoencoder
    weights : str or Path
        A state dictionary that `torch.load` reads.
    record : str or Path
        The JSON file that came with it: digests, space, finish and screen.
    device : str or torch.device

    Raises
    ------
    InputError
        If a file cannot be read, or the weights are not those that the record describes.
    """
    content = _filled(network, Path(weights), Path(record))
    space = Space.from_json(_entry(content, "space", record))
    finish = Finish.from_json(_entry(content, "finish", record))
    screen = Screen.from_json(_entry(content, "screen", record))
    return LoadedAutoencoder(network.to(device).eval(), space, str(_entry(content, "digest", record)), finish, screen)


def load_denoiser(
    network: Denoiser, weights: str | Path, record: str | Path, device: str | torch.device = "cpu"
) -> LoadedDenoiser:
    """Put weights into a denoiser; arguments and errors are those of `load_autoencoder`."""
    content = _filled(network, Path(weights), Path(record))
    channels, i, j, k = (int(n) for n in _entry(content, "latent_shape", record))
    scale = (_entry(content, key, record) for key in ("latent_mean", "latent_std"))
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in scale)
    return LoadedDenoiser(
        model=network.to(device).eval(),
        latent_mean=mean,
        latent_std=std,
        latent_shape=(channels, i, j, k),
        conditioning=Conditioning.from_json(_entry(content, "conditioning", record)),
        diffusion=DiffusionConfig(**_entry(content, "diffusion", record)),
        digest=str(_entry(content, "digest", record)),
        autoencoder_digest=str(_entry(content, "autoencoder_digest", record)),
    )


@dataclass(frozen=True)
class VolumeWriter:
    """Draw volumes and write them as NIfTI; MONAI calls what does this the inferer.

    Attributes
    ----------
    autoencoder : LoadedAutoencoder
    denoiser : LoadedDenoiser
    sampling : mapping
        Values of a `SamplingConfig`.
    seed : int
    conditions : sequence of mappings, or None
        Covariates to ask for, taken in turn; None draws them as in training.
    """

    autoencoder: LoadedAutoencoder
    denoiser: LoadedDenoiser
    sampling: Mapping[str, Any]
    seed: int
    conditions: Sequence[Mapping[str, Any]] | None = None

    def __call__(self, output_dir: str | Path, num_samples: int) -> Path:
        """Write the first `num_samples` volumes of the seed; goes on where an earlier call was stopped.

        Writes ``images/``, ``labels/`` (where the model has labels), ``samples.csv`` and ``generation.json``.

        Raises
        ------
        ConfigError
            If a condition does not fit the model, no volume was asked for, or `output_dir` was begun differently.
        StorageError
            If the disk is full or read-only.
        """
        if num_samples < 1:
            raise ConfigError("Too few volumes were asked for", found=str(num_samples), expected="at least 1")
        order = Order(SamplingConfig(**self.sampling), self.seed, self.conditions or None)
        return generate_volumes(self.autoencoder, self.denoiser, Path(output_dir), order, num_samples, progress=True)


def _filled(network: nn.Module, weights: Path, record: Path) -> Mapping[str, Any]:
    """Load a network's weights and return its record, which must be of these very weights."""
    content = read_json(record)
    try:
        blob = weights.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {weights}", found=error.strerror or str(error)) from error
    digest = hashlib.sha256(blob).hexdigest()
    if digest != _entry(content, WEIGHTS_DIGEST, record):
        raise InputError(
            f"{weights} is not the file that {record} describes",
            found=f"SHA-256 {digest[:12]}...",
            expected=f"{str(content[WEIGHTS_DIGEST])[:12]}...",
            next_step="Fetch the bundle again",
        )
    network.load_state_dict(torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True))
    return content  # type: ignore[no-any-return]


def _entry(content: Any, key: str, record: str | Path) -> Any:
    if not isinstance(content, Mapping) or key not in content:
        raise InputError(f"{record} lacks {key}", next_step="Fetch the bundle again")
    return content[key]
