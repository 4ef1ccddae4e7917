"""Check one case's DICOM: its series, then the segmentation, which must refer to the series' instances."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from synthmed.export.dicom.check_series import nifti_problems, segmentation_problems, series_problems
from synthmed.export.dicom.frames import Frame, read_frames
from synthmed.export.dicom.index import INDEX, Entry
from synthmed.export.dicom.marks import mark_problems
from synthmed.export.findings import Finding
from synthmed.io.dicom_header import PARSER_ERRORS, without_warnings

_DAMAGE = (*PARSER_ERRORS, RuntimeError)
_OWN = {
    Tag(name) for name in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "SliceLocation", "PixelData")
}


@dataclass(frozen=True)
class Task:
    """One case, what the index says about it, and which of the release's files are its own.

    Attributes
    ----------
    case : str
    entry : Entry
    images, segmentations : tuple of str
        All files in the folder of the series, and of the segmentation.
    nifti : str
        The NIfTI image of the case; empty where the release has none.
    """

    case: str
    entry: Entry
    images: tuple[str, ...]
    segmentations: tuple[str, ...]
    nifti: str


@dataclass
class Checked:
    """What was found in one case.

    Attributes
    ----------
    findings : list of Finding
    instances : list of (SOPInstanceUID, file)
    studies : set of str
        StudyInstanceUIDs.
    marks : dict
        What the marks of a header lack, by the header's elements that slices share: one header is checked once.
    """

    findings: list[Finding] = field(default_factory=list)
    instances: list[tuple[str, str]] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    marks: dict[Hashable, list[str]] = field(default_factory=dict)

    def add(self, path: str, problems: list[str]) -> None:
        """Add a finding for each problem of one path."""
        self.findings += [Finding(path, problem) for problem in problems]


def check_case(task: Task, release: Path) -> Checked:
    """Check one case; what cannot be read is a finding."""
    checked, frames = Checked(), []
    if not task.images:
        checked.add(task.entry.series, ["is missing"])
    for name in task.images:
        expected = task.entry.modality, task.entry.series_uid, task.entry.transfer_syntax
        data = _read(release, name, task, expected, checked)
        if data is not None:
            frames += _frames(data, name, checked)
    if frames:
        checked.add(task.entry.series, _volume_problems(release, frames, task))
    if task.entry.seg:
        _check_segmentation(release, task, checked)
    if len(checked.studies) > 1:
        checked.add(task.entry.series, ["is not of one study with its segmentation"])
    checked.marks.clear()
    return checked


def _volume_problems(release: Path, frames: list[Frame], task: Task) -> list[str]:
    try:
        problems = series_problems(frames, task.entry)
        return problems + (nifti_problems(release / task.nifti, task.entry, frames) if task.nifti else [])
    except _DAMAGE as error:
        return [f"cannot be put together: {' '.join(str(error).split())[:160]}"]


def _check_segmentation(release: Path, task: Task, checked: Checked) -> None:
    name, instances = task.entry.seg, {instance for instance, _ in checked.instances}
    for other in task.segmentations:
        if other != name:
            checked.add(other, [f"{INDEX} does not name it"])
    if name not in task.segmentations:
        checked.add(name, ["is missing"])
        return
    data = _read(release, name, task, ("SEG", task.entry.seg_uid, str(uid.ExplicitVRLittleEndian)), checked)
    if data is None:
        return
    try:
        with without_warnings():
            checked.add(name, segmentation_problems(data, task.entry, instances))
    except _DAMAGE as error:
        checked.add(name, [_unreadable(error)])


def _read(release: Path, name: str, task: Task, expected: tuple[str, str, str], checked: Checked) -> Dataset | None:
    """Parse one file and check what each object must say; return None where it cannot be used.

    `expected` is Modality, SeriesInstanceUID and transfer syntax.
    """
    try:
        with without_warnings():
            data = pydicom.dcmread(release / name)
            shared = _shared_part(data)
            if shared not in checked.marks:
                checked.marks[shared] = mark_problems(data, task.case)
            checked.add(name, checked.marks[shared] + _identifier_problems(data, *expected))
            checked.instances.append((str(data.SOPInstanceUID), name))
            checked.studies.add(str(data.StudyInstanceUID))
    except _DAMAGE as error:
        checked.add(name, [_unreadable(error)])
        return None
    return data


def _shared_part(data: Dataset) -> Hashable:
    """Return the elements that are the same in all slices of a series, unparsed where they can be."""
    raw = ((tag, data.get_item(tag)) for tag in data.keys() if tag not in _OWN)  # noqa: SIM118
    return frozenset(
        (tag, item.VR, item.value if isinstance(item.value, bytes) else repr(item.value)) for tag, item in raw
    )


def _frames(data: Dataset, name: str, checked: Checked) -> list[Frame]:
    try:
        with without_warnings():
            return read_frames(data)
    except _DAMAGE as error:
        checked.add(name, [_unreadable(error)])
        return []


def _identifier_problems(data: Dataset, modality: str, series_uid: str, transfer_syntax: str) -> list[str]:
    problems = []
    if str(data.Modality) != modality:
        problems.append(f"Modality is {data.Modality}, not {modality}")
    if str(data.SeriesInstanceUID) != series_uid:
        problems.append("SeriesInstanceUID is not that of the index")
    if str(data.file_meta.TransferSyntaxUID) != transfer_syntax:
        problems.append(
            f"transfer syntax is {data.file_meta.TransferSyntaxUID.name}, not {uid.UID(transfer_syntax).name}"
        )
    if data.file_meta.MediaStorageSOPInstanceUID != data.SOPInstanceUID:
        problems.append("file meta information names another SOP instance")
    return problems


def _unreadable(error: BaseException) -> str:
    return f"cannot be read as DICOM: {' '.join(str(error).split())[:160] or type(error).__name__}"
