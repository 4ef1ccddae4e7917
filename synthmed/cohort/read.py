"""The private cohort: whose scans there are, and on which side of the split each patient lies."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.fingerprint import format_fingerprint
from synthmed.cohort.importers import (
    CASE_COLUMNS,
    IMPORTERS,
    SUBJECT_COLUMNS,
    Draft,
    Found,
    detect_format,
)
from synthmed.cohort.matching import find_column, match_names, numbers_where_possible, read_table, stem, summary
from synthmed.config import CohortConfig
from synthmed.errors import ConfigError, InputError
from synthmed.files import sha256_json
from synthmed.label_groups import Sources
from synthmed.words import counted

__all__ = [
    "IMPORTERS",
    "MIN_PATIENTS",
    "Case",
    "Cohort",
    "format_fingerprint",
    "list_source",
    "read_cohort",
    "resolve_path",
    "split_by_subject",
]

MIN_PATIENTS = 2
"""Fewest patients on either side of the split: one patient alone has no neighbour to compare with."""

_UNSAFE = re.compile(r"[/\\\x00-\x1f]")


def read_cohort(config: CohortConfig) -> Cohort:
    """List a cohort's cases without reading a voxel.

    Patients come, in this order, from the `subjects` table, the importer (a column, PatientID, a BIDS name), a
    ``subjects.csv`` beside the scans; where none says, every volume counts as a patient, and a note says so.

    Parameters
    ----------
    config : CohortConfig

    Raises
    ------
    InputError
        If nothing is there, files are missing, names clash, labels are missing for some, or a patient is unknown.
    """
    root = resolve_path(config)
    # Whoever names where the images are does not mean what a dataset.json beside them says.
    asked = "folder" if root.is_dir() and (config.images or config.labels) else None
    kind = (asked or detect_format(root)) if config.format == "auto" else config.format
    found = IMPORTERS[kind](root, config)
    if not found.drafts:
        raise InputError(f"No scans in {root}", next_step="Check cohort.path, cohort.images and cohort.format")
    folder = root if root.is_dir() else root.parent
    drafts, notes = _with_subjects(found, folder, config)
    drafts, more = _with_covariates(drafts, folder, config)
    groups = {value: group.sources for value, group in config.label_groups.items()}
    cases = sorted((_case(draft, groups) for draft in drafts), key=lambda case: case.case_id)
    _check_names(cases)
    _check_files(cases, root)
    _check_labels(cases, config)
    modality, third = _modality(found, config)
    grouped = {value: group.name for value, group in config.label_groups.items()}
    names = grouped or dict(config.label_names) or dict(found.label_names)
    return Cohort(tuple(cases), names, modality, (*found.notes, *notes, *more, *third))


def resolve_path(config: CohortConfig) -> Path:
    """Return where the cohort lies: as given, else below the folder that ``SYNTHMED_DATA`` names."""
    if config.format == "phantom":
        return Path()
    if config.path is None:
        raise ConfigError("cohort.path is missing", expected="where the scans are, or cohort.format=phantom")
    path, base = Path(config.path).expanduser(), os.environ.get("SYNTHMED_DATA")
    candidates = [path] if path.is_absolute() or not base else [path, Path(base) / path]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    named = f" and SYNTHMED_DATA, which is {base}" if base else ". Set SYNTHMED_DATA to the folder that holds it"
    hint = "" if path.is_absolute() else named
    raise InputError(f"No file or folder {path}", next_step=f"Check cohort.path{hint}")


def list_source(config: CohortConfig) -> str:
    """Return a digest that changes when a file of the cohort, or what is said about it, does; reads no voxel."""
    cohort = read_cohort(config)
    rows = []
    for case in cohort.cases:
        files = [*case.image_files, *([case.label] if case.label else [])]
        states = [(str(file), (state := file.stat()).st_size, state.st_mtime_ns) for file in files]
        rows.append([case.case_id, case.subject_id, dict(case.covariates), states or case.digest()])
    return sha256_json([rows, {str(k): v for k, v in cohort.label_names.items()}, cohort.modality])


def split_by_subject(
    cohort: Cohort, holdout_fraction: float, seed: int, linked: Iterable[tuple[str, str]] = ()
) -> tuple[Cohort, Cohort]:
    """Part a cohort by patient into training and holdout.

    Each patient's place follows from a hash of the seed and the patient's id, so neither the order of files nor the
    volumes matter, and adding patients moves few others.

    Parameters
    ----------
    cohort : Cohort
    holdout_fraction : float
        Share of patients.
    seed : int
    linked : iterable of (subject_id, subject_id)
        Patients that must not be parted, such as two with the same scan.

    Raises
    ------
    InputError
        If either side would have fewer than `MIN_PATIENTS` patients.
    """
    groups = _groups(cohort.subject_ids, linked)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group[0]}".encode()).hexdigest())
    wanted = math.floor(holdout_fraction * len(cohort.subject_ids) + 0.5)
    holdout: set[str] = set()
    for group in order:
        if len(holdout) + len(group) <= wanted:
            holdout.update(group)
    _check_split(len(cohort.subject_ids), len(holdout), holdout_fraction)
    sides = ([c for c in cohort.cases if (c.subject_id in holdout) is side] for side in (False, True))
    train, held = (replace(cohort, cases=tuple(cases)) for cases in sides)
    return train, held


def _check_split(patients: int, holdout: int, fraction: float) -> None:
    if patients < 2 * MIN_PATIENTS:
        raise InputError(
            "The cohort cannot be split by patient",
            found=counted(patients, "patient"),
            expected=f"at least {2 * MIN_PATIENTS}",
            next_step="Add patients, or check where the patient ids come from (cohort.subjects)",
        )
    if holdout < MIN_PATIENTS or patients - holdout < MIN_PATIENTS:
        raise InputError(
            "The holdout is too small" if holdout < MIN_PATIENTS else "The training set is too small",
            found=f"{holdout} of {counted(patients, 'patient')} held out",
            expected=f"at least {MIN_PATIENTS} on either side",
            next_step=f"Change cohort.holdout_fraction ({fraction:g}) or add patients",
        )


def _groups(subjects: Iterable[str], linked: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Return patients that must stay together, by union of the links."""
    leader = {subject: subject for subject in subjects}

    def find(subject: str) -> str:
        while leader[subject] != subject:
            subject = leader[subject]
        return subject

    for a, b in linked:
        first, second = sorted((find(a), find(b)))
        leader[second] = first
    members: dict[str, list[str]] = {}
    for subject in sorted(leader):
        members.setdefault(find(subject), []).append(subject)
    return [tuple(group) for group in members.values()]


def _with_subjects(found: Found, folder: Path, config: CohortConfig) -> tuple[list[Draft], list[str]]:
    drafts = found.drafts
    table = folder / config.subjects if config.subjects else None
    unknown = [draft for draft in drafts if draft.subject is None]
    if table is None and unknown and (folder / "subjects.csv").is_file():
        table = folder / "subjects.csv"
    if table is None:
        if not unknown:
            return drafts, []
        if len(unknown) < len(drafts) or not isinstance(unknown[0].image, Path):
            raise InputError(
                f"{len(unknown)} of {len(drafts)} scans have no patient id",
                found=summary([draft.name for draft in unknown]),
                next_step="Give a table of volume and subject as cohort.subjects",
            )
        note = "no patient ids were given: every volume counts as a patient of its own"
        return [replace(draft, subject=draft.name) for draft in drafts], [note]
    subjects = _subject_table(table)
    pairs = match_names({draft.name for draft in drafts}, subjects)
    missing = sorted(draft.name for draft in drafts if draft.name not in pairs)
    if missing:
        raise InputError(
            f"{table} does not name the patient of {len(missing)} of {len(drafts)} scans",
            found=summary(missing),
            next_step="Add a row for each, or name another table as cohort.subjects",
        )
    return [replace(draft, subject=subjects[pairs[draft.name]]) for draft in drafts], []


def _subject_table(table: Path) -> dict[str, str]:
    """Read volume -> patient; without a column of volumes the patient's id is what their names begin with."""
    columns, rows = read_table(table)
    subject = find_column(columns, SUBJECT_COLUMNS)
    case = find_column([c for c in columns if c != subject], CASE_COLUMNS)
    if subject is None:
        raise InputError(f"{table} lacks a column", found=", ".join(columns), expected="volume and subject")
    case = case or subject
    found: dict[str, str] = {}
    for row in rows:
        name = stem(Path(row[case]).name)
        if not row[subject] or found.get(name, row[subject]) != row[subject]:
            raise InputError(f"{table} is unclear about {name}", expected="one patient a volume")
        found[name] = row[subject]
    return found


def _with_covariates(drafts: list[Draft], folder: Path, config: CohortConfig) -> tuple[list[Draft], list[str]]:
    """Join a table whose key is a case or a patient; a scan without a row keeps no covariates, and a note says so."""
    if config.covariates is None:
        return drafts, []
    table = folder / config.covariates
    columns, rows = read_table(table)
    key = find_column(columns, (*CASE_COLUMNS, *SUBJECT_COLUMNS)) or columns[0]
    by_key = {stem(row[key]): n for n, row in enumerate(rows)}
    if len(by_key) < len(rows):
        twice = [name for name, count in Counter(stem(row[key]) for row in rows).items() if count > 1]
        raise InputError(f"{table} has several rows for {counted(len(twice), 'key')}", found=summary(sorted(twice)))
    values = numbers_where_possible(rows, [column for column in columns if column != key])
    by_name = match_names({d.name for d in drafts}, by_key)
    by_subject = match_names({str(d.subject) for d in drafts}, by_key)
    joined, missing = [], []
    for draft in drafts:
        row = by_name.get(draft.name) or by_subject.get(str(draft.subject))
        if row is None:
            missing.append(draft.name)
        joined.append(replace(draft, covariates={**draft.covariates, **(values[by_key[row]] if row else {})}))
    if len(missing) == len(drafts):
        raise InputError(
            f"{table} has no row for any scan", found=f"keys such as {rows[0][key]}", expected=drafts[0].name
        )
    return joined, [
        f"{counted(len(missing), 'scan')} without a row in {table.name}: {summary(missing)}"
    ] if missing else []


def _case(draft: Draft, groups: Sources) -> Case:
    name = _UNSAFE.sub("_", draft.name).strip()
    if name in ("", ".", ".."):
        raise InputError("A case has no usable name", found=repr(draft.name), expected="one fit for a file name")
    return Case(name, str(draft.subject), draft.image, draft.label, dict(draft.covariates), groups)


def _check_names(cases: list[Case]) -> None:
    twice = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    if twice:
        raise InputError(
            f"{len(twice)} case names occur more than once", found=summary(twice), expected="one case a name"
        )


def _check_files(cases: list[Case], root: Path) -> None:
    paths = [(c.case_id, p) for c in cases for p in (c.image, c.label) if isinstance(p, Path)]
    missing = [f"{name} ({path})" for name, path in paths if not path.exists()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(paths)} files that {root} names are missing",
            found=summary(missing),
            next_step="Correct the paths, which are relative to that file's folder",
        )


def _check_labels(cases: list[Case], config: CohortConfig) -> None:
    without = [case.case_id for case in cases if not case.has_label]
    if config.label_groups and len(without) == len(cases):
        raise InputError(
            "cohort.label_groups is set and the cohort has no labels",
            found=f"{counted(len(cases), 'image')} alone",
            next_step="Say where the labels are (cohort.labels), or remove the groups",
        )
    if without and len(without) < len(cases):
        raise InputError(
            f"{len(without)} of {len(cases)} images have no label while the others do",
            found=summary(without),
            next_step="Add their labels or remove the images",
        )


def _modality(found: Found, config: CohortConfig) -> tuple[str, list[str]]:
    if config.modality is None:
        return found.modality or "MR", []
    if found.modality not in (None, config.modality):
        return config.modality, [f"the files say {found.modality}; the configuration's {config.modality} was taken"]
    return config.modality, []
