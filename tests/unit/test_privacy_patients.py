"""A row belongs to the volume whose path ends as it does; what fits two is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from privacy.errors import UsageError
from privacy.patients import Owned, listed, match, read_patients, stem


def _volumes(*paths: str) -> list[Owned]:
    return [Owned(path, (f"/data/{path}",)) for path in paths]


def _table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "subjects.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,subject\na/x.nii.gz,001\nb.nii,2\n",
        "\ufeffFile;Subject\r\na\\x.nii.gz;001\r\n.\\b.nii;2\r\n",
        "age\tVOLUME\tPatient\n30\ta/x\t 001 \n\n40\tb\t2\n",
    ],
)
def test_tables_of_other_habits_say_the_same(tmp_path: Path, text: str) -> None:
    assert read_patients(_table(tmp_path, text)) == {"a/x": "001", "b": "2"}


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read the table"):
        read_patients(_table(tmp_path, "file,subject\na,Müller\n", "latin-1"))


def test_folders_in_the_table_tell_equal_names_apart() -> None:
    owners, loose = match({"a/img": "A", "b/img": "B"}, _volumes("b/img.nii.gz", "a/img.nii.gz"), "t", "train")
    assert owners == {"a/img.nii.gz": "A", "b/img.nii.gz": "B"}
    assert loose == 0


@pytest.mark.parametrize("table", [{"img": "A"}, {"a/img": "A"}, {"elsewhere/img": "A"}])
def test_a_row_that_fits_two_volumes_is_refused(table: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"one row that fits several train volumes.*a/img.nii and b/img.nii") as raised:
        match(table, _volumes("a/img.nii", "b/img.nii"), "t", "train")
    assert "paths with their folders" in str(raised.value)


def test_a_volume_that_two_rows_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="several rows for one holdout volume"):
        match({"x/img": "A", "y/img": "B"}, _volumes("img.nii"), "t", "holdout")


def test_rows_under_another_root_are_found_and_counted() -> None:
    owners, loose = match({"raw/img": "A", "one": "B"}, _volumes("img.nii", "s/one.nii"), "t", "train")
    assert owners == {"img.nii": "A", "s/one.nii": "B"}
    assert loose == 1


def test_what_is_shared_may_share_a_row() -> None:
    series = [Owned(f"p/{n}", (f"/d/p/{n}.dcm",), (f"1.2.{n}", "/d/p")) for n in (1, 2)]
    assert match({"p": "A"}, series, "t", "train")[0] == {"p/1": "A", "p/2": "A"}
    assert match({"1.2.1": "A", "1.2.2": "B"}, series, "t", "train")[0] == {"p/1": "A", "p/2": "B"}
    assert match({"1": "A", "2": "B"}, series, "t", "train")[0] == {"p/1": "A", "p/2": "B"}


def test_every_volume_needs_a_row() -> None:
    with pytest.raises(UsageError, match=r"no row for 2 train volumes; found b\.nii"):
        match({"a": "A"}, _volumes("a.nii", "b.nii", "c.nii"), "t", "train")


@pytest.mark.parametrize("owner", [None, float("nan"), "", "  "])
def test_listed_patients_must_be_complete(owner: object) -> None:
    with pytest.raises(UsageError, match="no id at position 1"):
        listed(["A", owner], _volumes("a", "b"), "train")


def test_listed_patients_are_text() -> None:
    assert listed(["001", 7], _volumes("a", "b"), "train") == {"a": "001", "b": "7"}


def test_stems() -> None:
    assert stem("a/b.c.nii.gz") == "b.c"
    assert stem("b.NII") == "b"
    assert stem("b") == "b"
    assert stem("c\\d.dcm") == "d"
