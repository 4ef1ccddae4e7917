"""Which label, patient or covariate row belongs to which scan, told by names.

Two names match when they are equal, or when one is the beginning of the other up to a separator: image ``IXI012_T1``
goes with label ``IXI012_T1_seg`` and with row ``IXI012``. The longest such beginning wins, and a tie is an error.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from synthmed.errors import InputError
from synthmed.words import counted

_SEPARATOR = re.compile(r"[^0-9A-Za-z\u0080-\uffff]")
_ENDING = re.compile(r"\.(nii\.gz|nii|dcm)$", re.IGNORECASE)
Row = dict[str, str]


def stem(name: str) -> str:
    """Return a file's name without ``.nii``, ``.nii.gz`` or ``.dcm``."""
    return _ENDING.sub("", name)


def match_names(names: Collection[str], keys: Collection[str]) -> dict[str, str]:
    """Return the key that belongs to each name; names without one are absent.

    Raises
    ------
    InputError
        If several keys match one name equally well.
    """
    known, keys = set(names), dict.fromkeys(keys)
    claims: dict[str, list[str]] = defaultdict(list)
    for candidate in keys:
        owner = _first(_beginnings(candidate), known)
        if owner is not None:
            claims[owner].append(candidate)
    found: dict[str, str] = {}
    key: str | None
    for name in names:
        candidates = claims.get(name, [])
        exact = name in candidates
        if len(candidates) > 1 and not exact:
            raise InputError(f"{name} matches several names", found=summary(candidates), expected="one")
        key = name if exact else (candidates[0] if candidates else _first(_beginnings(name), keys))
        if key is not None:
            found[name] = key
    return found


def capture(pattern: str, path: str) -> str | None:
    """Return what the wildcards of a glob stand for, joined by ``_``, or None where the path does not match.

    ``capture("*/PET_image.nii.gz", "STS_001/PET_image.nii.gz")`` is ``"STS_001"``.
    """
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    groups = {"**/": r"(?:(.*)/)?", "*": r"([^/]*)", "?": r"([^/])"}
    match = re.fullmatch("".join(groups.get(part, re.escape(part)) for part in parts), path)
    if match is None:
        return None
    found = [part for part in match.groups() if part]
    return stem("_".join(found).replace("/", "_")) or stem(path).replace("/", "_")


def read_table(file: Path) -> tuple[list[str], list[Row]]:
    """Read a CSV with a header, separated by comma, semicolon or tab.

    Raises
    ------
    InputError
        If it is missing, not text, or has no rows or not the same number of cells in each.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {file}", found=str(error), expected="a CSV file in UTF-8") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    if len(rows) < 2:
        raise InputError(f"{file} has no rows", found=f"{len(rows)} lines", expected="a header and one row a case")
    columns = rows[0]
    if len(set(columns)) < len(columns):
        raise InputError(f"{file} names a column twice", found=", ".join(columns))
    ragged = [number for number, row in enumerate(rows, 1) if len(row) != len(columns)]
    if ragged:
        raise InputError(
            f"{file} is ragged in {counted(len(ragged), 'row')}",
            found=f"row {ragged[0]} with {len(rows[ragged[0] - 1])} cells",
            expected=f"{len(columns)}",
        )
    return columns, [dict(zip(columns, row, strict=True)) for row in rows[1:]]


def find_column(columns: Sequence[str], names: Iterable[str]) -> str | None:
    """Return the first column that bears one of `names`, whatever its case."""
    folded = {column.casefold(): column for column in reversed(columns)}
    return next((folded[name] for name in names if name in folded), None)


def numbers_where_possible(rows: Iterable[Row], columns: Iterable[str]) -> list[dict[str, float | str]]:
    """Turn a column into numbers where all its cells are numbers; empty cells, ``NA`` and ``n/a`` become absent."""
    rows = [{c: row[c] for c in columns if row[c].casefold() not in ("", "na", "n/a", "nan", "none")} for row in rows]
    numeric = {c for c in columns if all(_is_number(row[c]) for row in rows if c in row)}
    return [{c: float(value) if c in numeric else value for c, value in row.items()} for row in rows]


def summary(names: Collection[str], limit: int = 3) -> str:
    """Name the first few and count the rest."""
    first = ", ".join(list(names)[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"


def _beginnings(name: str) -> list[str]:
    """Return the name itself, then what stands before each separator, longest first."""
    cuts = [match.start() for match in _SEPARATOR.finditer(name) if match.start() > 0]
    return [name, *(name[:cut] for cut in reversed(cuts))]


def _first(parts: Iterable[str], keys: Collection[str]) -> str | None:
    return next((part for part in parts if part in keys), None)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False
