"""What leaves is searched for the cohort's names and for personal data; numbers and common words raise no alarm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import Grid, write_classic
from nibabel.nifti1 import Nifti1Extension
from privacy_scans import scan, scans, write
from pydicom.dataset import Dataset

from privacy.errors import InputError
from privacy.identifiers import identifiers, made_up, running_numbers, weak
from privacy.metadata import MetadataFinding, examine, summary
from privacy.records import collect

STORED = np.random.default_rng(5).integers(0, 3000, size=(12, 10, 9)).astype(np.uint16)


def _severities(findings: tuple[MetadataFinding, ...]) -> set[tuple[str, str, str]]:
    return {(item.severity, item.kind, item.where) for item in findings}


def _save(path: Path, affine: np.ndarray | None = None, **header: str) -> Path:
    image = nib.Nifti1Image(np.array(scan(5)), np.eye(4) if affine is None else affine)
    for key, text in header.items():
        image.header[key] = text
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def _real(tmp_path: Path) -> list:
    write(tmp_path / "real" / "kowalski", [scan(0)], prefix="MRN88412")
    write(tmp_path / "real" / "other", [scan(1)], prefix="17")
    return collect("train", tmp_path / "real", ["HH-1211", "17"])


def test_clean_samples_raise_nothing(tmp_path: Path) -> None:
    write(tmp_path / "out", scans([5, 6, 7]), prefix="sample-00017")
    assert examine(collect("synthetic", tmp_path / "out"), _real(tmp_path), ["001"]) == ()
    assert examine(collect("synthetic", scans([5])), _real(tmp_path)) == ()


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("HH-1211.nii", "file name"),
        ("x_hh_1211_v2.nii", "file name"),
        ("mrn88412_000.nii", "file name"),
        ("kowalski/x.nii", "folder name"),
        ("sub-17/x.nii", "folder name"),
        ("sub17.nii", "file name"),
        ("a@b.org.nii", "file name"),
    ],
)
def test_names_that_give_a_patient_away(tmp_path: Path, name: str, where: str) -> None:
    _save(tmp_path / "out" / name)
    found = examine(collect("synthetic", tmp_path / "out"), _real(tmp_path))
    assert _severities(found) == {("identifying", "name", where)}
    assert all("1211" not in item.what and "owalski" not in item.what for item in found)


@pytest.mark.parametrize("name", ["17.nii", "x-17.nii", "HH-12110.nii", "sample-017.nii", "image.nii", "xkowalski.nii"])
def test_numbers_and_parts_of_words_are_nobody(tmp_path: Path, name: str) -> None:
    _save(tmp_path / "out" / name)
    assert examine(collect("synthetic", tmp_path / "out"), _real(tmp_path)) == ()


def test_running_numbers_of_both_sets_are_a_notice(tmp_path: Path) -> None:
    write(tmp_path / "out", scans([5, 6, 7]), prefix="hippo")
    write(tmp_path / "real", scans([0, 1, 2]), prefix="hippo")
    real = collect("train", tmp_path / "real")
    found = examine(collect("synthetic", tmp_path / "out"), real)
    assert [item.severity for item in found] == ["notice"] * 3
    (tmp_path / "out" / "hippo_000.nii.gz").unlink()
    found = examine(collect("synthetic", tmp_path / "out"), real)
    assert [item.severity for item in found] == ["identifying"] * 2


@pytest.mark.parametrize(
    ("field", "text", "severity"),
    [
        ("descrip", "FSL5.0", None),
        ("descrip", "5.0.10", None),
        ("descrip", "SPM12 normalised", None),
        ("aux_file", "none", None),
        ("descrip", "from HH-1211", "identifying"),
        ("descrip", "Doe^Jane", "identifying"),
        ("descrip", "Name: Jane", "identifying"),
        ("descrip", "DOB 1952-03-07", "identifying"),
        ("descrip", "jane@clinic.org", "identifying"),
        ("descrip", "/home/jane/scan.nii", "identifying"),
        ("aux_file", "C:\\scans\\x", "identifying"),
        ("descrip", "scanned 20190314", "notice"),
        ("intent_name", "hh 1211", "identifying"),
        ("db_name", "MRN88412_000", "identifying"),
    ],
)
def test_header_fields(tmp_path: Path, field: str, text: str, severity: str | None) -> None:
    _save(tmp_path / "out" / "s.nii.gz", **{field: text})
    found = examine(collect("synthetic", tmp_path / "out"), _real(tmp_path))
    assert _severities(found) == (set() if severity is None else {(severity, "header", field)})
    assert all(item.detail == text for item in found)


def test_what_stands_behind_a_terminating_zero_is_read(tmp_path: Path) -> None:
    path = _save(tmp_path / "out" / "s.nii")
    raw = bytearray(path.read_bytes())
    raw[148:164] = b"ok\0\0Doe^Jane\0\0\0\0"
    path.write_bytes(bytes(raw))
    assert _severities(examine(collect("synthetic", tmp_path / "out"), [])) == {("identifying", "header", "descrip")}


def test_extensions(tmp_path: Path) -> None:
    data = Dataset()
    data.PatientName, data.PatientBirthDate, data.StudyDate = "Doe^Jane", "19520307", "20190101"
    image = nib.Nifti1Image(np.array(scan(5)), np.eye(4))
    image.header.extensions.append(Nifti1Extension(6, b"made from /data/kept/HH-1211.nii"))
    image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, data))
    (tmp_path / "out").mkdir()
    nib.save(image, tmp_path / "out" / "s.nii.gz")
    found = examine(collect("synthetic", tmp_path / "out"), _real(tmp_path))
    assert _severities(found) == {
        ("notice", "extension", "NIfTI extension 6"),
        ("notice", "extension", "NIfTI extension 2"),
        ("identifying", "extension", "NIfTI extension 6"),
        ("identifying", "extension", "PatientName"),
        ("identifying", "extension", "PatientBirthDate"),
        ("notice", "extension", "StudyDate"),
    }


def test_sidecars(tmp_path: Path) -> None:
    _save(tmp_path / "out" / "s.nii.gz")
    content = {"PatientID": "17", "InstitutionName": "St Mary", "PatientName": "anonymous", "EchoTime": 0.03}
    (tmp_path / "out" / "s.json").write_text(json.dumps({**content, "deep": [{"note": "ask jane@clinic.org"}]}))
    found = examine(collect("synthetic", tmp_path / "out"), _real(tmp_path))
    assert _severities(found) == {
        ("identifying", "sidecar", "PatientID"),
        ("identifying", "sidecar", "InstitutionName"),
        ("identifying", "sidecar", "JSON sidecar"),
    }


def _dicom(**attributes: object) -> Callable[[int, Dataset], None]:
    def edit(_: int, data: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(data, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, set()),
        ({"PatientName": "Doe^Jane"}, {("identifying", "dicom", "PatientName")}),
        ({"PatientID": "17"}, {("identifying", "dicom", "PatientID")}),
        ({"InstitutionName": "removed"}, set()),
        ({"AccessionNumber": "870144"}, {("identifying", "dicom", "AccessionNumber")}),
        ({"PatientBirthDate": "19520307"}, {("identifying", "dicom", "PatientBirthDate")}),
        ({"OperatorsName": "Luci"}, {("identifying", "dicom", "OperatorsName")}),
        ({"StudyDate": "20190101"}, {("notice", "dicom", "StudyDate")}),
        ({"ImageComments": "Doe^Jane"}, {("identifying", "dicom", "ImageComments")}),
        ({"StudyDescription": "LUNG^ROUTINE"}, set()),
        ({"StudyDescription": "LUNG of HH-1211"}, {("identifying", "dicom", "StudyDescription")}),
        ({"ImageComments": "see HH 1211"}, {("identifying", "dicom", "ImageComments")}),
        ({"StudyInstanceUID": "1.2.826.77.5"}, {("identifying", "dicom", "StudyInstanceUID")}),
    ],
)
def test_dicom_attributes(tmp_path: Path, attributes: dict, expected: set) -> None:
    real = _dicom(PatientID="HH-1211", StudyInstanceUID="1.2.826.77.5")
    write_classic(tmp_path / "real" / "r", grid=Grid(), stored=STORED, uid="1.2.826.77", edit=real)
    made = _dicom(**{"PatientID": "sample 3", "PatientName": "Synthetic", "FrameOfReferenceUID": "1.9.9"} | attributes)
    write_classic(tmp_path / "out" / "s", grid=Grid(), stored=STORED[::-1], uid="1.2.826.78", edit=made)
    cohort = [*collect("train", tmp_path / "real"), *collect("train", scans([3]), ["17"])]
    assert _severities(examine(collect("synthetic", tmp_path / "out"), cohort)) == expected


def test_a_file_that_changed_is_not_judged_by_what_it_is_now(tmp_path: Path) -> None:
    path = _save(tmp_path / "out" / "s.nii", descrip="Doe^Jane")
    samples = collect("synthetic", tmp_path / "out")
    _save(path)
    with pytest.raises(InputError, match="changed while the audit ran"):
        examine(samples, [])


def test_private_attributes_are_a_notice(tmp_path: Path) -> None:
    def private(_: int, data: Dataset) -> None:
        data.PatientID = data.PatientName = ""
        data.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "ask jane@clinic.org")

    write_classic(tmp_path / "s", stored=STORED, edit=private)
    assert _severities(examine(collect("synthetic", tmp_path), [])) == {
        ("notice", "dicom", "private attribute"),
        ("identifying", "dicom", "private attribute"),
    }


def test_a_position_that_one_real_scan_has_is_a_notice(tmp_path: Path) -> None:
    own, shared = (np.diag([1.0, 1, 1, 1]) for _ in range(2))
    own[:3, 3], shared[:3, 3] = (-88.161, 118.232, -135.268), (-12.345, 6.789, 1.234)
    _save(tmp_path / "real" / "a.nii.gz", own)
    for name in "bc":
        _save(tmp_path / "real" / f"{name}.nii.gz", shared)
    _save(tmp_path / "real" / "d.nii", np.diag([1.0, 1, 1, 1]))
    for name, affine in (("s1", own), ("s2", shared), ("s3", np.eye(4))):
        _save(tmp_path / "out" / f"{name}.nii", affine)
    found = examine(collect("synthetic", tmp_path / "out"), collect("train", tmp_path / "real"))
    assert [(item.kind, item.severity, item.sample) for item in found] == [("geometry", "notice", "s1.nii")]


def test_the_summary_names_nothing(tmp_path: Path) -> None:
    for name in ("kowalski/x.nii", "kowalski/y.nii"):
        _save(tmp_path / "out" / name, descrip="Doe^Jane")
    rows = summary(examine(collect("synthetic", tmp_path / "out"), _real(tmp_path)))
    assert [row["findings"] for row in rows] == [2, 2]
    assert not any(text in json.dumps(rows) for text in ("Doe", "kowalski", "x.nii"))


@pytest.mark.parametrize(
    "text", ["", "Anonymous", "ANON^001", "sample-00017", "0000", "Synthetic^Patient", "1900-01-01"]
)
def test_what_is_evidently_made_up(text: str) -> None:
    assert made_up(text)


@pytest.mark.parametrize("text", ["Doe^Jane", "Testa^Maria", "PGBM-002", "19520307", "4711"])
def test_what_may_be_a_person(text: str) -> None:
    assert not made_up(text)


def test_weak_identifiers() -> None:
    assert all(weak(key) for key in ("1", "017", "p1", "12345", "case 000", "image", "t1"))
    assert not any(weak(key) for key in ("123456", "hh 1211", "kowalski", "p12"))


def test_running_numbers() -> None:
    assert running_numbers(["a_1", "a_0", "a_2"]) == {"a_0", "a_1", "a_2"}
    for names in (["a_0", "a_1"], ["a_0", "a_1", "b_2"], ["a_0", "a_1", "a_3"], ["a_5", "a_6", "a_7"], ["a", "b", "c"]):
        assert running_numbers(names) == frozenset()


def test_folders_that_patients_share_identify_nobody(tmp_path: Path) -> None:
    for k in range(2):
        write(tmp_path / f"p{k}xyz" / "visitone", [scan(k)], prefix="weighted")
    known = identifiers(collect("train", tmp_path), [])
    assert known.find("visitone weighted_000", "name") is None
    assert known.find("from p1xyz", "text") == ("p1xyz", "the file or folder name of a real scan")
