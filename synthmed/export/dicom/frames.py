"""The frames of a released series, classic or multi-frame, put back together as a volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

# As in synthmed.io: decoders that raise an error on a damaged stream instead of ending the process.
_DECODERS = {uid.RLELossless: "pydicom", uid.JPEGLSLossless: "pyjpegls"}


@dataclass(frozen=True)
class Frame:
    """One slice as the files say.

    Attributes
    ----------
    number : int
        InstanceNumber, or the frame's number in a multi-frame file.
    position : ndarray, shape (3,), LPS mm
    orientation : tuple of float, direction of a row and of a column
    pixel_spacing : tuple of float, (between rows, between columns), mm
    slope, intercept : float
    stored : ndarray, shape (rows, columns), int16 or uint16
    """

    number: int
    position: NDArray[np.float64]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    slope: float
    intercept: float
    stored: NDArray[np.generic]


def read_frames(data: Dataset) -> list[Frame]:
    """Return the frames of one file.

    Raises
    ------
    Exception
        Whatever pydicom raises on a file that is no image, or damaged; `synthmed.io.dicom_header.PARSER_ERRORS`.
    """
    stored = pixels(data)
    if "NumberOfFrames" not in data:
        return [_frame(int(data.InstanceNumber), [data], stored[0])]
    shared, own = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence
    if len(own) != len(stored):
        raise ValueError(f"{len(stored)} frames and functional groups of {len(own)}")
    return [_frame(k + 1, [group, shared], stored[k]) for k, group in enumerate(own)]


def pixels(data: Dataset) -> NDArray[Any]:
    """Return stored values, shape (frames, rows, columns), of the type that PixelRepresentation says."""
    syntax = data.file_meta.TransferSyntaxUID
    shape = int(data.get("NumberOfFrames") or 1), int(data.Rows), int(data.Columns)
    if syntax == uid.ExplicitVRLittleEndian and data.BitsAllocated == 16:
        kind = "<i2" if data.PixelRepresentation else "<u2"
        return np.frombuffer(data.PixelData, dtype=kind, count=shape[0] * shape[1] * shape[2]).reshape(shape)
    data.pixel_array_options(decoding_plugin=_DECODERS.get(syntax, ""))
    return np.asarray(data.pixel_array).reshape(shape)


def find(groups: Sequence[Dataset], macro: str, keyword: str) -> Any:
    """Return an attribute of a frame, out of functional groups or of a classic header."""
    for group in groups:
        items = group.get(macro)
        if items and keyword in items[0]:
            return items[0][keyword].value
        if keyword in group:
            return group[keyword].value
    return None


def _frame(number: int, groups: Sequence[Dataset], stored: NDArray[np.generic]) -> Frame:
    slope = find(groups, "PixelValueTransformationSequence", "RescaleSlope")
    intercept = find(groups, "PixelValueTransformationSequence", "RescaleIntercept")
    return Frame(
        number=number,
        position=np.array(find(groups, "PlanePositionSequence", "ImagePositionPatient"), dtype=np.float64),
        orientation=_numbers(find(groups, "PlaneOrientationSequence", "ImageOrientationPatient")),
        pixel_spacing=_numbers(find(groups, "PixelMeasuresSequence", "PixelSpacing")),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        stored=stored,
    )


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
