"""NIfTI and DICOM become the same arrays; what is not one regular volume is refused with the reason."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import OBLIQUE, Grid, write_classic, write_enhanced
from privacy_scans import scan, write
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedSRStorage, SegmentationStorage

from privacy.errors import InputError
from privacy.reading import load
from privacy.records import collect, gather
from privacy.series import sort_files

STORED = np.random.default_rng(5).integers(0, 3000, size=(12, 10, 9)).astype(np.uint16)
AXIAL = Grid()


def _ras(stored: np.ndarray) -> np.ndarray:
    """Columns run to the left and rows to the back in an axial grid: both turn."""
    return stored[::-1, ::-1].astype(np.float32)


def test_a_classic_series_is_one_volume_in_ras_and_hounsfield_units(tmp_path: Path) -> None:
    write_classic(tmp_path / "ct", grid=AXIAL, stored=STORED)
    (found,) = collect("train", tmp_path)
    assert found.name == "ct"
    assert found.patient == "P1"
    assert found.spacing == pytest.approx((0.75, 1.5, 2.5))
    np.testing.assert_array_equal(found.array(), _ras(STORED) - 1024)


def test_slope_and_oblique_cosines(tmp_path: Path) -> None:
    write_classic(tmp_path, grid=OBLIQUE, stored=STORED, modality="PT", slope=0.5, intercept=0)
    (found,) = collect("train", tmp_path)
    np.testing.assert_array_equal(found.array(), _ras(STORED) / 2)
    assert found.spacing == pytest.approx((0.75, 1.5, 2.5))


def test_frames_of_an_enhanced_file_keep_their_own_slopes(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "x", grid=AXIAL, stored=STORED, order=[3, 1, 2, 0, 4, 8, 7, 6, 5])
    (found,) = collect("train", tmp_path)
    np.testing.assert_array_equal(found.array(), _ras(STORED * np.arange(1, 10)) - 10)
    assert found.spacing == pytest.approx((0.75, 1.5, 2.5))


def test_dicom_and_nifti_of_one_volume_have_the_same_content(tmp_path: Path) -> None:
    write_classic(tmp_path / "d", grid=AXIAL, stored=STORED, intercept=0)
    affine = np.diag([0.75, 1.5, 2.5, 1])
    write(tmp_path / "n", [_ras(STORED)], affine=affine)
    assert collect("train", tmp_path / "d")[0].content == collect("train", tmp_path / "n")[0].content


def test_names_without_ending_and_several_series_in_a_folder(tmp_path: Path) -> None:
    for uid, offset in (("1.2.7", 0), ("1.2.8", 5)):
        for path in write_classic(tmp_path / "all" / uid, stored=STORED + np.uint16(offset), uid=uid):
            path.rename(tmp_path / "all" / f"{uid}-{path.stem}")
        (tmp_path / "all" / uid).rmdir()
    (tmp_path / "all" / "README").write_text("no image")
    found = gather("train", tmp_path)
    assert {s.name for s in found.scans} == {"all/1.2.7", "all/1.2.8"}
    assert found.notes == (
        "left aside, being neither NIfTI nor DICOM: 1 file",
        "no table of patients: 2 DICOM series told apart by PatientID",
        "all DICOM series carry the same PatientID and were taken for one patient",
    )


def test_a_series_over_two_folders_is_one_and_a_copied_series_is_two(tmp_path: Path) -> None:
    paths = write_classic(tmp_path / "a", stored=STORED)
    (tmp_path / "b").mkdir()
    for path in paths[:4]:
        path.rename(tmp_path / "b" / path.name)
    assert [s.shape for s in collect("train", tmp_path)] == [STORED.shape]
    for path in (tmp_path / "b").iterdir():
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    series = sort_files(sorted(tmp_path.rglob("*.dcm"))).series
    assert sorted(len(item.files) for item in series) == [4, 9]


def test_several_multi_frame_files_of_one_series_are_volumes_of_one_patient(tmp_path: Path) -> None:
    def nameless(k: int, data: Dataset) -> None:
        if k == -1:
            data.PatientID = ""

    for k in (1, 2):
        write_enhanced(tmp_path / "x" / f"t{k}.dcm", grid=AXIAL, stored=STORED + np.uint16(k), edit=nameless)
    found = collect("train", tmp_path)
    assert {s.name for s in found} == {"x/1.2.3.5/t1.dcm", "x/1.2.3.5/t2.dcm"}
    assert {s.patient for s in found} == {"train:1.2.3.5"}


def test_a_table_overrules_the_patient_id(tmp_path: Path) -> None:
    write_classic(tmp_path / "in" / "s1", stored=STORED, uid="1.2.7")
    write_classic(tmp_path / "in" / "s2", stored=STORED[::-1], uid="1.2.8")
    table = tmp_path / "t.csv"
    table.write_text("series,patient\ns1,001\n1.2.8,002\n")
    assert {s.name: s.patient for s in collect("train", tmp_path / "in", table)} == {"s1": "001", "s2": "002"}


def test_lists_may_name_files_and_folders_of_one_series(tmp_path: Path) -> None:
    write_classic(tmp_path / "ct", stored=STORED, uid="1.2.7")
    nifti = write(tmp_path / "n", [scan(0)])[0]
    found = collect("train", [tmp_path / "ct", nifti, str(nifti)], ["A", "B", "B"])
    assert sorted(s.patient for s in found) == ["A", "B", "B"]
    write_classic(tmp_path / "ct", stored=STORED[:, :, :8], uid="1.2.8")
    with pytest.raises(InputError, match="not one DICOM series; found 2 of them"):
        collect("train", [tmp_path / "ct"])


def _edit(**attributes: object) -> Callable[[int, Dataset], None]:
    """Set attributes in slice 2 of a series."""

    def edit(k: int, data: Dataset) -> None:
        if k == 2:
            for keyword, value in attributes.items():
                setattr(data, keyword, value)

    return edit


def _everywhere(**attributes: object) -> Callable[[int, Dataset], None]:
    def edit(_: int, data: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(data, keyword, value)

    return edit


def _tilted(k: int, data: Dataset) -> None:
    data.ImagePositionPatient = [-20.0, 30.0 + 0.1 * k, -40.0 + 2.5 * k]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_edit(ImagePositionPatient=[-20.0, 30.0, -36.0]), "uneven slice spacing"),
        (_edit(ImagePositionPatient=[-20.3, 30.0, -35.0]), "uneven slice spacing"),
        (_edit(ImagePositionPatient=[-20.0, 30.0, -37.5]), "several images at one position"),
        (_edit(ImageOrientationPatient=[0.0, 1, 0, 0, 0, 1]), "mixed orientation"),
        (_edit(PixelSpacing=[1.0, 1.0]), "slices of different size"),
        (_edit(PatientID="P2"), "one series of several patients"),
        (_edit(ImagePositionPatient=None), "no ImagePositionPatient; found 1 of 9 slices"),
        (_tilted, r"a tilted gantry; found slices that shift by 2\.29 degrees"),
        (_everywhere(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a localiser"),
        (_everywhere(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "not a scalar image; found 3 samples"),
        (_everywhere(PhotometricInterpretation="MONOCHROME1"), "not a scalar image.*MONOCHROME1"),
        (_everywhere(SOPClassUID=SegmentationStorage), "not an image series; found Segmentation Storage"),
        (_everywhere(SOPClassUID=EnhancedSRStorage), "not an image series; found Enhanced SR Storage"),
        (_edit(RescaleSlope=None), "values of unknown unit; found 1 of 9 slices without it"),
    ],
)
def test_series_that_are_no_volume_are_refused_and_named(
    tmp_path: Path, edit: Callable[[int, Dataset], None], words: str
) -> None:
    write_classic(tmp_path / "bad", grid=AXIAL, stored=STORED, edit=edit)
    write(tmp_path, [scan(1)], prefix="good")
    with pytest.raises(InputError, match=words) as raised:
        collect("train", tmp_path)
    assert "1 of 2 train volumes cannot be used: bad (" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_slice_is_refused(tmp_path: Path) -> None:
    write_classic(tmp_path, grid=AXIAL, stored=STORED)[4].unlink()
    with pytest.raises(InputError, match=r"a missing slice; found gaps from 2\.5 to 5 mm"):
        collect("train", tmp_path)


def test_frames_at_one_position_are_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "x.dcm", grid=AXIAL, stored=STORED, order=[0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    with pytest.raises(InputError, match="not one regular 3D volume"):
        collect("train", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_damaged_dicom_is_named(tmp_path: Path, content: bytes) -> None:
    write_classic(tmp_path, stored=STORED)
    (tmp_path / "extra.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"1 of 2 train volumes cannot be used: extra\.dcm \(unreadable"):
        collect("train", tmp_path)


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    path = write_classic(tmp_path, stored=STORED)[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="not one regular 3D volume"):
        collect("train", tmp_path)


def test_the_digest_is_of_the_bytes_that_were_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "n", [scan(0)])[0]
    assert load([path]).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    files = write_classic(tmp_path / "d", stored=STORED)
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    expected = hashlib.sha256("".join(digests).encode()).hexdigest()
    assert load(files).sha256 == load(files[::-1]).sha256 == expected


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_a_file_that_changes_under_the_audit_is_noticed(tmp_path: Path, kind: str) -> None:
    path = (write(tmp_path, [scan(0)]) if kind == "nifti" else write_classic(tmp_path, stored=STORED))[0]
    (found,) = collect("train", tmp_path)
    before, status = path.read_bytes(), path.stat()
    altered = gzip.decompress(before) if kind == "nifti" else before
    altered = altered[:-1] + bytes([altered[-1] ^ 1])
    path.write_bytes(gzip.compress(altered) if kind == "nifti" else altered)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match="changed while the audit ran"):
        found.array()
    path.unlink()
    with pytest.raises(InputError, match="can no longer be read; found unreadable"):
        found.array()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_stored_types_and_slopes(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(2).integers(0, 200, (9, 10, 11)).astype(dtype)
    image = nib.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "x.nii.gz")
    raw = bytearray(gzip.decompress((tmp_path / "x.nii.gz").read_bytes()))
    raw[112:120] = np.array([0.5, -3], "<f4").tobytes()
    (tmp_path / "x.nii.gz").unlink()
    (tmp_path / "x.nii").write_bytes(bytes(raw))
    np.testing.assert_array_equal(load([tmp_path / "x.nii"]).array, values * 0.5 - 3)


def test_nifti_2_big_endian_and_compression_under_the_wrong_name(tmp_path: Path) -> None:
    volume = np.array(scan(0))
    nib.save(nib.Nifti2Image(volume, np.eye(4)), tmp_path / "two.nii")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4), header), tmp_path / "big.nii")
    (tmp_path / "zip.nii").write_bytes(gzip.compress((tmp_path / "big.nii").read_bytes()))
    for name in ("two", "big", "zip"):
        np.testing.assert_array_equal(load([tmp_path / f"{name}.nii"]).array, volume)


def test_units_of_the_header_are_followed(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.array(scan(0)), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "m.nii")
    assert load([tmp_path / "m.nii"]).spacing == pytest.approx((1, 1, 2))


def test_files_without_a_preamble_are_read_where_their_name_says_what_they_are(tmp_path: Path) -> None:
    for path in write_classic(tmp_path, stored=STORED):
        path.write_bytes(path.read_bytes()[132:])
    (found,) = collect("train", tmp_path)
    assert (found.patient, found.shape) == ("P1", STORED.shape)


def test_dimension_indices_of_a_maker_do_not_stop_an_enhanced_file(tmp_path: Path) -> None:
    def private(k: int, data: Dataset) -> None:
        if k >= 0:
            content = Dataset()
            content.DimensionIndexValues = [1, k + 1]
            data.FrameContentSequence = [content]
            return
        pointers = []
        for tag in (0x2005106E, 0x00200032):
            item = Dataset()
            item.DimensionIndexPointer = tag
            pointers.append(item)
        data.DimensionIndexSequence = pointers

    write_enhanced(tmp_path / "x.dcm", grid=AXIAL, stored=STORED, edit=private)
    (found,) = collect("train", tmp_path)
    np.testing.assert_array_equal(found.array(), _ras(STORED * np.arange(1, 10)) - 10)
