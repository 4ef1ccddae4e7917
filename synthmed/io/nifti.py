"""NIfTI in and out: strict about what is read, byte-deterministic about what is written."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from synthmed.errors import InputError
from synthmed.files import atomic_path
from synthmed.volume import Affine, Volume

OutputType = Literal["int16", "uint8", "float32"]

SUFFIXES = (".nii", ".nii.gz")
_PARSER_ERRORS = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
)
_COMPRESSION_LEVEL = 6
_MAX_EXACT_FLOAT32 = 2**24
_SHEAR_TOLERANCE = 1e-3


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
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty", found="0 bytes", expected="a NIfTI file")
        image = nib.load(path)
    except _PARSER_ERRORS as error:
        raise _unreadable(path, error) from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"{path} is not NIfTI", found=type(image).__name__, expected="a .nii or .nii.gz file")
    return image


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
    if sform_code and qform_code and nib.aff2axcodes(sform) != nib.aff2axcodes(qform):
        raise InputError(
            f"{path} has two orientations",
            found=f"sform {''.join(nib.aff2axcodes(sform))}, qform {''.join(nib.aff2axcodes(qform))}",
            expected="one",
            next_step="Set the wrong one's code to 0",
        )
    return affine


def write_volume(
    path: Path | str, volume: Volume, *, dtype: OutputType = "int16", description: str = "SYNTHETIC"
) -> None:
    """Write a one-channel volume as NIfTI-1, the same bytes for the same volume.

    Voxels are rounded to nearest (half to even) and cast first, so that the file carries no scale factor.
    The sform equals the qform, both with code 1; spacing is rounded to six decimals; units are mm; gzip carries
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
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, stream, mtime=0) as compressed:
                compressed.write(content)
        else:
            stream.write(content)


def _encode(data: NDArray[np.generic], affine: Affine, description: str) -> bytes:
    text = description.encode("ascii", errors="strict")
    if len(text) > 79:
        raise InputError("A NIfTI description is too long", found=f"{len(text)} characters", expected="at most 79")
    image = nib.Nifti1Image(data, affine)
    header = image.header
    image.set_qform(affine, code=1)
    image.set_sform(header.get_qform(), code=1)
    header.set_xyzt_units("mm")
    header["descrip"] = text
    content: bytes = image.to_bytes()
    return content


def _cast(path: Path, volume: Volume, dtype: OutputType) -> NDArray[np.generic]:
    channels = volume.array.shape[0]
    if channels != 1:
        raise InputError(f"Cannot write {path}", found=f"{channels} channels", expected="1")
    values = volume.array[0]
    if not np.isfinite(values).all():
        raise InputError(f"Cannot write {path}", found="NaN or infinite voxels", expected="finite values")
    if dtype == "float32":
        return values
    rounded, limits = np.rint(values), np.iinfo(dtype)
    low, high = float(rounded.min()), float(rounded.max())
    if low < limits.min or high > limits.max:
        raise InputError(
            f"Cannot write {path}",
            found=f"values from {low:g} to {high:g}",
            expected=f"{dtype}, {limits.min} to {limits.max}",
            next_step="Choose a wider type or clip the intensities first",
        )
    return rounded.astype(dtype)


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
