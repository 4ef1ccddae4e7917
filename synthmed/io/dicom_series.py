"""Which DICOM files belong together: headers of a tree, grouped into series that are one volume each."""

from __future__ import annotations

import logging
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from synthmed.errors import InputError

logger = logging.getLogger(__name__)

MODALITIES = ("CT", "MR", "PT")
MIN_SLICES = 3
"""Fewest slices of a volume: with two, a missing one between them would not show."""

PARSER_ERRORS = (
    InvalidDicomError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)

# PS3.3 C.7.6.16: where enhanced multi-frame objects keep, a frame, what classic ones keep at the top.
_FUNCTIONAL_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "FrameType": ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"),
    "EffectiveEchoTime": ("MREchoSequence",),
    "InversionTime": ("MRModifierSequence",),
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
class Series:
    """The frames of one volume.

    Attributes
    ----------
    uid, patient_id, modality, description : str
        SeriesInstanceUID, PatientID, Modality and SeriesDescription.
    files : tuple of Path, sorted
    part : str
        What tells this volume from others under the same UID, such as ``"EchoTime=30"``; empty where it is alone.
    frames : tuple of Frame
    """

    uid: str
    patient_id: str
    modality: str
    description: str
    files: tuple[Path, ...]
    part: str
    frames: tuple[Frame, ...]

    def __str__(self) -> str:
        label = self.description or "no description"
        return f"series {self.uid} ({self.modality}, {label}{', ' + self.part if self.part else ''})"


@dataclass(frozen=True)
class Skipped:
    """A file that is in no series, and why.

    Attributes
    ----------
    path : Path
    reason : str
    damaged : bool
        Whether it looks like DICOM and cannot be read, rather than being something else.
    """

    path: Path
    reason: str
    damaged: bool = False


@dataclass(frozen=True)
class _Header:
    series: Series
    instance: str


def scan(root: Path | str) -> tuple[list[Series], list[Skipped]]:
    """Find the image series below a folder, and name every file that is in none.

    Files are grouped by SeriesInstanceUID, wherever they lie. Where one SOPInstanceUID occurs in several folders the
    series was copied, and each folder is a series by itself. Where one UID holds several frames a position, it is
    split by the first attributes of `SPLIT_BY` that leave every part with the same positions; otherwise it stays
    whole, for `synthmed.io.dicom.read_series` to refuse.

    Returns
    -------
    series : list of Series, sorted by UID, folder and part
    skipped : list of Skipped, sorted by path

    Raises
    ------
    InputError
        If `root` is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"No folder {root}", expected="a folder with DICOM files", next_step="Check the path")
    return scan_files(sorted(path for path in root.rglob("*") if path.is_file()))


def find_series(root: Path | str) -> list[Series]:
    """Find the image series below a folder; files that are in none are logged as warnings.

    See `scan`, which returns them.
    """
    series, skipped = scan(root)
    for item in skipped:
        logger.warning("%s is left out: %s", item.path, item.reason)
    return series


def scan_files(paths: Iterable[Path]) -> tuple[list[Series], list[Skipped]]:
    """Group given files as `scan` does."""
    groups: dict[str, list[_Header]] = defaultdict(list)
    skipped: list[Skipped] = []
    for path in paths:
        found = _read_header(Path(path))
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            groups[found.series.uid].append(found)
    series = [part for headers in groups.values() for copy in _copies(headers) for part in _split(_merge(copy))]
    return sorted(series, key=lambda s: (s.uid, str(s.files[0].parent), s.part)), skipped


def load(path: Path, *, pixels: bool) -> Dataset:
    """Read a DICOM file, with or without the preamble; the reader's warnings about odd values are silenced.

    Raises
    ------
    One of `PARSER_ERRORS`
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    bare = start[128:] != b"DICM" and start[:2] in (b"\x08\x00", b"\x02\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=not pixels, force=bare)


def value(dataset: Dataset, index: int, keyword: str) -> Any:
    """Return an attribute of frame `index`: its own, else the shared one, else the file's, else None."""
    groups = [
        *dataset.get("PerFrameFunctionalGroupsSequence", [])[index : index + 1],
        *dataset.get("SharedFunctionalGroupsSequence", [])[:1],
    ]
    for group in groups:
        for name in _FUNCTIONAL_GROUPS.get(keyword, ()):
            items = group.get(name)
            found = items[0].get(keyword) if items else None
            if found is not None:
                return found
    return dataset.get(keyword)


def _read_header(path: Path) -> _Header | Skipped:
    try:
        dataset = load(path, pixels=False)
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            return Skipped(path, "a DICOM file without an image")
        modality = str(dataset.get("Modality", ""))
        if modality not in MODALITIES or "Rows" not in dataset or not dataset.get("SeriesInstanceUID"):
            return Skipped(path, f"{modality or 'no modality'}: not a CT, MR or PT image of a series")
        frames = _frames(path, dataset)
        series = Series(
            uid=str(dataset.SeriesInstanceUID),
            patient_id=str(dataset.get("PatientID", "") or ""),
            modality=modality,
            description=str(dataset.get("SeriesDescription", "") or ""),
            files=(path,),
            part="",
            frames=frames,
        )
        return _Header(series, str(dataset.get("SOPInstanceUID", "")))
    except InvalidDicomError:
        looks_dicom = path.suffix.lower() in (".dcm", ".ima")
        return Skipped(path, "not a DICOM file", damaged=looks_dicom)
    except PARSER_ERRORS as error:
        return Skipped(path, f"unreadable: {' '.join(str(error).split())[:200]}", damaged=True)


def _frames(path: Path, dataset: Dataset) -> tuple[Frame, ...]:
    count = int(dataset.get("NumberOfFrames") or 1)
    return tuple(_frame(path, dataset, index) for index in range(count))


def _frame(path: Path, dataset: Dataset, index: int) -> Frame:
    tags = ((keyword, value(dataset, index, keyword)) for keyword in SPLIT_BY)
    return Frame(
        path=path,
        index=index,
        position=_numbers(value(dataset, index, "ImagePositionPatient"), 3),
        orientation=_numbers(value(dataset, index, "ImageOrientationPatient"), 6),
        pixel_spacing=_numbers(value(dataset, index, "PixelSpacing"), 2),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        slope=_number(value(dataset, index, "RescaleSlope")),
        intercept=_number(value(dataset, index, "RescaleIntercept")),
        tags=tuple((keyword, str(found)) for keyword, found in tags if found not in (None, "")),
    )


def _numbers(found: Any, length: int) -> tuple[float, ...] | None:
    if found is None or isinstance(found, str) or not hasattr(found, "__len__") or len(found) != length:
        return None
    return tuple(float(number) for number in found)


def _number(found: Any) -> float | None:
    return None if found in (None, "") else float(found)


def _merge(headers: Sequence[_Header]) -> Series:
    files = tuple(sorted(header.series.files[0] for header in headers))
    frames = tuple(frame for header in headers for frame in header.series.frames)
    return replace(headers[0].series, files=files, frames=frames)


def _copies(headers: Sequence[_Header]) -> list[list[_Header]]:
    """Part a series by folder where the same instance lies in several of them."""
    folders: dict[Path, list[_Header]] = defaultdict(list)
    where: dict[str, set[Path]] = defaultdict(set)
    for header in headers:
        folder = header.series.files[0].parent
        folders[folder].append(header)
        where[header.instance].add(folder)
    if any(instance and len(places) > 1 for instance, places in where.items()):
        return list(folders.values())
    return [list(headers)]


def _split(series: Series) -> list[Series]:
    parts: list[tuple[str, tuple[Frame, ...]]] = [("", series.frames)]
    for keyword in SPLIT_BY:
        if len(parts[0][1]) <= len(_positions(parts[0][1])):
            break
        finer = [(label, _by_tag(frames, keyword)) for label, frames in parts]
        if all(len(groups) > 1 and _same_stack(tuple(groups.values())) for _, groups in finer):
            parts = [
                (f"{label}, {keyword}={text}".lstrip(", "), frames)
                for label, groups in finer
                for text, frames in groups.items()
            ]
    return [
        replace(series, part=label, frames=frames, files=tuple(sorted({frame.path for frame in frames})))
        for label, frames in parts
    ]


def _by_tag(frames: Sequence[Frame], keyword: str) -> dict[str, tuple[Frame, ...]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[dict(frame.tags).get(keyword, "")].append(frame)
    return {text: tuple(members) for text, members in groups.items()}


def _same_stack(groups: Sequence[tuple[Frame, ...]]) -> bool:
    """Whether every group is as long as the first and holds the same positions, enough of them for a volume."""
    first = _positions(groups[0])
    same = all(_positions(group) == first and len(group) == len(groups[0]) for group in groups)
    return same and len(first) >= MIN_SLICES


def _positions(frames: Sequence[Frame]) -> set[tuple[float, ...] | None]:
    """Distinct slice positions, to a hundredth of a millimetre."""
    return {frame.position and tuple(round(x, 2) + 0.0 for x in frame.position) for frame in frames}
