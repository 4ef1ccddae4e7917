"""Which DICOM files belong together: a tree's images, grouped into series that are one volume each."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synthmed.errors import InputError
from synthmed.files import files_below
from synthmed.io.dicom_header import SPLIT_BY, Frame, Header, Skipped, read_header

logger = logging.getLogger(__name__)

MIN_SLICES = 3
"""Fewest slices of a volume: with two, a missing one between them would not show."""

_NAMED = 5


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
        details = ", ".join(text for text in (self.modality, self.description, self.part) if text)
        return f"series {self.uid} ({details})"


def refusal(series: Series, what: str, found: str, expected: str, next_step: str) -> InputError:
    """Return the error that says why a series is not read."""
    where = f"{what} in {series} below {series.files[0].parent}"
    return InputError(where, found=found, expected=expected, next_step=next_step)


def scan(root: Path | str) -> tuple[list[Series], list[Skipped]]:
    """Find the image series below a folder, and name every file that is in none.

    Files are grouped by SeriesInstanceUID and PatientID, wherever they lie. Where one SOPInstanceUID occurs in several
    folders the series was copied, and each folder is a series by itself. Where one UID holds several frames a
    position, it is split by the first attributes of `SPLIT_BY` that leave every part with the same positions;
    otherwise it stays whole, for `synthmed.io.dicom.read_series` to refuse. Hidden files, and what synthmed wrote below
    the folder, are passed over.

    Returns
    -------
    series : list of Series, sorted by UID, folder and part
    skipped : list of Skipped, sorted by path

    Raises
    ------
    InputError
        If `root` is not a folder.
    """
    if not os.path.isdir(root):
        raise InputError(f"No folder {root}", expected="a folder with DICOM files", next_step="Check the path")
    closed: list[Skipped] = []

    def note(error: OSError) -> None:
        closed.append(Skipped(Path(error.filename), f"unreadable, {error.strerror}", damaged=True))

    series, skipped = scan_files(sorted(files_below(Path(root), note)))
    return series, sorted([*closed, *skipped], key=lambda item: item.path)


def find_series(root: Path | str) -> list[Series]:
    """Find the image series below a folder; log a warning that names files in none, a line for each reason.

    See `scan`, which returns all of them.
    """
    series, skipped = scan(root)
    reasons: dict[str, list[Path]] = defaultdict(list)
    for item in skipped:
        reasons[item.reason].append(item.path)
    for reason, paths in reasons.items():
        named = ", ".join(str(path) for path in paths[:_NAMED]) + (" ..." if len(paths) > _NAMED else "")
        logger.warning("Left out %d files, %s: %s", len(paths), reason, named)
    return series


def scan_files(paths: Iterable[Path]) -> tuple[list[Series], list[Skipped]]:
    """Group given files as `scan` does."""
    groups: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    skipped: list[Skipped] = []
    for path in paths:
        found = read_header(path)
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            groups[found.series_uid, found.patient_id, found.modality].append(found)
    series = [part for headers in groups.values() for copy in _copies(headers) for part in _split(_merge(copy))]
    return sorted(series, key=lambda s: (s.uid, str(s.files[0].parent), s.part)), skipped


def _copies(headers: Sequence[Header]) -> list[list[Header]]:
    """Part a series by folder where the same instance lies in several of them."""
    folders: dict[Path, list[Header]] = defaultdict(list)
    where: dict[str, set[Path]] = defaultdict(set)
    for header in headers:
        folders[header.path.parent].append(header)
        where[header.instance_uid].add(header.path.parent)
    copied = any(instance and len(places) > 1 for instance, places in where.items())
    return list(folders.values()) if copied else [list(headers)]


def _merge(headers: Sequence[Header]) -> Series:
    first = headers[0]
    return Series(
        uid=first.series_uid,
        patient_id=first.patient_id,
        modality=first.modality,
        description=first.description,
        files=tuple(sorted(header.path for header in headers)),
        part="",
        frames=tuple(frame for header in headers for frame in header.frames),
    )


def _split(series: Series) -> list[Series]:
    parts: list[tuple[str, tuple[Frame, ...]]] = [("", series.frames)]
    for keyword in SPLIT_BY:
        if len(parts[0][1]) <= len(_positions(parts[0][1])):
            break
        finer = [(label, _by_tag(frames, keyword)) for label, frames in parts]
        if _same_stacks([frames for _, groups in finer for frames in groups.values()]):
            parts = [
                (f"{label}, {keyword}={text}".lstrip(", ") if len(groups) > 1 else label, frames)
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


def _same_stacks(groups: Sequence[tuple[Frame, ...]]) -> bool:
    """Whether every group is as long as the first and holds the same positions, enough of them for a volume."""
    first = _positions(groups[0])
    same = all(_positions(group) == first and len(group) == len(groups[0]) for group in groups)
    return same and len(first) >= MIN_SLICES


def _positions(frames: Sequence[Frame]) -> set[tuple[float, ...] | None]:
    """Distinct slice positions, to a hundredth of a millimetre."""
    return {frame.position and tuple(round(x, 2) + 0.0 for x in frame.position) for frame in frames}
