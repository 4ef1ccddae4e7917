"""A small MONAI regressor that tells covariates from scans: numbers and classes at once, gaps left out.

Where the cohort has labels the network sees the segmentation beside the image, as the receiver of a release does: with
fifty scans to learn from it would not find the ventricles by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.nets.regressor import Regressor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthmed.evaluation.augmentation import KEEPING_SIZE, augment_pair
from synthmed.evaluation.cases import Cases
from synthmed.evaluation.intervals import Array
from synthmed.evaluation.learning import Budget, build, fit, shrink, shuffled

CHANNELS = (16, 32, 64)
LEARNING_RATE = 3e-3
MOST_VOXELS = 2**17


@dataclass(frozen=True)
class Questions:
    """What is asked of a scan.

    Attributes
    ----------
    scalars : tuple of (name, mean, SD)
        Of the real training cases.
    classes : tuple of (name, values)
    num_structures : int
        Classes of the labels that the network sees, without background; 0 without labels.
    """

    scalars: tuple[tuple[str, float, float], ...]
    classes: tuple[tuple[str, tuple[str, ...]], ...]
    num_structures: int = 0

    @property
    def outputs(self) -> int:
        """How many numbers the network returns."""
        return len(self.scalars) + sum(len(values) for _, values in self.classes)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a predictor says of N cases.

    Attributes
    ----------
    scalars : dict of name -> ndarray, shape (N,), in the covariate's unit
    classes : dict of name -> ndarray, shape (N, K), chances
    """

    scalars: dict[str, Array]
    classes: dict[str, Array]


def questions_of(train: Cases, scalars: Sequence[str], classes: Sequence[str]) -> Questions:
    """Return what can be asked: scalars that vary, and classes with at least two values among these cases."""
    numbers = [(name, values[np.isfinite(values)]) for name in scalars for values in [train.scalar(name)]]
    kinds = [(name, tuple(sorted(set(train.texts(name)) - {""}))) for name in classes]
    return Questions(
        tuple((name, float(v.mean()), float(v.std())) for name, v in numbers if len(v) > 2 and v.std() > 0),
        tuple((name, values) for name, values in kinds if len(values) > 1),
        0 if train.labels is None else int(train.labels.max()),
    )


def class_indices(cases: Cases, name: str, values: Sequence[str]) -> NDArray[np.int64]:
    """Return each case's class, -1 where it is missing or not among `values`."""
    known = {value: index for index, value in enumerate(values)}
    return np.asarray([known.get(text, -1) for text in cases.texts(name)])


def train_predictor(cases: Cases, questions: Questions, *, budget: Budget, seed: int, title: str = "") -> nn.Module:
    """Train a MONAI ``Regressor`` with one output a scalar and one a class value.

    Parameters
    ----------
    cases : Cases
        A case teaches what is known of it.
    """
    images, labels = _coarse(cases.images, cases.labels)
    numbers, kinds = _targets(cases, questions)
    network = build(lambda: _untrained(images.shape[2:], questions), seed).to(budget.device)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = augment_pair(images[batch].to(budget.device), labels[batch].to(budget.device), generator, KEEPING_SIZE)
        return _loss(network(_seen(x, y, questions)).cpu(), numbers[batch], kinds[batch], questions)

    order = shuffled(len(images), budget.steps * budget.batch_size, generator)
    shown = f"predictor {title}" if title and budget.progress else ""
    return fit(network, loss_of, order, budget.batch_size, learning_rate=LEARNING_RATE, title=shown)


@torch.no_grad()
def ask(network: nn.Module, cases: Cases, questions: Questions, batch_size: int = 16) -> Answers:
    """Return what a predictor says of cases."""
    device = next(network.parameters()).device
    images, labels = _coarse(cases.images, cases.labels)
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    parts = [network(_seen(x.to(device), y.to(device), questions)).cpu() for x, y in pairs]
    said, start = torch.cat(parts).double(), len(questions.scalars)
    scalars = {n: said[:, i].numpy() * sd + mean for i, (n, mean, sd) in enumerate(questions.scalars)}
    classes = {}
    for name, values in questions.classes:
        classes[name] = said[:, start : start + len(values)].softmax(1).numpy()
        start += len(values)
    return Answers(scalars, classes)


def _untrained(grid: Sequence[int], questions: Questions) -> Regressor:
    channels = 1 + questions.num_structures
    norm = ("INSTANCE", {"affine": True})
    strides = (2,) * len(CHANNELS)
    return Regressor((channels, *grid), (questions.outputs,), CHANNELS, strides, num_res_units=0, norm=norm)


def _coarse(images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return images of at most `MOST_VOXELS` and labels on their grid, all background where there are none."""
    small = shrink(images.float(), MOST_VOXELS)
    if labels is None:
        return small, torch.zeros(small.shape, dtype=torch.uint8)
    size = list(small.shape[2:])
    return small, torch.cat([functional.interpolate(x.float(), size).to(torch.uint8) for x in labels.split(8)])


def _seen(images: Tensor, labels: Tensor, questions: Questions) -> Tensor:
    """Return the image and each structure as a channel of -1 and 1."""
    return torch.cat([images, *((labels == s).float() * 2 - 1 for s in range(1, questions.num_structures + 1))], dim=1)


def _targets(cases: Cases, questions: Questions) -> tuple[Tensor, Tensor]:
    """Return standardised scalars, shape (N, S), NaN where missing, and classes, shape (N, C), -1 where missing."""
    numbers = [(cases.scalar(name) - mean) / sd for name, mean, sd in questions.scalars]
    kinds = [class_indices(cases, name, values) for name, values in questions.classes]
    stacked = np.stack(numbers, 1) if numbers else np.zeros((len(cases), 0))
    indices = np.stack(kinds, 1) if kinds else np.zeros((len(cases), 0), np.int64)
    return torch.from_numpy(stacked).float(), torch.from_numpy(indices)


def _loss(said: Tensor, numbers: Tensor, kinds: Tensor, questions: Questions) -> Tensor:
    """Return squared error of the scalars plus cross-entropy of the classes, over what is known."""
    count = numbers.shape[1]
    known = torch.isfinite(numbers)
    loss = (said[:, :count][known] - numbers[known]).square().sum() / known.sum().clamp_min(1)
    start = count
    for index, (_, values) in enumerate(questions.classes):
        given = kinds[:, index] >= 0
        part = functional.cross_entropy(said[given, start : start + len(values)], kinds[given, index], reduction="sum")
        loss, start = loss + part / given.sum().clamp_min(1), start + len(values)
    return loss
