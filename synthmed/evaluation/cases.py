"""The sets of cases that are compared, on the scale the networks see."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthmed.errors import InputError
from synthmed.io import read_label, read_volume
from synthmed.prepare.prepared import PreparedSplit
from synthmed.prepare.space import Space, to_network


@dataclass(frozen=True, eq=False)
class Cases:
    """Images, their segmentations, whose they are and what is known of them.

    Attributes
    ----------
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), uint8 class index, background 0; or None for a cohort without labels
    patients : tuple of str, length N
    covariates : tuple of mappings, length N
        What is known of a real case, what a synthetic one was asked for; empty where nothing is.
    boundary : int
        Where a second source of cases begins; 0: there is one.
    """

    images: Tensor
    labels: Tensor | None
    patients: tuple[str, ...]
    covariates: tuple[Mapping[str, Any], ...] = ()
    boundary: int = 0

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

    def scalar(self, name: str) -> NDArray[np.float64]:
        """Return a numeric covariate, shape (N,), NaN where it is missing or no number."""
        return np.asarray([_number(row.get(name)) for row in self._rows], dtype=np.float64)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a categorical covariate, length N, empty where it is missing."""
        return tuple(_text(row.get(name)) for row in self._rows)

    @property
    def _rows(self) -> tuple[Mapping[str, Any], ...]:
        return self.covariates or ({},) * len(self)

    def take(self, chosen: NDArray[np.int64]) -> Cases:
        """Return some of the cases."""
        index = torch.from_numpy(chosen)
        return Cases(
            self.images[index],
            None if self.labels is None else self.labels[index],
            tuple(self.patients[i] for i in chosen),
            tuple(self.covariates[i] for i in chosen) if self.covariates else (),
        )

    def take_patients(self, count: int, seed: int) -> Cases:
        """Return the cases of so many patients, drawn at random."""
        names = np.unique(np.asarray(self.patients))
        kept = np.random.default_rng([seed, count]).permutation(names)[:count]
        return self.take(np.flatnonzero(np.isin(np.asarray(self.patients), kept)))


def _text(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def _number(value: Any) -> float:
    try:
        number = float(_text(value))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def joined(first: Cases, second: Cases) -> Cases:
    """Return the cases of two labelled sets, the boundary between them kept."""
    return Cases(
        torch.cat([first.images, second.images]),
        torch.cat([first.segmentations, second.segmentations]),
        (*first.patients, *second.patients),
        boundary=len(first),
    )


def real_cases(split: PreparedSplit) -> Cases:
    """Return one side of the patient-level split."""
    return Cases(split.images, split.labels, split.subject_ids, split.covariates)


def synthetic_cases(folder: Path, space: Space) -> Cases:
    """Read what `generate` wrote; every synthetic case counts as a patient of its own.

    Parameters
    ----------
    folder : Path
        Holds ``images/*.nii.gz``, with labels a file of the same name in ``labels/``, and, where there were conditions,
        ``samples.csv`` with them.
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
    asked = _conditions(folder)
    covariates = tuple(asked.get(name.removesuffix(".nii.gz"), {}) for name in names)
    return Cases(images, labels, tuple(f"synthetic {index}" for index in range(len(names))), covariates)


def _conditions(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each volume was asked for; nothing for a set that another program made."""
    file = folder / "samples.csv"
    if not file.is_file():
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return {row["name"]: dict(json.loads(row["condition"] or "{}")) for row in csv.DictReader(stream)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"Cannot read {file}", found=str(error), next_step="Run `synthmed generate` again") from error


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
