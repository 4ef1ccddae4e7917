"""The audit reads the DICOM series of the shared data as SimpleITK and dcm2niix do, or refuses them with the reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from privacy.dicom import parse, read_volume
from privacy.errors import InputError
from privacy.records import gather
from privacy.series import sort_files

pytestmark = pytest.mark.real_data

READ = [
    "lung_ct",
    "brain_t1post_oblique",
    "decubitus/HFDL/2_t1_fl2d_sag",
    "decubitus/HFS/3_t1_fl2d_sag",
    "dicom2nifti/ge/anatomical/001",
    "dicom2nifti/ge/anatomical/001_implicit",
    "dicom2nifti/generic/anatomical/001",
    "dicom2nifti/generic/anatomical/001_implicit",
    "dicom2nifti/generic/anatomical/002_non_isotropic",
    "dicom2nifti/generic/compressed/001",
    "dicom2nifti/generic/compressed_j2k/001",
    "dicom2nifti/generic/compressed_jpeg/001",
    "dicom2nifti/generic/compressed_jpegls/001",
    "dicom2nifti/generic/compressed_rle/001",
    "dicom2nifti/hitachi/anatomical/001",
    "dicom2nifti/hitachi/anatomical/001_implicit",
    "dicom2nifti/hyperfine/anatomical/001",
    "dicom2nifti/philips_enhanced/anatomical/001",
    "dicom2nifti/philips_enhanced/anatomical/001_implicit",
    "dicom2nifti/siemens/anatomical/001",
    "dicom2nifti/siemens/anatomical/001_implicit",
    "dicom2nifti/siemens_multiframe/anatomical/001",
]
# dcm2niix applies one slice's slope to all four, each of which has its own.
NOT_DCM2NIIX = {"dicom2nifti/generic/anatomical/002_non_isotropic"}

REFUSED = {
    "dicom2nifti/failing/gantrytilting/001": r"a tilted gantry.*14\.00 degrees",
    "dicom2nifti/failing/notavolume/001": "several images at one position",
    "dicom2nifti/failing/slicecount/001": "too few slices; found 2",
    "dicom2nifti/failing/sliceincrement/001": "a missing slice; found gaps from 5 to 10 mm",
    "dicom2nifti/failing/sliceincrement/002": r"a missing slice; found gaps from 0\.7497 to 1\.499 mm",
    "dicom2nifti/failing/sliceorientation/001": "mixed orientation",
    "dicom2nifti/ge/anatomical/001_single_slice": "too few slices; found 1",
    "dicom2nifti/generic/rgb/001": "not an image series; found Secondary Capture Image Storage",
    "dcm_qa_enh/In/Philips": "not one regular 3D volume",
}


def _read(folder: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    (series,) = sort_files(sorted(folder.iterdir())).series
    return read_volume([parse(path.read_bytes()) for path in series.files])


@pytest.mark.parametrize("folder", READ)
def test_read_as_simpleitk_does(data_root: Path, folder: str) -> None:
    array, spacing = _read(data_root / "dicom" / folder)
    place = str(data_root / "dicom" / folder)
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(place, reader.GetGDCMSeriesIDs(place)[0])
    image = SimpleITK.ReadImage(names[0]) if len(names) == 1 else SimpleITK.ReadImage(names)
    image = SimpleITK.DICOMOrient(image, "RAS")
    np.testing.assert_allclose(spacing, image.GetSpacing(), atol=2e-3)
    np.testing.assert_allclose(array, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("folder", [name for name in READ if name not in NOT_DCM2NIIX])
def test_read_as_dcm2niix_does(data_root: Path, folder: str, tmp_path: Path) -> None:
    array, spacing = _read(data_root / "dicom" / folder)
    program = Path(sys.executable).parent / "dcm2niix"
    options = ["-b", "n", "-p", "n", "-l", "o", "-z", "n", "-o", str(tmp_path)]
    command = [str(program), *options, str(data_root / "dicom" / folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = tmp_path.glob("*.nii")
    image = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_allclose(spacing, image.header.get_zooms()[:3], atol=2e-3)
    np.testing.assert_allclose(array, image.get_fdata(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("folder", sorted(REFUSED))
def test_refused_with_the_reason(data_root: Path, folder: str) -> None:
    with pytest.raises(InputError, match=REFUSED[folder]):
        _read(data_root / "dicom" / folder)


def test_time_points_in_files_of_their_own_are_volumes(data_root: Path) -> None:
    series = sort_files(sorted((data_root / "dicom/dcm_qa_enh/In/Siemens/XA10").iterdir())).series
    assert [len(item.files) for item in series] == [1, 1, 1, 1]
    volumes = [read_volume([parse(path.read_bytes()) for path in item.files]) for item in series]
    assert {(array.shape, tuple(np.round(spacing, 3))) for array, spacing in volumes} == {
        ((64, 64, 6), (3.375, 3.375, 2.4))
    }


def test_patients_come_from_the_headers(data_root: Path) -> None:
    found = gather("train", data_root / "dicom" / "decubitus")
    assert [scan.shape for scan in found.scans] == [(35, 256, 256)] * 2
    assert len({scan.patient for scan in found.scans}) == 1
    assert "no table of patients: 2 DICOM series told apart by PatientID" in found.notes
    assert np.array_equal(found.scans[0].array(), found.scans[0].array())


def test_a_folder_with_bad_series_names_each_of_them(data_root: Path) -> None:
    with pytest.raises(InputError, match="10 of 10 train volumes cannot be used") as raised:
        gather("train", data_root / "dicom" / "dicom2nifti" / "failing")
    for name in ("gantrytilting", "notavolume", "slicecount", "sliceincrement", "sliceorientation"):
        assert f"{name}/" in str(raised.value)
