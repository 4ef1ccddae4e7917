"""DICOM series as volumes. The only place that knows LPS: what leaves is voxel -> RAS+ millimetres.

Geometry comes from Image Position and Image Orientation (Patient) alone (DICOM PS3.3 C.7.6.2.1.1), so every
patient position is just another affine. A series that is not one regular grid is refused, never resampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from synthmed.errors import InputError
from synthmed.io.dicom_series import (
    MIN_SLICES,
    PARSER_ERRORS,
    Frame,
    Series,
    Skipped,
    find_series,
    load,
    scan,
    scan_files,
)
from synthmed.volume import Affine, Volume

__all__ = ["Frame", "Series", "Skipped", "find_series", "read_folder", "read_series", "scan"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_ORIENTATION_TOLERANCE = 1e-4
"""Largest difference between direction cosines of one series: 0.006 degrees."""
_TILT_TOLERANCE = 2e-3
"""Largest in-plane step between slices over the step along the normal: 0.1 degree; gantries tilt by 0.5 and more."""
_GRID_TOLERANCE = 0.01
"""Largest distance of a slice from its place in a regular stack, over the slice step."""
_GRID_FLOOR = 0.01
"""mm: positions are often written with two decimals."""


def read_folder(folder: Path | str) -> Volume:
    """Read the one series below a folder.

    Files that are not DICOM are passed over; one that looks like DICOM and cannot be read is an error, since it may
    be the slice that is missing.

    Raises
    ------
    InputError
        If the folder holds no image series, several, or one that `read_series` refuses.
    """
    series, skipped = scan(folder)
    return read_series(_only(series, skipped, f"{folder}"))


def read_series(series: Series | Iterable[Path | str]) -> Volume:
    """Read a series, or the files of one in any order.

    Parameters
    ----------
    series : Series or iterable of Path
        Classic single-frame or enhanced multi-frame CT, MR or PT.

    Returns
    -------
    Volume
        Array (1, columns, rows, slices) float32 after Rescale Slope and Intercept (HU for CT), slices along the normal
        ``row x column``; affine voxel -> RAS+ mm, right-handed.

    Raises
    ------
    InputError
        If the frames are not one regular grid of single-valued pixels: gantry tilt, a missing slice, mixed
        orientation or size, localisers, colour, fewer than three slices, several frames a position, truncated pixels.
    """
    if not isinstance(series, Series):
        paths = [Path(path) for path in series]
        series = _only(*scan_files(paths), f"{len(paths)} files")
    _check_content(series)
    frames, affine = _stack(series)
    return Volume(_pixels(series, frames)[np.newaxis], LPS_TO_RAS @ affine)


def _only(series: Sequence[Series], skipped: Sequence[Skipped], where: str) -> Series:
    damaged = [item for item in skipped if item.damaged]
    if damaged:
        raise InputError(
            f"Cannot read {damaged[0].path}",
            found=damaged[0].reason,
            expected="a whole DICOM file",
            next_step="Copy it again, or move it out of the folder",
        )
    if not series:
        reason = f"{len(skipped)} files, the first {skipped[0].reason}" if skipped else "no files"
        raise InputError(f"No image series in {where}", found=reason, expected="CT, MR or PT images")
    if len(series) > 1:
        raise InputError(
            f"Several volumes in {where}",
            found="; ".join(str(item) for item in series[:4]) + (" ..." if len(series) > 4 else ""),
            expected="one series",
            next_step="Name one series, or import the tree as a DICOM cohort",
        )
    return series[0]


def _refuse(series: Series, what: str, found: str, expected: str, next_step: str) -> InputError:
    return InputError(
        f"{what} in {series} below {series.files[0].parent}", found=found, expected=expected, next_step=next_step
    )


def _check_content(series: Series) -> None:
    """Refuse what the headers alone show is no volume."""
    frames = series.frames
    if any("LOCALIZER" in dict(frame.tags).get("ImageType", "") for frame in frames):
        raise _refuse(series, "A localizer", "ImageType LOCALIZER", "a stack of slices", "Leave it out")
    for name, keyword in (
        ("position", "ImagePositionPatient"),
        ("orientation", "ImageOrientationPatient"),
        ("pixel_spacing", "PixelSpacing"),
    ):
        lacking = [frame for frame in frames if getattr(frame, name) is None]
        if lacking:
            raise _refuse(
                series,
                f"No {keyword}",
                f"{len(lacking)} of {len(frames)} frames without it, the first in {lacking[0].path.name}",
                "the attribute in every frame",
                "Export the series again from the scanner or archive",
            )
    sizes = {(frame.rows, frame.columns, frame.pixel_spacing) for frame in frames}
    if len(sizes) > 1:
        raise _refuse(
            series,
            "Slices of different size",
            ", ".join(f"{r} x {c} at {s} mm" for r, c, s in sorted(sizes, key=str)[:3]),
            "one matrix and pixel spacing",
            "Split the series",
        )
    if len(frames) < MIN_SLICES:
        raise _refuse(
            series,
            "Too few slices",
            str(len(frames)),
            f"at least {MIN_SLICES}: with fewer, a missing slice does not show",
            "Leave it out, or find the rest of the series",
        )
    if series.modality == "CT" and any(frame.slope is None or frame.intercept is None for frame in frames):
        raise _refuse(
            series,
            "No Rescale Slope or Intercept",
            "stored values of unknown unit",
            "both, which give Hounsfield units",
            "Export the series again",
        )


def _stack(series: Series) -> tuple[list[Frame], Affine]:
    """Order the frames along their normal and return the affine voxel -> LPS mm, or refuse an irregular stack.

    PS3.3 equation C.7.6.2.1-1, with the third column the measured step between slices.
    """
    row, column = _directions(series)
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in series.frames], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    step = _step(series, positions, normal)
    height, width = series.frames[0].pixel_spacing or (np.nan, np.nan)
    affine = np.eye(4)
    affine[:3] = np.column_stack((row * width, column * height, step, positions[0]))
    if not np.isfinite(affine).all() or min(width, height) <= 0:
        raise _refuse(
            series, "Unusable geometry", f"PixelSpacing {height}, {width}", "finite values above 0", "Export it again"
        )
    return [series.frames[i] for i in order], affine


def _directions(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    orientations = np.array([frame.orientation for frame in series.frames], dtype=np.float64)
    spread = float(np.ptp(orientations, axis=0).max())
    if not spread <= _ORIENTATION_TOLERANCE:
        raise _refuse(
            series,
            "Mixed orientation",
            f"{len(np.unique(np.round(orientations, 3), axis=0))} values of ImageOrientationPatient",
            "one for all slices",
            "Leave out a localizer, or split the series by orientation",
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not (np.allclose(lengths, 1.0, atol=1e-3) and abs(row @ column) < 1e-3):
        raise _refuse(
            series,
            "Unusable ImageOrientationPatient",
            str(orientations[0].tolist()),
            "two perpendicular unit vectors",
            "Export it again",
        )
    return row / lengths[0], column / lengths[1]


def _step(series: Series, positions: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector between neighbouring slices, mm in LPS, of positions sorted along `normal`."""
    count = len(positions)
    gaps = np.diff(positions @ normal)
    repeated = int((gaps < 1e-3).sum())
    if repeated:
        raise _refuse(
            series,
            "Not a volume",
            f"{repeated} of {count} slices at the position of another",
            "one slice a position",
            "Leave out repeats and monitoring scans, or split time points into series",
        )
    mean: NDArray[np.float64] = (positions[-1] - positions[0]) / (count - 1)
    along = float(mean @ normal)
    sideways = float(np.linalg.norm(mean - along * normal))
    if sideways > _TILT_TOLERANCE * along:
        raise _refuse(
            series,
            "Gantry tilt",
            f"slices that shift by {np.degrees(np.arctan2(sideways, along)):.2f} degrees off their normal",
            "slices stacked along their normal",
            "Correct the tilt (dcm2niix does) and import the NIfTI file",
        )
    places = positions[0] + np.arange(count)[:, np.newaxis] * mean
    if np.linalg.norm(positions - places, axis=1).max() > max(_GRID_FLOOR, _GRID_TOLERANCE * along):
        raise _irregular(series, gaps)
    return mean


def _irregular(series: Series, gaps: NDArray[np.float64]) -> InputError:
    usual = float(np.median(gaps))
    ratio = gaps.max() / usual
    missing = ratio > 1.5 and abs(ratio - round(ratio)) < 0.05
    return _refuse(
        series,
        "A missing slice" if missing else "Uneven slice increments",
        f"gaps from {gaps.min():.4g} to {gaps.max():.4g} mm between neighbours, most {usual:.4g}",
        "equal gaps",
        "Find the missing files" if missing else "Resample the series to an even grid, or leave it out",
    )


def _pixels(series: Series, frames: Sequence[Frame]) -> NDArray[np.float32]:
    """Return the voxels, shape (columns, rows, slices), after rescale."""
    first = frames[0]
    result = np.empty((first.columns, first.rows, len(frames)), dtype=np.float32)
    for path in series.files:
        stored = _stored(series, path)
        for k, frame in enumerate(frames):
            if frame.path == path:
                slope = 1.0 if frame.slope is None else frame.slope
                offset = 0.0 if frame.intercept is None else frame.intercept
                result[:, :, k] = (stored[frame.index].astype(np.float64) * slope + offset).T
    if not np.isfinite(result).all():
        raise _refuse(series, "Voxels that are not finite", "NaN or infinite values", "finite values", "Leave it out")
    if result.min() == result.max():
        raise _refuse(
            series, "A constant image", f"{result.flat[0]:g} in every voxel", "an image with contrast", "Leave it out"
        )
    return result


def _stored(series: Series, path: Path) -> NDArray[np.generic]:
    """Return a file's stored values, shape (frames, rows, columns)."""
    try:
        dataset = load(path, pixels=True)
        _check_pixel_format(series, path, dataset)
        array = np.asarray(dataset.pixel_array)
        frames = array.reshape(-1, int(dataset.Rows), int(dataset.Columns))
        _check_range(series, path, dataset, frames)
    except (*PARSER_ERRORS, RuntimeError) as error:
        raise _refuse(
            series,
            f"Cannot decode the pixels of {path.name}",
            " ".join(str(error).split())[:240] or type(error).__name__,
            "whole pixel data in a supported transfer syntax",
            "Copy the file again, or decompress it (gdcmconv --raw)",
        ) from error
    return frames


def _check_pixel_format(series: Series, path: Path, dataset: Dataset) -> None:
    samples, colour = int(dataset.get("SamplesPerPixel", 1)), str(dataset.get("PhotometricInterpretation", ""))
    if samples != 1 or colour not in ("MONOCHROME1", "MONOCHROME2"):
        raise _refuse(
            series,
            "A colour image",
            f"{samples} samples a pixel, {colour or 'no PhotometricInterpretation'}",
            "1 sample, MONOCHROME2",
            "Use the original series, not a screenshot or a colour map",
        )
    if colour == "MONOCHROME1":
        raise _refuse(
            series,
            "Inverted grey values",
            "MONOCHROME1, which readers disagree on",
            "MONOCHROME2",
            "Export the series as MONOCHROME2",
        )
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        raise _refuse(series, f"No pixel data in {path.name}", "a header alone", "pixel data", "Copy the file again")


def _check_range(series: Series, path: Path, dataset: Dataset, array: NDArray[Any]) -> None:
    """Refuse values outside BitsStored: overlay bits or a wrong header, which readers undo differently."""
    if array.dtype.kind not in "iu":
        return
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if array.min() < low or array.max() > high or int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise _refuse(
            series,
            f"Stored values outside BitsStored in {path.name}",
            f"{array.min()} to {array.max()} with HighBit {dataset.get('HighBit')}",
            f"{low} to {high} with HighBit {bits - 1}",
            "Export the series again without overlays in the pixel data",
        )
