"""Every DICOM series of the shared data: read as two independent readers do, or refused with the reason.

dcm2niix and SimpleITK order and flip axes in their own ways, so volumes are compared after turning to RAS. Each row
of `READ` names the folder, the volumes in it and what the readers cannot be asked for.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from synthmed.errors import InputError
from synthmed.io import read_volume
from synthmed.io.dicom import Series, read_series, scan
from synthmed.volume import Volume, reorient

pytestmark = pytest.mark.real_data

CORNER_TOLERANCE = 2e-3
"""mm: dcm2niix keeps its affine in float32, and positions in files have four to six digits."""

# folder below dicom/ -> how many volumes it holds
READ = {
    "lung_ct": 1,
    "brain_t1post_oblique": 1,
    "decubitus/HFDL/2_t1_fl2d_sag": 1,
    "decubitus/HFS/3_t1_fl2d_sag": 1,
    "dcm_qa_enh/In/Philips": 2,
    "dcm_qa_enh/In/Siemens/XA10": 4,
    "dicom2nifti/ge/anatomical/001": 1,
    "dicom2nifti/ge/anatomical/001_implicit": 1,
    "dicom2nifti/generic/anatomical/001": 1,
    "dicom2nifti/generic/anatomical/001_implicit": 1,
    "dicom2nifti/generic/anatomical/002_non_isotropic": 1,
    "dicom2nifti/generic/compressed/001": 1,
    "dicom2nifti/generic/compressed_j2k/001": 1,
    "dicom2nifti/generic/compressed_jpeg/001": 1,
    "dicom2nifti/generic/compressed_jpegls/001": 1,
    "dicom2nifti/generic/compressed_rle/001": 1,
    "dicom2nifti/hitachi/anatomical/001": 1,
    "dicom2nifti/hitachi/anatomical/001_implicit": 1,
    "dicom2nifti/hyperfine/anatomical/001": 1,
    "dicom2nifti/philips_enhanced/anatomical/001": 1,
    "dicom2nifti/philips_enhanced/anatomical/001_implicit": 1,
    "dicom2nifti/siemens/anatomical/001": 1,
    "dicom2nifti/siemens/anatomical/001_implicit": 1,
    "dicom2nifti/siemens_multiframe/anatomical/001": 1,
}

# SimpleITK stacks both frame types of this file into one image of 64 slices.
NOT_SIMPLEITK = {"dcm_qa_enh/In/Philips"}
# dcm2niix applies one slice's slope to all four, each of which has its own.
NOT_DCM2NIIX = {"dicom2nifti/generic/anatomical/002_non_isotropic"}

REFUSED = {
    "dicom2nifti/failing/gantrytilting/001": r"Gantry tilt.*shift by 14\.00 degrees",
    "dicom2nifti/failing/notavolume/001": r"Not a volume.*3 of 4 slices at the position of another",
    "dicom2nifti/failing/slicecount/001": r"Too few slices.*found 2; expected at least 3",
    "dicom2nifti/failing/sliceincrement/001": r"A missing slice.*gaps from 5 to 10 mm",
    "dicom2nifti/failing/sliceincrement/002": r"Gantry tilt.*shift by 15\.50 degrees",
    "dicom2nifti/failing/sliceorientation/001": r"Mixed orientation.*2 values of ImageOrientationPatient",
    "dicom2nifti/ge/anatomical/001_single_slice": r"Too few slices.*found 1; expected at least 3",
    "dicom2nifti/generic/rgb/001": r"A colour image.*3 samples a pixel, RGB",
}


@pytest.fixture(scope="module")
def dicom_root(data_root: Path) -> Path:
    return data_root / "dicom"


@cache
def _series(folder: Path) -> tuple[Series, ...]:
    series, skipped = scan(folder)
    assert not [item for item in skipped if item.damaged]
    return tuple(series)


def assert_same(found: Volume, expected: Volume) -> None:
    found, expected = reorient(found, "RAS"), reorient(expected, "RAS")
    assert found.shape == expected.shape
    corners = np.array([[*(np.array(c) * (np.array(found.shape) - 1)), 1] for c in np.ndindex(2, 2, 2)]).T
    np.testing.assert_allclose(found.affine @ corners, expected.affine @ corners, atol=CORNER_TOLERANCE)
    np.testing.assert_allclose(found.array, expected.array, rtol=1e-6, atol=1e-4)


def _simpleitk(series: Series) -> Volume:
    if len(series.files) == 1:
        image = SimpleITK.ReadImage(str(series.files[0]))
    else:
        reader = SimpleITK.ImageSeriesReader()
        folder = str(series.files[0].parent)
        (name,) = reader.GetGDCMSeriesIDs(folder)
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, name))
        image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    return Volume(array[np.newaxis], np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _dcm2niix(folder: Path, out: Path) -> list[Volume]:
    """Every 3D volume that dcm2niix makes of a folder, time points one by one; DICOM rescale, not Philips's."""
    program = Path(sys.executable).parent / "dcm2niix"
    command = [str(program), "-b", "n", "-p", "n", "-l", "o", "-z", "n", "-f", "%s_%e_%t", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    volumes = []
    for path in sorted(out.glob("*.nii")):
        image = nib.load(path)
        data = image.get_fdata()
        for t in range(1 if data.ndim == 3 else data.shape[3]):
            volumes.append(Volume((data if data.ndim == 3 else data[..., t])[np.newaxis], image.affine))
    return volumes


def test_the_tables_name_every_folder_with_dicom(dicom_root: Path) -> None:
    series, skipped = scan(dicom_root)
    folders = {str(item.files[0].parent.relative_to(dicom_root)) for item in series}
    assert folders == set(READ) | set(REFUSED)
    assert all(item.reason == "not a DICOM file" and not item.damaged for item in skipped)
    assert {"".join(item.path.suffixes) or item.path.name for item in skipped} == {".md", ".nii.gz", "LICENSE"}


@pytest.mark.parametrize("folder", sorted(READ.keys() - NOT_SIMPLEITK))
def test_read_as_simpleitk_does(dicom_root: Path, folder: str) -> None:
    series = _series(dicom_root / folder)
    assert len(series) == READ[folder]
    for item in series:
        assert_same(read_series(item), _simpleitk(item))


@pytest.mark.parametrize("folder", sorted(READ.keys() - NOT_DCM2NIIX))
def test_read_as_dcm2niix_does(dicom_root: Path, folder: str, tmp_path: Path) -> None:
    series = _series(dicom_root / folder)
    expected = _dcm2niix(dicom_root / folder, tmp_path)
    assert len(series) == len(expected) == READ[folder]
    # dcm2niix writes magnitude before field map; series are sorted by the name of their part.
    if folder == "dcm_qa_enh/In/Philips":
        series = series[::-1]
    for item, volume in zip(series, expected, strict=True):
        assert_same(read_series(item), volume)


@pytest.mark.parametrize("folder", sorted(REFUSED))
def test_refused_with_the_reason(dicom_root: Path, folder: str) -> None:
    with pytest.raises(InputError, match=REFUSED[folder]):
        read_volume(dicom_root / folder)


def test_decubitus_needs_no_special_case(dicom_root: Path) -> None:
    """DICOM's axes turn with the patient: both scans of the volunteer are sagittal from back to front."""
    for name in ("HFS", "HFDL"):
        volume = read_volume(dicom_root / "decubitus" / name)
        assert volume.orientation == "PIR"
        np.testing.assert_allclose(volume.spacing, (1.015625, 1.015625, 4.8), atol=1e-4)


def test_parts_of_one_uid_are_named(dicom_root: Path) -> None:
    philips = [item.part for item in _series(dicom_root / "dcm_qa_enh/In/Philips")]
    assert philips == ["FrameType=ORIGINAL\\PRIMARY\\T1\\FIELD_MAP", "FrameType=ORIGINAL\\PRIMARY\\T1\\M"]
    siemens = [item.part for item in _series(dicom_root / "dcm_qa_enh/In/Siemens/XA10")]
    assert siemens == [f"TemporalPositionIndex={t}" for t in (1, 2, 3, 4)]
    with pytest.raises(InputError, match="Several volumes"):
        read_volume(dicom_root / "dcm_qa_enh/In/Philips")


def test_hounsfield_units(dicom_root: Path) -> None:
    volume = read_volume(dicom_root / "lung_ct")
    air, body = np.percentile(volume.array, (1, 60))
    assert volume.array.min() == -1024
    assert -1030 < air < -950
    assert -900 < body < 100
