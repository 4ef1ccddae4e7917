"""Preparing cases so that a killed run loses at most the case in hand."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.fingerprint import Facts, measure
from synthmed.cohort.matching import summary
from synthmed.errors import InputError
from synthmed.files import read_json, sha256_file, sha256_json, write_json, write_text
from synthmed.io import write_volume
from synthmed.label_groups import group_labels, left_out
from synthmed.prepare.space import Space
from synthmed.prepare.transform import Record, preprocess

PROCEDURE = 2
"""Version of the preprocessing: raised when the voxels it writes change, so that old cases are prepared again."""
SIDES = ("train", "holdout")


@dataclass(frozen=True)
class Entry:
    """What is known of a prepared case.

    Attributes
    ----------
    recipe : str
        Digest of everything that decided the voxels: sources, settings, `PROCEDURE`.
    source_sha256, voxels_sha256 : str
        Digest of the source image's bytes, and of the prepared image's float32 voxels.
    written : mapping of "images" and "labels" to the file's SHA-256
    facts : Facts
    record : Record
    label_voxels_cut : int
    values_left_out : tuple of int
        Values of the label file that are in no group.
    """

    recipe: str
    source_sha256: str
    voxels_sha256: str
    written: Mapping[str, str]
    facts: Facts
    record: Record
    label_voxels_cut: int
    values_left_out: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        plain = {"facts": self.facts.to_json(), "record": self.record.to_json()}
        return {**self.__dict__, **plain, "values_left_out": list(self.values_left_out)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Entry:
        """Read what `to_json` wrote."""
        facts, record = Facts.from_json(content["facts"]), Record.from_json(content["record"])
        left = tuple(content.get("values_left_out", ()))
        return cls(**{**content, "facts": facts, "record": record, "values_left_out": left})


class Staging:
    """Where volumes lie until the split is known, and where they lie after it.

    Parameters
    ----------
    root : Path
        The stage's directory; unfinished work is in ``.staging`` below it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / ".staging"
        finished = root / "records.json"
        self._finished: Mapping[str, Any] = read_json(finished) if finished.is_file() else {}

    def find(self, case_id: str, kind: str) -> Path | None:
        """Return where a prepared volume lies: staged, or on a side of a finished split."""
        places = [self.folder, *(self.root / side for side in SIDES)]
        return next((file for place in places if (file := place / kind / f"{case_id}.nii.gz").is_file()), None)

    def entry(self, case_id: str, recipe: str) -> Entry | None:
        """Return what is known of a case that was prepared by the same recipe and whose files are whole."""
        file = self.folder / "entries" / f"{case_id}.json"
        content = read_json(file) if file.is_file() else self._finished.get(case_id)
        if content is None or content["recipe"] != recipe:
            return None
        entry = Entry.from_json(content)
        for kind, digest in entry.written.items():
            volume = self.find(case_id, kind)
            if volume is None or sha256_file(volume) != digest:
                return None
        return entry

    def move(self, case_id: str, side: str, has_label: bool) -> None:
        """Put a case's volumes on their side of the split."""
        for kind in ("images", "labels") if has_label else ("images",):
            file, target = self.find(case_id, kind), self.root / side / kind / f"{case_id}.nii.gz"
            if file is None:
                raise InputError(f"{target} vanished while the cohort was prepared", next_step="Run it again")
            if file != target:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)

    def clear(self, side: str, case_ids: set[str]) -> None:
        """Remove volumes of cases that are not, or no longer, on a side."""
        for kind in ("images", "labels"):
            for file in (self.root / side / kind).glob("*.nii.gz"):
                if file.name.removesuffix(".nii.gz") not in case_ids:
                    file.unlink()


def prepare_cases(cohort: Cohort, space: Space, staging: Staging, *, progress: bool) -> dict[str, Entry]:
    """Prepare every case that is not yet; look at all of them before any bad one is reported.

    Raises
    ------
    InputError
        If cases cannot be used; all are listed in ``bad_cases.csv``.
    """
    workers = min(4, os.cpu_count() or 1)
    entries: dict[str, Entry] = {}
    bad: dict[str, InputError] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(lambda case: _attempt(case, space, staging), cohort.cases)
        bar = tqdm(results, total=len(cohort.cases), desc="prepare", unit="case", disable=not progress)
        for case, result in zip(cohort.cases, bar, strict=True):
            if isinstance(result, InputError):
                bad[case.case_id] = result
            else:
                entries[case.case_id] = result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    _report(bad, len(cohort.cases), staging)
    return entries


def _report(bad: Mapping[str, InputError], total: int, staging: Staging) -> None:
    table = staging.root / "bad_cases.csv"
    table.unlink(missing_ok=True)
    if not bad:
        return
    lines = [f"{name}\t{error}" for name, error in bad.items()]
    write_text(table, "\n".join(["case\tproblem", *lines]) + "\n")
    first = next(iter(bad.values()))
    if len(bad) == 1:
        raise InputError(f"Case {next(iter(bad))} cannot be used: {first.what}", **_details(first)) from first
    raise InputError(
        f"{len(bad)} of {total} cases cannot be used: {summary(list(bad))}",
        found=f"first: {first}",
        next_step=f"All are listed in {table}",
    ) from first


def _details(error: InputError) -> dict[str, str]:
    return {"found": error.found, "expected": error.expected, "next_step": error.next_step}


def _attempt(case: Case, space: Space, staging: Staging) -> Entry | InputError:
    try:
        return prepare_case(case, space, staging)
    except InputError as error:
        return error


def prepare_case(case: Case, space: Space, staging: Staging) -> Entry:
    """Return the entry of a case, preparing it unless that was done by the same recipe."""
    source = case.digest()
    label_digest = sha256_file(case.label) if case.label else ""
    settings = {key: value for key, value in space.to_json().items() if not key.startswith("label_")}
    groups = {str(value): list(sources) for value, sources in case.label_groups.items()}
    recipe = sha256_json([PROCEDURE, source, label_digest, settings, groups])
    known = staging.entry(case.case_id, recipe)
    if known is not None:
        return known
    image, filed = case.read_files()
    label = None if filed is None else group_labels(filed, case.label_groups)
    done = preprocess(image, label, space, filed)
    written = {}
    for kind, volume, dtype in (("images", done.image, space.image_type), ("labels", done.label, "int16")):
        if volume is not None:
            file = staging.folder / kind / f"{case.case_id}.nii.gz"
            write_volume(file, volume, dtype=dtype, description="PREPARED")  # type: ignore[arg-type]
            written[kind] = sha256_file(file)
    voxels = hashlib.sha256(np.ascontiguousarray(done.image.array).tobytes()).hexdigest()
    left = () if filed is None or label is None else left_out(filed, label)
    facts = measure(image, label)
    entry = Entry(recipe, source, voxels, written, facts, done.record, done.label_voxels_cut, left)
    write_json(staging.folder / "entries" / f"{case.case_id}.json", entry.to_json())
    return entry
