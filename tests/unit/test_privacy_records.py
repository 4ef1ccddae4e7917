"""Every volume is read and checked; what cannot be used is counted and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from privacy_scans import SHAPE, scan, scans, write

from privacy.errors import InputError, UsageError
from privacy.patients import read_patients
from privacy.records import collect, digest, gather


def test_a_folder_is_searched_recursively_and_hidden_files_are_no_volumes(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", scans([0]))
    write(tmp_path, scans([1]))
    (tmp_path / "._case_000.nii.gz").write_bytes(b"AppleDouble")
    found = collect("train", tmp_path)
    assert {s.name for s in found} == {"a/b/case_000.nii.gz", "case_000.nii.gz"}
    assert {s.patient for s in found} == {"train:a/b/case_000.nii.gz", "train:case_000.nii.gz"}
    assert all(s.shape == SHAPE and s.spacing == (1, 1, 1) for s in found)


def test_only_images_are_read_where_labels_lie_beside_them(tmp_path: Path) -> None:
    write(tmp_path / "images", scans([0, 1]))
    write(tmp_path / "labels", scans([2, 3]))
    (tmp_path / "subjects.csv").write_text("file,subject\ncase_000.nii.gz,P1\nimages/case_001.nii.gz,P1\n")
    assert {s.patient for s in collect("train", tmp_path)} == {"P1"}
    assert {s.patient for s in collect("train", tmp_path / "images")} == {"P1"}


def test_the_order_ignores_names(tmp_path: Path) -> None:
    write(tmp_path / "one", scans([3, 1, 2]))
    write(tmp_path / "two", scans([1, 2, 3]), prefix="other")
    one, two = collect("train", tmp_path / "one"), collect("train", tmp_path / "two")
    assert [s.content for s in one] == [s.content for s in two]
    assert digest(one) == digest(two)


def test_orientation_and_compression_do_not_change_the_content(tmp_path: Path) -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = SHAPE[0] - 1
    write(tmp_path / "lps", [scan(0)[::-1].copy()], affine=flipped)
    (tmp_path / "ras").mkdir()
    nib.save(nib.Nifti1Image(scan(0), np.eye(4)), tmp_path / "ras" / "x.nii")
    lps, ras = collect("train", tmp_path / "lps")[0], collect("train", tmp_path / "ras")[0]
    assert np.array_equal(lps.array(), ras.array())
    assert lps.content == ras.content
    assert lps.sha256 != ras.sha256


def test_spacing_is_part_of_the_content(tmp_path: Path) -> None:
    write(tmp_path / "one", [scan(0)])
    write(tmp_path / "two", [scan(0)], affine=np.diag([2.0, 2, 2, 1]))
    one, two = (collect("train", tmp_path / name)[0] for name in ("one", "two"))
    assert two.spacing == (2, 2, 2)
    assert one.content != two.content


def test_arrays_and_paths_may_be_given(tmp_path: Path) -> None:
    paths = write(tmp_path, scans([0]))
    from_array = collect("synthetic", [scan(0)[None], scan(1)[..., None]])
    assert {s.name for s in from_array} == {"synthetic-00000", "synthetic-00001"}
    assert collect("synthetic", paths)[0].content in {s.content for s in from_array}
    assert [s.patient for s in collect("train", scans([0, 1]), ["A", "A"])] == ["A", "A"]


def _damaged(folder: Path, kind: str) -> None:
    path = write(folder, [scan(0)])[0]
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "corrupt":
        path.write_bytes(b"not a volume at all")
    elif kind == "empty file":
        path.write_bytes(b"")
    else:
        arrays = {
            "nan": np.where(np.indices(SHAPE)[0] == 3, np.nan, scan(0)),
            "infinite": np.where(np.indices(SHAPE)[0] == 3, np.inf, scan(0)),
            "constant": np.full(SHAPE, 7.0),
            "4D": np.stack([scan(0), scan(1)], -1),
            "2D": scan(0)[0],
            "tiny": scan(0)[:7],
            "complex": scan(0).astype(np.complex64),
        }
        value = arrays[kind]
        nib.save(nib.Nifti1Image(value if kind == "complex" else value.astype(np.float32), np.eye(4)), path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "unreadable"),
        ("corrupt", "unreadable"),
        ("empty file", "unreadable"),
        ("nan", "396 NaN or infinite|352 NaN or infinite"),
        ("infinite", "352 NaN or infinite"),
        ("constant", "every voxel is 7"),
        ("4D", "not a 3D volume"),
        ("2D", "not a 3D volume"),
        ("tiny", "too small to compare"),
        ("complex", "voxels of type complex64"),
    ],
)
def test_bad_volumes_are_counted_and_named(tmp_path: Path, kind: str, words: str) -> None:
    _damaged(tmp_path, kind)
    write(tmp_path, [scan(1)], prefix="good")
    with pytest.raises(InputError, match=words) as raised:
        collect("synthetic", tmp_path)
    assert "1 of 2 synthetic volumes" in str(raised.value)
    assert "case_000.nii.gz" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 5


def test_colour_is_refused(tmp_path: Path) -> None:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(InputError, match="not a scalar image"):
        collect("train", tmp_path)


def test_folders_without_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no NIfTI file and no DICOM"):
        collect("train", tmp_path)
    with pytest.raises(InputError, match="no train folder"):
        collect("train", tmp_path / "none")
    with pytest.raises(InputError, match="set is empty"):
        collect("train", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,who\na,b\n", "lacks a column; found name, who"),
        ("", "lacks a column; found no rows"),
        ("file,subject\ncase_000.nii.gz,\n", "no patient"),
        ("file,subject\ncase_000.nii.gz,A\ncase_000.nii.gz,B\n", "no patient, or two"),
        ("file,subject\nother.nii.gz,A\n", "no row for 1 train volume; found case_000.nii.gz"),
    ],
)
def test_tables_of_patients_that_do_not_fit_are_refused(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path / "scans", [scan(0)])
    table = tmp_path / "patients.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=words) as raised:
        collect("train", tmp_path / "scans", table)
    assert raised.value.exit_code == 2


def test_missing_tables_and_lists_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read the table"):
        read_patients(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="1 id; expected 2"):
        collect("train", scans([0, 1]), ["A"])


def test_notes_say_what_was_assumed_and_name_nothing(tmp_path: Path) -> None:
    for name, numbers in (("imagesTr", [0, 1]), ("imagesTs", [2]), ("labelsTr", [3])):
        write(tmp_path / name, scans(numbers), prefix="secret")
    (tmp_path / "imagesTr" / "dataset.json").write_text("{}")
    found = gather("train", tmp_path)
    assert len(found.scans) == 2
    assert found.notes == (
        "only imagesTr/ was read; imagesTs/ was not",
        "left aside, being neither NIfTI nor DICOM: 1 file",
        "no table of patients: 2 volumes taken each for another patient",
    )
    assert gather("synthetic", tmp_path / "imagesTs").notes == ()
    (tmp_path / "subjects.csv").write_text("file,subject\nsecret_000,A\nother/secret_001,A\n")
    (tmp_path / "imagesTr" / "dataset.json").unlink()
    assert gather("train", tmp_path / "imagesTr").notes == ("found by file name alone: the patients of 1 volume",)


def test_channels_of_a_case_are_one_patient(tmp_path: Path) -> None:
    write(tmp_path / "imagesTr", scans([0, 1]), prefix="liver_7_0")
    (tmp_path / "imagesTr" / "liver_7_0_000.nii.gz").rename(tmp_path / "imagesTr" / "liver_7_0000.nii.gz")
    (tmp_path / "imagesTr" / "liver_7_0_001.nii.gz").rename(tmp_path / "imagesTr" / "liver_7_0001.nii.gz")
    assert len({s.patient for s in collect("train", tmp_path)}) == 1
    (tmp_path / "subjects.csv").write_text("file,subject\nliver_7,A\n")
    assert [s.patient for s in collect("train", tmp_path)] == ["A", "A"]


def test_equal_names_in_two_folders_need_paths_in_the_table(tmp_path: Path) -> None:
    for k, name in enumerate("ab"):
        write(tmp_path / name, scans([k]))
    table = tmp_path / "t.csv"
    table.write_text("file,subject\ncase_000.nii.gz,A\n")
    with pytest.raises(UsageError, match="one row that fits several train volumes"):
        collect("train", tmp_path, table)
    table.write_text("file;subject\na\\case_000.nii.gz;001\nb\\case_000.nii.gz;1\n", encoding="utf-8-sig")
    assert {s.name[0]: s.patient for s in collect("train", tmp_path, table)} == {"a": "001", "b": "1"}


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", scans([0]))
    root = tmp_path / "root"
    write(root / "sub", scans([1]))
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "sub")
    assert len(collect("train", root)) == 2


def _no_file(root: Path, kind: str) -> None:
    path = root / "x.nii.gz"
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "broken link":
        path.symlink_to(root / "nowhere")
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["loop", "broken link", "pipe"])
def test_names_without_a_file_behind_them_are_named(tmp_path: Path, kind: str) -> None:
    write(tmp_path, scans([0]), prefix="good")
    _no_file(tmp_path, kind)
    with pytest.raises(InputError, match=r"1 of 2 train volumes cannot be used: x\.nii\.gz \((unreadable|not a file)"):
        collect("train", tmp_path)


def test_folders_named_like_a_file_are_searched(tmp_path: Path) -> None:
    write(tmp_path / "x.nii.gz", scans([0]))
    assert [s.name for s in collect("train", tmp_path)] == ["x.nii.gz/case_000.nii.gz"]
    (tmp_path / "empty.nii.gz").mkdir()
    with pytest.raises(InputError, match=r"empty\.nii\.gz \(an empty folder"):
        collect("train", tmp_path)


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_what_may_not_be_read_is_named(tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "closed", scans([0]))[0]
    write(tmp_path, scans([1]), prefix="good")
    if os.geteuid() == 0:
        _forbid(monkeypatch, path.parent if closed == "folder" else path)
    else:
        (path.parent if closed == "folder" else path).chmod(0)
    with pytest.raises(InputError, match=r"1 of 2 train volumes cannot be used: closed.*(unreadable|Permission)"):
        collect("train", tmp_path)


def _forbid(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Let the system refuse one file or folder, as it does to everybody but root."""
    scandir, read = os.scandir, Path.read_bytes

    def refuse(path: object, act: Callable[..., object]) -> object:
        if Path(str(path)) == place:
            raise PermissionError(13, "Permission denied", str(place))
        return act(path)

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(path, scandir))
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(path, read))


def test_lists_of_nothing_usable_are_named() -> None:
    with pytest.raises(InputError, match=r"synthetic-00001 \(not a 3D volume"):
        collect("synthetic", [scan(0), [1, 2]])
    with pytest.raises(InputError, match=r"synthetic-00001 \(not an array"):
        collect("synthetic", [scan(0), [[1, 2], [3]]])
