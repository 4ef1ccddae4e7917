"""DICOM series as volumes. The only place that knows LPS: what leaves is voxel -> RAS+ millimetres.

Geometry comes from Image Position and Image Orientation (Patient) alone (DICOM PS3.3 C.7.6.2.1.1), so every
patient position is just another affine. A series that is not one regular grid is refused, never resampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthmed.errors import InputError
from synthmed.io.dicom_header import Frame, Skipped
from synthmed.io.dicom_pixels import read_pixels
from synthmed.io.dicom_series import MIN_SLICES, Series, find_series, refusal, scan, scan_files
from synthmed.volume import Affine, Volume
from synthmed.words import counted

__all__ = ["Frame", "Series", "Skipped", "find_series", "read_folder", "read_series", "scan"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_REQUIRED = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
}
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
        series = _only(*scan_files(paths), counted(len(paths), "file"))
    _check_headers(series)
    frames, affine = _stack(series)
    return Volume(read_pixels(series, frames)[np.newaxis], LPS_TO_RAS @ affine)


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
        reason = f"{counted(len(skipped), 'file')}, the first {skipped[0].reason}" if skipped else "no files"
        raise InputError(f"No image series in {where}", found=reason, expected="CT, MR or PT images")
    if len(series) > 1:
        raise InputError(
            f"Several volumes in {where}",
            found="; ".join(str(item) for item in series[:4]) + (" ..." if len(series) > 4 else ""),
            expected="one series",
            next_step="Name one series, or import the tree as a DICOM cohort",
        )
    return series[0]


def _check_headers(series: Series) -> None:
    """Refuse what the headers alone show is no volume."""
    frames = series.frames
    types = [text for frame in frames for keyword, text in frame.tags if keyword in ("ImageType", "FrameType")]
    if any("LOCALIZER" in text.split("\\") for text in types):
        raise refusal(series, "A localizer", "ImageType LOCALIZER", "a stack of slices", "Leave it out")
    for name, keyword in _REQUIRED.items():
        lacking = [frame.path.name for frame in frames if getattr(frame, name) is None]
        if lacking:
            raise refusal(
                series,
                f"No {keyword}",
                f"{len(lacking)} of {len(frames)} frames without it, the first in {lacking[0]}",
                "the attribute in every frame",
                "Export the series again from the scanner or archive",
            )
    if series.modality == "CT" and any(None in (frame.slope, frame.intercept) for frame in frames):
        raise refusal(
            series,
            "No Rescale Slope or Intercept",
            "stored values of unknown unit",
            "both, which give Hounsfield units",
            "Export the series again",
        )


def _check_sizes(series: Series) -> None:
    sizes = {(frame.rows, frame.columns, frame.pixel_spacing) for frame in series.frames}
    if len(sizes) > 1:
        raise refusal(
            series,
            "Slices of different size",
            ", ".join(f"{r} x {c} at {s} mm" for r, c, s in sorted(sizes, key=str)[:3]),
            "one matrix and pixel spacing",
            "Split the series",
        )
    if len(series.frames) < MIN_SLICES:
        raise refusal(
            series,
            "Too few slices",
            str(len(series.frames)),
            f"at least {MIN_SLICES}: with fewer, a missing slice does not show",
            "Leave it out, or find the rest of the series",
        )


def _stack(series: Series) -> tuple[list[Frame], Affine]:
    """Order the frames along their normal and return the affine voxel -> LPS mm, or refuse an irregular stack.

    PS3.3 equation C.7.6.2.1-1, with the third column the measured step between slices.
    """
    row, column = _directions(series)
    _check_sizes(series)
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in series.frames], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    step = _step(series, positions, normal)
    height, width = series.frames[0].pixel_spacing or (np.nan, np.nan)
    affine = np.eye(4)
    affine[:3] = np.column_stack((row * width, column * height, step, positions[0]))
    if not np.isfinite(affine).all() or min(width, height) <= 0:
        raise refusal(
            series, "Unusable geometry", f"PixelSpacing {height}, {width}", "finite values above 0", "Export it again"
        )
    return [series.frames[i] for i in order], affine


def _directions(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    orientations = np.array([frame.orientation for frame in series.frames], dtype=np.float64)
    spread = float(np.ptp(orientations, axis=0).max())
    if not spread <= _ORIENTATION_TOLERANCE:
        raise refusal(
            series,
            "Mixed orientation",
            f"{len(np.unique(np.round(orientations, 3), axis=0))} values of ImageOrientationPatient",
            "one for all slices",
            "Leave out a localizer, or split the series by orientation",
        )
    row, column = orientations[0, :3], orientations[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not (np.allclose(lengths, 1.0, atol=1e-3) and abs(row @ column) < 1e-3):
        raise refusal(
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
        raise refusal(
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
        raise refusal(
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
    return refusal(
        series,
        "A missing slice" if missing else "Uneven slice increments",
        f"gaps from {gaps.min():.4g} to {gaps.max():.4g} mm between neighbours, most {usual:.4g}",
        "equal gaps",
        "Find the missing files" if missing else "Resample the series to an even grid, or leave it out",
    )
