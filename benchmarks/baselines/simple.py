"""Sets without a generative model: training scans as they are, augmented ones, and noise."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    Compose,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr
from torch import Tensor

from baselines.source import Source, write_case
from synthmed.io import read_label, read_volume
from synthmed.sampling.generate import volume_seed
from synthmed.sampling.generated import volume_name, write_pair
from synthmed.volume import Volume

Array = NDArray[np.float64]

ROTATION = 0.15  # radians
SCALING = 0.1
SHIFT = 0.06  # share of a side
ELASTIC_SIGMA = (4.0, 6.0)  # voxels
ELASTIC_MAGNITUDE = (20.0, 60.0)  # displacements of a fraction of a voxel, at most two or so
GAMMA = (0.75, 1.35)
CONTRAST = 0.1
BRIGHTNESS = 0.05  # share of the range
NOISE = 0.02
SMOOTHNESS = 2.0  # voxels
_HISTOGRAM = 4096


def draw_cases(num_cases: int, count: int, seed: int) -> list[int]:
    """Return `count` indices of cases: whole shuffled passes, so that none repeats before all were taken."""
    rng = np.random.default_rng(seed)
    passes = -(-count // num_cases)
    return np.concatenate([rng.permutation(num_cases) for _ in range(passes)])[:count].tolist()


def make_copies(source: Source, out: Path, seed: int) -> dict[str, Any]:
    """Write training scans as they are, voxel for voxel; repeated where the run holds more volumes than scans."""
    space, folder = source.space, source.run.stage("prepare") / "train"
    for index, case in enumerate(draw_cases(len(source.train.images), source.count, seed)):
        name = f"{source.train.case_ids[case]}.nii.gz"
        image, label = read_volume(folder / "images" / name), read_label(folder / "labels" / name)
        same = Volume(image.array, space.affine), Volume(label.array, space.affine)
        write_pair(out, volume_name(index), *same, space)
    return {"distinct": min(source.count, len(source.train.images))}


def make_augmentation(source: Source, out: Path, seed: int) -> dict[str, Any]:
    """Write training scans under a random pose, elastic deformation and change of intensity; labels go along."""
    transform = augmentation(source.space.grid)
    labels = _labels(source)
    for index, case in enumerate(draw_cases(len(source.train.images), source.count, seed)):
        image, label = augment_case(transform, source.train.images[case], labels[case], volume_seed(seed, index))
        write_case(out, index, image, label, source.space)
    return {}


def augmentation(grid: tuple[int, int, int]) -> Compose:
    """Return MONAI's transforms of an image in [0, 1] and its label, under the keys ``image`` and ``label``."""
    both = Rand3DElasticd(
        keys=("image", "label"),
        sigma_range=ELASTIC_SIGMA,
        magnitude_range=ELASTIC_MAGNITUDE,
        prob=1.0,
        rotate_range=(ROTATION,) * 3,
        translate_range=tuple(SHIFT * side for side in grid),
        scale_range=(SCALING,) * 3,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    return Compose(
        [
            both,
            RandAdjustContrastd(keys="image", prob=0.5, gamma=GAMMA),
            RandScaleIntensityd(keys="image", factors=CONTRAST, prob=0.5),
            RandShiftIntensityd(keys="image", offsets=BRIGHTNESS, prob=0.5),
            RandGaussianNoised(keys="image", prob=0.5, std=NOISE),
        ]
    )


def augment_case(transform: Compose, image: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Apply a random transform, which depends on `seed` alone.

    Parameters
    ----------
    image : Tensor, shape (1, I, J, K), [-1, 1]
    label : Tensor, shape (1, I, J, K), class index
    """
    transform.set_random_state(seed % 2**32)
    changed = transform({"image": (image + 1) / 2, "label": label.float()})
    moved, classes = (torch.as_tensor(changed[key]) for key in ("image", "label"))
    return 2 * moved.clamp(0, 1) - 1, classes.round().to(torch.uint8)


def make_noise(source: Source, out: Path, seed: int) -> dict[str, Any]:
    """Write smooth noise with the cohort's histogram, and labels that only follow how often a voxel has a class."""
    quantiles = np.quantile(source.train.images.numpy(), np.linspace(0, 1, _HISTOGRAM))
    atlas = class_frequencies(_labels(source), source.space.num_classes)
    for index in range(source.count):
        rng = np.random.default_rng(volume_seed(seed, index))
        image = histogram_noise(quantiles, source.space.grid, rng)
        label = label_noise(atlas, rng)
        write_case(out, index, torch.from_numpy(image)[None], torch.from_numpy(label)[None], source.space)
    return {}


def class_frequencies(labels: Tensor, num_classes: int) -> Array:
    """Return how often each voxel has each class, shape (num_classes, I, J, K)."""
    return np.stack([(labels[:, 0] == index).double().mean(0).numpy() for index in range(num_classes)])


def histogram_noise(quantiles: Array, grid: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Return smooth noise whose values spread as `quantiles` do."""
    shares = np.linspace(0, 1, len(quantiles))
    return np.interp(uniform_noise(grid, rng), shares, quantiles)


def label_noise(atlas: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a map of classes in which every voxel has its own frequencies and neighbours tend to agree.

    Parameters
    ----------
    atlas : ndarray, shape (num_classes, I, J, K)
        Frequencies, which sum to 1 over the classes.
    """
    bounds = np.cumsum(atlas, axis=0)[:-1]
    return (uniform_noise(atlas.shape[1:], rng) >= bounds).sum(axis=0)


def uniform_noise(grid: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return a smooth Gaussian field as its distribution function, so that every voxel is uniform on [0, 1]."""
    field = gaussian_filter(rng.standard_normal(grid), SMOOTHNESS, mode="wrap")
    return ndtr(field / _deviation(tuple(grid)))


@cache
def _deviation(grid: tuple[int, ...]) -> float:
    """Return the standard deviation of smoothed white noise: the root of the sum of the squared kernel."""
    impulse = np.zeros(grid)
    impulse[tuple(side // 2 for side in grid)] = 1.0
    return float(np.sqrt(np.square(gaussian_filter(impulse, SMOOTHNESS, mode="wrap")).sum()))


def _labels(source: Source) -> Tensor:
    if source.train.labels is None:
        raise ValueError("open_source refuses cohorts without labels")
    return source.train.labels
