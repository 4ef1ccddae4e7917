"""CT and MR series: geometry and voxels through independent readers, marks, identifiers, the same bytes each time."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_releases import SHAPE, approved, names, objects, phantom, released
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID
from release_fidelity import IMAGE_READERS, NOT_MULTI_FRAME, Phantom, compare, make_phantom, write_dicom_case
from releases import digest, read_table, write_table

from synthmed.config import ExportConfig
from synthmed.errors import ConfigError, InputError, ReleaseRefused
from synthmed.export.cohort import Columns
from synthmed.export.dicom.case import LONGEST_NAME, Case, describe
from synthmed.export.dicom.check import check_dicom
from synthmed.export.dicom.encode import ENCODERS, SYNTAXES, check_encoder
from synthmed.export.dicom.pixels import RAS_TO_LPS, decimal, to_slices, to_stored
from synthmed.export.dicom.writing import write_dicom
from synthmed.export.samples import WARNING

KINDS = [(modality, enhanced) for modality in ("CT", "MR") for enhanced in (False, True)]
IN_PROCESS = [name for name in IMAGE_READERS if name != "dcm2niix"]
Release = tuple[Path, Columns]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{'enhanced' if kind[1] else 'classic'}")
def kind(request: pytest.FixtureRequest) -> tuple[str, bool]:
    return request.param


@pytest.fixture(scope="module")
def release(kind: tuple[str, bool], tmp_path_factory: pytest.TempPathFactory) -> Release:
    return released(tmp_path_factory.mktemp("release"), kind[0], enhanced=kind[1])


def elements(data: Dataset) -> Iterator[pydicom.DataElement]:
    """Every element at any depth."""
    yield from data.iterall()


def bytes_of(release: Path) -> dict[str, str]:
    return {name: digest(release / name) for name in names(release)}


@pytest.mark.parametrize("reader", IN_PROCESS)
def test_affine_and_voxels_come_back(release: Release, kind: tuple[str, bool], reader: str, tmp_path: Path) -> None:
    modality, enhanced = kind
    path, columns = release
    if enhanced and reader in NOT_MULTI_FRAME:
        return
    index = json.loads((path / "dicom/index.json").read_text())["cases"]
    for number, (case, cells) in enumerate(columns.items()):
        truth = phantom(modality, number)
        written = truth.affine.astype(np.float32).astype(np.float64)
        read = IMAGE_READERS[reader](path / cells["dicom_series"], tmp_path)
        (affine, corner), difference = compare(read, truth.image, written)
        assert affine < 1e-6
        assert corner < 1e-6
        # Half a step, and the float32 in which readers return values of up to 1000.
        allowed = 0 if modality == "CT" else index[case]["slope"] / 2 + 1e-4
        assert difference.max() <= allowed


def test_ct_is_stored_in_hounsfield_units(tmp_path: Path) -> None:
    path, columns = released(tmp_path, "CT")
    for data in objects(path / columns["synthetic_0000"]["dicom_series"]).values():
        assert (data.PixelRepresentation, data.BitsStored, data.RescaleSlope, data.RescaleIntercept) == (1, 16, 1, 0)
        assert data.RescaleType == "HU"
    assert (
        min(data.pixel_array.min() for data in objects(path / columns["synthetic_0000"]["dicom_series"]).values()) < 0
    )


def test_what_each_object_says_of_itself(release: Release, kind: tuple[str, bool]) -> None:
    path, columns = release
    for name, data in objects(path).items():
        case = name.split("/")[1]
        assert data.SyntheticData == "YES"
        assert data.ImageComments == WARNING == "SYNTHETIC - NOT FOR CLINICAL USE"
        assert data.PatientIdentityRemoved == "YES"
        assert data.DeidentificationMethod
        assert "DeidentificationMethodCodeSequence" not in data
        assert data.BurnedInAnnotation == "NO"
        assert data.ContentQualification == "RESEARCH"
        assert data.PatientID == f"{data.DeviceSerialNumber[:8]}-{case}"
        assert data.PatientName == f"SYNTHETIC^{data.PatientID}"
        [equipment] = data.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
        assert "sha256:" in data.DerivationDescription
        expected = {
            "SEG": ["DERIVED", "PRIMARY"],
            "CT": ["DERIVED", "SECONDARY", "AXIAL"],
            "MR": ["DERIVED", "SECONDARY", "OTHER"],
        }
        if kind[1]:
            expected |= {modality: ["DERIVED", "PRIMARY", "VOLUME", "NONE"] for modality in ("CT", "MR")}
        assert list(data.ImageType) == expected[data.Modality]
    assert set(columns) == {"synthetic_0000", "synthetic_0001"}


def test_layout_names_come_from_the_case_and_its_identifiers(release: Release, kind: tuple[str, bool]) -> None:
    path, columns = release
    for case, cells in columns.items():
        root, folder, study, series = cells["dicom_series"].split("/")
        assert (root, folder, series.split("-")[0]) == ("dicom", case, kind[0])
        assert cells["dicom_seg"].startswith(f"dicom/{case}/{study}/SEG-")
        files = sorted(p.name for p in (path / cells["dicom_series"]).iterdir())
        assert files == [f"IM{k + 1:04d}.dcm" for k in range(1 if kind[1] else SHAPE[2])]
        assert pydicom.dcmread(path / cells["dicom_seg"]).SeriesInstanceUID == cells["dicom_seg_uid"]
    assert check_dicom(path, names(path)) == []


@pytest.mark.parametrize("compression", ["none", "rle", "jpeg-ls"])
def test_each_file_is_what_pydicom_would_write(tmp_path: Path, compression: str) -> None:
    for enhanced in (False, True):
        path = tmp_path / f"{enhanced}"
        write_dicom_case(path, make_phantom("CT", SHAPE), "CT", enhanced=enhanced, compression=compression)
        for name, data in objects(path).items():
            again = io.BytesIO()
            for element in data.iterall():
                str(element.value)
            data.save_as(again, enforce_file_format=True)
            assert again.getvalue() == (path / name).read_bytes()


def test_no_moment_and_no_second_name_in_any_header(release: Release) -> None:
    for data in objects(release[0]).values():
        moments = {str(e.value) for e in elements(data) if e.VR in ("DA", "TM", "DT") and str(e.value or "")}
        assert moments <= {"20000101", "000000"}
        people = [e.keyword for e in elements(data) if e.VR == "PN" and str(e.value or "")]
        assert people == ["PatientName"]
        assert not any(e.tag.is_private for e in elements(data))


def test_identifiers_are_valid_and_each_object_has_its_own(release: Release) -> None:
    found = list(objects(release[0]).values())
    assert len({data.SOPInstanceUID for data in found}) == len(found)
    assert len({data.StudyInstanceUID for data in found}) == 2
    assert len({data.FrameOfReferenceUID for data in found}) == 2
    for data in found:
        uids = [UID(e.value) for e in elements(data) if e.VR == "UI" and isinstance(e.value, str)]
        assert all(uid.is_valid for uid in uids)
        assert {uid for uid in uids if not uid.startswith(("2.25.", "1.2.840.10008."))} == set()


def test_same_input_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    for config in ({}, {"enhanced": True, "compression": "rle"}):
        places = tmp_path / f"a{len(config)}", tmp_path / f"b c é{len(config)}"
        first, second = (released(place, "MR", **config)[0] for place in places)
        assert bytes_of(first) == bytes_of(second)


def test_other_images_get_other_identifiers() -> None:
    first, second = (Case("x", "CT", origin * 64, "", (0.0, 1.0)) for origin in "ab")
    assert first.uid("study") == Case("x", "CT", "a" * 64, "other", (5.0, 1.0)).uid("study")
    assert len({first.uid("study"), second.uid("study"), first.uid("classic", "series")}) == 3


def test_cases_of_one_name_in_two_releases_are_two_patients(tmp_path: Path) -> None:
    found = []
    for folder, count in (("a", 2), ("b", 1)):
        cohort = approved(tmp_path / folder, "MR", n=count)
        (tmp_path / folder / "release").mkdir()
        cells = write_dicom(cohort, tmp_path / folder / "release", ExportConfig())["synthetic_0000"]
        data = pydicom.dcmread(tmp_path / folder / "release" / cells["dicom_seg"])
        found.append((str(data.PatientID), str(data.PatientName)))
    assert not set(found[0]) & set(found[1])
    assert all(identity.endswith("-synthetic_0000") for identity, _ in found)


def test_the_longest_name_keeps_to_the_limits_of_dicom(tmp_path: Path) -> None:
    samples = approved(tmp_path, "MR", n=1)
    longest = Case("x" * LONGEST_NAME, "MR", "a" * 64, "", (0.0, 1.0))
    assert (len(longest.patient_id), len(longest.patient_name)) == (54, 64)
    describe(samples, replace(samples.samples[0], name=longest.name))
    with pytest.raises(ConfigError, match="too long for DICOM"):
        describe(samples, replace(samples.samples[0], name=longest.name + "x"))


def test_pet_is_refused_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PET is released as NIfTI"):
        released(tmp_path, "PT")


def test_a_cohort_without_labels_has_no_segmentation(tmp_path: Path) -> None:
    cohort = approved(tmp_path, labels=())
    (tmp_path / "release").mkdir()
    columns = write_dicom(cohort, tmp_path / "release", ExportConfig())
    assert [cells["dicom_seg"] + cells["dicom_seg_uid"] for cells in columns.values()] == ["", ""]
    assert not list((tmp_path / "release").rglob("SEG-*"))
    assert check_dicom(tmp_path / "release", names(tmp_path / "release")) == []


def test_a_file_changed_after_the_approval_is_refused(tmp_path: Path) -> None:
    cohort = approved(tmp_path)
    file = cohort.folder / "labels" / "synthetic_0001.nii.gz"
    file.write_bytes(file.read_bytes() + b"x")
    (tmp_path / "release").mkdir()
    with pytest.raises(ReleaseRefused, match="changed after it was approved"):
        write_dicom(cohort, tmp_path / "release", ExportConfig())


@pytest.mark.parametrize("compression", sorted(SYNTAXES))
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_compression_is_lossless_or_says_what_to_install(compression: str, modality: str, tmp_path: Path) -> None:
    missing = [package for module, package in ENCODERS.get(compression, {}).items() if find_spec(module) is None]
    if missing:
        with pytest.raises(ConfigError, match=f"Nothing installed encodes.*pip install {' '.join(missing)}"):
            check_encoder(compression)
        return
    truth = make_phantom(modality, (40, 36, 5))
    stored, series = {}, ""
    for name in sorted({"none", compression}):
        entry = write_dicom_case(tmp_path / name, truth, modality, compression=name)
        read = IMAGE_READERS["SimpleITK"](tmp_path / name / entry.series, tmp_path)
        stored[name], series = read[0], entry.series
    for data in objects(tmp_path / compression / series).values():
        assert data.file_meta.TransferSyntaxUID == SYNTAXES[compression]
        assert data.LossyImageCompression == "00"
    np.testing.assert_array_equal(stored[compression], stored["none"])


def test_rle_and_jpeg_ls_always_come_along() -> None:
    for compression in ("none", "rle", "jpeg-ls"):
        check_encoder(compression)


def all_orientations() -> list[np.ndarray]:
    """The 48 signed permutations, a slight turn each."""
    turn = make_phantom("CT", SHAPE).affine[:3, :3] / (0.9, 1.3, 2.7)
    flips = itertools.product((1, -1), repeat=3)
    return [turn @ np.eye(3)[list(p)] * f for f in flips for p in itertools.permutations(range(3))]


@pytest.mark.parametrize("axes", all_orientations())
def test_every_voxel_keeps_its_place_whatever_the_axes(axes: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * (0.9, 1.3, 2.7), (3, -5, 8)
    array = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    values, grid = to_slices(array, affine)
    for index in ((0, 0, 0), (3, 0, 2), (1, 4, 5)):
        [[k, j, i]] = np.argwhere(values == array[index])
        place = RAS_TO_LPS @ affine @ (*index, 1)
        np.testing.assert_allclose(grid.affine @ (i, j, k, 1), place, atol=1e-12)
    # Slices ascend along row x column, and closest to the body's long axis.
    assert np.linalg.det(grid.affine[:3, :3]) > 0
    assert grid.affine[2, 2] > 0


def test_a_shear_has_no_dicom_form() -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.01
    with pytest.raises(InputError, match="no DICOM form"):
        to_slices(np.ones((4, 4, 4)), affine)


@given(st.floats(-3000, 3000, allow_nan=False))
def test_decimal_strings_fit_and_keep_their_digits(value: float) -> None:
    text = str(decimal(value))
    assert len(text) <= 16
    assert abs(float(text) - value) <= 1e-9
    assert text != "-0.0"


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False, width=32), min_size=2, max_size=20, unique=True))
def test_fractions_are_restored_to_within_half_a_step(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32).reshape(1, 1, -1)
    stored = to_stored(array)
    assert str(decimal(stored.slope)) == str(decimal(float(str(decimal(stored.slope)))))
    restored = stored.array * stored.slope + stored.intercept
    assert np.abs(restored - array).max() <= stored.slope / 2 * (1 + 1e-9)
    assert stored.slope <= max(np.ptp(array.astype(np.float64)) / 65535 * 1.0001, 1.0)


@pytest.mark.parametrize("low", [-32768, 0, -1024])
def test_whole_numbers_of_16_bits_are_stored_as_they_are(low: int) -> None:
    array = np.array([[[low, 5, 32767]]], dtype=np.float32)
    stored = to_stored(array)
    assert (stored.slope, stored.intercept, stored.array.dtype) == (1.0, 0.0, np.int16)
    np.testing.assert_array_equal(stored.array, array)


def test_a_label_value_that_the_model_never_learned_is_refused(tmp_path: Path) -> None:
    cohort = approved(tmp_path, labels=(1, 2))
    samples = cohort.folder
    record = json.loads((samples / "generation.json").read_text())
    record["space"]["label_values"] = [0, 1]
    (samples / "generation.json").write_text(json.dumps(record))
    write_table(samples, read_table(samples))
    from releases import make_audit

    from synthmed.export import approve
    from synthmed.export.cohort import open_approved

    audit = make_audit(tmp_path / "again", samples)
    cohort = open_approved(samples, approve(samples, audit / "report.json", "default"))
    (tmp_path / "release").mkdir()
    with pytest.raises(ReleaseRefused, match=r"synthetic_0000 holds a value that the model never learned; found 2"):
        write_dicom(cohort, tmp_path / "release", ExportConfig())


def test_phantom_has_no_symmetry() -> None:
    truth: Phantom = make_phantom("CT", SHAPE)
    for count in (1, 2, 3):
        for axes in itertools.combinations(range(3), count):
            assert not np.array_equal(np.flip(truth.image, axes), truth.image)
            assert not np.array_equal(np.flip(truth.label, axes), truth.label)
