"""The mask and the grid's centre, by hand; and through the stage, with all that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from cohorts import mask, save, write_dicom, write_folder, write_monai, write_table

from synthmed.cohort.read import read_cohort
from synthmed.config import CohortConfig, parse_config
from synthmed.errors import InputError
from synthmed.files import read_json
from synthmed.prepare.planner import plan_cohort
from synthmed.prepare.prepared import load_space
from synthmed.prepare.preprocess import Space, prepare, preprocess
from synthmed.prepare.staging import Entry
from synthmed.volume import Volume

BOX = {1: {"name": "all of it", "values": [1, 2]}}


def space(**changes: Any) -> Space:
    given = {"grid": (4, 4, 4), "spacing": (1.0, 1.0, 1.0), "normalisation": "window", "intensity_range": (0.0, 100.0)}
    return Space(**{**given, **changes})


def box(*sides: slice, shape: tuple[int, int, int] = (8, 8, 8), value: float = 1) -> Volume:
    array = np.zeros((1, *shape), dtype=np.float32)
    array[(0, *sides)] = value
    return Volume(array, np.eye(4))


def bright(level: float, shape: tuple[int, int, int] = (8, 8, 8)) -> Volume:
    array = np.full((1, *shape), level, dtype=np.float32)
    array[0, ::2] += 10
    return Volume(array, np.eye(4))


def config(root: Path, preprocess: dict[str, Any] | None = None, **cohort: Any) -> Any:
    settings = {"grid": [16, 24, 8], "spacing": [1.5, 2.0, 1.0], **(preprocess or {})}
    return parse_config({"cohort": {"path": str(root), "holdout_fraction": 0.5, **cohort}, "preprocess": settings})


def test_outside_of_the_mask_is_the_low_end_of_the_range() -> None:
    label = box(slice(2, 4), slice(2, 6), slice(2, 6), value=46)
    done = preprocess(bright(40), label, space(mask="label", intensity_range=(-5.0, 100.0)))
    assert np.unique(done.image.array[0, :2]).tolist() == [40.0, 50.0]
    assert np.unique(done.image.array[0, 2:]).tolist() == [-5.0]


def test_nothing_outside_of_the_mask_is_blurred_into_it() -> None:
    label = box(slice(4, 12), slice(4, 12), slice(4, 12), shape=(16, 16, 16))
    settings = space(mask="label", grid=(8, 8, 8), spacing=(2.0, 2.0, 2.0), intensity_range=(0.0, 1e6))
    dim, glaring = bright(40, (16, 16, 16)), bright(40, (16, 16, 16))
    glaring.array[label.array == 0] = 9e5
    images = [preprocess(image, label, settings).image.array for image in (dim, glaring)]
    assert np.array_equal(*images)
    # A target voxel on the border that is half inside is about half as bright.
    assert 0 < images[0][0, 2, 4, 4] < 45
    assert images[0][0, 0, 4, 4] == pytest.approx(0, abs=0.01)


def test_percentiles_are_those_inside_of_the_mask() -> None:
    image = Volume(np.arange(512, dtype=np.float32).reshape(1, 8, 8, 8), np.eye(4))
    label = box(slice(0, 1), slice(0, 8), slice(0, 8))
    settings = {"normalisation": "percentile", "percentiles": (0.0, 100.0), "intensity_range": (0.0, 1000.0)}
    assert preprocess(image, label, space(mask="label", **settings)).record.source_range == (0.0, 63.0)
    assert preprocess(image, label, space(**settings)).record.source_range == (0.0, 511.0)


def test_the_mask_follows_the_label_as_filed() -> None:
    filed = box(slice(2, 6), slice(2, 6), slice(2, 6), value=46)
    grouped = Volume(np.zeros_like(filed.array), filed.affine)
    done = preprocess(bright(40), grouped, space(mask="label"), filed)
    assert np.unique(done.image.array).tolist() == [40.0, 50.0]
    assert done.label is not None
    assert not done.label.array.any()


@pytest.mark.parametrize(
    ("sides", "start"),
    # The middle of the box goes to index 1.5 of the grid, halves downwards; the image's own middle would be 2.
    [((0, 2), -1), ((6, 8), 5), ((2, 6), 2), ((3, 4), 1), ((0, 8), 2), ((4, 7), 3)],
)
def test_the_grid_is_centred_on_the_label(sides: tuple[int, int], start: int) -> None:
    label = box(slice(*sides), slice(2, 6), slice(2, 6))
    done = preprocess(bright(40), label, space(centre="label"))
    assert done.record.start == (start, 2, 2)
    assert done.image.affine[:3, 3].tolist() == [start, 2, 2]


def test_a_coarser_grid_is_centred_on_the_label_too() -> None:
    label = box(slice(9, 15), slice(5, 11), slice(5, 11), shape=(16, 16, 16))
    done = preprocess(bright(40, (16, 16, 16)), label, space(centre="label", spacing=(2.0, 2.0, 2.0)))
    # Index 11.5 of 16 is 5.5 of 8, which goes to 1.5 of 4.
    assert done.record.start == (4, 2, 2)
    assert done.label_voxels_cut == 0


def test_the_grid_is_centred_on_what_is_bright() -> None:
    image = box(slice(1, 3), slice(3, 5), slice(5, 7), value=90)
    assert preprocess(image, None, space(centre="foreground")).record.start == (0, 2, 4)


@pytest.mark.parametrize("key", ["mask", "centre"])
@pytest.mark.parametrize(("label", "words"), [(None, "there is no label"), (box(slice(0, 0)), "the label is empty")])
def test_what_needs_a_label_refuses_a_case_without(key: str, label: Volume | None, words: str) -> None:
    with pytest.raises(InputError, match=f"preprocess.{key} is label and {words}"):
        preprocess(bright(40), label, space(**{key: "label"}))


def test_constant_inside_of_the_mask_is_refused() -> None:
    label = box(slice(0, 1), slice(0, 8), slice(0, 8))
    with pytest.raises(InputError, match="constant"):
        preprocess(bright(40), label, space(mask="label", intensity_range=(60.0, 100.0)))


def test_a_space_says_what_was_asked_for_and_nothing_else() -> None:
    asked = space(mask="label", centre="foreground")
    assert Space.from_json(json.loads(json.dumps(asked.to_json()))) == asked
    assert not {"mask", "centre"} & space().to_json().keys()


@pytest.mark.parametrize("key", ["mask", "centre"])
def test_a_cohort_without_labels_is_refused_before_it_is_read(tmp_path: Path, key: str) -> None:
    root = write_folder(tmp_path / "in", labels=False)
    with pytest.raises(InputError, match=f"preprocess.{key} is label and the cohort has no labels"):
        prepare(config(root, {key: "label"}), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_groups_without_labels_are_refused(tmp_path: Path) -> None:
    root = write_dicom(tmp_path)
    with pytest.raises(InputError, match="label_groups is set and the cohort has no labels"):
        read_cohort(CohortConfig(path=str(root), label_groups=BOX))


def test_a_group_that_matches_nothing_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    groups = {**BOX, 2: {"name": "tumour", "values": ["30-39"]}}
    with pytest.raises(InputError, match=r"Label group 2 \(tumour\) matches nothing.*30, 31, 32 and 7 more"):
        prepare(config(root, label_groups=groups), tmp_path / "out", progress=False)


def test_the_stage_writes_groups_with_their_names_and_says_what_it_left_out(tmp_path: Path) -> None:
    root, out = write_folder(tmp_path / "in"), tmp_path / "out"
    groups = {4: {"name": "corner", "values": [2]}}
    prepare(config(root, {"mask": "label", "centre": "label"}, label_groups=groups), out, progress=False)
    assert (load_space(out).label_values, dict(load_space(out).label_names)) == ((0, 4), {4: "corner"})
    content = read_json(out / "fingerprint.json")
    assert content["labels"]["4"]["cases"] == 8
    assert "label values in no group became background: 1" in content["warnings"]
    for n in range(8):
        (file,) = out.glob(f"*/labels/case {n:02d} é.nii.gz")
        assert np.unique(np.asarray(nib.load(file).dataobj)).tolist() == [0, 4]
        image = np.asarray(nib.load(out / file.parts[-3] / "images" / file.name).dataobj)
        assert np.count_nonzero(image) <= np.count_nonzero(mask(n))
    entry = Entry.from_json(read_json(out / "records.json")["case 00 é"])
    assert entry.values_left_out == (1,)


def test_other_groups_prepare_the_cases_again(tmp_path: Path) -> None:
    root, out = write_folder(tmp_path / "in"), tmp_path / "out"
    prepare(config(root), out, progress=False)
    prepare(config(root, label_groups=BOX), out, progress=False)
    assert load_space(out).label_values == (0, 1)


@pytest.mark.parametrize("write", [write_table, write_monai])
def test_every_importer_of_labels_groups_them(tmp_path: Path, write: Any) -> None:
    cohort = read_cohort(CohortConfig(path=str(write(tmp_path)), label_groups=BOX))
    assert dict(cohort.label_names) == {1: "all of it"}
    for case in cohort.cases:
        (_, label), (_, filed) = case.read(), case.read_files()
        assert label is not None
        assert filed is not None
        assert np.array_equal(label.array, filed.array > 0)


def test_phantoms_are_grouped_as_well() -> None:
    settings = {"format": "phantom", "label_groups": {1: {"name": "both", "values": ["1-2"]}}}
    case = read_cohort(CohortConfig.model_validate(settings)).cases[0]
    _, label = case.read()
    assert label is not None
    assert np.unique(label.array).tolist() == [0, 1]


def test_a_plan_keeps_the_groups_and_proposes_no_mask(tmp_path: Path) -> None:
    planned, text = plan_cohort(CohortConfig(path=str(write_folder(tmp_path)), label_groups=BOX))
    assert planned.cohort.label_groups[1].sources == (1, 2)
    assert (planned.preprocess.mask, planned.preprocess.centre) == ("none", "image")
    assert "mask" not in text


def test_an_empty_label_under_a_mask_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in")
    save(root / "labelsTr" / "case 03 é.nii.gz", np.zeros((10, 9, 8), dtype=np.uint8))
    with pytest.raises(InputError, match=r"case 03 é cannot be used: preprocess\.mask is label and the label is empty"):
        prepare(config(root, {"mask": "label"}), tmp_path / "out", progress=False)
