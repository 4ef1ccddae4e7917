"""Attributes of scans (age, sex, a diagnosis) from a table: what an attacker might guess of a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError
from privacy.patients import read_rows, stem
from privacy.records import Scan

KEYS = ("set", "file")


@dataclass(frozen=True)
class Attributes:
    """Attributes of G real scans and n samples, by name.

    Attributes
    ----------
    real, synthetic : mapping of str to ndarray, shape (G,) and (n,)
        Numbers as floats, NaN where missing; others as text, empty where missing.
    """

    real: Mapping[str, NDArray[Any]]
    synthetic: Mapping[str, NDArray[Any]]


def read_attributes(
    path: Path, sets: Mapping[str, Sequence[Scan]], real: Sequence[tuple[str, Scan]], samples: Sequence[Scan]
) -> Attributes:
    """Read a CSV with the columns set (train, holdout or synthetic), file, and one column an attribute.

    Parameters
    ----------
    path : Path
    sets : mapping of str to sequence of Scan
        All scans of each set, to tell which row is whose.
    real : sequence of (set, Scan)
    samples : sequence of Scan
        The scans whose attributes are wanted, in their order.

    Raises
    ------
    UsageError
        If the table cannot be read, lacks a column, names a set or file that is not there, or one file twice.
    """
    columns, rows = read_rows(path)
    names = [column for column in columns if column not in KEYS]
    if not set(KEYS) <= set(columns) or not names:
        raise UsageError(f"{path} lacks a column", found=", ".join(columns), expected="set, file and an attribute")
    table = _by_scan(path, rows, sets)
    empty: dict[str, str] = {}
    known = [table.get((role, stem(scan.name)), empty) for role, scan in real]
    made = [table.get(("synthetic", stem(scan.name)), empty) for scan in samples]
    pairs = {
        name: columns_of([row.get(name, "") for row in known], [row.get(name, "") for row in made]) for name in names
    }
    return Attributes({name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()})


def columns_of(real: Sequence[str], synthetic: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read one attribute from text: numbers where every value of either side is one, else text; empty is missing.

    Returns
    -------
    real, synthetic : ndarray
        Both of floats, or both of text.
    """
    texts = [[value.strip() for value in side] for side in (real, synthetic)]
    try:
        numbers = [np.array([float(value or "nan") for value in side]) for side in texts]
    except ValueError:
        return np.array(texts[0], dtype=str), np.array(texts[1], dtype=str)
    first, second = (np.where(np.isfinite(side), side, np.nan) for side in numbers)
    return first, second


def _by_scan(
    path: Path, rows: Sequence[Mapping[str, str]], sets: Mapping[str, Sequence[Scan]]
) -> dict[tuple[str, str], Mapping[str, str]]:
    there = {role: [stem(scan.name) for scan in scans] for role, scans in sets.items()}
    table: dict[tuple[str, str], Mapping[str, str]] = {}
    for row in rows:
        key = (row.get("set", "").strip(), stem(row.get("file", "")))
        if key[0] not in there:
            raise UsageError(f"{path} names an unknown set", found=key[0] or "nothing", expected=", ".join(there))
        count = there[key[0]].count(key[1])
        if count != 1 or key in table:
            problem = "is not there" if count == 0 else "could be several" if count > 1 else "has two rows"
            raise UsageError(f"In {path} the {key[0]} file {row.get('file', '')!r} {problem}")
        table[key] = row
    return table
