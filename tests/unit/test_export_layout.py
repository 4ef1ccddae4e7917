"""nnU-Net's published rules: a release keeps them, and each breach is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from releases import Made, make_audit, make_samples

from synthmed.export.validation.layout import nnunet_problems


@pytest.fixture
def nifti(made: Made, tmp_path: Path) -> Path:
    return made.release(tmp_path / "release") / "nifti"


def test_a_release_keeps_the_rules(nifti: Path) -> None:
    assert nnunet_problems(nifti) == []


def test_a_release_without_labels_keeps_the_rules(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", labels=())
    release = Made(samples, make_audit(tmp_path / "audit", samples)).release(tmp_path / "release")
    assert nnunet_problems(release / "nifti") == []


def edit(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        if value is None:
            del content[key]
        else:
            content[key] = value
        (folder / "dataset.json").write_text(json.dumps(content))

    return change


def rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new) and None


def remake(
    name: str, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        image = nib.load(folder / name)
        array, affine = change(np.asarray(image.dataobj).copy(), image.affine.copy())
        nib.save(nib.Nifti1Image(array, affine), folder / name)

    return write


def shifted(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    affine[0, 3] += 1
    return array, affine


IMAGE, LABEL = "imagesTr/synthetic_0001_0000.nii.gz", "labelsTr/synthetic_0002.nii.gz"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), "dataset.json cannot be read: FileNotFoundError"),
        (lambda folder: (folder / "dataset.json").write_text("["), "dataset.json cannot be read: JSONDecodeError"),
        (edit("file_ending", None), "dataset.json lacks file_ending"),
        (edit("channel_names", {"1": "MR"}), "channel_names are not numbered 0, 1, ..."),
        (edit("channel_names", {"0": ""}), "channel 0 has no name"),
        (edit("labels", {"left": 1}), "labels lack background as 0"),
        (edit("labels", {"background": 0, "left": 1, "x": 3}), "labels are not consecutive: 0, 1, 3"),
        (edit("numTraining", 5), "numTraining is 5, and it lists 6 cases"),
        (rename(IMAGE, "imagesTr/x.nii.gz"), "imagesTr/x.nii.gz is not CASE_0000.nii.gz"),
        (
            rename(IMAGE, "imagesTr/synthetic_0001_0001.nii.gz"),
            "imagesTr: synthetic_0001 has the wrong channels",
        ),
        (rename(LABEL, "labelsTr/other.nii.gz"), "labelsTr: other has no image"),
        (rename(LABEL, "labelsTr/other.nii"), "labelsTr/other.nii does not end in .nii.gz"),
        (lambda folder: (folder / LABEL).unlink(), "imagesTr: synthetic_0002 has no label map"),
        (remake(LABEL, lambda a, m: (a[1:], m)), "synthetic_0002: image and label map differ in shape"),
        (remake(LABEL, shifted), "synthetic_0002: image and label map differ in position or spacing"),
        (remake(LABEL, lambda a, m: (a + (a == 2), m)), "synthetic_0002: label value 3 is not declared"),
        (lambda folder: (folder / LABEL).write_bytes(b"no"), "synthetic_0002: cannot be read (BadGzipFile)"),
    ],
)  # fmt: skip
def test_each_breach_is_named(nifti: Path, change: Callable[[Path], object], problem: str) -> None:
    change(nifti)
    assert problem in nnunet_problems(nifti)


def test_label_values_are_read_of_the_cases_asked_for(nifti: Path) -> None:
    remake(LABEL, lambda a, m: (a + (a == 2), m))(nifti)
    assert nnunet_problems(nifti, ["synthetic_0001"]) == []
    assert nnunet_problems(nifti, ["synthetic_0002"]) == ["synthetic_0002: label value 3 is not declared"]
