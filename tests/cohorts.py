"""Small cohorts on disk, one writer a format."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import voxels, write_classic
from numpy.typing import NDArray
from pydicom.dataset import Dataset

SHAPE = (10, 9, 8)
AFFINE = np.array([[-1.5, 0, 0, 7.0], [0, 2.0, 0, -3.0], [0, 0, 1.0, 11.0], [0, 0, 0, 1]])


def scan(seed: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    """Noise that no other seed gives."""
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def mask(seed: int, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.uint8]:
    """A box of 1 with a corner of 2, larger for larger seeds."""
    label = np.zeros(shape, dtype=np.uint8)
    label[2 : 5 + seed % 3, 3:6, 2:6] = 1
    label[2, 3, 2] = 2
    return label


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> Path:
    """Write NIfTI without the package under test."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    return path


def write_folder(root: Path, count: int = 8, *, names: str = "case {:02d} é", labels: bool = True) -> Path:
    """Write ``imagesTr``, ``labelsTr`` and a ``subjects.csv`` in which patients have two scans each."""
    lines = ["volume,subject"]
    for n in range(count):
        name = names.format(n)
        save(root / "imagesTr" / f"{name}.nii.gz", scan(n))
        if labels:
            save(root / "labelsTr" / f"{name}.nii.gz", mask(n))
        lines.append(f"{name},S{n // 2}")
    (root / "subjects.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_decathlon(root: Path, count: int = 4, *, version: int = 1) -> Path:
    """Write a Decathlon ``dataset.json`` (version 1) or nnU-Net's (version 2)."""
    suffix = "" if version == 1 else "_0000"
    for n in range(count):
        save(root / "imagesTr" / f"la_{n}{suffix}.nii.gz", scan(n))
        save(root / "labelsTr" / f"la_{n}.nii.gz", mask(n))
    pairs = [{"image": f"./imagesTr/la_{n}.nii.gz", "label": f"./labelsTr/la_{n}.nii.gz"} for n in range(count)]
    content: dict[str, object]
    if version == 1:
        labels = {"0": "background", "1": "box", "2": "corner"}
        content = {"modality": {"0": "CT"}, "labels": labels, "numTraining": count, "training": pairs}
    else:
        labels = {"background": 0, "box": 1, "corner": 2}
        content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": count, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def write_monai(root: Path, count: int = 4) -> Path:
    """Write a MONAI datalist with patients, a covariate, and a section that cannot be used."""
    entries = []
    for n in range(count):
        save(root / "a" / f"{n}.nii.gz", scan(n))
        save(root / "b" / f"{n}.nii.gz", mask(n))
        entries.append(
            {"image": f"a/{n}.nii.gz", "label": f"b/{n}.nii.gz", "subject": f"S{n}", "fold": 0, "age": 40 + n}
        )
    content = {"training": entries[:-1], "validation": entries[-1:], "testing": [{"image": "a/9.nii.gz"}]}
    (root / "list.json").write_text(json.dumps(content), encoding="utf-8")
    return root / "list.json"


def write_table(root: Path, count: int = 4) -> Path:
    """Write a CSV of images in a folder each, all of one name."""
    lines = ["subject;image;label;age;sex"]
    for n in range(count):
        save(root / f"P{n}" / "t1 scan.nii.gz", scan(n))
        save(root / f"P{n}" / "seg.nii.gz", mask(n))
        lines.append(f"P{n};P{n}/t1 scan.nii.gz;P{n}/seg.nii.gz;{50 + n if n else ''};{'FM'[n % 2]}")
    (root / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "cohort.csv"


def write_dicom(root: Path, count: int = 4) -> Path:
    """Write one CT series a patient, of whom each scan is brighter than the last."""
    for n in range(count):

        def edit(k: int, dataset: Dataset, n: int = n) -> None:
            dataset.PatientID = f"D{n}"

        rng = np.random.default_rng(n)
        stored = (voxels() * 4 + rng.integers(0, 900, voxels().shape)).astype(np.uint16)
        write_classic(root / f"study{n}", stored=stored, uid=f"1.2.3.{n + 1}", edit=edit)
    return root
