"""The sets of cases that are compared, on the scale the networks see."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synthmed.errors import InputError
from synthmed.io import read_label, read_volume
from synthmed.prepare.prepared import PreparedSplit
from synthmed.prepare.space import Space, to_network


@dataclass(frozen=True, eq=False)
class Cases:
    """Images, their segmentations and whose they are.

    Attributes
    ----------
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), uint8 class index, background 0; or None for a cohort without labels
    patients : tuple of str, length N
    """

    images: Tensor
    labels: Tensor | None
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def segmentations(self) -> Tensor:
        """The labels; raise `InputError` for a cohort without any."""
        if self.labels is None:
            raise InputError("These cases have no labels", expected="a segmentation for every image")
        return self.labels

    @property
    def num_patients(self) -> int:
        """How many patients the cases come from."""
        return len(set(self.patients))


def real_cases(split: PreparedSplit) -> Cases:
    """Return one side of the patient-level split."""
    return Cases(split.images, split.labels, split.subject_ids)


def synthetic_cases(folder: Path, space: Space) -> Cases:
    """Read what `generate` wrote; every synthetic case counts as a patient of its own.

    Parameters
    ----------
    folder : Path
        Holds ``images/*.nii.gz`` and, with labels, a file of the same name in ``labels/``.
    space : Space
        Grid, units and label values.

    Raises
    ------
    InputError
        If there is no volume, one is not on the grid, or a label value is unknown.
    """
    names = sorted(file.name for file in (folder / "images").glob("*.nii.gz"))
    if not names:
        raise InputError(f"{folder / 'images'} holds no volumes", next_step="Run `synthmed generate` first")
    images = torch.from_numpy(np.stack([_image(folder / "images" / name, space) for name in names]))
    labels = None
    if space.num_classes > 1:
        labels = torch.from_numpy(np.stack([_label(folder / "labels" / name, space) for name in names]))
    return Cases(images, labels, tuple(f"synthetic {index}" for index in range(len(names))))


def _image(file: Path, space: Space) -> np.ndarray:
    image = read_volume(file).array
    _require_grid(image, file, space)
    return to_network(image, space).astype(np.float32)


def _label(file: Path, space: Space) -> np.ndarray:
    label = read_label(file).array
    _require_grid(label, file, space)
    known = np.asarray(space.label_values)
    strange = np.setdiff1d(label, known)
    if strange.size:
        raise InputError(f"{file} holds unknown label values", found=str(strange[:5]), expected=str(space.label_values))
    return np.searchsorted(known, label).astype(np.uint8)


def _require_grid(array: np.ndarray, file: Path, space: Space) -> None:
    if array.shape != (1, *space.grid):
        raise InputError(f"{file} is not on the cohort's grid", found=str(array.shape[1:]), expected=str(space.grid))
