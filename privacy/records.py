"""What is audited: scans from folders, paths or arrays, with patients and digests, all of them read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privacy.errors import InputError
from privacy.finding import TABLE, Found, Search, image_folder, search_folder, search_list
from privacy.patients import listed, match, read_patients
from privacy.reading import Array, Loaded, checked, load
from privacy.words import counted

__all__ = ["Collection", "Patients", "Scan", "Source", "collect", "digest", "gather"]

Source = str | Path | Sequence[Any]
Patients = str | Path | Sequence[Any] | None


@dataclass(frozen=True)
class Scan:
    """One volume, its place on disk or in memory, and its owner.

    Attributes
    ----------
    name : str
        Path within its folder, or a number for an array.
    path : Path or None
        A NIfTI file, or the folder of a DICOM series.
    patient : str
    sha256 : str
        Of the file's bytes; of its files' sorted digests for a DICOM series; of the voxels where there is no file.
    content : str
        SHA-256 of spacing and voxels in RAS order: equal for copies of a file under other names or compressions.
    shape : tuple of int
    spacing : tuple of float, mm
    values : ndarray or None
        The voxels, only where there is no file.
    files : tuple of Path
        What is read: one NIfTI file, or the files of one DICOM series.
    """

    name: str
    path: Path | None
    patient: str
    sha256: str
    content: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    values: Array | None = None
    files: tuple[Path, ...] = ()

    def array(self) -> Array:
        """Return the voxels in RAS order, shape (I, J, K), float32.

        Raises
        ------
        InputError
            If the files are no longer what they were when the set was collected.
        """
        if not self.files:
            return np.asarray(self.values, dtype=np.float32)
        try:
            loaded = load(self.files)
        except InputError as error:
            raise InputError(f"{self.path} can no longer be read", found=str(error)) from error
        if loaded.sha256 != self.sha256:
            raise InputError(f"{self.path} changed while the audit ran", next_step="Audit again what does not change")
        return loaded.array


@dataclass(frozen=True)
class Collection:
    """A set of scans, and what was taken for granted when it was read.

    Attributes
    ----------
    scans : list of Scan
        In an order that ignores names.
    notes : tuple of str
        Plain words that name no patient, file or path.
    """

    scans: list[Scan]
    notes: tuple[str, ...]


def collect(
    role: str, source: Source, patients: Patients = None, tick: Callable[[], object] = lambda: None
) -> list[Scan]:
    """Read and check every volume of a set; see `gather`, which also returns what was assumed."""
    return gather(role, source, patients, tick).scans


def gather(
    role: str, source: Source, patients: Patients = None, tick: Callable[[], object] = lambda: None
) -> Collection:
    """Read and check every volume of a set, in an order that ignores names.

    Parameters
    ----------
    role : str
        ``"train"``, ``"holdout"`` or ``"synthetic"``, for messages.
    source : path, or sequence of arrays or paths
        A folder is searched recursively for NIfTI files and DICOM series; where it holds ``images/``, ``imagesTr/`` or
        ``imagesTs/``, only in the first of these. In a list, a path is a NIfTI file or a folder with one DICOM series.
    patients : path of a CSV, sequence of one id a volume, or None
        With None a ``subjects.csv`` in or beside a folder of real scans is used; without one, the PatientID of a DICOM
        series, and each NIfTI volume is its own patient.
    tick : callable
        Called once for each volume read.

    Raises
    ------
    UsageError
        If the patients' table does not fit the volumes.
    InputError
        If there is no volume, or any cannot be read or compared; all of them are counted and named.
    """
    found = search_folder(Path(source), role) if isinstance(source, str | Path) else search_list(source, role)
    if not found.volumes and not found.problems:
        raise InputError(f"The {role} set is empty", expected="at least one 3D volume")
    owners, notes = _owners(role, found, _table(role, source, patients))
    scans, problems, headers = [], list(found.problems), []
    for volume in found.volumes:
        try:
            scan, patient = _scan(volume, role, owners)
            scans.append(scan)
            headers.append(patient)
        except InputError as error:
            problems.append(f"{volume.owned.name} ({error})")
        tick()
    if problems:
        total = len(found.volumes) + len(found.problems)
        raise InputError(
            f"{len(problems)} of {total} {role} volumes cannot be used: {'; '.join(problems)}",
            next_step="Repair or remove them; none is left out in silence",
        )
    if owners is None and role != "synthetic":
        notes += _assumed(headers)
    return Collection(sorted(scans, key=lambda scan: (scan.content, scan.sha256, scan.name)), (*found.notes, *notes))


def digest(scans: Sequence[Scan]) -> str:
    """Return one SHA-256 for a set of scans, whatever their order."""
    return hashlib.sha256("".join(sorted(scan.sha256 for scan in scans)).encode()).hexdigest()


def _table(role: str, source: Source, patients: Patients) -> Patients:
    if patients is not None or role == "synthetic" or not isinstance(source, str | Path):
        return patients
    root = image_folder(Path(source))
    return next((path for path in (root / TABLE, root.parent / TABLE) if path.is_file()), None)


def _owners(role: str, found: Search, patients: Patients) -> tuple[Mapping[str, str] | None, list[str]]:
    """Return each volume's patient, None where nobody said, and what that took for granted."""
    volumes = [volume.owned for volume in found.volumes]
    if patients is None or found.problems:
        return None, []
    if isinstance(patients, str | Path):
        owners, loose = match(read_patients(Path(patients)), volumes, str(patients), role)
        return owners, [f"found by file name alone: the patients of {counted(loose, 'volume')}"] if loose else []
    return listed(patients, volumes, role), []


def _scan(volume: Found, role: str, owners: Mapping[str, str] | None) -> tuple[Scan, str]:
    """Read one volume; beside it the patient that its header names."""
    if volume.files:
        loaded = load(volume.files)
        path = volume.files[0] if len(volume.files) == 1 else volume.files[0].parent
        values = None
    else:
        path, values = None, _given(volume.array)
        loaded = Loaded(values, (1.0, 1.0, 1.0), "")
    name = volume.owned.name
    alone = f"{role}:{volume.owned.groups[0] if volume.owned.groups else name}"
    owner = (owners[name] if owners is not None else loaded.patient) or alone
    head = f"{loaded.array.shape}{tuple(round(edge, 4) for edge in loaded.spacing)}"
    content = hashlib.sha256(head.encode() + np.ascontiguousarray(loaded.array).tobytes()).hexdigest()
    return (
        Scan(
            name=name,
            path=path,
            patient=owner,
            sha256=loaded.sha256 or content,
            content=content,
            shape=loaded.array.shape,
            spacing=loaded.spacing,
            values=values,
            files=volume.files,
        ),
        loaded.patient,
    )


def _given(array: Any) -> Array:
    """Check an array given in memory; a channel axis of length 1 may lead."""
    try:
        values = np.asarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError("not an array", found=" ".join(str(error).split())[:120]) from error
    return checked(values[0] if values.ndim == 4 and values.shape[0] == 1 else values)


def _assumed(headers: Sequence[str]) -> list[str]:
    """Say whom the scans were taken to belong to where nobody said so."""
    named = [patient for patient in headers if patient]
    notes = []
    if named:
        notes.append(f"no table of patients: {len(named)} DICOM series told apart by PatientID")
    if len(named) > 1 and len(set(named)) == 1:
        notes.append("all DICOM series carry the same PatientID and were taken for one patient")
    if len(named) < len(headers):
        notes.append(
            f"no table of patients: {counted(len(headers) - len(named), 'volume')} taken each for another patient"
        )
    return notes
