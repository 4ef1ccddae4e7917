"""A small contrastive embedding of whole volumes, for Dar's rule.

Dar et al. (doi 10.1007/978-3-031-53767-7_6, arXiv 2402.01054) train a 3D network on real scans with a contrastive loss
and compare embeddings by Pearson correlation. Their weights are for other data; this trains a network of the same
kind, much smaller, on the training scans of the set at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from copies.datasets import Spacing, Volume
from copies.generators import common_grid, onto_grid

EDGE = 24  # voxels along the longest axis
STEPS, BATCH, RATE = 200, 32, 1e-3
TEMPERATURE = 0.1
WIDTHS = (16, 32, 64)
DIMENSION = 64


def fit(train: Sequence[Volume], seed: int) -> tuple[nn.Module, tuple[int, ...], Spacing]:
    """Train the embedding: two disguises of one scan attract, those of others repel (NT-Xent).

    Returns
    -------
    network, shape, spacing
        The spacing is of the grid on which it works.

    References
    ----------
    Chen et al. 2020, equation 1, arXiv 2002.05709.
    """
    shape, spacing = _small_grid(train)
    scans = _onto(train, shape, spacing)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(shape)
    optimiser = torch.optim.AdamW(network.parameters(), RATE)
    for _ in range(STEPS):
        chosen = scans[torch.randperm(len(scans), generator=generator)[:BATCH]]
        views = torch.cat([disguise(chosen, generator), disguise(chosen, generator)])
        loss = nt_xent(functional.normalize(network(views), dim=1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval(), shape, spacing


@torch.no_grad()
def embed(
    network: nn.Module, shape: tuple[int, ...], spacing: Spacing, volumes: Sequence[Volume]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return embeddings as rows of zero mean and unit norm, so that products are Pearson correlations."""
    parts = [network(_onto(volumes[k : k + 64], shape, spacing)) for k in range(0, len(volumes), 64)]
    rows = torch.cat(parts).double()
    rows = rows - rows.mean(1, keepdim=True)
    return functional.normalize(rows, dim=1).numpy()


def nt_xent(embedding: Tensor) -> Tensor:
    """Return the mean loss of 2n unit rows whose pairs are n apart."""
    count = len(embedding) // 2
    logits = embedding @ embedding.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool), -torch.inf)
    return functional.cross_entropy(logits, torch.arange(2 * count).roll(count))


def disguise(scans: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, turn, shift, scale, change gamma and add noise at random; shape (n, 1, I, J, K) stays."""
    count = len(scans)
    for axis in (2, 3, 4):
        flipped = torch.rand(count, 1, 1, 1, 1, generator=generator) < 0.25
        scans = torch.where(flipped, scans.flip(axis), scans)
    turn = 0.17 * (2 * torch.rand(count, 3, generator=generator) - 1)
    skew = torch.zeros(count, 3, 3)
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        skew[:, i, j], skew[:, j, i] = -turn[:, k], turn[:, k]
    scale = 1 + 0.1 * (2 * torch.rand(count, 1, 1, generator=generator) - 1)
    shift = 0.2 * (2 * torch.rand(count, 3, 1, generator=generator) - 1)
    grid = functional.affine_grid(
        torch.cat([torch.matrix_exp(skew) * scale, shift], 2), list(scans.shape), align_corners=False
    )
    moved = functional.grid_sample(scans, grid, padding_mode="border", align_corners=False)
    power = torch.exp(0.5 * (2 * torch.rand(count, 1, 1, 1, 1, generator=generator) - 1))
    bright = ((moved + 1) / 2).clamp(1e-3, 1) ** power * 2 - 1
    return bright + 0.1 * torch.randn(bright.shape, generator=generator)


def _small_grid(train: Sequence[Volume]) -> tuple[tuple[int, ...], Spacing]:
    shape, spacing = common_grid(train)
    step = max(n * s for n, s in zip(shape, spacing, strict=True)) / EDGE
    return tuple(max(8, round(n * s / step)) for n, s in zip(shape, spacing, strict=True)), (step, step, step)


def _onto(volumes: Sequence[Volume], shape: tuple[int, ...], spacing: Spacing) -> Tensor:
    return torch.from_numpy(np.stack([onto_grid(volume, shape, spacing) for volume in volumes])[:, None])


def _network(shape: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    width = 1
    for wider in WIDTHS:
        layers += [nn.Conv3d(width, wider, 3, 2, 1), nn.GroupNorm(4, wider), nn.SiLU()]
        width, shape = wider, tuple((n + 1) // 2 for n in shape)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * int(np.prod(shape)), DIMENSION))
