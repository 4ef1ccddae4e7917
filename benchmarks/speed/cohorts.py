"""What the benchmark of training learns from: the hippocampus cohort as it is prepared, and phantoms of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthmed.cohort.phantom import LABEL_NAMES, Phantom
from synthmed.config import Config, apply_overrides, load_config
from synthmed.models.autoencoder import one_hot
from synthmed.pipeline import open_run, run_stages
from synthmed.prepare.prepared import PreparedSplit, load_space, load_split
from synthmed.prepare.space import Space

RECIPE = "hippocampus_mri"
PERCENTILES = (0.5, 99.9)


@dataclass(frozen=True, eq=False)
class Cohort:
    """One cohort with the settings that ours is trained with on it.

    Attributes
    ----------
    name : str
    config : Config
        The recipe's, on this cohort's grid.
    space : Space
    train, holdout : PreparedSplit
    """

    name: str
    config: Config
    space: Space
    train: PreparedSplit
    holdout: PreparedSplit


def hippocampus(root: Path, seed: int) -> Cohort:
    """Return the recipe's own cohort, prepared under `root` unless that was done before.

    Raises
    ------
    ConfigError
        If the scans are not at hand.
    """
    run = open_run(RECIPE, root=root)
    run_stages(run, "prepare", progress=False, say=lambda line: None)
    folder = run.stage("prepare")
    config = apply_overrides(run.config, [f"seed={seed}"])
    return Cohort("hippocampus", config, load_space(folder), load_split(folder, "train"), load_split(folder, "holdout"))


def phantoms(side: int, train: int, holdout: int, seed: int) -> Cohort:
    """Return phantoms of `side` voxels along each axis, scaled and split as a prepared cohort is."""
    grid = (side, side, side)
    config = apply_overrides(load_config(RECIPE), [f"preprocess.grid={list(grid)}", f"seed={seed}"])
    space = Space(grid, (1.0, 1.0, 1.0), label_values=(0, *LABEL_NAMES), label_names=LABEL_NAMES)
    sides = [_split(range(train), grid, seed), _split(range(train, train + holdout), grid, seed)]
    return Cohort(f"phantoms {side}", config, space, *sides)


def stacked(split: PreparedSplit) -> Tensor:
    """Return images in [0, 1] and one-hot classes as channels, which is what the tutorial learns from."""
    images = (split.images + 1) / 2
    onehot = None if split.labels is None else one_hot(split.labels, split.num_classes)
    return images if onehot is None else torch.cat([images, onehot], dim=1)


def _split(subjects: range, grid: tuple[int, int, int], seed: int) -> PreparedSplit:
    scans = [Phantom(seed, subject, grid).render() for subject in subjects]
    images = [_scaled(image.array) for image, _ in scans]
    return PreparedSplit(
        case_ids=tuple(f"case {subject}" for subject in subjects),
        subject_ids=tuple(f"subject {subject}" for subject in subjects),
        images=torch.from_numpy(np.stack(images)),
        labels=torch.from_numpy(np.stack([label.array.astype(np.uint8) for _, label in scans])),
        covariates=tuple({} for _ in subjects),
        num_classes=1 + len(LABEL_NAMES),
    )


def _scaled(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, PERCENTILES)
    return (2 * np.clip((image - low) / (high - low), 0, 1) - 1).astype(np.float32)
