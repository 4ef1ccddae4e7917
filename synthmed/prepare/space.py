"""The grid, units and labels that prepared and generated volumes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from synthmed.errors import InputError
from synthmed.volume import Affine, Geometry

Array = TypeVar("Array")
SMALLEST_INTEGER_RANGE = 255
_UNASKED = {"mask": "none", "centre": "image"}
_DIRECTIONS = {"R": (0, 1.0), "L": (0, -1.0), "A": (1, 1.0), "P": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}


@dataclass(frozen=True)
class Space:
    """The record of what preprocessing led to: one grid, one scale of intensities, one set of labels.

    Attributes
    ----------
    grid : tuple of int, (I, J, K)
    spacing : tuple of float, mm
    orientation : str, such as ``"RAS"``
    normalisation : str
        ``"percentile"`` (every volume's own percentiles land on `intensity_range`) or ``"window"`` (clipped, so HU and
        SUV keep their meaning).
    percentiles : tuple of float, (low, high), %
    intensity_range : tuple of float, (low, high), units of the release
    modality : str, DICOM code: MR, CT or PT
    label_values : tuple of int
        Values in label files, ascending, background 0 first; a value's place is its class index. Empty where the
        cohort has no labels.
    label_names : mapping of label value to structure
    mask : str
        ``"label"`` where everything outside the label files' values was set to the low end of the range, else
        ``"none"``.
    centre : str
        What the grid was centred on: ``"image"`` (the field of view), ``"label"`` or ``"foreground"``.
    """

    grid: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str = "RAS"
    normalisation: str = "percentile"
    percentiles: tuple[float, float] = (0.5, 99.9)
    intensity_range: tuple[float, float] = (0.0, 1000.0)
    modality: str = "MR"
    label_values: tuple[int, ...] = ()
    label_names: Mapping[int, str] = field(default_factory=dict)
    mask: str = "none"
    centre: str = "image"

    def structure(self, value: int) -> str:
        """Return the name of a label value; ``label_<value>`` where none is declared."""
        return self.label_names.get(value, f"label_{value}")

    @property
    def num_classes(self) -> int:
        """Number of label classes with the background; 0 where the cohort has no labels."""
        return len(self.label_values)

    @property
    def image_type(self) -> Literal["int16", "float32"]:
        """Voxel type of files: int16 where whole numbers resolve the range well (HU, 0 to 1000), else float32 (SUV)."""
        low, high = self.intensity_range
        limits = np.iinfo(np.int16)
        whole = float(low).is_integer() and float(high).is_integer() and limits.min <= low and high <= limits.max
        return "int16" if whole and high - low >= SMALLEST_INTEGER_RANGE else "float32"

    @property
    def affine(self) -> Affine:
        """Affine of a volume that belongs to no patient: axis-aligned, the grid's centre at the world's origin."""
        affine = np.eye(4)
        affine[:3, :3] = 0.0
        for axis, code in enumerate(self.orientation):
            row, sign = _DIRECTIONS[code]
            affine[row, axis] = sign * self.spacing[axis]
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(self.grid) - 1) / 2)
        return affine

    @property
    def geometry(self) -> Geometry:
        """Grid and canonical affine."""
        return Geometry(self.grid, self.affine)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, without options that nobody took; `from_json` reads them back to an equal value."""
        content = {key: value for key, value in asdict(self).items() if _UNASKED.get(key) != value}
        content["label_names"] = {str(value): name for value, name in self.label_names.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Space:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            If a key is missing or unknown.
        """
        try:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
            }
            values["label_names"] = {int(value): name for value, name in content["label_names"].items()}
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("This is not the record of a prepared space", found=str(error)) from error


def to_network(image: Array, space: Space) -> Array:
    """Map units of the release to [-1, 1], linearly; works on arrays and tensors.

    Parameters
    ----------
    image : ndarray or Tensor, any shape, units of `Space.intensity_range`
    """
    low, high = space.intensity_range
    return (image - low) / ((high - low) / 2.0) - 1.0  # type: ignore[operator, no-any-return, return-value]


def from_network(image: Array, space: Space) -> Array:
    """Map [-1, 1] to units of the release and clip to their range: the inverse of `to_network`.

    Parameters
    ----------
    image : ndarray or Tensor, any shape
    """
    low, high = space.intensity_range
    return ((image + 1.0) * ((high - low) / 2.0) + low).clip(low, high)  # type: ignore[operator, no-any-return, attr-defined]


def label_to_network(label: NDArray[np.float32], space: Space) -> NDArray[np.uint8]:
    """Map label values to class indices, background 0 first.

    Parameters
    ----------
    label : ndarray, any shape, values out of `Space.label_values`

    Raises
    ------
    InputError
        If it holds a value that the space does not know.
    """
    values = np.asarray(space.label_values or (0,))
    index = np.searchsorted(values, label).clip(max=len(values) - 1)
    unknown = label[values[index] != label]
    if unknown.size:
        known = ", ".join(map(str, space.label_values))
        raise InputError("A label map holds an unknown value", found=f"{unknown[0]:g}", expected=f"one of {known}")
    return index.astype(np.uint8)


def label_from_network(classes: NDArray[np.integer], space: Space) -> NDArray[np.float32]:
    """Map class indices to label values: the inverse of `label_to_network`.

    Parameters
    ----------
    classes : ndarray, any shape, from 0 to `Space.num_classes` - 1
    """
    return np.asarray(space.label_values or (0,), dtype=np.float32)[classes]
