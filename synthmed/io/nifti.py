"""Reading NIfTI: a 3D image or label map with one place in space, or a refusal."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from synthmed.errors import InputError
from synthmed.volume import Affine, Volume

SUFFIXES = (".nii", ".nii.gz")
_PARSER_ERRORS = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
)
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_EXACT_FLOAT32 = 2**24
_LEAST_COSINE = 0.5


def is_nifti(path: Path) -> bool:
    """Say whether a file's name ends in ``.nii`` or ``.nii.gz``, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: Path) -> Volume:
    """Read a 3D image.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file, NIfTI-1 or NIfTI-2. Further axes of length 1 are dropped.

    Returns
    -------
    Volume
        One channel, intensities as the file's scl_slope and scl_inter make them. The sform comes before the qform.

    Raises
    ------
    InputError
        If the file is unreadable, not 3D and real-valued, has no or an ambiguous place in space, or holds
        NaN, infinite or only equal voxels.
    """
    volume = _read(path)
    if volume.array.min() == volume.array.max():
        raise InputError(
            f"{path} is constant",
            found=f"{float(volume.array.flat[0]):g} in every voxel",
            expected="an image with contrast",
            next_step="Remove this case from the cohort",
        )
    return volume


def read_nifti_label(path: Path) -> Volume:
    """Read a label map, whose voxels are whole numbers from 0 up; an all-background map is fine.

    Raises
    ------
    InputError
        As `read_nifti`, and if a voxel is negative or not a whole number.
    """
    volume = _read(path)
    values = volume.array
    fractional = values != np.rint(values)
    if fractional.any():
        raise InputError(
            f"{path} is not a label map",
            found=f"the value {float(values[fractional][0]):g}",
            expected="whole numbers",
            next_step="Check that image and label are not swapped, and resample labels by nearest neighbour",
        )
    if values.min() < 0 or values.max() >= _MAX_EXACT_FLOAT32:
        raise InputError(
            f"{path} is not a label map",
            found=f"values from {float(values.min()):g} to {float(values.max()):g}",
            expected=f"0 for background and labels below {_MAX_EXACT_FLOAT32}",
        )
    return volume


def _read(path: Path) -> Volume:
    image = _load(path)
    _check_type(path, image)
    affine = _affine(path, image)
    try:
        data = np.asanyarray(image.dataobj)
    except _PARSER_ERRORS as error:
        raise _unreadable(path, error) from error
    with np.errstate(over="ignore", invalid="ignore"):
        array = _squeeze(path, data).astype(np.float32)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(
            f"{path} has voxels that are not finite",
            found=f"{bad} NaN or infinite of {array.size}",
            expected="finite float32 values",
            next_step="Repair the file or remove this case",
        )
    return Volume(array[np.newaxis], affine)


def _load(path: Path) -> nib.Nifti1Image:
    try:
        content = path.read_bytes()
        if not content:
            raise InputError(f"{path} is empty", found="0 bytes", expected="a NIfTI file")
        if content.startswith(_GZIP_MAGIC):
            # To the end, so that length and checksum are verified, which nibabel's own reader leaves out.
            content = gzip.decompress(content)
        kind = nib.Nifti2Image if nib.Nifti2Header.may_contain_header(content[:540]) else nib.Nifti1Image
        return kind.from_bytes(content)
    except _PARSER_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"Cannot read {path}",
        found=" ".join(str(error).split())[:200] or type(error).__name__,
        expected="a whole, readable NIfTI file",
        next_step="Copy or export it again, or remove this case",
    )


def _check_type(path: Path, image: nib.Nifti1Image) -> None:
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        kind = "RGB" if dtype.fields is not None else str(dtype)
        raise InputError(
            f"{path} is not a scalar image",
            found=f"{kind} voxels",
            expected="integers or real numbers",
            next_step="Convert it to one value a voxel",
        )
    shape = image.shape
    if 0 in shape or len(shape) < 3:
        raise InputError(f"{path} is not a volume", found=f"shape {shape}", expected="three axes, none of length 0")


def _squeeze(path: Path, data: NDArray[np.generic]) -> NDArray[np.generic]:
    if any(length != 1 for length in data.shape[3:]):
        raise InputError(
            f"{path} is not one volume",
            found=f"shape {data.shape}",
            expected="three axes (further ones of length 1 are dropped)",
            next_step="Split it into one file a time point or channel",
        )
    return data.reshape(data.shape[:3])


def _affine(path: Path, image: nib.Nifti1Image) -> Affine:
    """Voxel -> RAS+ mm out of the header, or a refusal where readers would disagree."""
    header = image.header
    try:
        sform, sform_code = header.get_sform(coded=True)
        qform, qform_code = header.get_qform(coded=True)
        unit = header.get_xyzt_units()[0]
    except _PARSER_ERRORS as error:
        raise _unreadable(path, error) from error
    if not sform_code and not qform_code:
        raise InputError(
            f"{path} does not say where it lies in space",
            found="sform_code 0 and qform_code 0",
            expected="one of them above 0",
            next_step="Convert it again from DICOM, or set the affine with your knowledge of the scan",
        )
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path} is not in millimetres", found=f"xyzt_units {unit}", expected="mm")
    affine = np.asarray(sform if sform_code else qform, dtype=np.float64)
    for name, code, matrix in (("sform", sform_code, sform), ("qform", qform_code, qform)):
        if code and (not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-9):
            raise InputError(
                f"{path} has an unusable {name}",
                found=str(np.asarray(matrix).tolist()),
                expected="an invertible affine",
                next_step="Convert it again from DICOM",
            )
    if sform_code and qform_code:
        _check_forms_agree(path, sform, qform)
    return affine


def _check_forms_agree(path: Path, sform: Affine, qform: Affine) -> None:
    """Refuse a flip or a swap between the two; a turn, as to a template, is legitimate and the sform's."""
    first, second = (form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform))
    if ((first * second).sum(axis=0) < _LEAST_COSINE).any():
        raise InputError(
            f"{path} has two orientations",
            found=f"sform {''.join(nib.aff2axcodes(sform))}, qform {''.join(nib.aff2axcodes(qform))}",
            expected="one",
            next_step="Set the wrong one's code to 0",
        )
