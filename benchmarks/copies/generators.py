"""What generators make of training scans: the autoencoder's round trip, and samples that copy nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from copies.datasets import Array, Spacing, Volume
from copies.steps import value_range
from synthmed.config import AutoencoderConfig
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder

TARGETS = (32.0, 28.0, 25.0)  # PSNR in dB of the round trip, for the three strengths
LATENTS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48)
CHANNELS = (8, 8)  # two levels: a latent cell spans 4 voxels
CELL = 2 ** len(CHANNELS)
MEASURED = 12  # training scans on which the PSNR is measured
SHARED = 0.5  # of a sample's variance that follows the training set's covariance; the rest is local
RANGE = 1000.0  # intensities of generated scans


@dataclass(frozen=True)
class RoundTrip:
    """Autoencoders of three latent sizes, fitted on training scans alone.

    Attributes
    ----------
    models : list of LabelledAutoencoder
    latents : list of int
        Latent channels, at one cell of 4 x 4 x 4 voxels.
    psnr : list of float
        Of training scans, dB, at a peak of their 0.5th to 99.5th percentile.
    """

    models: list[LabelledAutoencoder]
    latents: list[int]
    psnr: list[float]

    def __call__(self, volume: Volume, strength: int) -> Array:
        """Encode and decode a scan; grid and intensity range stay."""
        return _through(self.models[strength], volume.array)


@dataclass(frozen=True)
class Generator:
    """A Gaussian in the latent space of an autoencoder, with the training set's moments.

    Attributes
    ----------
    model : LabelledAutoencoder
    mean : Tensor, shape (C, D, H, W)
    factors : Tensor, shape (n, C, D, H, W)
        Centred latents of the training scans, divided by the root of n - 1.
    deviation : Tensor, shape (C, D, H, W)
    shape : tuple of int
    spacing : tuple of float, mm
    """

    model: LabelledAutoencoder
    mean: torch.Tensor
    factors: torch.Tensor
    deviation: torch.Tensor
    shape: tuple[int, ...]
    spacing: Spacing

    @torch.no_grad()
    def draw(self, count: int, scale: float, rng: np.random.Generator) -> list[Volume]:
        """Return samples; a scale over 1 is over-dispersed, one under 1 under-dispersed.

        Half of the variance is a random mixture of all training scans, half a local smooth field.
        """
        samples = []
        for _ in range(count):
            weights = torch.from_numpy(rng.standard_normal(len(self.factors), dtype=np.float32))
            common = torch.einsum("n,ncdhw->cdhw", weights, self.factors)
            change = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * self.deviation * _smooth_noise(self.mean.shape, rng)
            decoded = self.model.decode((self.mean + scale * change)[None])[0][0, 0].numpy()
            cut = decoded[tuple(slice(n) for n in self.shape)]
            samples.append(Volume(np.ascontiguousarray((np.clip(cut, -1, 2) + 1) * (RANGE / 2)), self.spacing))
        return samples


def fit_round_trip(train: Sequence[Volume], seed: int) -> RoundTrip:
    """Fit the autoencoders in closed form, and keep the latent sizes whose PSNR is nearest to the targets.

    Parameters
    ----------
    train : sequence of Volume
        Training scans, and nobody else's.
    seed : int
    """
    stack, _, _ = _stack(train)
    measured = [train[k].array for k in np.linspace(0, len(train) - 1, min(MEASURED, len(train))).astype(int)]
    models = [_fit(stack, latent, seed) for latent in LATENTS]
    reached = [float(np.mean([_psnr(array, _through(model, array)) for array in measured])) for model in models]
    nearest = [int(np.argmin([abs(value - target) for value in reached])) for target in TARGETS]
    return RoundTrip([models[k] for k in nearest], [LATENTS[k] for k in nearest], [reached[k] for k in nearest])


@torch.no_grad()
def fit_generator(train: Sequence[Volume], model: LabelledAutoencoder) -> Generator:
    """Estimate the moments of the training scans' latents on their common grid."""
    stack, shape, spacing = _stack(train)
    latents = torch.cat([model.encode(volume[None]) for volume in stack])
    mean = latents.mean(0)
    factors = (latents - mean) / max(len(latents) - 1, 1) ** 0.5
    return Generator(model, mean, factors, factors.square().sum(0).sqrt(), shape, spacing)


def common_grid(volumes: Sequence[Volume]) -> tuple[tuple[int, int, int], Spacing]:
    """Return the grid of the median extent at the median spacing."""
    spacing = np.median([v.spacing for v in volumes], axis=0)
    extent = np.median([np.array(v.array.shape) * v.spacing for v in volumes], axis=0)
    i, j, k = (max(8, int(n)) for n in np.round(extent / spacing))
    return (i, j, k), (float(spacing[0]), float(spacing[1]), float(spacing[2]))


def onto_grid(volume: Volume, shape: tuple[int, ...], spacing: Spacing) -> Array:
    """Resample a scan about its centre onto a grid, the nearest voxel repeated outside, scaled to about [-1, 1]."""
    factor = np.array(spacing) / volume.spacing
    offset = (np.array(volume.array.shape) - 1) / 2 - (np.array(shape) - 1) / 2 * factor
    smooth = ndimage.gaussian_filter(volume.array, 0.5 * np.sqrt(np.maximum(factor**2 - 1, 0)))
    moved = ndimage.affine_transform(smooth, factor, offset, output_shape=shape, order=1, mode="nearest")
    return _unit(moved, value_range(volume.array))


def _unit(array: Array, limits: tuple[float, float]) -> Array:
    return np.clip(2 * (array - limits[0]) / (limits[1] - limits[0]) - 1, -1.5, 3).astype(np.float32)


def _stack(train: Sequence[Volume]) -> tuple[torch.Tensor, tuple[int, int, int], Spacing]:
    """Bring scans onto their common grid, padded to whole latent cells: shape (n, 1, I, J, K)."""
    shape, spacing = common_grid(train)
    volumes = [_padded(onto_grid(volume, shape, spacing)) for volume in train]
    return torch.from_numpy(np.stack(volumes)[:, None]), shape, spacing


def _padded(array: Array) -> Array:
    return np.pad(array, [(0, -n % CELL) for n in array.shape], mode="edge")


def _fit(stack: torch.Tensor, latent: int, seed: int) -> LabelledAutoencoder:
    config = AutoencoderConfig(channels=CHANNELS, latent_channels=latent, norm_num_groups=4)
    model = build_autoencoder(config, 1).eval()
    model.fit_shortcut(stack, None, torch.Generator().manual_seed(seed))
    return model


@torch.no_grad()
def _through(model: LabelledAutoencoder, array: Array) -> Array:
    low, high = value_range(array)
    padded = torch.from_numpy(_padded(_unit(array, (low, high))))[None, None]
    decoded = model.decode(model.encode(padded))[0][0, 0].numpy()[tuple(slice(n) for n in array.shape)]
    return ((decoded + 1) / 2 * (high - low) + low).astype(np.float32)


def _psnr(first: Array, second: Array) -> float:
    low, high = value_range(first)
    error = float(np.square(np.clip((first - low) / (high - low), 0, 1) - (second - low) / (high - low)).mean())
    return -10 * float(np.log10(max(error, 1e-12)))


def _smooth_noise(shape: torch.Size, rng: np.random.Generator) -> torch.Tensor:
    """Return standard normal fields that change over about 1.5 latent cells."""
    fields: NDArray[np.float32] = rng.standard_normal(tuple(shape), dtype=np.float32)
    smooth = ndimage.gaussian_filter(fields, (0, 1, 1, 1), mode="wrap")
    return torch.from_numpy(smooth / smooth.std())
