"""What `prepare` wrote, as tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import mask, save, scan, write_table

from synthmed.config import parse_config
from synthmed.errors import InputError
from synthmed.prepare.prepared import load_space, load_split, read_cases
from synthmed.prepare.preprocess import prepare


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    table = write_table(root, 6)
    label = mask(0)
    label[label == 2] = 205
    for n in range(6):
        save(root / f"P{n}" / "seg.nii.gz", label)
    settings = {"grid": [8, 16, 8], "spacing": [1.5, 2.0, 1.0], "intensity_range": [-100, 900]}
    prepare(parse_config({"cohort": {"path": str(table)}, "preprocess": settings}), root / "out", progress=False)
    return root / "out"


def test_both_sides_hold_every_case_once(prepared: Path) -> None:
    train, holdout = load_split(prepared, "train"), load_split(prepared, "holdout")
    assert sorted(train.case_ids + holdout.case_ids) == [row["case"] for row in read_cases(prepared)]
    assert not set(train.subject_ids) & set(holdout.subject_ids)
    assert len(holdout.case_ids) == 2
    assert list(train.case_ids) == sorted(train.case_ids)


def test_images_are_the_files_scaled_to_one(prepared: Path) -> None:
    split = load_split(prepared, "train")
    assert split.images.shape == (4, 1, 8, 16, 8)
    assert split.images.dtype == torch.float32
    file = prepared / "train" / "images" / f"{split.case_ids[1]}.nii.gz"
    wanted = (np.asarray(nib.load(file).dataobj, dtype=np.float64) + 100) / 500 - 1
    assert np.allclose(split.images[1, 0].numpy(), wanted, atol=1e-6)
    assert split.images.min() == -1
    assert split.images.max() == 1


def test_labels_are_class_indices_of_the_files_values(prepared: Path) -> None:
    split = load_split(prepared, "holdout")
    assert load_space(prepared).label_values == (0, 1, 205)
    assert split.num_classes == 3
    assert split.labels is not None
    assert split.labels.dtype == torch.uint8
    file = prepared / "holdout" / "labels" / f"{split.case_ids[0]}.nii.gz"
    values = np.asarray(nib.load(file).dataobj)
    assert np.array_equal(np.array([0, 1, 205])[split.labels[0, 0].numpy()], values)
    assert (values == 205).sum() == 1


def test_covariates_keep_their_types_and_gaps(prepared: Path) -> None:
    split = load_split(prepared, "train")
    by_subject = dict(zip(split.subject_ids, split.covariates, strict=True))
    holdout = load_split(prepared, "holdout")
    by_subject |= dict(zip(holdout.subject_ids, holdout.covariates, strict=True))
    assert by_subject["P1"] == {"age": 51.0, "sex": "M"}
    assert by_subject["P0"] == {"sex": "F"}


def test_a_cohort_without_labels_has_none(tmp_path: Path) -> None:
    for n in range(4):
        save(tmp_path / "in" / f"{n}.nii.gz", scan(n))
    settings = {"cohort": {"path": str(tmp_path / "in"), "holdout_fraction": 0.5}, "preprocess": {"grid": [8, 8, 8]}}
    prepare(parse_config(settings), tmp_path / "out", progress=False)
    split = load_split(tmp_path / "out", "train")
    assert split.labels is None
    assert split.num_classes == 0


def test_what_is_not_a_prepared_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"space\.json"):
        load_split(tmp_path, "train")


def copy(prepared: Path, to: Path) -> Path:
    return Path(shutil.copytree(prepared, to / "copy"))


def test_a_volume_on_another_grid_is_refused(prepared: Path, tmp_path: Path) -> None:
    out = copy(prepared, tmp_path)
    case = load_split(out, "train").case_ids[0]
    save(out / "train" / "images" / f"{case}.nii.gz", scan(0))
    with pytest.raises(InputError, match="not on the prepared grid"):
        load_split(out, "train")


def test_a_label_value_that_the_space_lacks_is_refused(prepared: Path, tmp_path: Path) -> None:
    out = copy(prepared, tmp_path)
    space = json.loads((out / "space.json").read_text())
    (out / "space.json").write_text(json.dumps({**space, "label_values": [0, 1], "label_names": {}}))
    with pytest.raises(InputError, match="unknown value; found 205"):
        load_split(out, "train")


def test_an_empty_side_is_refused(prepared: Path, tmp_path: Path) -> None:
    out = copy(prepared, tmp_path)
    lines = (out / "cases.csv").read_text(encoding="utf-8").splitlines()
    (out / "cases.csv").write_text("\n".join(line for line in lines if ",holdout," not in line), encoding="utf-8")
    with pytest.raises(InputError, match="no holdout cases"):
        load_split(out, "holdout")
