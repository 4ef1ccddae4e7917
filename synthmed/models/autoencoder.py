"""The autoencoder: image and label together, through a lossless Haar stem, around a linear shortcut.

MONAI's ``AutoencoderKL`` learns what a closed-form block PCA leaves over: the encoder is ``PCA(x) + network(x)``
and the decoder ``PCA^T(z) + network(z)``, with the networks' last layers at zero when training starts.
"""

from __future__ import annotations

import math

import torch
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn

from synthmed import processes
from synthmed.config import AutoencoderConfig
from synthmed.errors import ConfigError, InputError
from synthmed.models.stem import haar, inverse_haar, one_hot, stacked
from synthmed.models.tiling import decode_scans, encode_scans

_INITIAL_LOG_VARIANCE = -8.0
_INITIAL_TEMPERATURE = 16.0
_PCA_BLOCKS = 40_000
_PCA_ITERATIONS = 6


class LabelledAutoencoder(nn.Module):
    """Encode an image and its one-hot label into one latent, and decode both from it.

    Parameters
    ----------
    config : AutoencoderConfig
    num_classes : int
        Classes of the label with the background; 1 for a cohort without labels.

    Raises
    ------
    ConfigError
        If a level's channels are not a multiple of `norm_num_groups`, or the latent has more channels than a block
        of the volume has values.
    """

    def __init__(self, config: AutoencoderConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.downsampling = config.downsampling
        self.latent_channels = config.latent_channels
        channels = 8 * (1 + (num_classes if num_classes > 1 else 0))
        block = self.downsampling // 2
        _check(config, channels * block**3)
        self.network = AutoencoderKL(
            spatial_dims=3,
            in_channels=channels,
            out_channels=channels,
            channels=config.channels,
            num_res_blocks=config.num_res_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_num_groups,
            attention_levels=(False,) * len(config.channels),
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
            use_convtranspose=True,
        )
        self.temperature = nn.Parameter(torch.tensor(_INITIAL_TEMPERATURE))
        self.project: nn.Conv3d | None = None
        self.expand: nn.ConvTranspose3d | None = None
        # Block by block, the linear map leaves edges between blocks: what it decodes is seen again across them.
        hidden = 2 * config.channels[0]
        self.refine = nn.Sequential(
            nn.Conv3d(channels, hidden, 3, padding=1), nn.SiLU(), nn.Conv3d(hidden, channels, 3, padding=1)
        )
        _zero(self.refine[-1])
        if config.linear_shortcut:
            self.project = nn.Conv3d(channels, config.latent_channels, block, block)
            self.expand = nn.ConvTranspose3d(config.latent_channels, channels, block, block)
            _zero(self.network.quant_conv_mu)
            _zero(self.network.decoder.get_submodule("blocks")[-1])  # type: ignore[index]
        _zero(self.network.quant_conv_log_sigma, bias=_INITIAL_LOG_VARIANCE)

    def encode(self, image: Tensor, onehot: Tensor | None = None) -> Tensor:
        """Return the posterior's mean.

        Parameters
        ----------
        image : Tensor, shape (B, 1, I, J, K), in [-1, 1]
        onehot : Tensor, shape (B, num_classes, I, J, K), or None without labels

        Returns
        -------
        Tensor, shape (B, latent_channels, I/f, J/f, K/f)
        """
        return self.posterior(image, onehot)[0]

    def posterior(self, image: Tensor, onehot: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and log-variance, each of the latent's shape; see `encode`.

        Raises
        ------
        InputError
            If a side of the grid is not divisible by the down-sampling, or the label channels do not fit.
        """
        bands = self.bands(image, onehot)
        mean, sigma = self.network.encode(bands)
        if self.project is not None:
            mean = mean + self.project(bands)
        return mean, 2 * sigma.log()

    def decode(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the image (B, 1, I, J, K), not clipped, and the label's logits (B, num_classes, I, J, K) or None."""
        bands = self.network.decode(latent)
        if self.expand is not None:
            bands = bands + self.expand(latent)
        return self.outputs(self.refined(bands))

    def refined(self, bands: Tensor) -> Tensor:
        """Return decoded sub-bands with the edges between blocks mended; sees two cells around."""
        return bands + self.refine(bands)

    def outputs(self, bands: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return image and logits, as `decode`, of refined sub-bands."""
        volume = inverse_haar(bands.float())
        logits = self.temperature * volume[:, 1:] if self.num_classes > 1 else None
        return volume[:, :1], logits

    @torch.no_grad()
    def reconstruct(self, image: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Decode what scans are encoded to, in tiles where they are large; see `synthmed.models.tiling`.

        Parameters
        ----------
        image : Tensor, shape (B, 1, I, J, K), in [-1, 1]
        labels : Tensor, shape (B, 1, I, J, K), class index, or None without labels

        Returns
        -------
        image, logits
            As `decode`.
        """
        return decode_scans(self, encode_scans(self, image, labels))

    @torch.no_grad()
    def channel_gain(self) -> Tensor:
        """Return how far a latent channel's unit moves a decoded block through the shortcut, shape (C,); else ones."""
        if self.expand is None:
            return torch.ones(self.latent_channels)
        return self.expand.weight.detach().float().cpu().flatten(1).norm(dim=1)

    def bands(self, image: Tensor, onehot: Tensor | None) -> Tensor:
        """Return the Haar sub-bands of the image and the scaled one-hot channels, which is what is encoded."""
        self.check_scans(image, 0 if onehot is None else onehot.shape[1])
        return haar(stacked(image, onehot))

    def check_scans(self, image: Tensor, channels: int) -> None:
        """Raise `InputError` if a side is not divisible by the down-sampling, or the label channels do not fit."""
        if any(side % self.downsampling for side in image.shape[2:]):
            raise InputError(
                "The autoencoder cannot take this grid",
                found=str(tuple(image.shape[2:])),
                expected=f"sides divisible by {self.downsampling}",
                next_step="Change preprocess.grid",
            )
        if channels != (self.num_classes if self.num_classes > 1 else 0):
            raise InputError(
                "The label channels do not fit the autoencoder", found=str(channels), expected=str(self.num_classes)
            )

    def forward(
        self, image: Tensor, onehot: Tensor | None, noise: Tensor, latent_noise: float = 0.0
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Encode, add noise, decode.

        Parameters
        ----------
        image, onehot : see `encode`
        noise : Tensor, standard normal of the latent's shape
        latent_noise : float
            Noise beside the posterior's own, in units of the batch's standard deviation a channel.

        Returns
        -------
        image, logits, mean, log_variance : Tensors
        """
        mean, log_variance = self.posterior(image, onehot)
        spread = _deviation(mean.detach().float())
        sigma = (log_variance.exp() + (latent_noise * spread) ** 2).sqrt()
        decoded, logits = self.decode(mean + sigma * noise)
        return decoded, logits, mean, log_variance

    @torch.no_grad()
    def fit_shortcut(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> None:
        """Set the linear shortcut to the block PCA of a training set; does nothing without a shortcut.

        Parameters
        ----------
        images : Tensor, shape (N, 1, I, J, K), in [-1, 1]
        labels : Tensor, shape (N, 1, I, J, K), uint8 class index, or None
        generator : torch.Generator
            For the random start of the subspace iteration.
        """
        if self.project is None or self.expand is None:
            return
        size = self.project.kernel_size[0]
        blocks = self._blocks(images, labels, size)
        channels = self.project.in_channels
        mean = blocks.view(len(blocks), channels, -1).mean(dim=(0, 2))
        centred = blocks - mean.repeat_interleave(size**3)
        basis, deviation = principal_axes(centred, self.latent_channels, generator)
        shape = (self.latent_channels, channels, size, size, size)
        encode = basis / deviation[:, None]
        self.project.weight.copy_(encode.view(shape))
        self.project.bias.copy_(-(encode @ mean.repeat_interleave(size**3)))  # type: ignore[union-attr]
        self.expand.weight.copy_((basis * deviation[:, None]).view(shape))
        self.expand.bias.copy_(mean)  # type: ignore[union-attr]

    def _blocks(self, images: Tensor, labels: Tensor | None, size: int) -> Tensor:
        """Return at most `_PCA_BLOCKS` blocks of the bands, evenly spaced, as rows (N, channels * size^3)."""
        cells = math.prod(side // self.downsampling for side in images.shape[2:])
        count = min(len(images), max(1, _PCA_BLOCKS // cells))
        rows = []
        for index in torch.linspace(0, len(images) - 1, count).long().tolist():
            label = None if labels is None else one_hot(labels[index : index + 1], self.num_classes)
            bands = self.bands(images[index : index + 1], label)
            for axis in (2, 4, 6):
                bands = bands.unflatten(axis, (-1, size))
            rows.append(bands.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(cells, -1))
        blocks = torch.cat(rows)
        return blocks[:: max(1, math.ceil(len(blocks) / _PCA_BLOCKS))]


def principal_axes(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the leading principal axes of centred rows and the standard deviation along each.

    Parameters
    ----------
    rows : Tensor, shape (N, D), centred
    count : int
    generator : torch.Generator

    Returns
    -------
    axes : Tensor, shape (count, D), orthonormal, by falling variance
    deviation : Tensor, shape (count,)
        At least a thousandth of the largest, so that an axis without variance stays harmless to divide by.

    References
    ----------
    Halko, Martinsson, Tropp 2011, algorithm 4.4 (randomised subspace iteration), doi 10.1137/090771806.
    """
    width = min(rows.shape[1], count + 16)
    basis = torch.linalg.qr(torch.randn(rows.shape[1], width, generator=generator)).Q
    for _ in range(_PCA_ITERATIONS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    scores = rows @ basis
    values, vectors = torch.linalg.eigh(scores.T.double() @ scores.double() / len(rows))
    order = values.argsort(descending=True)[:count]
    deviation = values[order].clamp_min(0).sqrt()
    axes = (basis.double() @ vectors[:, order]).T
    return axes.float(), deviation.clamp_min(max(1e-3 * float(deviation[0]), 1e-8)).float()


def build_autoencoder(config: AutoencoderConfig, num_classes: int) -> LabelledAutoencoder:
    """Return an untrained autoencoder; see `LabelledAutoencoder` for what is refused."""
    return LabelledAutoencoder(config, num_classes)


def _check(config: AutoencoderConfig, block_values: int) -> None:
    wrong = [c for c in config.channels if c % config.norm_num_groups]
    if wrong or not config.channels:
        raise ConfigError(
            "autoencoder.channels do not fit autoencoder.norm_num_groups",
            found=str(list(config.channels)),
            expected=f"one or more multiples of {config.norm_num_groups}",
        )
    if config.linear_shortcut and config.latent_channels > block_values:
        raise ConfigError(
            "autoencoder.latent_channels is larger than a block of the volume",
            found=str(config.latent_channels),
            expected=f"at most {block_values}",
        )


def _zero(module: nn.Module, bias: float = 0.0) -> None:
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, bias if name.endswith("bias") else 0.0)


def _deviation(values: Tensor) -> Tensor:
    """Return each channel's standard deviation over a batch that may lie in many processes, shape (1, C, 1, 1, 1)."""
    dims = (0, 2, 3, 4)
    if processes.world() == 1:
        return values.std(dim=dims, keepdim=True)
    count = processes.world() * values[:, 0].numel()
    centre = processes.total(values.sum(dim=dims, keepdim=True)) / count
    return (processes.total((values - centre).square().sum(dim=dims, keepdim=True)) / (count - 1)).sqrt()
