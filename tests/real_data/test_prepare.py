"""`prepare` on volumes that nobody here drew."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from synthmed.cohort.read import read_cohort
from synthmed.config import CohortConfig, load_config, parse_config
from synthmed.errors import InputError
from synthmed.files import read_json
from synthmed.prepare.prepared import load_split
from synthmed.prepare.preprocess import Space, prepare, preprocess, restore

pytestmark = pytest.mark.real_data


def counts(file: Path) -> dict[int, int]:
    values, numbers = np.unique(np.asarray(nib.load(file).dataobj), return_counts=True)
    return {int(v): int(n) for v, n in zip(values, numbers, strict=True) if v}


@pytest.fixture(scope="module")
def hippocampus(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    source, out = data_root / "msd_hippocampus", tmp_path_factory.mktemp("hippocampus")
    if not source.is_dir():
        pytest.skip(f"{source} is absent")
    config = load_config("hippocampus_mri", [f"cohort.path='{source.resolve()}'"])
    prepare(config, out, progress=False)
    return source, out


def test_hippocampus_labels_keep_their_volumes(hippocampus: tuple[Path, Path]) -> None:
    source, out = hippocampus
    prepared = sorted(out.glob("*/labels/*.nii.gz"))
    assert len(prepared) == 216
    for file in prepared:
        assert counts(file) == counts(source / "labelsTr" / file.name), file.name


def test_hippocampus_sides_of_a_person_stay_together(hippocampus: tuple[Path, Path]) -> None:
    source, out = hippocampus
    person = {r["volume"]: r["subject"] for r in csv.DictReader((source / "subjects.csv").open(encoding="utf-8"))}
    train, holdout = load_split(out, "train"), load_split(out, "holdout")
    sides = [{person[case] for case in split.case_ids} for split in (train, holdout)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [91, 49]
    assert train.images.shape[1:] == (1, 40, 56, 40)
    assert train.num_classes == 3


def test_hippocampus_voxels_stay_where_the_patient_had_them(hippocampus: tuple[Path, Path]) -> None:
    source, out = hippocampus
    for file in sorted(out.glob("holdout/labels/*.nii.gz"))[:10]:
        ours, theirs = nib.load(file), nib.load(source / "labelsTr" / file.name)
        index = np.argwhere(np.asarray(ours.dataobj) == 2)
        world = nib.affines.apply_affine(ours.affine, index)
        there = np.rint(nib.affines.apply_affine(np.linalg.inv(theirs.affine), world)).astype(int)
        assert (np.asarray(theirs.dataobj)[tuple(there.T)] == 2).all()


def test_ixi_covariates_match_although_names_differ(data_root: Path) -> None:
    cohort = read_cohort(
        CohortConfig(path=str(data_root / "ixi_2mm"), images="t1", labels="dlmuse_seg", covariates="participants.csv")
    )
    assert len(cohort.cases) == 140
    by_name = {case.case_id: case for case in cohort.cases}
    first = by_name["IXI012-HH-1211_T1"]
    assert dict(first.covariates) == {"Age": 38.78, "Sex": "M"}
    assert first.label is not None
    assert first.label.name == "IXI012-HH-1211_T1_DLMUSE.nii.gz"
    assert sum(not case.covariates for case in cohort.cases) == 2
    assert any(note.startswith("2 scans without a row") for note in cohort.notes)


def test_ixi_returns_to_its_own_axes(data_root: Path) -> None:
    case = read_cohort(CohortConfig(path=str(data_root / "ixi_2mm"), images="t1")).cases[0]
    image, _ = case.read()
    space = Space((96, 128, 128), (2.0, 2.0, 2.0), "RAS", "window", intensity_range=(0.0, 1e4))
    done = preprocess(image, None, space)
    assert image.orientation == "PSR"
    assert done.image.orientation == "RAS"
    assert np.array_equal(restore(done.image.array, done.record).array, image.array)


def sts(data_root: Path, table: Path, name: str) -> Path:
    lines = ["subject,image,label"]
    for folder in sorted((data_root.resolve() / "sts_petct").iterdir()):
        if (folder / f"{name}_image.nii.gz").is_file():
            lines.append(f"{folder.name},{folder}/{name}_image.nii.gz,{folder}/{name}_mask.nii.gz")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


@pytest.mark.parametrize(
    ("name", "modality", "settings", "cases"),
    [
        ("PET", "PT", {"grid": [48, 48, 104], "spacing": [5.46875, 5.46875, 3.27], "intensity_range": [0, 26]}, 40),
        ("CT", "CT", {"grid": [48, 48, 64], "spacing": [5, 5, 5], "intensity_range": [-1000, 1000]}, 16),
    ],
)
def test_sarcoma_keeps_suv_and_hounsfield_units(
    data_root: Path, tmp_path: Path, name: str, modality: str, settings: dict[str, Any], cases: int
) -> None:
    table = sts(data_root, tmp_path / "cohort.csv", name)
    content = {
        "cohort": {"path": str(table), "modality": modality},
        "preprocess": {"normalisation": "window", **settings},
    }
    prepare(parse_config(content), tmp_path / "out", progress=False)
    found = read_json(tmp_path / "out" / "fingerprint.json")
    assert (found["cases"], found["orientations"]) == (cases, {"LPS": cases})
    low, high = settings["intensity_range"]
    for file in sorted((tmp_path / "out").glob("*/images/*.nii.gz")):
        source = data_root / "sts_petct" / file.name.split(".")[0].removesuffix(f"_{name}_image")
        there = tumour_mean(source / f"{name}_image.nii.gz", source / f"{name}_mask.nii.gz", low, high)
        here = tumour_mean(file, file.parents[1] / "labels" / file.name, low, high)
        # Interpolation moves the mean over a tumour a little; another scale or a shift would move it far.
        assert here == pytest.approx(there, rel=0.08, abs=0.02 if modality == "PT" else 12), file.name


def tumour_mean(image: Path, mask: Path, low: float, high: float) -> float:
    values = np.clip(np.asarray(nib.load(image).dataobj, dtype=np.float64), low, high)
    return float(values[np.asarray(nib.load(mask).dataobj) > 0].mean())


def test_one_ct_patient_is_read_in_hounsfield_units_and_cannot_be_split(data_root: Path, tmp_path: Path) -> None:
    config = CohortConfig(path=str(data_root / "dicom" / "lung_ct"))
    (case,) = read_cohort(config).cases
    image, _ = case.read()
    space = Space((64, 64, 32), (6.0, 6.0, 6.0), "RAS", "window", intensity_range=(-1000.0, 1000.0), modality="CT")
    done = preprocess(image, None, space)
    assert done.image.array.min() == -1000
    # A chest holds much air and much soft tissue.
    assert np.mean(done.image.array < -700) > 0.2
    assert np.mean(np.abs(done.image.array) < 150) > 0.15
    with pytest.raises(InputError, match="found 1 patient; expected at least 4"):
        prepare(parse_config({"cohort": config}), tmp_path / "out", progress=False)


def test_a_mixed_dicom_tree_names_every_series_that_is_no_volume(data_root: Path, tmp_path: Path) -> None:
    config = {"format": "dicom", "path": str(data_root / "dicom" / "dicom2nifti"), "modality": "MR"}
    with pytest.raises(InputError, match="cases cannot be used"):
        prepare(parse_config({"cohort": config}), tmp_path, progress=False)
    lines = (tmp_path / "bad_cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert any("orientation" in line for line in lines)
    assert any("Too few slices" in line for line in lines)
    assert any("colour" in line for line in lines)
