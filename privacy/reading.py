"""One volume from the bytes of its files: hashed as they are parsed, turned to RAS, checked."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from privacy.errors import InputError

Array = NDArray[np.float32]

NIFTI_ENDINGS = (".nii", ".nii.gz")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
SMALLEST = 8  # voxels along each axis
_HEADERS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)
"""What nibabel, pydicom and highdicom raise on files that are damaged or not what they say."""


@dataclass(frozen=True)
class Loaded:
    """What one read of a volume's files gave.

    Attributes
    ----------
    array : ndarray, shape (I, J, K), float32, RAS order
    spacing : tuple of float, mm
    sha256 : str
        Of the bytes that were parsed; for several files, of their sorted digests.
    patient : str
        PatientID of a DICOM series; empty where there is none.
    """

    array: Array
    spacing: tuple[float, ...]
    sha256: str
    patient: str = ""


def load(files: Sequence[Path]) -> Loaded:
    """Read a NIfTI file, or the files of one DICOM series.

    Raises
    ------
    InputError
        If they cannot be read as one regular 3D volume of finite numbers that differ.
    """
    blobs = [read_bytes(path) for path in files]
    sha256 = joint_digest([hashlib.sha256(blob).hexdigest() for blob in blobs])
    if is_nifti(files[0]):
        array, spacing = _nifti(blobs[0])
        return Loaded(checked(array), spacing, sha256)
    from privacy.dicom import parse, read_volume

    datasets = [parse(blob) for blob in blobs]
    array, spacing = read_volume(datasets)
    return Loaded(checked(array), spacing, sha256, str(datasets[0].get("PatientID") or "").strip())


def is_nifti(path: Path) -> bool:
    """Tell a NIfTI file by its ending."""
    return path.name.lower().endswith(NIFTI_ENDINGS)


def read_bytes(path: Path) -> bytes:
    """Return a regular file's bytes.

    Raises
    ------
    InputError
        If it is no regular file or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError("not a file")
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise unreadable(error) from error


def unreadable(error: BaseException) -> InputError:
    """Wrap what a parser raised in one line, without the path that some messages hold."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return InputError("unreadable", found=f"{type(error).__name__}: {text[:120]}")


def joint_digest(digests: Sequence[str]) -> str:
    """Return the digest of one file as it is, and one for several whatever their order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def checked(values: NDArray[Any]) -> Array:
    """Return a volume as float32, shape (I, J, K), without axes of length 1 at its end.

    Raises
    ------
    InputError
        If it is not 3D, not of real numbers, too small, not finite or constant.
    """
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError("not a 3D volume", found=f"shape {values.shape}")
    if values.dtype.kind not in "biuf":
        raise InputError("not a scalar image", found=f"voxels of type {values.dtype}")
    if min(values.shape) < SMALLEST:
        raise InputError("too small to compare", found=f"shape {values.shape}", expected=f"{SMALLEST} voxels an axis")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError("voxels that are not finite", found=f"{int((~np.isfinite(array)).sum())} NaN or infinite")
    if float(array.max()) == float(array.min()):
        raise InputError("constant", found=f"every voxel is {float(array.flat[0]):g}")
    return array


def parse_nifti(blob: bytes) -> Any:
    """Return the nibabel image in a file's bytes, compressed or not, NIfTI-1 or NIfTI-2.

    Raises
    ------
    InputError
        If they hold none.
    """
    try:
        raw = gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob
        sizes = {struct.unpack(order + "i", raw[:4])[0] for order in "<>"} & set(_HEADERS)
        if not sizes:
            raise ImageFileError("no NIfTI header")
        return _HEADERS[sizes.pop()].from_bytes(raw)
    except DAMAGE as error:
        raise unreadable(error) from error


def _nifti(blob: bytes) -> tuple[NDArray[Any], tuple[float, ...]]:
    try:
        image = nib.as_closest_canonical(parse_nifti(blob))
        values = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        unit = _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)  # type: ignore[attr-defined]
        spacing = tuple(float(edge) * unit for edge in image.header.get_zooms()[:3])  # type: ignore[attr-defined]
    except DAMAGE as error:
        raise unreadable(error) from error
    if not all(np.isfinite(edge) and edge > 0 for edge in spacing):
        raise InputError("unusable voxel size", found=str(spacing))
    return values, spacing
