"""What `prepare` wrote, as tensors that a network can take."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthmed.errors import InputError
from synthmed.files import read_json
from synthmed.io import read_label, read_volume
from synthmed.prepare.space import Space, label_to_network, to_network
from synthmed.volume import Volume

Split = Literal["train", "holdout"]


@dataclass(frozen=True, eq=False)
class PreparedSplit:
    """One side of the patient-level split, cases in ascending order of their name.

    Attributes
    ----------
    case_ids, subject_ids : tuple of str, length N
    images : Tensor, shape (N, 1, I, J, K), float32, in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), uint8, class index; or None
    covariates : tuple of dict, length N; a covariate that a case lacks is absent
    num_classes : int, with the background; 0 without labels
    """

    case_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    images: Tensor
    labels: Tensor | None
    covariates: tuple[dict[str, float | str], ...]
    num_classes: int


def load_space(prepare_dir: Path) -> Space:
    """Read the shared grid, units and labels of a prepared cohort."""
    return Space.from_json(read_json(Path(prepare_dir) / "space.json"))


def load_split(prepare_dir: Path, split: Split) -> PreparedSplit:
    """Read every prepared case of one side of the split.

    Parameters
    ----------
    prepare_dir : Path
        The stage directory that `prepare` wrote.
    split : {"train", "holdout"}

    Raises
    ------
    InputError
        If the directory is not a finished one, or a volume does not lie on its grid.
    """
    prepare_dir = Path(prepare_dir)
    space = load_space(prepare_dir)
    rows = [row for row in read_cases(prepare_dir) if row["split"] == split]
    if not rows:
        raise InputError(f"{prepare_dir} holds no {split} cases", next_step="Run `synthmed prepare` again")
    names = [f"{row['case']}.nii.gz" for row in rows]
    files = [prepare_dir / split / "images" / name for name in names]
    # Filled one by one, in the files' order: a list that is stacked and then scaled would take three times as much.
    images = np.empty((len(files), 1, *space.grid[::-1]), np.float32).transpose(0, 1, 4, 3, 2)
    for row, file in zip(images, files, strict=True):
        row[:] = to_network(_on_grid(read_volume(file), file, space), space)
    labels = None
    if space.num_classes:
        labels = torch.empty((len(files), 1, *space.grid), dtype=torch.uint8)
        for row, name in zip(labels.numpy(), names, strict=True):
            row[:] = _classes(prepare_dir / split / "labels" / name, space)
    return PreparedSplit(
        case_ids=tuple(row["case"] for row in rows),
        subject_ids=tuple(row["subject"] for row in rows),
        images=torch.from_numpy(images),
        labels=labels,
        covariates=tuple(json.loads(row["covariates"]) for row in rows),
        num_classes=space.num_classes,
    )


def read_cases(prepare_dir: Path) -> list[dict[str, str]]:
    """Read ``cases.csv``: one row a case, in ascending order of its name."""
    file = Path(prepare_dir) / "cases.csv"
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return sorted(csv.DictReader(stream), key=lambda row: row["case"])
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"Cannot read {file}", found=str(error), next_step="Run `synthmed prepare` again") from error


def _on_grid(volume: Volume, file: Path, space: Space) -> NDArray[np.float32]:
    if volume.array.shape != (1, *space.grid):
        raise InputError(f"{file} is not on the prepared grid", found=str(volume.shape), expected=str(space.grid))
    return volume.array


def _classes(file: Path, space: Space) -> NDArray[np.uint8]:
    try:
        return label_to_network(_on_grid(read_label(file), file, space), space)
    except InputError as error:
        raise InputError(f"{file}: {error}", next_step="Run `synthmed prepare` again") from error
