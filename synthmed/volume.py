"""A volume is an array and an affine, and pure functions on the two.

Arrays are ``(C, I, J, K)`` float32; affines are float64 4x4 and map voxel indices to RAS+ millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt2axcodes,
    ornt_transform,
)
from numpy.typing import NDArray

from synthmed.errors import InputError

Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """Where a grid of voxels lies in space.

    Attributes
    ----------
    shape : tuple of int, (I, J, K)
    affine : ndarray, shape (4, 4), float64, voxel index -> RAS+ mm
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths, mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def orientation(self) -> str:
        """Closest anatomical axis codes, such as ``"RAS"``."""
        return "".join(ornt2axcodes(io_orientation(self.affine)))

    def agrees_with(self, other: Geometry, atol: float = 1e-3) -> bool:
        """Say whether both grids have the same shape and an affine equal to within `atol` mm."""
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=atol))


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image with its place in space.

    Attributes
    ----------
    array : ndarray, shape (C, I, J, K), float32
    affine : ndarray, shape (4, 4), float64, voxel index -> RAS+ mm

    Raises
    ------
    InputError
        If the array is not 4D with a channel axis, is empty, or the affine is not an invertible 4x4 matrix.
    """

    array: NDArray[np.float32]
    affine: Affine

    def __post_init__(self) -> None:
        array = np.asarray(self.array, dtype=np.float32)
        affine = np.asarray(self.affine, dtype=np.float64)
        if array.ndim != 4 or array.size == 0:
            raise InputError(
                "A volume has the wrong shape",
                found=str(array.shape),
                expected="(C, I, J, K), none of them 0",
            )
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise InputError(
                "A volume's affine is unusable",
                found=str(affine.tolist()),
                expected="an invertible 4x4 matrix",
            )
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (I, J, K)."""
        _, i, j, k = self.array.shape
        return i, j, k

    @property
    def geometry(self) -> Geometry:
        """Shape and affine, without the voxels."""
        return Geometry(self.shape, self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths, mm."""
        return self.geometry.spacing

    @property
    def orientation(self) -> str:
        """Closest anatomical axis codes, such as ``"RAS"``."""
        return self.geometry.orientation


def reorient(volume: Volume, axcodes: str) -> Volume:
    """Permute and flip the axes so that they run closest to `axcodes`; no voxel value changes.

    Parameters
    ----------
    volume : Volume
    axcodes : str
        Three letters out of L/R, P/A and I/S, such as ``"RAS"``.
    """
    transform = ornt_transform(io_orientation(volume.affine), axcodes2ornt(tuple(axcodes)))
    moved = np.stack([apply_orientation(channel, transform) for channel in volume.array])
    return Volume(moved, volume.affine @ inv_ornt_aff(transform, volume.shape))
