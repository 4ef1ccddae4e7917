"""A small 3D encoder that teaches itself on real scans: what it sees is anatomy, not pose, contrast or noise.

It learns from one half of the training patients, and where its features are used the other half stands for them. So the
scans that it knows by heart are in no set that is compared: the real-against-real floor is between scans that are
equally new to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthmed.evaluation.augmentation import augment
from synthmed.evaluation.cases import Cases
from synthmed.evaluation.intervals import Array
from synthmed.evaluation.learning import build, fit, shrink, shuffled

WIDTHS = (16, 32, 64)
PROJECTION = 128
BATCH_SIZE = 16
LEARNING_RATE = 2e-3
MOST_VOXELS = 2**14
# Weights of the terms, as in the source.
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0


@dataclass(frozen=True, eq=False)
class Encoder:
    """What was learned, and who may be compared with it.

    Attributes
    ----------
    network : Trunk
    unseen : ndarray of int
        Training cases of the patients that it did not learn from.
    num_lessons : int
        Training cases that it learned from.
    """

    network: Trunk
    unseen: NDArray[np.int64]
    num_lessons: int

    @torch.no_grad()
    def embed(self, images: Tensor, batch_size: int = 16) -> Array:
        """Return features of images in [-1, 1], shape (N, 128), float64."""
        device = next(self.network.parameters()).device
        parts = [self.network(shrink(x.float(), MOST_VOXELS).to(device)).cpu() for x in images.split(batch_size)]
        return torch.cat(parts).double().numpy()


class Trunk(nn.Module):
    """Strided convolutions; the features are mean and standard deviation of each last channel over the volume."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv3d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (B, 128) of images of shape (B, 1, I, J, K)."""
        flat = self.layers(images).flatten(2)
        return torch.cat([flat.mean(2), (flat.var(2, correction=0) + 1e-6).sqrt()], dim=1)


def learn_encoder(
    train: Cases, *, steps: int, seed: int, device: torch.device | None = None, progress: bool = False
) -> Encoder | None:
    """Train the encoder on half of the training patients; None where there are fewer than eight.

    References
    ----------
    Bardes, Ponce and LeCun 2022, "VICReg", arXiv:2105.04906, equations 1 to 6.
    """
    if train.num_patients < 8:
        return None
    chosen = torch.device("cpu") if device is None else device
    lessons, unseen = halves(train.patients, seed)
    images = shrink(train.images[torch.from_numpy(lessons)].float(), MOST_VOXELS)
    trunk = build(Trunk, seed)
    both = nn.Sequential(trunk, build(_projector, seed)).to(chosen)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(batch: Tensor) -> Tensor:
        x = images[batch].to(chosen)
        views = torch.cat([augment(x, generator) for _ in range(2)])
        first, second = both(views).chunk(2)
        return vicreg(first, second)

    order = shuffled(len(images), steps * BATCH_SIZE, generator)
    fit(both, loss_of, order, BATCH_SIZE, learning_rate=LEARNING_RATE, title="encoder" if progress else "")
    return Encoder(trunk.eval(), unseen, len(lessons))


def vicreg(first: Tensor, second: Tensor) -> Tensor:
    """Return the loss of two views, shape (B, D) each: views alike, dimensions spread, dimensions uncorrelated."""
    alike = functional.mse_loss(first, second)
    spread = _hinge(first) + _hinge(second)
    apart = _off_diagonal(first) + _off_diagonal(second)
    return INVARIANCE * alike + VARIANCE * spread / 2 + COVARIANCE * apart


def halves(patients: tuple[str, ...], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cases of two halves of the patients."""
    names = np.unique(np.asarray(patients))
    first = np.random.default_rng([seed, 1]).permutation(names)[: len(names) // 2]
    inside = np.isin(np.asarray(patients), first)
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _projector() -> nn.Sequential:
    wide = 2 * WIDTHS[-1]
    return nn.Sequential(
        nn.Linear(wide, PROJECTION), nn.LayerNorm(PROJECTION), nn.GELU(), nn.Linear(PROJECTION, PROJECTION)
    )


def _hinge(z: Tensor) -> Tensor:
    return functional.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
