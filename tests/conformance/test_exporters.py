"""Every export format round-trips geometry and voxels through an independent reader, and needs an approval.

The phantom is asymmetric, oblique and anisotropic: no flip, swap or shift leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from releases import SHAPE, Made, oblique_affine, phantom_image, phantom_label

from synthmed.config import ExportConfig
from synthmed.errors import ReleaseRefused
from synthmed.export import EXPORTERS, approve, export, verify

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Reader = Callable[[Path, int], tuple[Path, Path]]


def nifti_files(release: Path, index: int) -> tuple[Path, Path]:
    folder, name = release / "nifti", f"synthetic_{index:04d}"
    return folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "labelsTr" / f"{name}.nii.gz"


def bids_files(release: Path, index: int) -> tuple[Path, Path]:
    stem = f"sub-synthetic{index:04d}/anat/sub-synthetic{index:04d}"
    return release / f"bids/{stem}_T1w.nii.gz", release / f"bids/derivatives/labels/{stem}_dseg.nii.gz"


FILES_OF: dict[str, Reader] = {"nifti": nifti_files, "bids": bids_files}


def read_independently(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels (I, J, K) and the voxel -> RAS+ mm affine as ITK understands the file, which thinks in LPS."""
    image = SimpleITK.ReadImage(str(file))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


@pytest.fixture
def release(made: Made, tmp_path: Path, exporter: str) -> Path:
    return made.release(tmp_path / "release", formats=(exporter,))


@pytest.mark.parametrize("exporter", sorted(EXPORTERS))
def test_voxels_and_affine_survive(release: Path, exporter: str) -> None:
    for index in (0, 5):
        image, label = FILES_OF[exporter](release, index)
        voxels, affine = read_independently(image)
        assert voxels.shape == SHAPE
        np.testing.assert_array_equal(voxels, phantom_image(index))
        np.testing.assert_allclose(affine, oblique_affine(), atol=1e-5)
        voxels, affine = read_independently(label)
        np.testing.assert_array_equal(voxels, phantom_label((1, 2)))
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
