"""One short training loop for every network that judges: AdamW under a one-cycle learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

WEIGHT_DECAY = 1e-3
WARM_UP = 0.1

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Budget:
    """What every training that is to be compared with another may cost.

    Attributes
    ----------
    steps, batch_size : int
    device : torch.device
    progress : bool
        Show a bar.
    """

    steps: int
    batch_size: int
    device: torch.device
    progress: bool = False


def build(make: Callable[[], Network], seed: int) -> Network:
    """Return an untrained network whose weights depend on `seed` alone; the global generator stays untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def fit(
    network: Network,
    loss_of: Callable[[Tensor], Tensor],
    order: Tensor,
    batch_size: int,
    *,
    learning_rate: float,
    title: str = "",
) -> Network:
    """Train a network over an order of cases, and return it in evaluation mode.

    Parameters
    ----------
    loss_of : callable
        From the indices of a batch to its loss.
    order : Tensor of int
        The cases in the order they are learned from; batches follow each other.
    title : str
        Caption of a progress bar; empty shows none.
    """
    batches = order.split(batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    rise = min(max(WARM_UP, 1.5 / len(batches)), 0.9)  # one-cycle needs a rise of more than one step
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=len(batches) + 1, pct_start=rise
    )
    network.train()
    for chosen in tqdm(batches, desc=title, disable=not title):
        loss = loss_of(chosen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def shuffled(num_cases: int, draws: int, generator: torch.Generator, boundary: int = 0) -> Tensor:
    """Return `draws` indices: whole shuffled passes over the cases, one after the other.

    Parameters
    ----------
    boundary : int
        Where a second source of cases begins; each source then gives every other draw, so that neither drowns the
        other. 0: there is one source.
    """
    if not 0 < boundary < num_cases:
        passes = -(-draws // num_cases)
        return torch.cat([torch.randperm(num_cases, generator=generator) for _ in range(passes)])[:draws]
    half = -(-draws // 2)
    first = shuffled(boundary, half, generator)
    second = boundary + shuffled(num_cases - boundary, half, generator)
    return torch.stack([first, second], dim=1).flatten()[:draws]


def shrink(images: Tensor, most_voxels: int) -> Tensor:
    """Average blocks of voxels until a volume has at most so many; shape (N, C, I, J, K) in, smaller out."""
    factor = 1
    while -(-images.shape[2] // factor) * -(-images.shape[3] // factor) * -(-images.shape[4] // factor) > most_voxels:
        factor += 1
    if factor == 1:
        return images
    return torch.cat(
        [functional.avg_pool3d(x, factor, ceil_mode=True, count_include_pad=False) for x in images.split(8)]
    )
