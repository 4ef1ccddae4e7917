"""Check the DICOM files of a release: the marks, the identifiers, and every voxel in its place.

No validator of DICOM sees a flip, swapped spacing, reversed slices or a wrong sign; ``dicom/index.json``, which the
release's signature covers, says what must be there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from synthmed.export.dicom.case import ROOT
from synthmed.export.dicom.check_case import Checked, Task, check_case
from synthmed.export.dicom.index import INDEX, Entry, read_index
from synthmed.export.dicom.workers import ordered_map, worker_count
from synthmed.export.findings import Finding
from synthmed.export.nifti import CHANNEL
from synthmed.export.samples import SUFFIX

_ENDING = ".dcm"
_SECONDS_A_FILE = 1.5e-3


def check_dicom(release: Path, files: list[str]) -> list[Finding]:
    """Check every DICOM file of a release.

    Parameters
    ----------
    release : Path
    files : list of str
        Names of all regular files in the release, relative, with ``/``; no other file is opened.

    Returns
    -------
    list of Finding
        Sorted; empty where there is no DICOM, or nothing is wrong with it.
    """
    names = [name for name in files if name.endswith(_ENDING) or name.startswith(f"{ROOT}/")]
    if not names:
        return []
    if INDEX not in names:
        return [Finding(INDEX, "is missing")]
    try:
        entries = read_index(release)
    except ValueError as error:
        return [Finding(INDEX, str(error))]
    folders: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names) - {INDEX}):
        folders[_folder(name)].append(name)
    findings = [Finding(name, f"is not in a folder that {INDEX} names") for name in _strays(folders, entries)]
    known = set(files)
    tasks = [_task(case, entry, folders, known) for case, entry in entries.items()]
    workers = worker_count(len(tasks), len(names) * _SECONDS_A_FILE)
    checked = list(ordered_map(partial(check_case, release=release), tasks, workers))
    findings += [finding for part in checked for finding in part.findings]
    return sorted(set(findings + _duplicates(checked)))


def _task(case: str, entry: Entry, folders: Mapping[str, list[str]], files: set[str]) -> Task:
    places = (f"nifti/{folder}/{case}{CHANNEL}{SUFFIX}" for folder in ("imagesTr", "imagesTs"))
    return Task(
        case=case,
        entry=entry,
        images=tuple(folders.get(entry.series, ())),
        segmentations=tuple(folders.get(_folder(entry.seg), ())),
        nifti=next((place for place in places if place in files), ""),
    )


def _strays(folders: Mapping[str, list[str]], entries: Mapping[str, Entry]) -> list[str]:
    known = {entry.series for entry in entries.values()} | {_folder(entry.seg) for entry in entries.values()}
    return [name for folder, names in folders.items() if folder not in known for name in names]


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
