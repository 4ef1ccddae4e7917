"""Listing a cohort: whose scans, which labels and covariates, and everything that can be wrong with a folder."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cohorts import mask, save, scan, write_decathlon, write_folder, write_table

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.fingerprint import fingerprint, measure
from synthmed.cohort.matching import capture, match_names, numbers_where_possible, read_table
from synthmed.cohort.read import format_fingerprint, list_source, read_cohort, split_by_subject
from synthmed.config import CohortConfig, dump_config, parse_config
from synthmed.errors import ConfigError, InputError


def read(path: Path, **settings: Any) -> Cohort:
    return read_cohort(CohortConfig(path=str(path), **settings))


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def people(count: int) -> Cohort:
    return Cohort(tuple(Case(f"c{n:03d}", f"s{n:03d}", Path("x")) for n in range(count)))


@pytest.mark.parametrize(
    ("names", "keys", "wanted"),
    [
        (["a1", "a10"], ["a10", "a1"], {"a1": "a1", "a10": "a10"}),
        (["IXI012-HH_T1"], ["IXI012-HH_T1_SEG"], {"IXI012-HH_T1": "IXI012-HH_T1_SEG"}),
        (["IXI012-HH_T1", "IXI012_T1"], ["IXI012", "IXI012-HH"], {"IXI012-HH_T1": "IXI012-HH", "IXI012_T1": "IXI012"}),
        (["p1"], ["p12_seg"], {}),
        (["p_1", "p_1_2"], ["p_1_2_seg", "p_1_seg"], {"p_1": "p_1_seg", "p_1_2": "p_1_2_seg"}),
        (["p1"], ["p1", "p1_old"], {"p1": "p1"}),
    ],
)
def test_names_match_up_to_a_separator(names: list[str], keys: list[str], wanted: dict[str, str]) -> None:
    assert match_names(names, keys) == wanted


def test_a_tie_between_labels_is_an_error() -> None:
    with pytest.raises(InputError, match="p1 matches several names; found p1_a, p1_b"):
        match_names(["p1"], ["p1_a", "p1_b"])


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("*/PET_image.nii.gz", "STS_001/PET_image.nii.gz", "STS_001"),
        ("t1/*_T1.nii.gz", "t1/IXI012-HH_T1.nii.gz", "IXI012-HH"),
        ("t1/*", "t1/a.nii.gz", "a"),
        ("**/*.nii", "a/b/c.nii", "a_b_c"),
        ("*/x.nii", "a/y.nii", None),
    ],
)
def test_wildcards_capture_the_name(pattern: str, path: str, wanted: str | None) -> None:
    assert capture(pattern, path) == wanted


def test_columns_are_numbers_only_where_every_cell_is() -> None:
    rows = [{"a": "1", "b": "1", "c": ""}, {"a": "2.5", "b": "x", "c": "n/a"}]
    assert numbers_where_possible(rows, ["a", "b", "c"]) == [{"a": 1.0, "b": "1"}, {"a": 2.5, "b": "x"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "names a column twice"),
        ("a,b\n1,2\n3\n", "ragged in 1 row; found row 3"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(text(tmp_path / "t.csv", content))


def test_tables_may_be_semicolon_separated_with_a_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    file = text(tmp_path / "t.csv", '\ufeffimage;note\na.nii;"two; words"\n')
    assert read_table(file) == (["image", "note"], [{"image": "a.nii", "note": "two; words"}])


def test_folder_takes_patients_from_the_table_beside_it(tmp_path: Path) -> None:
    cohort = read(write_folder(tmp_path, 4))
    assert [case.subject_id for case in cohort.cases] == ["S0", "S0", "S1", "S1"]
    assert cohort.cases[0].label == tmp_path / "labelsTr" / "case 00 é.nii.gz"
    assert cohort.notes == ()


def test_without_patient_ids_every_volume_is_a_patient_and_it_is_said(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / f"v{n}.nii", scan(n))
    cohort = read(tmp_path)
    assert cohort.subject_ids == ("v0", "v1", "v2")
    assert "every volume counts as a patient" in cohort.notes[0]


def test_bids_names_give_the_patient(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        for session in (1, 2):
            save(tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_ses-{session}_T1w.nii.gz", scan(session))
    assert read(tmp_path).subject_ids == ("sub-01", "sub-02")


def test_globs_pair_images_and_labels_by_what_the_wildcards_stand_for(tmp_path: Path) -> None:
    for n in range(2):
        save(tmp_path / f"P{n}" / "img.nii.gz", scan(n))
        save(tmp_path / f"P{n}" / "seg.nii.gz", mask(n))
    cohort = read(tmp_path, images="*/img.nii.gz", labels="*/seg.nii.gz")
    assert [(c.case_id, c.label) for c in cohort.cases] == [
        ("P0", tmp_path / "P0" / "seg.nii.gz"),
        ("P1", tmp_path / "P1" / "seg.nii.gz"),
    ]


def test_covariates_match_by_the_beginning_of_a_name(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        save(tmp_path / "t1" / f"IXI{n}-HH_T1.nii.gz", scan(n))
    text(tmp_path / "participants.csv", "MRID,Age,Sex\nIXI1-HH,40.5,F\nIXI3-HH,,M\n")
    cohort = read(tmp_path, images="t1", covariates="participants.csv")
    assert [dict(case.covariates) for case in cohort.cases] == [{"Age": 40.5, "Sex": "F"}, {}, {"Sex": "M"}]
    assert "1 scan without a row in participants.csv: IXI2-HH_T1" in cohort.notes


def test_a_table_of_patients_alone_matches_the_names_that_begin_with_them(tmp_path: Path) -> None:
    for name in ("P1_a", "P1_b", "P2_a"):
        save(tmp_path / f"{name}.nii", scan(1))
    text(tmp_path / "who.csv", "patient_id,age\nP1,3\nP2,4\n")
    assert [c.subject_id for c in read(tmp_path, subjects="who.csv").cases] == ["P1", "P1", "P2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "nowhere"}, "there is no folder"),
        ({"images": "*/x.nii"}, "No NIfTI file in"),
        ({"subjects": "none.csv"}, "Cannot read"),
        ({"covariates": "none.csv"}, "Cannot read"),
        ({"covariates": "foreign.csv"}, "has no row for any scan"),
        ({"covariates": "twice.csv"}, "several rows for 1 key; found case 01 é"),
        ({"subjects": "partial.csv"}, "does not name the patient of 3 of 4 scans; found case 01 é"),
        ({"subjects": "unclear.csv"}, "unclear about case 00 é"),
        ({"subjects": "foreign.csv"}, "lacks a column"),
    ],
)
def test_wrong_folders_and_tables_are_refused(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    root = write_folder(tmp_path, 4)
    text(root / "foreign.csv", "id,age\nx,1\n")
    text(root / "twice.csv", "case,age\ncase 01 é,1\ncase 01 é,2\n")
    text(root / "partial.csv", "volume,subject\ncase 00 é.nii.gz,S0\n")
    text(root / "unclear.csv", "volume,subject\ncase 00 é,S0\ncase 00 é,S1\n")
    with pytest.raises((InputError, ConfigError), match=message) as caught:
        read(root, **settings)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no scans; found an empty folder"):
        read(tmp_path)


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    text(tmp_path / "notes.txt", "nothing here")
    with pytest.raises(InputError, match="No scans in"):
        read(tmp_path)


def test_a_missing_path_is_refused_with_the_variable_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTHMED_DATA", raising=False)
    with pytest.raises(InputError, match=r"No file or folder nowhere.*SYNTHMED_DATA"):
        read(Path("nowhere"))
    with pytest.raises(ConfigError, match=r"cohort\.path is missing"):
        read_cohort(CohortConfig())
    monkeypatch.setenv("SYNTHMED_DATA", str(tmp_path))
    with pytest.raises(InputError, match=rf"nowhere.*SYNTHMED_DATA, which is {re.escape(str(tmp_path))}$"):
        read(Path("nowhere"))


def test_a_relative_path_is_found_below_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "mine", 2)
    monkeypatch.setenv("SYNTHMED_DATA", str(tmp_path))
    assert len(read(Path("mine")).cases) == 2


def test_a_label_that_some_images_lack_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    (root / "labelsTr" / "case 02 é.nii.gz").unlink()
    with pytest.raises(InputError, match="1 of 4 images have no label while the others do; found case 02 é"):
        read(root)


def test_a_label_without_an_image_is_said(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    save(root / "labelsTr" / "other.nii.gz", mask(0))
    assert read(root).notes == ("1 label without an image: other",)


def test_one_file_in_two_compressions_is_one_name_too_many(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    save(root / "imagesTr" / "case 02 é.nii", scan(2))
    with pytest.raises(InputError, match="Two files are both case case 02 é"):
        read(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("picture,label\na.nii,b.nii\n", "names no images; found the columns picture, label"),
        ("image,subject\na.nii,A\nb.nii,B\n", "2 of 2 files.*missing; found a .*b "),
        ("image,subject\nP0/t1 scan.nii.gz,\n", "1 row without image or subject; found row 2"),
        ("case,image\nx,P0/t1 scan.nii.gz\nx,P1/t1 scan.nii.gz\n", "1 case names occur more than once; found x"),
        ("image,label\nP0/t1 scan.nii.gz,P0/seg.nii.gz\nP1/t1 scan.nii.gz,\n", "1 of 2 images have no label"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    write_table(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read(text(tmp_path / "wrong.csv", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"region": [1, 2]}}, "a label that is not one value"),
        ({"modality": {"0": "T1", "1": "T2"}}, "has several channels; found T1, T2"),
        ({"training": [{"label": "x"}]}, "1 entries without one image; found entry 0"),
        ({"training": []}, "No scans in"),
    ],
)
def test_wrong_data_lists_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    root = write_decathlon(tmp_path)
    content = json.loads((root / "dataset.json").read_text())
    text(root / "dataset.json", json.dumps({**content, **change}))
    with pytest.raises(InputError, match=message):
        read(root)


def test_what_is_neither_json_nor_a_mapping_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[1, 2]"):
        with pytest.raises(InputError, match=r"dataset\.json"):
            read(text(tmp_path / "dataset.json", content))
    with pytest.raises(InputError, match="is not a cohort"):
        read(text(tmp_path / "scan.txt", "x"))


def test_modality_comes_from_the_files_unless_it_is_said(tmp_path: Path) -> None:
    root = write_decathlon(tmp_path)
    assert read(root).modality == "CT"
    said = read(root, modality="MR")
    assert said.modality == "MR"
    assert "the files say CT; the configuration's MR was taken" in said.notes


def test_a_saved_configuration_reads_the_same_cohort(tmp_path: Path) -> None:
    config = parse_config({"cohort": {"path": str(write_decathlon(tmp_path))}})
    again = parse_config(yaml.safe_load(dump_config(config)))
    assert read_cohort(again.cohort) == read_cohort(config.cohort)
    assert read_cohort(again.cohort).modality == "CT"


def test_the_listing_changes_with_files_and_tables_only(tmp_path: Path) -> None:
    root = write_folder(tmp_path, 4)
    settings = CohortConfig(path=str(root))
    first = list_source(settings)
    assert list_source(settings) == first
    os.utime(root / "imagesTr" / "case 00 é.nii.gz", (1, 1))
    second = list_source(settings)
    assert second != first
    text(root / "subjects.csv", (root / "subjects.csv").read_text(encoding="utf-8").replace("S1", "S9"))
    assert list_source(settings) not in (first, second)


def test_the_share_held_out_is_of_patients() -> None:
    train, holdout = split_by_subject(people(100), 0.35, 0)
    assert (len(train.cases), len(holdout.cases)) == (65, 35)


def test_another_seed_holds_others_out() -> None:
    first, second = (split_by_subject(people(40), 0.5, seed)[1].subject_ids for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [
        (1, 0.5, "cannot be split by patient; found 1 patient; expected at least 4"),
        (3, 0.5, "cannot be split by patient; found 3 patients"),
        (10, 0.1, "holdout is too small; found 1 of 10"),
        (10, 0.89, "training set is too small; found 9 of 10"),
    ],
)
def test_too_few_patients_cannot_be_split(count: int, fraction: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_by_subject(people(count), fraction, 0)


def test_a_fingerprint_says_what_is_there(tmp_path: Path) -> None:
    cohort = read(write_folder(tmp_path, 4), label_names={1: "box", 2: "corner"})
    content = fingerprint(cohort, [measure(*case.read()) for case in cohort.cases])
    assert (content["cases"], content["patients"]) == (4, 2)
    assert content["spacing_mm"]["median"] == [1.5, 2.0, 1.0]
    assert content["extent_mm"]["max"] == [15.0, 18.0, 8.0]
    assert content["orientations"] == {"LAS": 4}
    # The box of case n has (3 + n % 3) x 3 x 4 voxels of 3 mm^3, less the corner.
    assert content["labels"]["1"]["volume_ml"] == {"min": 0.105, "median": 0.123, "max": 0.177}
    assert content["labels"]["2"] == {
        "name": "corner",
        "cases": 4,
        "volume_ml": dict.fromkeys(("min", "median", "max"), 0.003),
    }
    # Along S the box reaches from 2 to 6 of 8, symmetric about 4; along A from 3 to 6 of 9, centre 4.5.
    assert content["label_extent_mm"]["max"][1:] == [6.0, 4.0]
    table = format_fingerprint(json.loads(json.dumps(content)))
    assert "4 MR cases of 2 patients" in table
    assert "label 1 box" in table
    assert max(len(line) for line in table.splitlines()) < 160


def test_labels_that_match_no_image_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.nii.gz", scan(0))
        save(tmp_path / "labels" / f"mask_{name}.nii.gz", mask(0))
    with pytest.raises(InputError, match="No label in labels goes with an image"):
        read_cohort(CohortConfig(path=str(tmp_path)))


def test_an_entry_without_a_patient_among_others_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", scan(0))
    entries = [{"image": "a.nii.gz", "subject": "P1"}, {"image": "b.nii.gz", "subject": None}]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    with pytest.raises(InputError, match="1 entries without a patient; found entry 1"):
        read_cohort(CohortConfig(path=str(tmp_path / "list.json")))


def test_derivatives_are_no_scans_and_unread_files_are_named(tmp_path: Path) -> None:
    save(tmp_path / "sub-1" / "sub-1_T1w.nii.gz", scan(0))
    save(tmp_path / "derivatives" / "sub-1_dseg.nii.gz", scan(0))
    (tmp_path / "IM0001.dcm").write_bytes(b"x")
    cohort = read_cohort(CohortConfig(path=str(tmp_path)))
    assert len(cohort.cases) == 1
    assert any("IM0001.dcm" in note for note in cohort.notes)
