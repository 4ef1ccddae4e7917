"""One case onto the grid, by hand-computed values; the stage with all that can be wrong with a cohort."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from cohorts import AFFINE, mask, save, scan, write_folder

from synthmed.config import Config, parse_config
from synthmed.errors import InputError
from synthmed.files import read_json, sha256_file
from synthmed.prepare.preprocess import (
    Space,
    from_network,
    label_from_network,
    label_to_network,
    prepare,
    preprocess,
    restore,
    to_network,
)
from synthmed.volume import Volume

SPACE = Space(grid=(4, 4, 4), spacing=(1.0, 1.0, 1.0), normalisation="window", intensity_range=(0.0, 100.0))


def ramp(n: int = 4, spacing: float = 1.0) -> Volume:
    """Intensity = 10 x the first index."""
    array = np.broadcast_to(10.0 * np.arange(n)[:, None, None], (n, n, n))
    return Volume(array[None].astype(np.float32), np.diag([spacing, spacing, spacing, 1.0]))


def with_range(**changes: Any) -> Space:
    return Space.from_json({**SPACE.to_json(), **changes})


def config(root: Path, **cohort: Any) -> Config:
    settings = {"grid": [16, 24, 8], "spacing": [1.5, 2.0, 1.0]}
    return parse_config({"cohort": {"path": str(root), "holdout_fraction": 0.5, **cohort}, "preprocess": settings})


def test_nothing_changes_on_the_same_grid() -> None:
    done = preprocess(ramp(), None, SPACE)
    assert np.array_equal(done.image.array, ramp().array)
    assert np.array_equal(done.image.affine, np.eye(4))


def test_percentiles_land_on_the_ends_of_the_range_and_beyond_is_clipped() -> None:
    array = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4)
    space = with_range(normalisation="percentile", percentiles=[25, 75], intensity_range=[0, 1000])
    done = preprocess(Volume(array, np.eye(4)), None, space)
    # Of 0..63 the 25th percentile is 15.75 and the 75th 47.25.
    assert done.record.source_range == (15.75, 47.25)
    values = done.image.array.ravel()
    assert values[15] == 0.0
    assert values[48] == 1000.0
    assert values[31] == pytest.approx((31 - 15.75) / 31.5 * 1000, abs=1e-3)


def test_a_window_keeps_hounsfield_units() -> None:
    image = Volume(ramp().array * 100 - 1500, np.eye(4))
    done = preprocess(image, None, with_range(intensity_range=[-1000, 1000]))
    assert done.image.array[0, :, 0, 0].tolist() == [-1000.0, -500.0, 500.0, 1000.0]


def test_coarser_spacing_halves_the_voxels_about_the_same_centre() -> None:
    done = preprocess(ramp(8), None, with_range(spacing=[2, 2, 2]))
    # Eight voxels of 1 mm centred on 3.5 become four of 2 mm whose centres are 0.5, 2.5, 4.5, 6.5.
    assert done.image.affine[:3, 3].tolist() == [0.5, 0.5, 0.5]
    assert done.image.spacing == (2.0, 2.0, 2.0)
    # Away from the ends a symmetric blur leaves a ramp alone.
    assert done.image.array[0, 1:3, 0, 0] == pytest.approx([25.0, 45.0], abs=0.5)


def test_blur_follows_the_point_spread_of_the_coarser_voxel() -> None:
    impulse = np.zeros((1, 33, 33, 33), dtype=np.float32)
    impulse[0, 16, 16, 16] = 1e6
    space = with_range(grid=[11, 11, 11], spacing=[3, 1, 1], intensity_range=[0, 1e9])
    record = preprocess(Volume(impulse, np.eye(4)), None, space).record
    blurred = preprocess(Volume(impulse, np.eye(4)), None, space).image.array[0, :, 5, 5]
    # Variance (3^2 - 1) / (8 ln 2) voxels^2: two target voxels apart the density falls by exp(-3^2 / (2 var)).
    assert record.ratio == (3.0, 1.0, 1.0)
    assert blurred[6] / blurred[5] == pytest.approx(np.exp(-9 / (2 * 8 / (8 * np.log(2)))), rel=0.02)


def test_odd_differences_pad_and_crop_towards_the_end() -> None:
    assert preprocess(ramp(7), None, SPACE).record.start == (1, 1, 1)
    padded = preprocess(ramp(3), None, SPACE)
    assert padded.record.start == (-1, -1, -1)
    assert padded.image.array[0, :, 1, 1].tolist() == [0.0, 0.0, 10.0, 20.0]
    assert padded.image.affine[:3, 3].tolist() == [-1.0, -1.0, -1.0]


def test_axes_are_turned_and_the_affine_says_where_a_voxel_is() -> None:
    # P-S-R, as the IXI scans are: the third axis runs to the right.
    affine = np.array([[0, 0, 2.0, 5], [-2.0, 0, 0, 7], [0, 2.0, 0, 9], [0, 0, 0, 1]])
    array = np.arange(1, 65, dtype=np.float32).reshape(1, 4, 4, 4)
    done = preprocess(Volume(array, affine), None, with_range(spacing=[2, 2, 2]))
    assert done.image.orientation == "RAS"
    place = np.linalg.inv(done.image.affine) @ affine @ [3, 1, 2, 1]
    assert done.image.array[(0, *np.rint(place[:3]).astype(int))] == array[0, 3, 1, 2]


def test_labels_keep_their_values_and_what_the_grid_cuts_is_counted() -> None:
    label = np.zeros((1, 8, 8, 8), dtype=np.float32)
    label[0, 4, 4, 4], label[0, 0, 0, 0] = 205, 7
    done = preprocess(ramp(8), Volume(label, np.eye(4)), SPACE)
    assert done.label is not None
    assert np.unique(done.label.array).tolist() == [0, 205]
    assert done.label_voxels_cut == 1


def test_labels_are_never_mixed_by_resampling() -> None:
    label = np.zeros((1, 8, 8, 8), dtype=np.float32)
    label[0, 2:5] = 205
    done = preprocess(ramp(8), Volume(label, np.eye(4)), with_range(grid=[8, 8, 8], spacing=[0.7, 1, 1.3]))
    assert done.label is not None
    assert np.unique(done.label.array).tolist() == [0, 205]
    back = restore(done.label.array, done.record, nearest=True)
    assert np.unique(back.array).tolist() == [0, 205]
    # Along the first axis 8 voxels of 0.7 mm cover the middle 5.6 of 8 mm.
    assert np.array_equal(back.array[0, 2:6, 3, 3], label[0, 2:6, 3, 3])


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (Volume(np.full((1, 4, 4, 4), 3.0), np.eye(4)), None, "constant"),
        (Volume(np.full((2, 4, 4, 4), 3.0), np.eye(4)), None, "several channels"),
        (Volume(np.full((1, 4, 4, 4), np.nan), np.eye(4)), None, "NaN"),
        (ramp(), Volume(np.zeros((1, 4, 4, 5)), np.eye(4)), "disagree in shape"),
        (ramp(), Volume(np.zeros((1, 4, 4, 4)), np.diag([1, 1, 1.01, 1])), "disagree in affine"),
        (ramp(), Volume(np.full((1, 4, 4, 4), 0.5), np.eye(4)), "whole numbers"),
        (ramp(), Volume(np.full((1, 4, 4, 4), -1.0), np.eye(4)), "negative"),
    ],
)
def test_bad_volumes_are_refused(image: Volume, label: Volume | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocess(image, label, SPACE)


def test_constant_by_percentile_is_refused() -> None:
    array = np.zeros((1, 10, 10, 10), dtype=np.float32)
    array[0, 0, 0, 0] = 1
    with pytest.raises(InputError, match="constant"):
        preprocess(Volume(array, np.eye(4)), None, with_range(normalisation="percentile", percentiles=[0.5, 99.5]))


def test_restore_refuses_another_grid() -> None:
    record = preprocess(ramp(), None, SPACE).record
    with pytest.raises(InputError, match="not on the prepared grid"):
        restore(np.zeros((1, 4, 4, 5), dtype=np.float32), record)


def test_network_units_and_back() -> None:
    space = with_range(intensity_range=[-1000, 1000])
    values = np.array([-1000.0, 0.0, 500.0, 1000.0], dtype=np.float32)
    assert to_network(values, space).tolist() == [-1.0, 0.0, 0.5, 1.0]
    assert from_network(np.array([-1.5, -1.0, 0.5, 3.0]), space).tolist() == [-1000.0, -1000.0, 500.0, 1000.0]


def test_label_indices_and_back() -> None:
    space = with_range(label_values=[0, 4, 205])
    label = np.array([205.0, 0.0, 4.0], dtype=np.float32)
    assert label_to_network(label, space).tolist() == [2, 0, 1]
    assert label_from_network(np.array([2, 0, 1]), space).tolist() == [205.0, 0.0, 4.0]
    for strange in (3.0, 206.0):
        with pytest.raises(InputError, match="unknown value"):
            label_to_network(np.array([strange], dtype=np.float32), space)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PSR", "ILA"])
def test_canonical_affine_has_its_centre_at_the_origin(axcodes: str) -> None:
    space = Space(grid=(4, 6, 8), spacing=(1.0, 2.0, 3.0), orientation=axcodes)
    assert space.geometry.orientation == axcodes
    assert space.geometry.spacing == (1.0, 2.0, 3.0)
    assert (space.affine @ [1.5, 2.5, 3.5, 1]).tolist() == [0, 0, 0, 1]


def test_space_survives_json() -> None:
    space = Space((4, 6, 8), (1.0, 2.0, 3.0), label_values=(0, 4), label_names={4: "left"})
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
    with pytest.raises(InputError, match="not the record"):
        Space.from_json({"grid": [1, 2, 3]})


def test_the_stage_writes_its_layout(tmp_path: Path) -> None:
    out = tmp_path / "prepare"
    prepare(config(write_folder(tmp_path / "a b"), label_names={1: "box"}), out, progress=False)
    rows = list(csv.DictReader((out / "cases.csv").open(encoding="utf-8")))
    assert [row["case"] for row in rows] == [f"case {n:02d} é" for n in range(8)]
    assert {row["sha256"] for row in rows} == {sha256_file(f) for f in (tmp_path / "a b" / "imagesTr").iterdir()}
    for row in rows:
        for kind in ("images", "labels"):
            assert nib.load(out / row["split"] / kind / f"{row['case']}.nii.gz").shape == (16, 24, 8)
    listed = (out / "train" / "subjects.csv").read_text(encoding="utf-8").splitlines()
    wanted = [f"{row['case']}.nii.gz,{row['subject']}" for row in rows if row["split"] == "train"]
    assert listed == ["file,subject", *wanted]
    content = read_json(out / "fingerprint.json")
    assert content["labels"]["1"]["name"] == "box"
    assert content["warnings"] == ["label values without a name: 2"]
    assert not list(out.rglob(".*"))


def test_labels_on_the_grid_have_the_volumes_of_the_source(tmp_path: Path) -> None:
    prepare(config(write_folder(tmp_path / "in")), tmp_path / "out", progress=False)
    for n in range(8):
        (file,) = (tmp_path / "out").glob(f"*/labels/case {n:02d} é.nii.gz")
        found = np.asarray(nib.load(file).dataobj)
        assert np.bincount(found.ravel())[1:].tolist() == np.bincount(mask(n).ravel())[1:].tolist()


def snapshot(out: Path) -> dict[str, str]:
    return {str(f.relative_to(out)): sha256_file(f) for f in sorted(out.rglob("*")) if f.is_file()}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = config(write_folder(tmp_path / "in"))
    for name in ("a", "b"):
        prepare(settings, tmp_path / name, progress=False)
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_a_killed_run_is_resumed_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(write_folder(tmp_path / "in"))
    prepare(settings, tmp_path / "whole", progress=False)

    import synthmed.prepare.staging as staging

    done: list[int] = []
    real: Callable[..., Any] = staging.preprocess

    def dies(*args: Any) -> Any:
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(staging, "preprocess", dies)
    monkeypatch.setattr(staging.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, tmp_path / "killed", progress=False)
    assert not (tmp_path / "killed" / "cases.csv").exists()
    assert len(list((tmp_path / "killed").rglob("entries/*.json"))) >= 3
    before = len(done)
    monkeypatch.setattr(staging, "preprocess", lambda *args: done.append(1) or real(*args))
    prepare(settings, tmp_path / "killed", progress=False)
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")
    assert len(done) - before <= 5


def test_a_finished_stage_prepares_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import synthmed.prepare.staging as staging

    root, out = write_folder(tmp_path / "in"), tmp_path / "out"
    prepare(config(root), out, progress=False)
    save(root / "imagesTr" / "case 03 é.nii.gz", scan(99))
    done: list[int] = []
    real: Callable[..., Any] = staging.preprocess
    monkeypatch.setattr(staging, "preprocess", lambda *args: done.append(1) or real(*args))
    prepare(config(root), out, progress=False)
    prepare(config(root), tmp_path / "fresh", progress=False)
    assert len(done) == 1 + 8
    assert snapshot(out) == snapshot(tmp_path / "fresh")


def test_a_case_that_left_the_cohort_leaves_the_stage(tmp_path: Path) -> None:
    root, out = write_folder(tmp_path / "in"), tmp_path / "out"
    prepare(config(root), out, progress=False)
    for kind in ("imagesTr", "labelsTr"):
        (root / kind / "case 02 é.nii.gz").unlink()
    prepare(config(root), out, progress=False)
    assert not list(out.rglob("case 02 é*"))


def test_all_bad_cases_are_found_before_any_is_reported(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    save(root / "imagesTr" / "case 01 é.nii.gz", np.full((10, 9, 8), 5.0, dtype=np.float32))
    save(root / "labelsTr" / "case 03 é.nii.gz", mask(3, (10, 9, 7)))
    (root / "imagesTr" / "case 04 é.nii.gz").write_bytes(b"not a gzip file")
    with pytest.raises(InputError, match="3 of 8 cases cannot be used: case 01 é, case 03 é, case 04 é") as caught:
        prepare(config(root), tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)
    listed = (tmp_path / "out" / "bad_cases.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in listed] == ["case", "case 01 é", "case 03 é", "case 04 é"]
    assert not (tmp_path / "out" / "train").exists()


@pytest.mark.parametrize(
    ("name", "array", "affine", "message"),
    [
        ("imagesTr", np.full((10, 9, 8), 5.0, dtype=np.float32), AFFINE, "constant"),
        ("labelsTr", mask(3, (10, 9, 7)), AFFINE, "disagree in shape"),
        ("labelsTr", mask(3), AFFINE + np.diag([0, 0, 0.1, 0]), "disagree in affine"),
        ("labelsTr", mask(3) + np.float32(0.5), AFFINE, "whole numbers"),
    ],
)
def test_one_bad_case_is_named_with_its_reason(
    tmp_path: Path, name: str, array: np.ndarray, affine: np.ndarray, message: str
) -> None:
    root = write_folder(tmp_path / "in")
    save(root / name / "case 03 é.nii.gz", array, affine)
    with pytest.raises(InputError, match=f"case 03 é.*{message}"):
        prepare(config(root), tmp_path / "out", progress=False)


def test_zero_spacing_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    file = save(root / "imagesTr" / "case 03 é.nii.gz", scan(3))
    image = nib.load(file)
    image.header["srow_x"] = 0
    image.header["qform_code"] = 0
    image.header["sform_code"] = 1
    nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_filename(file)
    with pytest.raises(InputError, match="case 03 é"):
        prepare(config(root), tmp_path / "out", progress=False)


def test_repeats_of_one_patient_are_left_out_and_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    save(root / "imagesTr" / "case 03 é.nii", scan(2))
    (root / "imagesTr" / "case 03 é.nii.gz").unlink()
    prepare(config(root), tmp_path / "out", progress=False)
    content = read_json(tmp_path / "out" / "fingerprint.json")
    assert content["duplicates"]["dropped"] == [["case 03 é", "case 02 é"]]
    assert content["cases"] == 7
    assert not list((tmp_path / "out").rglob("case 03*"))


def test_one_scan_under_two_patients_is_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    save(root / "imagesTr" / "case 07 é.nii.gz", scan(0))
    with pytest.raises(InputError, match=r"1 scan occurs under two patients.*case 00 é \(S0\) = case 07 é \(S3\)"):
        prepare(config(root), tmp_path / "out", progress=False)


@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_stay_on_one_side(tmp_path: Path, seed: int) -> None:
    root = write_folder(tmp_path / "in", labels=False)
    rng = np.random.default_rng(1)
    save(root / "imagesTr" / "case 06 é.nii.gz", 2 * scan(1) + rng.normal(0, 1, (10, 9, 8)).astype(np.float32))
    settings = config(root).model_copy(update={"seed": seed})
    prepare(settings, tmp_path / "out", progress=False)
    content = read_json(tmp_path / "out" / "fingerprint.json")
    (pair,) = content["duplicates"]["near"]
    assert pair[:2] == ["case 01 é", "case 06 é"]
    assert "1 near-duplicate pair of different patients" in content["warnings"][0]
    rows = csv.DictReader((tmp_path / "out" / "cases.csv").open(encoding="utf-8"))
    side = {row["case"]: row["split"] for row in rows}
    assert side["case 01 é"] == side["case 06 é"]


def test_a_label_value_that_no_training_patient_has_is_refused_unless_named(tmp_path: Path) -> None:
    root, first = write_folder(tmp_path / "in"), tmp_path / "first"
    prepare(config(root), first, progress=False)
    held = next(
        row for row in csv.DictReader((first / "cases.csv").open(encoding="utf-8")) if row["split"] == "holdout"
    )
    label = mask(0)
    label[5, 5, 5] = 9
    save(root / "labelsTr" / f"{held['case']}.nii.gz", label)
    with pytest.raises(InputError, match=f"Label value 9 occurs in no training patient; found in {held['case']}"):
        prepare(config(root), tmp_path / "out", progress=False)
    prepare(config(root, label_names={9: "rare"}), tmp_path / "out", progress=False)
    assert read_json(tmp_path / "out" / "space.json")["label_values"] == [0, 1, 2, 9]


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import synthmed.prepare.staging as staging
    from synthmed.errors import StorageError

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staging, "write_volume", full)
    with pytest.raises(StorageError, match="No space left"):
        prepare(config(write_folder(tmp_path / "in")), tmp_path / "out", progress=False)
