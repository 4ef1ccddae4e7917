"""Writing NIfTI: the same bytes for the same volume, whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from synthmed.errors import InputError
from synthmed.files import atomic_path
from synthmed.io.nifti import is_nifti
from synthmed.volume import Affine, Volume

OutputType = Literal["int16", "uint8", "float32"]

# Level 2 of ISA-L gives the same bytes on every x86-64 processor with SSE 4.2; level 3 does not. It is several times as
# fast as zlib's level 1, which nibabel uses, for files of the same size within a few per cent.
_COMPRESSION_LEVEL = 2
_GZIP = 31
"""RFC 1952 around the deflated data: time 0, no file name."""
_NO_EXTENSION = bytes(4)
# Turned whole, a large volume leaves the processor's cache at every step; 16 planes at a time take a third of the time.
_SLAB = 16
_SHEAR_TOLERANCE = 1e-3
_MAX_DESCRIPTION = 79


def write_volume(
    path: Path | str, volume: Volume, *, dtype: OutputType = "int16", description: str = "SYNTHETIC"
) -> None:
    """Write a one-channel volume as NIfTI-1, the same bytes for the same volume.

    Voxels are rounded to nearest (half to even) and cast first, so that the file carries no scale factor.
    Sform and qform are the same affine, both with code 1, though the header's float32 quaternion holds turns of nearly
    180 degrees (LPS) to 2e-4 rad only; spacing is rounded to six decimals; units are mm; gzip carries
    neither time nor file name. The file is whole or absent.

    Parameters
    ----------
    path : Path
        Ends in ``.nii`` or ``.nii.gz``.
    volume : Volume
    dtype : {"int16", "uint8", "float32"}
    description : str
        At most 79 ASCII characters, the header's ``descrip``.

    Raises
    ------
    InputError
        If a value does not fit `dtype`, the axes are not perpendicular, or there are several channels.
    StorageError
        If the disk is full or the folder is not writable.
    """
    path = Path(path)
    if not is_nifti(path):
        raise InputError(f"Cannot write {path}", found=f"the ending {path.suffix!r}", expected=".nii or .nii.gz")
    data = _cast(path, volume, dtype)
    content = _encode(data, _orthogonal(path, volume.affine), description)
    if path.name.lower().endswith(".gz"):
        content = isal_zlib.compress(content, _COMPRESSION_LEVEL, _GZIP)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _encode(data: NDArray[np.generic], affine: Affine, description: str) -> bytes:
    """Return the file's content; `data` is in the file's order, shape (K, J, I)."""
    if len(description) > _MAX_DESCRIPTION or not description.isascii():
        raise InputError(
            "A NIfTI description does not fit the header",
            found=f"{len(description)} characters, {description!r}",
            expected=f"at most {_MAX_DESCRIPTION} ASCII characters",
        )
    image = nib.Nifti1Image(data.T, affine)
    header = image.header
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode("ascii")
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header.set_data_offset(len(header.binaryblock) + len(_NO_EXTENSION))
    # nibabel's own writer goes slice by slice, which takes longer than compressing does.
    return b"".join((header.binaryblock, _NO_EXTENSION, data.data))


def _cast(path: Path, volume: Volume, dtype: OutputType) -> NDArray[np.generic]:
    """Return the voxels as they lie in the file: rounded, of `dtype`, the volume's first axis fastest."""
    channels = volume.array.shape[0]
    if channels != 1:
        raise InputError(f"Cannot write {path}", found=f"{channels} channels", expected="1")
    values = volume.array[0]
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():  # a NaN anywhere is the least and the greatest value
        raise InputError(f"Cannot write {path}", found="NaN or infinite voxels", expected="finite values")
    if dtype != "float32":
        limits = np.iinfo(dtype)
        low, high = np.rint((low, high)).tolist()
        if low < limits.min or high > limits.max:
            raise InputError(
                f"Cannot write {path}",
                found=f"values from {low:g} to {high:g}",
                expected=f"{dtype}, {limits.min} to {limits.max}",
                next_step="Choose a wider type or clip the intensities first",
            )
    data = np.empty(values.shape[::-1], dtype)
    for start in range(0, len(values), _SLAB):
        slab = values[start : start + _SLAB]
        data[:, :, start : start + _SLAB] = (slab if dtype == "float32" else np.rint(slab)).T
    return data


def _orthogonal(path: Path, affine: Affine) -> Affine:
    """`affine` with its column lengths rounded to six decimals; sheared ones do not fit a qform."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > _SHEAR_TOLERANCE:
        raise InputError(
            f"Cannot write {path}",
            found=f"axes {np.degrees(np.arcsin(min(shear, 1.0))):.2f} degrees away from perpendicular",
            expected="perpendicular axes",
            next_step="Resample the volume to a regular grid first",
        )
    rounded = np.round(spacing, 6)
    if (rounded <= 0).any():
        raise InputError(f"Cannot write {path}", found=f"spacing {spacing.tolist()} mm", expected="above 0")
    result = np.array(affine, dtype=np.float64)
    result[:3, :3] = directions * rounded
    return result
