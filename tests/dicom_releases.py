"""Small approved cohorts and their DICOM releases, and means to damage them, for the tests of the DICOM export."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from release_fidelity import Phantom, make_phantom
from releases import make_audit, make_samples, read_table, write_table

from synthmed.config import ExportConfig
from synthmed.export import approve
from synthmed.export.cohort import ApprovedCohort, Columns, open_approved
from synthmed.export.dicom.writing import write_dicom
from synthmed.io import write_volume
from synthmed.volume import Volume

SHAPE = (14, 12, 9)


def approved(folder: Path, modality: str = "MR", *, labels: tuple[int, ...] = (1, 2), n: int = 2) -> ApprovedCohort:
    """Write and approve `n` asymmetric, oblique, anisotropic phantoms, HU for CT and fractions for MR."""
    samples = make_samples(folder / "generate", n, labels=labels, modality=modality)
    for index, row in enumerate(read_table(samples)):
        source = phantom(modality, index)
        image = Volume(source.image[np.newaxis], source.affine)
        name = f"{row['name']}.nii.gz"
        write_volume(samples / "images" / name, image, dtype="int16" if modality == "CT" else "float32")
        if labels:
            label = np.where(np.isin(source.label, labels), source.label, 0)
            write_volume(samples / "labels" / name, Volume(label[np.newaxis], source.affine), dtype="uint8")
    write_table(samples, read_table(samples))
    audit = make_audit(folder / "audit", samples)
    return open_approved(samples, approve(samples, audit / "report.json", "default"))


def phantom(modality: str, index: int) -> Phantom:
    """Return what `approved` writes as case `index`."""
    return make_phantom(modality, SHAPE, seed=index)


def released(folder: Path, modality: str = "MR", **config: object) -> tuple[Path, Columns]:
    """Write the DICOM part of a release of `approved`; return the release and the cells of its table."""
    cohort = approved(folder, modality)
    (folder / "release").mkdir()
    return folder / "release", write_dicom(cohort, folder / "release", ExportConfig(**config))


def names(release: Path) -> list[str]:
    """Return every file of a release, as `check_dicom` wants them."""
    return sorted(file.relative_to(release).as_posix() for file in release.rglob("*") if file.is_file())


def objects(release: Path) -> dict[str, Dataset]:
    """Return every DICOM object of a release, parsed."""
    return {name: pydicom.dcmread(release / name) for name in names(release) if name.endswith(".dcm")}


def rewrite(file: Path, edit: Callable[[Dataset], None]) -> None:
    """Change one DICOM file, which stays readable."""
    data = pydicom.dcmread(file)
    edit(data)
    data.save_as(file, enforce_file_format=True)
