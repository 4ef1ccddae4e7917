"""Every export format round-trips geometry and voxels through an independent reader, and needs an approval.

The phantom is asymmetric, oblique and anisotropic: no flip, swap or shift leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK
from releases import SHAPE, Made, oblique_affine, phantom_image, phantom_label

from synthmed.config import ExportConfig
from synthmed.errors import ReleaseRefused
from synthmed.export import EXPORTERS, approve, export, verify

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Voxels (I, J, K) and the voxel -> RAS+ mm affine.
Grid = tuple[np.ndarray, np.ndarray]
Reader = Callable[[Path, int], tuple[Grid, Grid]]


def itk_grid(image: SimpleITK.Image) -> Grid:
    """What ITK, which thinks in LPS, understands."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def read_nifti(release: Path, index: int) -> tuple[Grid, Grid]:
    folder, name = release / "nifti", f"synthetic_{index:04d}"
    files = folder / f"imagesTr/{name}_0000.nii.gz", folder / f"labelsTr/{name}.nii.gz"
    return itk_grid(SimpleITK.ReadImage(str(files[0]))), itk_grid(SimpleITK.ReadImage(str(files[1])))


def read_bids(release: Path, index: int) -> tuple[Grid, Grid]:
    stem = f"sub-synthetic{index:04d}/anat/sub-synthetic{index:04d}"
    files = release / f"bids/{stem}_T1w.nii.gz", release / f"bids/derivatives/labels/{stem}_dseg.nii.gz"
    return itk_grid(SimpleITK.ReadImage(str(files[0]))), itk_grid(SimpleITK.ReadImage(str(files[1])))


def read_dicom(release: Path, index: int) -> tuple[Grid, Grid]:
    """The series as ITK reads it, the segmentation as highdicom does; both put back on the phantom's axes."""
    [series] = (release / f"dicom/synthetic_{index:04d}").glob("*/MR-*")
    [file] = (release / f"dicom/synthetic_{index:04d}").glob("*/SEG-*/*.dcm")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    volume = highdicom.seg.segread(file).get_volume(combine_segments=True)
    return on_phantom_axes(*itk_grid(reader.Execute())), on_phantom_axes(volume.array, LPS @ volume.affine)


def on_phantom_axes(voxels: np.ndarray, affine: np.ndarray) -> Grid:
    """Permute and flip the axes so that each points along that of the phantom; voxels keep their places in space."""
    closeness = np.linalg.inv(oblique_affine()[:3, :3]) @ affine[:3, :3]
    order = np.abs(closeness).argmax(axis=1)
    signs = np.sign(closeness[np.arange(3), order])
    turned = np.eye(4)
    turned[:3, :3] = affine[:3, order] * signs
    first = np.zeros(3)
    first[order] = np.where(signs < 0, np.array(voxels.shape)[order] - 1, 0)
    turned[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    voxels = voxels.transpose(order)
    return voxels[tuple(slice(None, None, int(sign)) for sign in signs)], turned


READERS: dict[str, Reader] = {"nifti": read_nifti, "bids": read_bids, "dicom": read_dicom}


@pytest.fixture
def release(made: Made, tmp_path: Path, exporter: str) -> Path:
    return made.release(tmp_path / "release", formats=(exporter,))


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_voxels_and_affine_survive(release: Path, exporter: str) -> None:
    for index in (0, 5):
        truth = phantom_image(index), phantom_label((1, 2))
        for (voxels, affine), expected in zip(READERS[exporter](release, index), truth, strict=True):
            assert voxels.shape == SHAPE
            np.testing.assert_array_equal(voxels, expected)
            np.testing.assert_allclose(affine, oblique_affine(), atol=1e-5)


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_release_verifies(release: Path, exporter: str) -> None:
    assert verify(release) == []


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_every_case_is_listed_with_its_files(release: Path, exporter: str) -> None:
    lines = (release / "cases.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["case", *(f"synthetic_{i:04d}" for i in range(6))]


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_refused_without_an_approval(made: Made, tmp_path: Path, exporter: str) -> None:
    config = ExportConfig(formats=(exporter,))
    with pytest.raises(ReleaseRefused, match="without an approval"):
        export(made.samples, None, tmp_path / "release", config=config, audit_dir=made.audit)  # type: ignore[arg-type]
    assert not (tmp_path / "release").exists()


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_refused_where_a_voxel_changed_after_the_approval(made: Made, tmp_path: Path, exporter: str) -> None:
    approval = approve(made.samples, made.report, "default")
    file = made.samples / "images" / "synthetic_0005.nii.gz"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    config, out = ExportConfig(formats=(exporter,)), tmp_path / "out" / "release"
    with pytest.raises(ReleaseRefused, match="changed after it was approved"):
        export(made.samples, approval, out, config=config, audit_dir=made.audit)
    assert list(out.parent.iterdir()) == []
