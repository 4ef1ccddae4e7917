"""The voxels of a DICOM series: stored values, checked, after Rescale Slope and Intercept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from synthmed.io.dicom_header import PARSER_ERRORS, Frame, load
from synthmed.io.dicom_series import Series, refusal


def read_pixels(series: Series, frames: Sequence[Frame]) -> NDArray[np.float32]:
    """Return the voxels, shape (columns, rows, slices), after rescale."""
    result = np.empty((frames[0].columns, frames[0].rows, len(frames)), dtype=np.float32)
    slices: dict[Path, list[tuple[int, Frame]]] = defaultdict(list)
    for k, frame in enumerate(frames):
        slices[frame.path].append((k, frame))
    for path, members in slices.items():
        stored = _stored(series, path)
        for k, frame in members:
            slope = 1.0 if frame.slope is None else frame.slope
            offset = 0.0 if frame.intercept is None else frame.intercept
            result[:, :, k] = (stored[frame.index].astype(np.float64) * slope + offset).T
    if not np.isfinite(result).all():
        raise refusal(series, "Voxels that are not finite", "NaN or infinite values", "finite values", "Leave it out")
    if result.min() == result.max():
        raise refusal(
            series, "A constant image", f"{result.flat[0]:g} in every voxel", "an image with contrast", "Leave it out"
        )
    return result


def _stored(series: Series, path: Path) -> NDArray[np.generic]:
    """Return a file's stored values, shape (frames, rows, columns)."""
    try:
        dataset = load(path, pixels=True)
        _check_pixel_format(series, path, dataset)
        array = np.asarray(dataset.pixel_array)
        frames = array.reshape(int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
        _check_range(series, path, dataset, frames)
    except (*PARSER_ERRORS, RuntimeError) as error:
        raise refusal(
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
        raise refusal(
            series,
            "A colour image",
            f"{samples} samples a pixel, {colour or 'no PhotometricInterpretation'}",
            "1 sample, MONOCHROME2",
            "Use the original series, not a screenshot or a colour map",
        )
    if colour == "MONOCHROME1":
        raise refusal(
            series,
            "Inverted grey values",
            "MONOCHROME1, which readers disagree on",
            "MONOCHROME2",
            "Export the series as MONOCHROME2",
        )
    if "ModalityLUTSequence" in dataset:
        raise refusal(
            series, "A Modality LUT", "a table from stored to output values", "Rescale Slope", "Convert it with DCMTK"
        )
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(dataset.dir()):
        raise refusal(series, f"No pixel data in {path.name}", "a header alone", "pixel data", "Copy the file again")


def _check_range(series: Series, path: Path, dataset: Dataset, array: NDArray[Any]) -> None:
    """Refuse values outside BitsStored: overlay bits or a wrong header, which readers undo differently."""
    if array.dtype.kind not in "iu":
        return
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if array.min() < low or array.max() > high or int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise refusal(
            series,
            f"Stored values outside BitsStored in {path.name}",
            f"{array.min()} to {array.max()} with HighBit {dataset.get('HighBit')}",
            f"{low} to {high} with HighBit {bits - 1}",
            "Export the series again without overlays in the pixel data",
        )
