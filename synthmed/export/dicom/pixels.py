"""Voxels and grid in DICOM's own terms: stored integers, slices along the normal, LPS millimetres."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from pydicom.valuerep import DSfloat

from synthmed.errors import InputError
from synthmed.volume import Affine

Voxel = TypeVar("Voxel", bound=np.generic)
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHEAR_TOLERANCE = 1e-4
_SIGNED, _UNSIGNED = np.iinfo(np.int16), np.iinfo(np.uint16)


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie.

    Attributes
    ----------
    affine : ndarray, shape (4, 4), float64
        (column, row, slice) -> LPS mm; slices ascend along ``row x column``.
    shape : tuple of int, (columns, rows, slices)
    """

    affine: Affine
    shape: tuple[int, int, int]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between columns, rows and slices, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def pixel_spacing(self) -> list[DSfloat]:
        """PixelSpacing: between rows, then between columns."""
        columns, rows, _ = self.spacing
        return decimals([rows, columns])

    @property
    def orientation(self) -> list[DSfloat]:
        """ImageOrientationPatient: the direction of a row, then of a column."""
        cosines = self.affine[:3, :2] / np.linalg.norm(self.affine[:3, :2], axis=0)
        return decimals(cosines.T.ravel())

    def position(self, k: int) -> list[DSfloat]:
        """ImagePositionPatient: the centre of the first voxel of slice `k`, mm."""
        return decimals(self.affine[:3, 3] + k * self.affine[:3, 2])


@dataclass(frozen=True)
class Stored:
    """Integers and how they become the release's units: ``array * slope + intercept``.

    Attributes
    ----------
    array : ndarray, shape (slices, rows, columns), int16 or uint16
    slope, intercept : float
        Exactly what the header's decimal strings say.
    """

    array: NDArray[np.int16] | NDArray[np.uint16]
    slope: float
    intercept: float


def decimals(values: NDArray[np.float64] | list[float]) -> list[DSfloat]:
    """Return Decimal Strings with all the digits that 16 characters hold (PS3.5 6.2)."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def decimal(value: float) -> DSfloat:
    """Return one Decimal String, as `decimals` does."""
    return decimals([value])[0]


def to_slices(array: NDArray[Voxel], affine: Affine) -> tuple[NDArray[Voxel], Grid]:
    """Reorder axes to axial slices whose rows run left and columns back; no voxel value changes.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
    affine : ndarray, shape (4, 4), voxel index -> RAS+ mm

    Returns
    -------
    ndarray, shape (slices, rows, columns), of the same type
    Grid

    Raises
    ------
    InputError
        If the axes are not perpendicular: DICOM has no shear.
    """
    move = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    affine = RAS_TO_LPS @ affine @ inv_ornt_aff(move, array.shape)
    array = apply_orientation(array, move)
    if np.linalg.det(affine[:3, :3]) < 0:
        affine[:3, 3] += affine[:3, 2] * (array.shape[2] - 1)
        affine[:3, 2] *= -1
        array = array[:, :, ::-1]
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    shear = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if shear > _SHEAR_TOLERANCE:
        raise InputError("A volume with oblique axes has no DICOM form", found=f"a cosine of {shear:.2g} between axes")
    columns, rows, slices = array.shape
    return array.transpose(2, 1, 0), Grid(affine, (columns, rows, slices))


def to_stored(values: NDArray[np.generic]) -> Stored:
    """Return integers from which every reader restores `values`.

    Whole numbers of 16 bits (HU) are stored as they are, with slope 1. Others are scaled over 65,536 steps between
    their extremes; what is restored is within half a step, ``(max - min) / 131070``.

    Parameters
    ----------
    values : ndarray, shape (slices, rows, columns), integers or float32, all finite
    """
    if np.can_cast(values.dtype, np.int16):
        return Stored(np.ascontiguousarray(values, dtype=np.int16), 1.0, 0.0)
    low, high = float(values.min()), float(values.max())
    if _SIGNED.min <= low and high <= _SIGNED.max and np.array_equal(values, np.rint(values)):
        return Stored(np.ascontiguousarray(values, dtype=np.int16), 1.0, 0.0)
    intercept = _at_most(low)
    slope = _at_least((high - intercept) / _UNSIGNED.max)
    steps = np.rint((values.astype(np.float64) - intercept) / slope)
    return Stored(np.ascontiguousarray(steps.clip(0, _UNSIGNED.max), dtype=np.uint16), slope, intercept)


def _at_least(value: float) -> float:
    """Return the smallest-looking Decimal String that is not below `value`, as a number."""
    written = float(str(decimal(value)))
    return written if written >= value else float(str(decimal(value + abs(value) * 1e-9)))


def _at_most(value: float) -> float:
    return -_at_least(-value)


def digest(array: NDArray[np.generic]) -> str:
    """Return the SHA-256 of an integer array, shape (slices, rows, columns), as little-endian values of its type."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()
