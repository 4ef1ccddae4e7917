"""Headers of DICOM images, classic and enhanced, as one kind of frame."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom import uid as sop
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

MODALITIES = ("CT", "MR", "PT")

PARSER_ERRORS = (
    BytesLengthException,
    InvalidDicomError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
"""What pydicom raises on a damaged file."""

IMAGE_CLASSES = {
    sop.CTImageStorage,
    sop.EnhancedCTImageStorage,
    sop.LegacyConvertedEnhancedCTImageStorage,
    sop.MRImageStorage,
    sop.EnhancedMRImageStorage,
    sop.LegacyConvertedEnhancedMRImageStorage,
    sop.PositronEmissionTomographyImageStorage,
    sop.EnhancedPETImageStorage,
    sop.LegacyConvertedEnhancedPETImageStorage,
}

# PS3.3 C.7.6.16: where enhanced multi-frame objects keep, a frame, what classic ones keep at the top.
_FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "FrameType": ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"),
    "EffectiveEchoTime": ("MREchoSequence",),
    "InversionTimes": ("MRModifierSequence",),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
}

# What may tell several volumes under one SeriesInstanceUID apart, most telling first.
SPLIT_BY = (
    "FrameType",
    "ImageType",
    "EffectiveEchoTime",
    "EchoTime",
    "InversionTimes",
    "InversionTime",
    "FlipAngle",
    "DiffusionBValue",
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "FrameReferenceTime",
    "StackID",
    "FrameAcquisitionNumber",
    "AcquisitionNumber",
    "AcquisitionTime",
)


@dataclass(frozen=True)
class Frame:
    """One slice: where it is stored, where it lies, and how its stored values become the modality's units.

    Attributes
    ----------
    path : Path
    index : int
        Frame number within the file, from 0.
    position, orientation, pixel_spacing : tuple of float, mm in LPS, or None where the header lacks them
    rows, columns : int
    slope, intercept : float or None
    tags : tuple of (keyword, text)
        Those of `SPLIT_BY` that the header has.
    """

    path: Path
    index: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    rows: int
    columns: int
    slope: float | None
    intercept: float | None
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Header:
    """What grouping needs of one file: its series, its instance and its frames."""

    path: Path
    series_uid: str
    instance_uid: str
    patient_id: str
    modality: str
    description: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Skipped:
    """A file that is in no series, and why.

    Attributes
    ----------
    path : Path
    reason : str
    damaged : bool
        Whether it looks like an image that cannot be read, rather than something else.
    """

    path: Path
    reason: str
    damaged: bool = False


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence pydicom on odd values, which it also reports where they are first looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load(path: Path, *, pixels: bool) -> Dataset:
    """Read a DICOM file, with or without the preamble; the reader's warnings about odd values are silenced.

    Raises
    ------
    One of `PARSER_ERRORS`
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    bare = start[128:] != b"DICM" and start[:2] in (b"\x08\x00", b"\x02\x00")
    with without_warnings():
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=bare)
    if bare and "TransferSyntaxUID" not in dataset.file_meta:
        # Only the default syntaxes travel without file meta information (PS3.5 section 10.1).
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = sop.ImplicitVRLittleEndian if implicit else sop.ExplicitVRLittleEndian
    return dataset


def read_header(path: Path) -> Header | Skipped:
    """Read the header of a CT, MR or PT image, or say why the file is none."""
    try:
        with without_warnings():
            return _parse(path, load(path, pixels=False))
    except InvalidDicomError:
        return Skipped(path, "not a DICOM file", damaged=_named_as_dicom(path))
    except PARSER_ERRORS as error:
        return Skipped(path, f"unreadable, {' '.join(str(error).split())[:200]}", damaged=True)


def _parse(path: Path, dataset: Dataset) -> Header | Skipped:
    reason = _reason_to_skip(dataset)
    if reason:
        kind = _sop_class(dataset)
        return Skipped(path, reason, damaged=not kind or kind in IMAGE_CLASSES)
    return Header(
        path=path,
        series_uid=str(dataset.SeriesInstanceUID),
        instance_uid=str(dataset.get("SOPInstanceUID", "")),
        patient_id=str(dataset.get("PatientID") or ""),
        modality=str(dataset.Modality),
        description=str(dataset.get("SeriesDescription") or ""),
        frames=tuple(_frame(path, dataset, index) for index in range(_count(dataset))),
    )


def _reason_to_skip(dataset: Dataset) -> str:
    modality = str(dataset.get("Modality") or "")
    if not _sop_class(dataset):
        return "a header without SOPClassUID"
    if modality not in MODALITIES:
        return f"{modality or 'no Modality'}, not a CT, MR or PT image"
    for keyword in ("SeriesInstanceUID", "Rows", "Columns"):
        if not dataset.get(keyword):
            return f"{modality} without {keyword}"
    groups, count = len(dataset.get("PerFrameFunctionalGroupsSequence") or ()), _count(dataset)
    if count > 1 and groups != count:
        return f"{modality} with {count} frames and functional groups for {groups}"
    return ""


def _sop_class(dataset: Dataset) -> str:
    """Return the SOP class; of a DICOMDIR, which has it in the file meta information alone, that one."""
    meta = str(dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    return str(dataset.get("SOPClassUID") or (meta if meta == sop.MediaStorageDirectoryStorage else ""))


def _named_as_dicom(path: Path) -> bool:
    """Whether a file's name, or its lack of any content, suggests a lost image."""
    return path.suffix.lower() in (".dcm", ".ima") or path.stat().st_size == 0


def _count(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _value(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return an attribute of frame `index`: its own, else the shared one, else the file's, else None."""
    own = (dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    for group in (*own, *shared):
        for name in _FUNCTIONAL_GROUPS.get(keyword, ()):
            items = group.get(name)
            found = items[0].get(keyword) if items else None
            if found is not None:
                return found
    return dataset.get(keyword)


def _frame(path: Path, dataset: Dataset, index: int) -> Frame:
    tags = ((keyword, _value(dataset, index, keyword)) for keyword in SPLIT_BY)
    return Frame(
        path=path,
        index=index,
        position=_numbers(_value(dataset, index, "ImagePositionPatient"), 3),
        orientation=_numbers(_value(dataset, index, "ImageOrientationPatient"), 6),
        pixel_spacing=_numbers(_value(dataset, index, "PixelSpacing"), 2),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        slope=_number(_value(dataset, index, "RescaleSlope")),
        intercept=_number(_value(dataset, index, "RescaleIntercept")),
        tags=tuple((keyword, _text(found)) for keyword, found in tags if found not in (None, "")),
    )


def _numbers(found: Any, length: int) -> tuple[float, ...] | None:
    if found is None or isinstance(found, str) or not hasattr(found, "__len__") or len(found) != length:
        return None
    return tuple(float(number) for number in found)


def _text(found: Any) -> str:
    if isinstance(found, MultiValue):
        return "\\".join(str(item) for item in found)
    return f"{found:g}" if isinstance(found, float) else str(found)


def _number(found: Any) -> float | None:
    return None if found in (None, "") else float(found)
