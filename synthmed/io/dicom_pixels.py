"""The voxels of a DICOM series: stored values, checked, after Rescale Slope and Intercept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from synthmed.io.dicom_header import PARSER_ERRORS, Frame, load, without_warnings
from synthmed.io.dicom_series import Series, refusal

# GDCM, which pydicom would take first, ends the process on a damaged JPEG 2000 stream; these raise an error.
_DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
}


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
            with np.errstate(over="ignore"):
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
        with without_warnings():
            dataset = load(path, pixels=True)
            _check_pixel_format(series, path, dataset)
            _check_unused_bits(series, path, dataset)
            dataset.pixel_array_options(decoding_plugin=_DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""))
            array = np.asarray(dataset.pixel_array)
        frames = array.reshape(int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns))
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
    if "PixelData" not in dataset:
        raise refusal(
            series,
            f"No pixel data in {path.name}",
            "a header alone" if "Rows" in dataset else "a file cut short",
            "pixel data",
            "Copy the file again",
        )
    samples, colour = int(dataset.get("SamplesPerPixel", 1)), str(dataset.get("PhotometricInterpretation", ""))
    if samples != 1 or not colour.startswith("MONOCHROME"):
        raise refusal(
            series,
            "A colour image",
            f"{samples} samples a pixel, {colour or 'no PhotometricInterpretation'}",
            "1 sample, MONOCHROME2",
            "Use the original series, not a screenshot or a colour map",
        )
    if colour != "MONOCHROME2":
        raise refusal(
            series,
            "Inverted grey values",
            f"{colour}, which readers disagree on",
            "MONOCHROME2",
            "Export the series as MONOCHROME2",
        )
    if "ModalityLUTSequence" in dataset:
        raise refusal(
            series, "A Modality LUT", "a table from stored to output values", "Rescale Slope", "Convert it with DCMTK"
        )


def _check_unused_bits(series: Series, path: Path, dataset: Dataset) -> None:
    """Refuse bits above BitsStored that are neither 0 nor a sign: an overlay, or a header that is wrong."""
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed or bits >= allocated or allocated not in (8, 16, 32):
        return
    order = "<" if syntax.is_little_endian else ">"
    unused = np.frombuffer(dataset.PixelData, dtype=f"{order}u{allocated // 8}") >> bits
    allowed = (0, 2 ** (allocated - bits) - 1) if dataset.PixelRepresentation else (0,)
    if not np.isin(unused, allowed).all() or int(dataset.HighBit) != bits - 1:
        raise refusal(
            series,
            f"Stored values wider than BitsStored in {path.name}",
            f"bits in use above {bits}, HighBit {dataset.HighBit}",
            f"values of {bits} bits, HighBit {bits - 1}",
            "Export the series again without overlays in the pixel data",
        )
