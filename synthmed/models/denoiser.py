"""The denoiser: a network on noisy latents, told the time, the covariates and the augmentation.

One embedding carries all three. A covariate vector may be replaced by a learned null, for classifier-free guidance.
The augmentation's parameters are a condition too, so that a network trained on augmented scans draws unaugmented
ones when they are 0 (Karras et al. 2022, arXiv:2206.00364, section 5).
"""

from __future__ import annotations

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from synthmed.config import DenoiserConfig
from synthmed.errors import ConfigError, InputError
from synthmed.models.augmentation import AUGMENTATION_DIM
from synthmed.models.transformer import LatentTransformer

LatentShape = tuple[int, int, int, int]
_TIME_FEATURES = 256
_UNET_NUM_GROUPS = 32


def time_features(t: Tensor) -> Tensor:
    """Return sines and cosines of times: (B,) in [0, 1] -> (B, 256), periods from 2 pi to 2 pi / 1000."""
    half = _TIME_FEATURES // 2
    rates = 1000.0 ** torch.linspace(0.0, 1.0, half, device=t.device)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Embedding(nn.Module):
    """One vector of the time, the covariates or their learned null, and the augmentation's parameters.

    Parameters
    ----------
    condition_dim : int
        Length of a covariate vector; 0 for none.
    width : int
        Length of the embedding.
    """

    def __init__(self, condition_dim: int, width: int) -> None:
        super().__init__()
        self.time = nn.Linear(_TIME_FEATURES, width)
        self.augmentation = nn.Linear(AUGMENTATION_DIM, width, bias=False)
        self.condition = nn.Linear(condition_dim, width) if condition_dim else None
        self.null = nn.Parameter(torch.zeros(width)) if condition_dim else None
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, condition: Tensor | None, drop: Tensor | None, augmentation: Tensor | None) -> Tensor:
        """Return the embedding, shape (B, width); see `Denoiser.forward` for the arguments."""
        hidden = self.time(time_features(t))
        if augmentation is not None:
            hidden = hidden + self.augmentation(augmentation)
        if self.condition is None or self.null is None:
            return self.mix(hidden)
        if condition is None:
            return self.mix(hidden + self.null)
        given = self.condition(condition)
        if drop is not None:
            given = torch.where(drop[:, None], self.null.to(given), given)
        return self.mix(hidden + given)


class LatentUNet(nn.Module):
    """MONAI's ``DiffusionModelUNet`` with the embedding of this module added to its own time embedding."""

    def __init__(self, config: DenoiserConfig, latent_shape: LatentShape) -> None:
        super().__init__()
        self.embedding_width = 4 * config.channels[0]
        levels = len(config.channels)
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=latent_shape[0],
            out_channels=latent_shape[0],
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            attention_levels=(False,) * (levels - 1) + (True,),
            num_head_channels=config.num_head_channels,
            norm_num_groups=_UNET_NUM_GROUPS,
            num_class_embeds=1,
        )
        # MONAI adds the class embedding to the time's: an identity there takes any vector.
        self.unet.add_module("class_embedding", nn.Identity())

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map a latent (B, C, i, j, k) and an embedding (B, W) to a prediction of the latent's shape."""
        timesteps = torch.zeros(len(x), device=x.device)
        return self.unet(x, timesteps, class_labels=embedding)


class Denoiser(nn.Module):
    """A network on latents with the embedding that steers it; made by `build_denoiser`."""

    def __init__(self, network: nn.Module, condition_dim: int, width: int) -> None:
        super().__init__()
        self.condition_dim = condition_dim
        self.embedding = Embedding(condition_dim, width)
        self.network = network

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        drop: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        """Predict on a noisy latent.

        Parameters
        ----------
        x_t : Tensor, shape (B, C, i, j, k)
        t : Tensor, shape (B,), in [0, 1]
        condition : Tensor, shape (B, D), or None for the learned null everywhere
        drop : Tensor, shape (B,), bool, or None
            Where the learned null takes the condition's place.
        augmentation : Tensor, shape (B, AUGMENTATION_DIM), or None for none

        Returns
        -------
        Tensor, shape (B, C, i, j, k)

        Raises
        ------
        InputError
            If the condition has another length than the network was built for.
        """
        if condition is not None and condition.shape[1] != self.condition_dim:
            raise InputError(
                "The condition does not fit the denoiser",
                found=f"{condition.shape[1]} values",
                expected=f"{self.condition_dim}",
            )
        return self.network(x_t, self.embedding(t, condition, drop, augmentation))


def build_denoiser(config: DenoiserConfig, latent_shape: LatentShape, condition_dim: int) -> Denoiser:
    """Return an untrained denoiser.

    Parameters
    ----------
    config : DenoiserConfig
    latent_shape : tuple of int, (C, i, j, k)
    condition_dim : int
        Length of a covariate vector; 0 for none.

    Raises
    ------
    ConfigError
        If the configuration's widths do not divide as the architecture needs, or the latent does not fit it.
    """
    if config.kind == "transformer":
        _check_transformer(config)
        network: nn.Module = LatentTransformer(
            latent_shape, config.width, config.depth, config.num_head_channels, config.dropout
        )
        return Denoiser(network, condition_dim, config.width)
    _check_unet(config, latent_shape)
    return Denoiser(LatentUNet(config, latent_shape), condition_dim, 4 * config.channels[0])


def _check_transformer(config: DenoiserConfig) -> None:
    if config.width % config.num_head_channels:
        raise ConfigError(
            "denoiser.width does not divide into heads",
            found=str(config.width),
            expected=f"a multiple of denoiser.num_head_channels, {config.num_head_channels}",
        )


def _check_unet(config: DenoiserConfig, latent_shape: LatentShape) -> None:
    if config.dropout:
        raise ConfigError(
            "denoiser.dropout is for the transformer", found=str(config.dropout), expected="0 with kind unet"
        )
    if not config.channels or any(c % _UNET_NUM_GROUPS for c in config.channels):
        raise ConfigError(
            "denoiser.channels do not divide into groups",
            found=str(list(config.channels)),
            expected=f"multiples of {_UNET_NUM_GROUPS}",
        )
    if config.channels[-1] % config.num_head_channels:
        raise ConfigError(
            "The last of denoiser.channels does not divide into heads",
            found=str(config.channels[-1]),
            expected=f"a multiple of denoiser.num_head_channels, {config.num_head_channels}",
        )
    step = 2 ** (len(config.channels) - 1)
    if any(side % step for side in latent_shape[1:]):
        raise ConfigError(
            "The latent does not halve as often as denoiser.channels has levels",
            found=str(latent_shape[1:]),
            expected=f"sides divisible by {step}",
            next_step="Use fewer levels, another preprocess.grid, or kind transformer",
        )
