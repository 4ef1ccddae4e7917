"""What a training step is a pure function of: the order of the cases, the random streams, the rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from synthmed.config import TrainingConfig


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Return the cases of one step: successive parts of one shuffled order an epoch.

    Parameters
    ----------
    count : int
        Training cases.
    batch_size, seed, step : int
        The first step is 0.

    Returns
    -------
    Tensor, shape (batch_size,), int64
    """
    places = torch.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(count, generator=step_generator(seed, epoch, stream=1))
        for epoch in (places // count).unique().tolist()
    }
    return torch.stack([orders[int(place) // count][int(place) % count] for place in places])


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Return a CPU generator for one step; different streams of one step are independent."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + step) * 1_009 + stream)
    return generator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator, which layers initialise and drop out from, and put it back afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):  # this process's own device, where there are several
        torch.manual_seed(seed)
        yield


def learning_rate(settings: TrainingConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine to 0 (Loshchilov, Hutter 2017, equation 5)."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.max_steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def ema_decay(settings: TrainingConfig, step: int) -> float:
    """Return the share of the average that stays in a step: short at first, `ema_decay` later."""
    return min(settings.ema_decay, (1 + step) / (10 + step))
