"""The first stage: every case onto one grid, the patients split, and what was found written down.

A volume is prepared by itself, so nothing that is learned from several patients precedes the split. Exact duplicates
of one patient are left out and named; an exact duplicate under two patients is an error, since whose scan it is must
not be guessed at; near-duplicates stay on one side of the split.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.fingerprint import fingerprint
from synthmed.cohort.matching import summary
from synthmed.cohort.read import read_cohort, split_by_subject
from synthmed.config import Config
from synthmed.errors import InputError
from synthmed.files import storage_errors, write_json, write_text
from synthmed.prepare.duplicates import drop_exact, near_duplicates
from synthmed.prepare.space import Space, from_network, label_from_network, label_to_network, to_network
from synthmed.prepare.staging import Entry, Staging, prepare_cases
from synthmed.prepare.transform import Preprocessed, Record, preprocess, restore
from synthmed.words import counted

__all__ = [
    "Preprocessed",
    "Record",
    "Space",
    "from_network",
    "label_from_network",
    "label_to_network",
    "make_space",
    "prepare",
    "preprocess",
    "restore",
    "to_network",
]

MAX_CLASSES = 256
SIDES = ("train", "holdout")


def prepare(config: Config, out: Path, *, progress: bool = True) -> None:
    """Read a cohort, split it by patient and write it to `out` on one grid.

    Writes ``cases.csv``, ``fingerprint.json``, ``space.json``, ``records.json`` and, for either side, ``images/``,
    ``labels/`` and ``subjects.csv``. The same input gives the same bytes. A run that was killed left no half file, and
    the next one keeps every case whose source and settings are the same.

    Parameters
    ----------
    config : Config
    out : Path
        The stage's directory.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    InputError
        If cases cannot be used (all of them are looked at first, and listed in ``bad_cases.csv``), or the cohort
        cannot be split.
    StorageError
        If the disk is full.
    """
    cohort = read_cohort(config.cohort)
    space = make_space(config, cohort)
    _check_region(space, cohort)
    staging = Staging(Path(out))
    with storage_errors(staging.root):
        entries = prepare_cases(cohort, space, staging, progress=progress)
        kept, dropped = drop_exact(cohort, entries)
        near = near_duplicates(kept, staging)
        patients = {case.case_id: case.subject_id for case in kept.cases}
        linked = [(patients[a], patients[b]) for a, b, _ in near]
        train, holdout = split_by_subject(kept, config.cohort.holdout_fraction, config.seed, linked)
        sides = dict(zip(SIDES, (train, holdout), strict=True))
        space = make_space(config, kept, _label_values(kept, sides, entries))
        content = fingerprint(
            kept,
            [entries[case.case_id].facts for case in kept.cases],
            sides=sides,
            near=near,
            dropped=dropped,
            warnings=_warnings(kept, near, entries),
        )
        _finish(staging, sides, entries, space)
        write_json(staging.root / "fingerprint.json", content)


def make_space(config: Config, cohort: Cohort, label_values: tuple[int, ...] = ()) -> Space:
    """Return the shared space that a configuration asks for."""
    settings = config.preprocess
    return Space(
        grid=settings.grid,
        spacing=settings.spacing,
        orientation=settings.orientation,
        normalisation=settings.normalisation,
        percentiles=settings.percentiles,
        intensity_range=settings.intensity_range,
        modality=cohort.modality,
        mask=settings.mask,
        centre=settings.centre,
        label_values=label_values,
        label_names={value: name for value, name in cohort.label_names.items() if value in label_values},
    )


def _label_values(cohort: Cohort, sides: Mapping[str, Cohort], entries: Mapping[str, Entry]) -> tuple[int, ...]:
    """Return the values that training patients have and those that have a name; a value only others have is refused."""
    if not cohort.cases[0].has_label:
        return ()
    found = {side: _values(c.cases, entries) for side, c in sides.items()}
    _check_groups(cohort, set().union(*found.values()))
    known = {0} | found["train"] | {int(value) for value in cohort.label_names}
    strange = sorted(found["holdout"] - known)
    if strange:
        holders = [c.case_id for c in sides["holdout"].cases if strange[0] in _values([c], entries)]
        raise InputError(
            f"Label value {strange[0]} occurs in no training patient",
            found=f"in {holders[0]}" + (f" and {len(holders) - 1} more" if holders[1:] else ""),
            expected=f"one of {', '.join(map(str, sorted(known)[:12]))}",
            next_step="Correct the label, or name the value in cohort.label_names",
        )
    if len(known) > MAX_CLASSES:
        raise InputError("The labels have too many values", found=str(len(known)), expected=f"at most {MAX_CLASSES}")
    return tuple(sorted(known))


def _check_region(space: Space, cohort: Cohort) -> None:
    """Refuse a mask or a centre that needs labels where there are none, before any case is looked at."""
    asked = next((key for key in ("mask", "centre") if getattr(space, key) == "label"), None)
    if asked and not any(case.has_label for case in cohort.cases):
        raise InputError(
            f"preprocess.{asked} is label and the cohort has no labels",
            found=f"{counted(len(cohort.cases), 'image')} alone",
            next_step=f"Say where the labels are (cohort.labels), or remove preprocess.{asked}",
        )


def _check_groups(cohort: Cohort, found: set[int]) -> None:
    groups = cohort.cases[0].label_groups
    empty = next((value for value in groups if value not in found), None)
    if empty is not None:
        sources = [str(value) for value in groups[empty]]
        raise InputError(
            f"Label group {empty} ({cohort.label_names[empty]}) matches nothing in the cohort",
            found=f"no voxel of value {summary(sources)}",
            next_step="Correct the group's values in cohort.label_groups, or remove it",
        )


def _values(cases: Iterable[Case], entries: Mapping[str, Entry]) -> set[int]:
    return {value for case in cases for value in entries[case.case_id].facts.label_voxels or {}}


def _warnings(cohort: Cohort, near: list[tuple[str, str, float]], entries: Mapping[str, Entry]) -> list[str]:
    patients = {case.case_id: case.subject_id for case in cohort.cases}
    across = sum(patients[a] != patients[b] for a, b, _ in near)
    cut = [case.case_id for case in cohort.cases if entries[case.case_id].label_voxels_cut]
    unnamed = (
        sorted(_values(cohort.cases, entries) - {int(v) for v in cohort.label_names}) if cohort.label_names else []
    )
    empty = [case.case_id for case in cohort.cases if entries[case.case_id].facts.label_voxels == {}]
    left = sorted({value for case in cohort.cases for value in entries[case.case_id].values_left_out})
    found = [
        (across, f"{counted(across, 'near-duplicate pair')} of different patients: kept on one side of the split"),
        (len(cut), f"the grid cuts labels off in {counted(len(cut), 'case')}, such as {cut[0] if cut else ''}"),
        (len(left), f"label values in no group became background: {', '.join(map(str, left))}"),
        (len(unnamed), f"label values without a name: {', '.join(map(str, unnamed))}"),
        (len(empty), f"{counted(len(empty), 'empty label')}, such as {empty[0] if empty else ''}"),
    ]
    return [text for count, text in found if count]


def _finish(staging: Staging, sides: Mapping[str, Cohort], entries: Mapping[str, Entry], space: Space) -> None:
    """Move every case to its side, remove what no case claims, and write the tables."""
    rows = []
    for side, cohort in sides.items():
        for case in cohort.cases:
            staging.move(case.case_id, side, case.has_label)
            covariates = json.dumps(dict(case.covariates), ensure_ascii=False)
            entry = entries[case.case_id]
            rows.append((case.case_id, case.subject_id, side, covariates, case.source, entry.source_sha256))
        staging.clear(side, {case.case_id for case in cohort.cases})
        table = [(f"{case.case_id}.nii.gz", case.subject_id) for case in cohort.cases]
        write_text(staging.root / side / "subjects.csv", _csv(("file", "subject"), table))
    header = ("case", "subject", "split", "covariates", "source", "sha256")
    write_text(staging.root / "cases.csv", _csv(header, sorted(rows)))
    write_json(staging.root / "space.json", space.to_json())
    kept = sorted(row[0] for row in rows)
    write_json(staging.root / "records.json", {name: entries[name].to_json() for name in kept})
    shutil.rmtree(staging.folder, ignore_errors=True)


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
