"""The generated set on disk while it grows: images, labels, ``samples.csv`` and ``generation.json``.

A row is appended after its files are whole, so a kill at any moment leaves rows that can be trusted and, at worst,
files without a row, which are drawn again. Of many processes each appends to a table of its own, until they are merged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from synthmed import processes
from synthmed.errors import ConfigError
from synthmed.files import GENERATION, read_json, sha256_file, storage_errors, write_json, write_text
from synthmed.io import write_volume
from synthmed.prepare.space import Space
from synthmed.volume import Volume

TABLE = "samples.csv"
DESCRIPTION = "SYNTHETIC"


@dataclass(frozen=True)
class Row:
    """A line of ``samples.csv``; `condition` is JSON, and `label_sha256` is empty without labels."""

    name: str
    seed: int
    condition: str
    image_sha256: str
    label_sha256: str


_COLUMNS = [field.name for field in fields(Row)]


def volume_name(index: int) -> str:
    """Return the name of volume `index`, counted from 0: ``synth_00001`` is the first."""
    return f"synth_{index + 1:05d}"


def begin(out: Path, record: Mapping[str, Any]) -> None:
    """Claim `out` for these settings, or make sure that it was begun with the same ones."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file", expected="a folder, or a name that is free")
    if not (out / GENERATION).is_file():
        if (out / TABLE).exists() or any((out / "images").glob("*")):
            raise ConfigError(
                f"{out} holds volumes but no {GENERATION}", next_step="Choose another output folder, or remove this one"
            )
        write_json(out / GENERATION, record)
        return
    begun = read_json(out / GENERATION)
    differing = [key for key in record if not isinstance(begun, dict) or begun.get(key) != record[key]]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{out} was begun with other settings: {', '.join(differing)}",
            found=f"{key} = {begun.get(key) if isinstance(begun, dict) else begun}",
            expected=str(record[key]),
            next_step="Choose another output folder, or go back to the settings in generation.json",
        )


def finished_rows(out: Path, labelled: bool, count: int) -> dict[str, Row]:
    """Return the rows whose files are whole, and remove the files that a kill left without one."""
    rows = {name: row for name, row in read_rows(out).items() if _is_whole(out, row, labelled)}
    surplus = sorted(set(rows) - {volume_name(index) for index in range(count)})
    if surplus:
        raise ConfigError(
            f"{out} already holds more volumes than were asked for",
            found=surplus[-1],
            expected=f"none after {volume_name(count - 1)}",
            next_step="Ask for at least as many, or choose another output folder",
        )
    for leftover in [*out.glob(".part-*"), *out.glob("*/.part-*"), *out.glob("*/synth_*.nii.gz")]:
        if leftover.name.removesuffix(".nii.gz") not in rows:
            leftover.unlink(missing_ok=True)
    return rows


def _is_whole(out: Path, row: Row, labelled: bool) -> bool:
    parts = [("images", row.image_sha256)] + ([("labels", row.label_sha256)] if labelled else [])
    files = [(out / folder / f"{row.name}.nii.gz", digest) for folder, digest in parts]
    return all(file.is_file() and sha256_file(file) == digest for file, digest in files)


def read_rows(out: Path) -> dict[str, Row]:
    """Return the rows of all processes by their names."""
    return {row.name: row for table in _tables(out) for row in _read_table(table)}


def _tables(out: Path) -> list[Path]:
    return [table for table in (out / TABLE, *sorted(out.glob("samples-*.csv"))) if table.is_file()]


def _read_table(path: Path) -> list[Row]:
    """Read the rows that are complete; the last may have been cut by a kill."""
    lines = csv.reader(path.read_text(encoding="utf-8", errors="replace").split("\n")[1:])
    whole = [line for line in lines if len(line) == len(_COLUMNS) and line[1].isdecimal()]
    return [Row(name, int(seed), *rest) for name, seed, *rest in whole]


def write_table(out: Path, rows: Iterable[Row]) -> None:
    """Replace ``samples.csv``, rows in order of name; the other processes' tables, whose rows these hold, go."""
    ordered = sorted(rows, key=lambda row: row.name)
    write_text(out / TABLE, _csv([_COLUMNS, *(astuple(row) for row in ordered)]))
    for merged in out.glob("samples-*.csv"):
        merged.unlink()


def append_row(out: Path, row: Row) -> None:
    """Add a line, whose files must be whole by now, to this process's table: ``samples.csv`` is the first's."""
    number = processes.rank()
    table = out / (f"samples-{number}.csv" if number else TABLE)
    begun = table.is_file()
    with storage_errors(table), table.open("a", encoding="utf-8", newline="") as stream:
        stream.write(_csv([astuple(row)] if begun else [_COLUMNS, astuple(row)]))


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write_pair(out: Path, name: str, image: Volume, label: Volume | None, space: Space) -> tuple[str, str]:
    """Write an image and its label; return their digests, "" for no label."""
    image_file, label_file = (out / folder / f"{name}.nii.gz" for folder in ("images", "labels"))
    write_volume(image_file, image, dtype=space.image_type, description=DESCRIPTION)
    if label is None:
        return sha256_file(image_file), ""
    small = max(space.label_values) <= np.iinfo(np.uint8).max
    write_volume(label_file, label, dtype="uint8" if small else "int16", description=DESCRIPTION)
    return sha256_file(image_file), sha256_file(label_file)
