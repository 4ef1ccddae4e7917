"""Check the DICOM files of a release: the marks, the identifiers, and every voxel in its place.

No validator of DICOM sees a flip, swapped spacing, reversed slices or a wrong sign; ``dicom/index.json``, which the
release's signature covers, says what must be there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset

from synthmed.export.dicom_case import ROOT
from synthmed.export.dicom_check_series import nifti_problems, segmentation_problems, series_problems
from synthmed.export.dicom_frames import Frame, read_frames
from synthmed.export.dicom_index import INDEX, Entry, read_index
from synthmed.export.dicom_marks import mark_problems
from synthmed.export.findings import Finding
from synthmed.export.nifti import CHANNEL
from synthmed.export.samples import SUFFIX
from synthmed.io.dicom_header import PARSER_ERRORS, without_warnings

_ENDING = ".dcm"
_DAMAGE = (*PARSER_ERRORS, RuntimeError)


@dataclass
class Checked:
    """What was found in one folder.

    Attributes
    ----------
    findings : list of Finding
    instances : list of (SOPInstanceUID, file)
    studies : set of str
        StudyInstanceUIDs.
    """

    findings: list[Finding] = field(default_factory=list)
    instances: list[tuple[str, str]] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)


def check_dicom(release: Path, files: list[str]) -> list[Finding]:
    """Check every DICOM file of a release.

    Parameters
    ----------
    release : Path
    files : list of str
        Names of all regular files in the release, relative, with ``/``.

    Returns
    -------
    list of Finding
        Sorted; empty where there is no DICOM, or nothing is wrong with it.
    """
    names = [name for name in files if name.endswith(_ENDING) or name.startswith(f"{ROOT}/")]
    if not names:
        return []
    known = set(files)
    try:
        entries = read_index(release)
    except ValueError as error:
        return [Finding(INDEX, str(error))]
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folders[str(PurePosixPath(name).parent)].append(name)
    folders[ROOT] = [name for name in folders.pop(ROOT, []) if name != INDEX]
    findings = [Finding(name, f"is not in a folder that {INDEX} names") for name in _strays(folders, entries)]
    checked = []
    for case, entry in entries.items():
        findings_of, series = _check_case(release, case, entry, folders, _nifti(case, known))
        findings += findings_of
        checked += series
    return sorted(set(findings + _duplicates(checked)))


def _strays(folders: Mapping[str, list[str]], entries: Mapping[str, Entry]) -> list[str]:
    known = {entry.series for entry in entries.values()} | {_folder(entry.seg) for entry in entries.values()}
    return [name for folder, names in folders.items() if folder not in known for name in names]


def _check_case(
    release: Path, case: str, entry: Entry, folders: Mapping[str, list[str]], nifti: str | None
) -> tuple[list[Finding], list[Checked]]:
    """Check a case's series, then its segmentation, which must refer to the series' instances."""
    if not folders.get(entry.series):
        return [Finding(entry.series, "is missing")], []
    series, frames = Checked(), []
    for name in folders[entry.series]:
        data = _read(release, name, case, entry.series_uid, entry.transfer_syntax, series)
        if data is not None:
            frames += _frames(data, name, series)
    if frames:
        problems = _volume_problems(release, frames, entry, nifti)
        series.findings += [Finding(entry.series, problem) for problem in problems]
    checked = [series]
    if entry.seg:
        checked.append(_check_segmentation(release, case, entry, folders, {number for number, _ in series.instances}))
    studies = set().union(*(part.studies for part in checked))
    findings = [finding for part in checked for finding in part.findings]
    if len(studies) > 1:
        findings.append(Finding(entry.series, "is not of one study with its segmentation"))
    return findings, checked


def _nifti(case: str, files: set[str]) -> str | None:
    """Return the NIfTI image of a case, where the release has one."""
    names = (f"nifti/{folder}/{case}{CHANNEL}{SUFFIX}" for folder in ("imagesTr", "imagesTs"))
    return next((name for name in names if name in files), None)


def _volume_problems(release: Path, frames: list[Frame], entry: Entry, nifti: str | None) -> list[str]:
    try:
        problems = series_problems(frames, entry)
        return problems + (nifti_problems(release / nifti, entry, frames) if nifti else [])
    except _DAMAGE as error:
        return [f"cannot be put together: {' '.join(str(error).split())[:160]}"]


def _check_segmentation(
    release: Path, case: str, entry: Entry, folders: Mapping[str, list[str]], instances: set[str]
) -> Checked:
    checked = Checked()
    names = folders.get(_folder(entry.seg), [])
    checked.findings += [Finding(name, f"{INDEX} does not name it") for name in names if name != entry.seg]
    if entry.seg not in names:
        checked.findings.append(Finding(entry.seg, "is missing"))
        return checked
    data = _read(release, entry.seg, case, entry.seg_uid, str(uid.ExplicitVRLittleEndian), checked)
    if data is not None:
        try:
            problems = segmentation_problems(data, entry, instances)
        except _DAMAGE as error:
            problems = [_unreadable(error)]
        checked.findings += [Finding(entry.seg, problem) for problem in problems]
    return checked


def _read(
    release: Path, name: str, case: str, series_uid: str, transfer_syntax: str, checked: Checked
) -> Dataset | None:
    """Parse one file and check what each object must say; return None where it cannot be used."""
    try:
        with without_warnings():
            data = pydicom.dcmread(release / name)
            problems = mark_problems(data, case)
            problems += _identifier_problems(data, series_uid, transfer_syntax)
            checked.instances.append((str(data.SOPInstanceUID), name))
            checked.studies.add(str(data.StudyInstanceUID))
    except _DAMAGE as error:
        checked.findings.append(Finding(name, _unreadable(error)))
        return None
    checked.findings += [Finding(name, problem) for problem in problems]
    return data


def _frames(data: Dataset, name: str, checked: Checked) -> list[Frame]:
    try:
        with without_warnings():
            return read_frames(data)
    except _DAMAGE as error:
        checked.findings.append(Finding(name, _unreadable(error)))
        return []


def _identifier_problems(data: Dataset, series_uid: str, transfer_syntax: str) -> list[str]:
    problems = []
    if str(data.SeriesInstanceUID) != series_uid:
        problems.append("SeriesInstanceUID is not that of the index")
    if str(data.file_meta.TransferSyntaxUID) != transfer_syntax:
        problems.append(
            f"transfer syntax is {data.file_meta.TransferSyntaxUID.name}, not {uid.UID(transfer_syntax).name}"
        )
    if data.file_meta.MediaStorageSOPInstanceUID != data.SOPInstanceUID:
        problems.append("file meta information names another SOP instance")
    return problems


def _duplicates(checked: Iterable[Checked]) -> list[Finding]:
    """Return a finding for each SOPInstanceUID that several files have."""
    owners: dict[str, list[str]] = defaultdict(list)
    for part in checked:
        for instance, name in part.instances:
            owners[instance].append(name)
    return [
        Finding(name, f"has the SOPInstanceUID of {names[0]}")
        for names in map(sorted, owners.values())
        for name in names[1:]
    ]


def _folder(file: str) -> str:
    return str(PurePosixPath(file).parent) if file else ""


def _unreadable(error: BaseException) -> str:
    return f"cannot be read as DICOM: {' '.join(str(error).split())[:160] or type(error).__name__}"
