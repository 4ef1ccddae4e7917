"""Which samples are out of the real cohort's range, by the volume of each structure and the image's intensities.

The range is Tukey's inner fence, from quartiles of the training cases alone: it names no case and holds no extreme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthmed.errors import InputError

Array = NDArray[np.float32]
Classes = NDArray[np.uint8]

FENCE = 1.5
"""Interquartile ranges beyond the quartiles (Tukey 1977, Exploratory Data Analysis, section 2D)."""
LEAST_WIDTH = 0.02
"""A fence is at least this wide on either side, in the measure's own unit, where all cases are alike."""


@dataclass(frozen=True)
class Screen:
    """The range of each measure; the default lets everything pass.

    Attributes
    ----------
    low, high : tuple of float, length M
        Bounds of mean and standard deviation of the image ([-1, 1]), then of log(1 + voxels) of each structure.
    optional : tuple of bool, length num_structures
        Whether training cases may lack the structure: one in twenty or more did.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    optional: tuple[bool, ...] = ()

    @classmethod
    def fit(cls, images: Array, classes: Classes | None, num_classes: int) -> Screen:
        """Learn the ranges from training cases.

        Parameters
        ----------
        images : ndarray, shape (N, I, J, K), float32 in [-1, 1]
        classes : ndarray, shape (N, I, J, K), uint8 class index; or None without labels
        num_classes : int
            Background included.
        """
        maps = [None] * len(images) if classes is None else classes
        rows = np.asarray([_measure(i, c, num_classes) for i, c in zip(images, maps, strict=True)])
        absent = rows[:, 2:] == 0
        bounds = [_fence(column[column > 0] if n >= 2 else column) for n, column in enumerate(rows.T)]
        low, high = zip(*bounds, strict=True)
        return cls(low, high, tuple(bool(share) for share in absent.mean(axis=0) >= 0.05))

    def outside(self, image: Array, classes: Classes | None, structures: Sequence[str]) -> str:
        """Return what of a sample is out of range and by how much, or an empty text.

        Parameters
        ----------
        image : ndarray, shape (I, J, K), float32 in [-1, 1]
        classes : ndarray, shape (I, J, K), uint8; or None
        structures : sequence of str
            Names of classes 1, 2, ...
        """
        if not self.low:
            return ""
        names = ["mean intensity", "intensity SD", *(f"log voxels of {name}" for name in structures)]
        values = _measure(image, classes, len(self.optional) + 1)
        may_lack = (False, False, *self.optional)
        for name, value, low, high, optional in zip(names, values, self.low, self.high, may_lack, strict=True):
            if not (low <= value <= high or (optional and value == 0)):
                return f"{name} {value:.2f}, real {low:.2f} to {high:.2f}"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; `from_json` reads them back to an equal value."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Screen:
        """Read what `to_json` wrote; raise `InputError` where it is something else."""
        try:
            return cls(**{key: tuple(value) for key, value in content.items()})
        except (TypeError, AttributeError) as error:
            raise InputError("This is not a model's screen", found=str(error)) from error


def _measure(image: Array, classes: Classes | None, num_classes: int) -> list[float]:
    measures = [float(image.mean()), float(image.std())]
    if classes is not None and num_classes > 1:
        counts = np.bincount(classes.ravel(), minlength=num_classes)[1:]
        measures += [float(np.log1p(count)) for count in counts]
    return measures


def _fence(values: NDArray[np.float64]) -> tuple[float, float]:
    if not values.size:
        return 0.0, 0.0
    first, third = np.percentile(values, (25, 75))
    reach = max(FENCE * (third - first), LEAST_WIDTH)
    return round(float(first - reach), 6), round(float(third + reach), 6)
