"""Segmentations: numbers, names and codes, empty structures, references, and labels as highdicom reads them."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_releases import SHAPE, phantom, released
from pydicom.sr.codedict import codes
from release_fidelity import NAMES, SEG_READERS, compare, make_phantom, write_dicom_case

from synthmed.errors import ConfigError
from synthmed.export.dicom import seg
from synthmed.export.dicom.check import check_dicom
from synthmed.export.dicom.index import write_index
from synthmed.export.dicom.seg import ABNORMALITIES, ANATOMY, FALLBACK_SCHEME, check_names, property_codes


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_labels_come_back_on_the_grid_of_the_image(tmp_path: Path, modality: str, enhanced: bool) -> None:
    path, columns = released(tmp_path, modality, enhanced=enhanced)
    for number, cells in enumerate(columns.values()):
        truth = phantom(modality, number)
        label = np.where(truth.label <= 2, truth.label, 0)
        read = SEG_READERS["highdicom"](path / cells["dicom_seg"], tmp_path)
        (affine, corner), difference = compare(read, label, truth.affine.astype(np.float32).astype(np.float64))
        assert max(affine, corner) < 1e-6
        assert difference.max() == 0


def test_it_refers_to_every_image_of_its_series_and_to_no_other(tmp_path: Path) -> None:
    path, columns = released(tmp_path)
    for cells in columns.values():
        data = pydicom.dcmread(path / cells["dicom_seg"])
        [series] = data.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == cells["dicom_series_uid"]
        images = [pydicom.dcmread(file) for file in (path / cells["dicom_series"]).iterdir()]
        referred = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
        assert sorted(referred) == sorted(image.SOPInstanceUID for image in images)
        assert {image.StudyInstanceUID for image in images} == {data.StudyInstanceUID}
        assert {image.FrameOfReferenceUID for image in images} == {data.FrameOfReferenceUID}


def test_segments_carry_the_names_and_numbers_of_the_structures(tmp_path: Path) -> None:
    path, columns = released(tmp_path)
    data = highdicom.seg.segread(path / columns["synthetic_0000"]["dicom_seg"])
    assert {s.segment_label: s.segment_number for s in data.SegmentSequence} == {"left": 1, "label_2": 2}
    assert all(s.SegmentAlgorithmType == "AUTOMATIC" for s in data.SegmentSequence)
    assert data.ContentLabel == "SYNTHETIC"


def test_a_structure_without_a_voxel_keeps_its_frames(tmp_path: Path) -> None:
    truth = make_phantom("CT", SHAPE)
    truth.label[truth.label == 2] = 0
    entry = write_dicom_case(tmp_path, truth, "CT")
    data = highdicom.seg.segread(tmp_path / entry.seg)
    assert data.NumberOfFrames == len(NAMES) * SHAPE[2]
    empty = data.get_volume(segment_numbers=[2])
    assert empty.array.shape[:3] == SHAPE[::-1]
    assert empty.array.max() == 0


@pytest.mark.parametrize("most", [seg.MOST_BINARY_SEGMENTS, 2])
def test_many_structures_are_one_label_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(seg, "MOST_BINARY_SEGMENTS", most)
    truth = make_phantom("CT", SHAPE)
    entry = write_dicom_case(tmp_path, truth, "CT")
    data = pydicom.dcmread(tmp_path / entry.seg)
    assert (data.SegmentationType, data.NumberOfFrames) == (
        ("BINARY", 3 * SHAPE[2]) if most > 2 else ("LABELMAP", SHAPE[2])
    )
    read = SEG_READERS["highdicom"](tmp_path / entry.seg, tmp_path)
    _, difference = compare(read, truth.label, truth.affine)
    assert difference.max() == 0
    write_index(tmp_path, {"phantom": entry})
    files = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert check_dicom(tmp_path, files) == []


@pytest.mark.parametrize("keyword", sorted({*ANATOMY.values(), *ABNORMALITIES.values(), "Left", "Right"}))
def test_every_code_of_the_tables_is_in_the_standard(keyword: str) -> None:
    code = getattr(codes.SCT, keyword)
    assert code.scheme_designator == "SCT"
    assert code.value.isdigit()


def test_names_that_are_in_a_table_get_its_code_whatever_their_spelling() -> None:
    for name in ("liver", "Liver", " LIVER "):
        category, kind, side = property_codes(name)
        assert (category.meaning, kind.value, side) == ("Anatomical Structure", "10200004", None)
    assert property_codes("liver_tumour")[1].meaning == "Neoplasm"
    assert property_codes("liver_tumour")[0].meaning == "Morphologically Abnormal Structure"


def test_sides_are_modifiers_unless_they_belong_to_the_name() -> None:
    _, kind, side = property_codes("left-kidney")
    assert (kind.meaning, side.meaning if side else "") == ("Kidney", "Left")
    _, kind, side = property_codes("left atrium")
    assert (kind.meaning, side) == ("Left atrium", None)


@pytest.mark.parametrize("name", ["", " liver", "left\\right", "x" * 65, "a\nb"])
def test_a_name_that_dicom_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="has a name that DICOM cannot hold"):
        check_names(["liver", name])


def test_names_keep_their_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"Größe": 1, "x" * 64: 2, "左腎": 3}
    check_names(names)
    monkeypatch.setattr("release_fidelity.NAMES", names)
    entry = write_dicom_case(tmp_path, make_phantom("CT", SHAPE), "CT")
    data = highdicom.seg.segread(tmp_path / entry.seg)
    assert {s.segment_label: s.segment_number for s in data.SegmentSequence} == names
    write_index(tmp_path, {"phantom": entry})
    files = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert check_dicom(tmp_path, files) == []


@pytest.mark.parametrize("name", ["anterior", "label_17", "a name of many letters " * 5, "Größe"])
def test_other_names_get_a_code_of_this_program(name: str) -> None:
    _, kind, _ = property_codes(name)
    assert kind.scheme_designator == FALLBACK_SCHEME
    assert 0 < len(kind.value) <= 16
    assert kind.value.isascii()
    assert (kind.value == name) == (name in ("anterior", "label_17"))
    assert 0 < len(kind.meaning) <= 64
    assert name.startswith(kind.meaning.strip()[:10])


def test_names_that_begin_alike_get_codes_of_their_own() -> None:
    names = ["left_hippocampus_anterior", "left_hippocampus_posterior", "Größe", "Größen", "左腎皮質", "左腎髄質"]
    assert len({property_codes(name)[1].value for name in names}) == len(names)
