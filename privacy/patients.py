"""Who owns which volume: tables of patients, matched by path, never by a name that fits two."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy.errors import UsageError
from privacy.reading import DICOM_ENDINGS, NIFTI_ENDINGS
from privacy.words import counted

FILE_COLUMNS = ("file", "volume", "series")
PATIENT_COLUMNS = ("subject", "patient")
ENDINGS = (*reversed(NIFTI_ENDINGS), *DICOM_ENDINGS)


@dataclass(frozen=True)
class Owned:
    """What a table may call a volume by.

    Attributes
    ----------
    name : str
        As messages call it.
    paths : tuple of str
        Whole paths of its files.
    groups : tuple of str
        What it shares with others of the same patient: the folder and UID of a DICOM series, a case of several
        channels.
    """

    name: str
    paths: tuple[str, ...]
    groups: tuple[str, ...] = ()


def read_patients(path: Path) -> dict[str, str]:
    """Read a CSV of files and patients; keys are paths as written, with ``/`` and without the ending of NIfTI or DICOM.

    Commas, semicolons or tabs; a byte order mark and capitals in the head do not matter. Patients are text: ``001``
    stays ``001``.

    Raises
    ------
    UsageError
        If it cannot be read, lacks a column (file, volume or series; subject or patient), or names a file twice.
    """
    columns, rows = read_rows(path)
    file = next((name for name in FILE_COLUMNS if name in columns), None)
    patient = next((name for name in PATIENT_COLUMNS if name in columns), None)
    if file is None or patient is None or not rows:
        raise UsageError(
            f"{path} lacks a column",
            found=", ".join(columns) if rows else "no rows",
            expected="file (or volume) and subject",
        )
    table: dict[str, str] = {}
    for row in rows:
        key, owner = _key(row.get(file) or ""), (row.get(patient) or "").strip()
        if not key or not owner or table.get(key, owner) != owner:
            raise UsageError(f"{path} gives {row.get(file)!r} no patient, or two")
        table[key] = owner
    return table


def stem(name: str) -> str:
    """Return a file name without folder and without the ending of NIfTI or DICOM."""
    return _key(name).rsplit("/", 1)[-1]


def match(table: Mapping[str, str], volumes: Sequence[Owned], where: str, role: str) -> tuple[dict[str, str], int]:
    """Find each volume's patient in a table.

    A row belongs to the volume whose path ends as the row does; the row that shares most folders wins. A row that
    fits two volumes as well as each other, or a volume that two rows of different patients fit, is refused.

    Parameters
    ----------
    table : mapping of path to patient
    volumes : sequence of Owned
    where, role : str
        The table and the set, for messages.

    Returns
    -------
    owners : dict of str to str
        Name -> patient.
    loose : int
        Volumes whose row names other folders, so that the last part of the path alone agreed.

    Raises
    ------
    UsageError
    """
    by_end: dict[str, list[str]] = {}
    for key in table:
        by_end.setdefault(key.rsplit("/", 1)[-1], []).append(key)
    owners: dict[str, str] = {}
    users: dict[str, tuple[str, str]] = {}
    missing, loose = [], 0
    for volume in volumes:
        rows, shared = _best(volume, by_end)
        if not rows:
            missing.append(volume.name)
            continue
        if len({table[row] for row in rows}) > 1:
            raise UsageError(f"{where} has several rows for one {role} volume", found=f"{volume.name}: {rows[0]}, ...")
        owners[volume.name] = table[rows[0]]
        loose += shared < len(rows[0].split("/"))
        _refuse_shared(rows[0], volume, users, f"{where} has one row that fits several {role} volumes")
    if missing:
        raise UsageError(f"{where} has no row for {counted(len(missing), f'{role} volume')}", found=missing[0])
    return owners, loose


def listed(patients: Sequence[Any], volumes: Sequence[Owned], role: str) -> dict[str, str]:
    """Give each volume its patient from a sequence in the same order.

    Raises
    ------
    UsageError
        If there are more or fewer, or one is blank.
    """
    if len(patients) != len(volumes):
        raise UsageError(
            f"The {role} patients do not fit", found=counted(len(patients), "id"), expected=f"{len(volumes)}"
        )
    blank = [k for k, owner in enumerate(patients) if owner is None or str(owner).strip().lower() in ("", "nan")]
    if blank:
        raise UsageError(f"The {role} patients are not complete", found=f"no id at position {blank[0]}")
    return {volume.name: str(owner).strip() for volume, owner in zip(volumes, patients, strict=True)}


def _refuse_shared(row: str, volume: Owned, users: dict[str, tuple[str, str]], what: str) -> None:
    """Refuse a row that two volumes use, unless it names what they share: a series, its folder, a case."""
    group = next((group for group in volume.groups if _common(_key(group), row)), volume.paths[0])
    first, name = users.setdefault(row, (group, volume.name))
    if first != group:
        raise UsageError(what, found=f"{row} for {name} and {volume.name}", expected="paths with their folders")


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table's columns, in lower case, and its rows; commas, semicolons or tabs.

    Raises
    ------
    UsageError
        If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the table {path}", found=" ".join(str(error).split())) from error
    columns = [cell.strip().lower() for cell in lines[0]] if lines else []
    return columns, [dict(zip(columns, line, strict=False)) for line in lines[1:]]


def _key(text: str) -> str:
    parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    path = "/".join(parts)
    ending = next((end for end in ENDINGS if path.lower().endswith(end)), "")
    return path[: len(path) - len(ending)] if len(path) > len(ending) else path


def _common(path: str, key: str) -> int:
    """Count the parts that two paths share at their ends."""
    count = 0
    for one, other in zip(reversed(path.split("/")), reversed(key.split("/")), strict=False):
        if one != other:
            break
        count += 1
    return count


def _best(volume: Owned, by_end: Mapping[str, Sequence[str]]) -> tuple[list[str], int]:
    """Return the rows that share most of a volume's path, and how many parts they share."""
    names = {_key(text) for text in (*volume.paths, *volume.groups)}
    scored = [(_common(n, key), key) for n in names for key in by_end.get(n.rsplit("/", 1)[-1], ())]
    most = max((score for score, _ in scored), default=0)
    return sorted({key for score, key in scored if score == most}), most
