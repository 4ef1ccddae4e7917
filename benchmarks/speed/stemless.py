"""This project's autoencoder without its Haar stem: one more level of MONAI's network sees the whole grid instead."""

from __future__ import annotations

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn

from synthmed.config import AutoencoderConfig


class Stemless(nn.Module):
    """Image and one-hot classes in, as many out, the latent of the same shape as with the stem.

    Parameters
    ----------
    config : AutoencoderConfig
        Its first level comes twice, the first time at full resolution; there is no linear shortcut and no refinement.
    num_classes : int
    """

    def __init__(self, config: AutoencoderConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        channels = 1 + (num_classes if num_classes > 1 else 0)
        levels = (config.channels[0], *config.channels)
        self.network = AutoencoderKL(
            spatial_dims=3,
            in_channels=channels,
            out_channels=channels,
            channels=levels,
            num_res_blocks=config.num_res_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            attention_levels=(False,) * len(levels),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
            use_convtranspose=True,
        )

    def forward(
        self, image: Tensor, onehot: Tensor | None, noise: Tensor, latent_noise: float = 0.0
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Encode, add noise, decode; as `synthmed.models.autoencoder.LabelledAutoencoder.forward`."""
        mean, sigma = self.network.encode(image if onehot is None else torch.cat([image, onehot], dim=1))
        spread = mean.detach().float().std(dim=(0, 2, 3, 4), keepdim=True)
        latent = mean + (sigma.square() + (latent_noise * spread) ** 2).sqrt() * noise
        volume = self.network.decode(latent).float()
        return volume[:, :1], volume[:, 1:] if self.num_classes > 1 else None, mean, 2 * sigma.log()
