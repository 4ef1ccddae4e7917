"""The scale that brings sampled latents to the spread of the training set's.

A denoiser that has not learned everything explains too little, so its samples lie too near to their mean: a quarter
too near on the hippocampus cohort, which decodes to scans that are too smooth. One factor a channel mends that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthmed.config import SamplingConfig
from synthmed.models.checkpoint import LoadedDenoiser
from synthmed.sampling.generate import sample_latents, volume_seed

SAMPLES = 64
BATCH = 16
LARGEST_GAIN = 1.5
_FIRST_INDEX = 2**31
"""Seeds of the samples that are only looked at here: no volume has an index so high."""


def calibrate(denoiser: LoadedDenoiser, train: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the mean and deviation that take a sampled x_0 to a latent of the training set's spread.

    Parameters
    ----------
    denoiser : LoadedDenoiser
        With the mean and deviation that training used, and its network in evaluation mode.
    train : Tensor, shape (N, C, i, j, k)
        Standardised latents of the training scans as they are.
    seed : int
        Of the run.

    Returns
    -------
    mean : Tensor, shape (C, i, j, k)
    std : Tensor, shape (C, 1, 1, 1)
        Samples keep their own mean; their deviations from it are multiplied, by at most 1.5 and at least its inverse.
    """
    drawn = (_draw(denoiser, seed) - denoiser.latent_mean) / denoiser.latent_std
    centre = drawn.mean(dim=0)
    gain = (_spread(train.to(drawn)) / _spread(drawn)).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
    mean = denoiser.latent_mean + denoiser.latent_std * (1 - gain) * centre
    return mean, denoiser.latent_std * gain


def _draw(denoiser: LoadedDenoiser, seed: int) -> Tensor:
    """Draw latents with the default sampler, under conditions as in training."""
    seeds = [volume_seed(seed, _FIRST_INDEX + index) for index in range(SAMPLES)]
    conditions: Sequence[Mapping[str, Any]] = [denoiser.conditioning.draw(each) for each in seeds]
    parts = (slice(first, first + BATCH) for first in range(0, SAMPLES, BATCH))
    return torch.cat([sample_latents(denoiser, seeds[p], conditions[p], SamplingConfig()) for p in parts])


def _spread(values: Tensor) -> Tensor:
    """Return each channel's deviation between cases, root mean square over cells, shape (C, 1, 1, 1)."""
    variance = values.float().var(dim=0, correction=1 if len(values) > 1 else 0).mean(dim=(1, 2, 3), keepdim=True)
    return variance.clamp_min(float(np.finfo(np.float32).tiny)).sqrt()
