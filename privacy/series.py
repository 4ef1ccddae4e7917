"""Which DICOM files belong together: grouped by SeriesInstanceUID into volumes."""

from __future__ import annotations

import stat
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import uid as sop
from pydicom.dataset import Dataset

from privacy.dicom import ENHANCED
from privacy.errors import InputError
from privacy.reading import DAMAGE, DICOM_ENDINGS, unreadable

HEADER = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Series:
    """Files that make one volume.

    Attributes
    ----------
    uid : str
        SeriesInstanceUID.
    files : tuple of Path
    alone : bool
        Whether it is all that its UID holds in that place; where not, it is one multi-frame file of several.
    """

    uid: str
    files: tuple[Path, ...]
    alone: bool = True


@dataclass(frozen=True)
class Sorted:
    """What a heap of files was found to be.

    Attributes
    ----------
    series : list of Series
    other : list of Path
        No DICOM, or an index (DICOMDIR).
    damaged : list of (Path, str)
        DICOM by name or by its first bytes, but unreadable; the reason beside it.
    """

    series: list[Series]
    other: list[Path]
    damaged: list[tuple[Path, str]]


def sort_files(paths: Iterable[Path]) -> Sorted:
    """Group files into series by SeriesInstanceUID.

    A series that lies in several folders is one, unless an instance of it lies in two: then each folder is a copy.
    Each enhanced file of several frames is a volume by itself.
    """
    headers: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    other: list[Path] = []
    damaged: list[tuple[Path, str]] = []
    for path in paths:
        try:
            header = _header(path)
        except InputError as error:
            damaged.append((path, str(error)))
            continue
        if header is None:
            other.append(path)
        else:
            headers[str(header.SeriesInstanceUID)].append((path, header))
    series = [item for uid, members in sorted(headers.items()) for item in _split(uid, members)]
    return Sorted(series, other, damaged)


def _header(path: Path) -> Dataset | None:
    named = path.name.lower().endswith(DICOM_ENDINGS)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not (marked or named):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER), force=not marked)
            if header.file_meta.get("MediaStorageSOPClassUID") == sop.MediaStorageDirectoryStorage:
                return None
    except DAMAGE as error:
        raise unreadable(error) from error
    if not header.get("SeriesInstanceUID") or not header.get("SOPClassUID"):
        raise InputError("unreadable", found="no SeriesInstanceUID and SOPClassUID", expected="a whole DICOM file")
    return header


def _split(uid: str, members: Sequence[tuple[Path, Dataset]]) -> list[Series]:
    places: dict[Path, list[tuple[Path, Dataset]]] = defaultdict(list)
    instances: dict[str, set[Path]] = defaultdict(set)
    for path, header in members:
        places[path.parent].append((path, header))
        instances[str(header.get("SOPInstanceUID"))].add(path.parent)
    copied = any(len(folders) > 1 for folders in instances.values())
    parts = [places[folder] for folder in sorted(places)] if copied else [list(members)]
    return [series for part in parts for series in _volumes(uid, part)]


def _volumes(uid: str, members: Sequence[tuple[Path, Dataset]]) -> list[Series]:
    if len(members) > 1 and all(header.SOPClassUID in ENHANCED for _, header in members):
        return [Series(uid, (path,), alone=False) for path in sorted(path for path, _ in members)]
    return [Series(uid, tuple(sorted(path for path, _ in members)))]
