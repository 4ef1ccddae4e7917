"""Attributes from a table: matched by set and file, numbers or text, everything unclear refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from privacy.attributes import columns_of, read_attributes
from privacy.errors import UsageError
from privacy.records import Scan

SETS = {
    role: [Scan(f"{name}.nii.gz", None, name, name, name, (8, 8, 8), (1.0, 1.0, 1.0)) for name in names]
    for role, names in {"train": ("a", "b"), "holdout": ("c",), "synthetic": ("s1", "s2")}.items()
}
REAL = [("train", SETS["train"][0]), ("train", SETS["train"][1]), ("holdout", SETS["holdout"][0])]
TABLE = "set;file;age;sex\ntrain;a;40;F\nholdout;c.nii.gz;61.5;M\nsynthetic;s2;50;F\ntrain;b;;M\n"


def _table(folder: Path, text: str) -> Path:
    path = folder / "attributes.csv"
    path.write_text(text)
    return path


def test_rows_are_matched_by_set_and_file_and_gaps_are_missing(tmp_path: Path) -> None:
    found = read_attributes(_table(tmp_path, TABLE), SETS, REAL, SETS["synthetic"])
    np.testing.assert_array_equal(found.real["age"], [40, np.nan, 61.5])
    np.testing.assert_array_equal(found.synthetic["age"], [np.nan, 50])
    assert found.real["sex"].tolist() == ["F", "M", "M"]
    assert found.synthetic["sex"].tolist() == ["", "F"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("set,file\ntrain,a\n", "lacks a column"),
        ("file,age\na,4\n", "lacks a column"),
        ("set,file,age\ntest,a,4\n", "unknown set"),
        ("set,file,age\ntrain,s1,4\n", "is not there"),
        ("set,file,age\ntrain,a,4\ntrain,a.nii,5\n", "has two rows"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_attributes(_table(tmp_path, text), SETS, REAL, SETS["synthetic"])


def test_a_file_name_that_fits_two_scans_is_refused(tmp_path: Path) -> None:
    twice = {**SETS, "train": [*SETS["train"], SETS["train"][0]]}
    with pytest.raises(UsageError, match="could be several"):
        read_attributes(_table(tmp_path, TABLE), twice, REAL, SETS["synthetic"])


def test_one_text_makes_the_attribute_text_on_both_sides() -> None:
    real, synthetic = columns_of(["1", "2"], ["unknown", "2"])
    assert real.tolist() == ["1", "2"]
    assert synthetic.tolist() == ["unknown", "2"]
