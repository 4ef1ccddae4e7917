"""Faults that no validator of DICOM sees, each put into a good release and found."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_releases import SHAPE, names, released, rewrite
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from synthmed.export import EXPORTERS
from synthmed.export.dicom.check import check_dicom
from synthmed.export.dicom.writing import write_dicom
from synthmed.export.findings import Finding

CASE = "synthetic_0001"
Edit = Callable[[Dataset], None]


@pytest.fixture(scope="module", params=["CT", "MR"])
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("pristine"), request.param)[0]


@pytest.fixture(scope="module")
def multi_frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("enhanced"), "CT", enhanced=True)[0]


@pytest.fixture
def release(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "release"))


@pytest.fixture(scope="module")
def pristine_mr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("mr"), "MR")[0]


@pytest.fixture
def mr(pristine_mr: Path, tmp_path: Path) -> Path:
    """A release for the faults that have nothing to do with the modality."""
    return Path(shutil.copytree(pristine_mr, tmp_path / "release"))


@pytest.fixture
def enhanced(multi_frame: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(multi_frame, tmp_path / "release"))


def entry(release: Path) -> dict[str, str]:
    return json.loads((release / "dicom/index.json").read_text())["cases"][CASE]


def series(release: Path) -> list[Path]:
    return sorted((release / entry(release)["series"]).iterdir())


def problems(release: Path) -> list[str]:
    """What is found, the places left out."""
    return [finding.problem for finding in check_dicom(release, names(release))]


def every_slice(release: Path, edit: Edit) -> None:
    for file in series(release):
        rewrite(file, edit)


def test_a_good_release_has_no_finding(release: Path) -> None:
    assert check_dicom(release, names(release)) == []


def test_a_release_without_dicom_has_no_finding(tmp_path: Path) -> None:
    assert check_dicom(tmp_path, ["README.md", "nifti/dataset.json"]) == []


@pytest.mark.parametrize(("axis", "name"), [(0, "rows"), (1, "columns")])
def test_a_flip_in_the_plane_is_found(release: Path, axis: int, name: str) -> None:
    def flip(data: Dataset) -> None:
        data.PixelData = np.flip(data.pixel_array, axis).tobytes()

    every_slice(release, flip)
    assert check_dicom(release, names(release)) == [
        Finding(entry(release)["series"], f"its voxels are flipped along {name}")
    ]


def test_reversed_positions_are_found(release: Path) -> None:
    files = series(release)
    positions = [[float(x) for x in read(file).ImagePositionPatient] for file in files]
    for file, position in zip(files, reversed(positions), strict=True):
        rewrite(file, lambda data, position=position: setattr(data, "ImagePositionPatient", position))
    assert problems(release) == [
        "its voxels are flipped along slices",
        "slices are reversed: InstanceNumber descends along the positions",
    ]


def test_reversed_instance_numbers_are_found(release: Path) -> None:
    every_slice(release, lambda data: setattr(data, "InstanceNumber", SHAPE[2] + 1 - data.InstanceNumber))
    assert problems(release) == ["slices are reversed: InstanceNumber descends along the positions"]


def test_two_exchanged_instance_numbers_are_found(release: Path) -> None:
    for file, number in zip(series(release)[3:5], (5, 4), strict=True):
        rewrite(file, lambda data, number=number: setattr(data, "InstanceNumber", number))
    assert problems(release) == ["InstanceNumber does not follow the positions"]


def test_swapped_spacing_is_found(release: Path) -> None:
    every_slice(release, lambda data: setattr(data, "PixelSpacing", list(data.PixelSpacing)[::-1]))
    assert problems(release) == ["PixelSpacing is swapped, not 1.3 between rows and 0.9 between columns"]


def test_another_spacing_is_found(release: Path) -> None:
    every_slice(release, lambda data: setattr(data, "PixelSpacing", [1.3, 1.3]))
    assert problems(release) == ["PixelSpacing is [1.3, 1.3], not 1.3 between rows and 0.9 between columns"]


def test_a_wrong_sign_is_found(release: Path) -> None:
    every_slice(release, lambda data: setattr(data, "PixelRepresentation", 1 - data.PixelRepresentation))
    kind = entry(release)["type"]
    other = "uint16" if kind == "int16" else "int16"
    assert problems(release) == [f"PixelRepresentation makes {other} of what is {kind}"]


def test_a_missing_slice_is_found(release: Path) -> None:
    series(release)[3].unlink()
    assert problems(release) == [
        "gaps between slices run from 2.7 to 5.4 mm, not 2.7",
        f"has {SHAPE[2] - 1} slices, not {SHAPE[2]}",
        "refers to images other than those of its series",
    ]


def test_a_missing_last_slice_is_found(release: Path) -> None:
    series(release)[-1].unlink()
    assert f"has {SHAPE[2] - 1} slices, not {SHAPE[2]}" in problems(release)


def test_an_uneven_gap_is_found(release: Path) -> None:
    def move(data: Dataset) -> None:
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], data.ImagePositionPatient[2] + 0.5]

    rewrite(series(release)[4], move)
    [problem] = problems(release)
    assert problem.startswith("gaps between slices run from 2.2")


def test_a_moved_series_is_found(release: Path) -> None:
    def move(data: Dataset) -> None:
        data.ImagePositionPatient = [data.ImagePositionPatient[0] + 0.01, *data.ImagePositionPatient[1:]]

    every_slice(release, move)
    assert problems(release)[-1] == "ImagePositionPatient is not that of the index"


def test_a_turned_series_is_found(release: Path) -> None:
    every_slice(release, lambda data: setattr(data, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0]))
    assert problems(release) == ["ImageOrientationPatient is not that of the index"]


def test_a_duplicate_uid_is_found(release: Path) -> None:
    first, second = series(release)[:2]

    def copy_uid(data: Dataset) -> None:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = read(first).SOPInstanceUID

    rewrite(second, copy_uid)
    where = second.relative_to(release).as_posix()
    assert Finding(where, f"has the SOPInstanceUID of {first.relative_to(release).as_posix()}") in check_dicom(
        release, names(release)
    )


def test_a_duplicate_uid_across_cases_is_found(mr: Path) -> None:
    other = sorted((mr / "dicom/synthetic_0000").glob("*/[CM]*/IM0001.dcm"))[0]

    def copy_uid(data: Dataset) -> None:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = read(other).SOPInstanceUID

    rewrite(series(mr)[0], copy_uid)
    assert f"has the SOPInstanceUID of {other.relative_to(mr).as_posix()}" in problems(mr)


MARKS: dict[str, tuple[Edit, str]] = {
    "synthetic data missing": (lambda d: delattr(d, "SyntheticData"), "SyntheticData is missing, not YES"),
    "synthetic data no": (lambda d: setattr(d, "SyntheticData", "NO"), "SyntheticData is NO, not YES"),
    "original": (
        lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"]),
        "ImageType begins with ORIGINAL, not DERIVED",
    ),
    "no comment": (
        lambda d: delattr(d, "ImageComments"),
        "ImageComments is missing, not SYNTHETIC - NOT FOR CLINICAL USE",
    ),
    "no equipment": (
        lambda d: delattr(d, "ContributingEquipmentSequence"),
        "ContributingEquipmentSequence names no synthesizing equipment",
    ),
    "product": (
        lambda d: setattr(d, "ContentQualification", "PRODUCT"),
        "ContentQualification is PRODUCT, not RESEARCH",
    ),
    "identity kept": (
        lambda d: setattr(d, "PatientIdentityRemoved", "NO"),
        "PatientIdentityRemoved is NO, not YES",
    ),
    "no method": (lambda d: delattr(d, "DeidentificationMethod"), "DeidentificationMethod is missing"),
    "no derivation": (lambda d: delattr(d, "DerivationDescription"), "DerivationDescription is missing"),
    "a patient": (
        lambda d: setattr(d, "PatientName", "Mustermann^Erika"),
        f"PatientName or PatientID is not that of the synthetic case {CASE}",
    ),
    "a number": (
        lambda d: setattr(d, "PatientID", "4711"),
        f"PatientName or PatientID is not that of the synthetic case {CASE}",
    ),
    "the number of another release": (
        lambda d: setattr(d, "PatientID", f"00000000-{CASE}"),
        f"PatientName or PatientID is not that of the synthetic case {CASE}",
    ),
    "a birth date": (lambda d: setattr(d, "PatientBirthDate", "19620229"), "PatientBirthDate is filled"),
    "a physician": (lambda d: setattr(d, "ReferringPhysicianName", "Doe^J"), "ReferringPhysicianName is filled"),
    "a hospital, deep": (
        lambda d: setattr(d.ContributingEquipmentSequence[0], "InstitutionName", "St. Elsewhere"),
        "InstitutionName is filled",
    ),
    "a private attribute": (lambda d: d.add_new(0x00110010, "LO", "ACME"), "has private attributes"),
    "another modality": (lambda d: setattr(d, "Modality", "PT"), "Modality is PT, not MR"),
    "another series": (
        lambda d: setattr(d, "SeriesInstanceUID", generate_uid(entropy_srcs=["x"])),
        "SeriesInstanceUID is not that of the index",
    ),
}


@pytest.mark.parametrize("fault", sorted(MARKS))
def test_a_missing_mark_or_a_person_is_found(mr: Path, fault: str) -> None:
    edit, problem = MARKS[fault]
    file = series(mr)[2]
    rewrite(file, edit)
    assert check_dicom(mr, names(mr)) == [Finding(file.relative_to(mr).as_posix(), problem)]


@pytest.mark.parametrize("fault", ["synthetic data missing", "a patient", "original"])
def test_the_marks_of_a_segmentation_are_looked_at(mr: Path, fault: str) -> None:
    edit, problem = MARKS[fault]
    rewrite(mr / entry(mr)["seg"], edit)
    assert check_dicom(mr, names(mr)) == [Finding(entry(mr)["seg"], problem)]


def test_one_changed_voxel_is_found(release: Path) -> None:
    def change(data: Dataset) -> None:
        data.PixelData = bytes([data.PixelData[0] ^ 1]) + data.PixelData[1:]

    rewrite(series(release)[5], change)
    assert problems(release) == ["its voxels are not those of the index"]


def test_another_rescale_is_found(release: Path) -> None:
    rewrite(series(release)[5], lambda data: setattr(data, "RescaleIntercept", -1024))
    [problem] = problems(release)
    assert problem.startswith("rescale is not ")


def test_a_flipped_segmentation_is_found(release: Path) -> None:
    def flip(data: Dataset) -> None:
        from pydicom.pixels import pack_bits

        data.PixelData = pack_bits(np.flip(data.pixel_array, 2).ravel())

    rewrite(release / entry(release)["seg"], flip)
    assert problems(release) == ["its labels are flipped along columns"]


def test_a_renamed_segment_is_found(mr: Path) -> None:
    rewrite(mr / entry(mr)["seg"], lambda data: setattr(data.SegmentSequence[0], "SegmentLabel", "right"))
    [problem] = problems(mr)
    assert problem == "its segments are {'right': 1, 'label_2': 2}, not {'left': 1, 'label_2': 2}"


def test_a_segmentation_moved_off_its_grid_is_found(mr: Path) -> None:
    def move(data: Dataset) -> None:
        for group in data.PerFrameFunctionalGroupsSequence:
            position = group.PlanePositionSequence[0].ImagePositionPatient
            group.PlanePositionSequence[0].ImagePositionPatient = [position[0] + 0.2, *position[1:]]

    rewrite(mr / entry(mr)["seg"], move)
    assert problems(mr) == ["its frames do not lie on the grid of its series"]


def test_a_missing_series_or_segmentation_is_found(release: Path) -> None:
    (release / entry(release)["seg"]).unlink()
    assert check_dicom(release, names(release)) == [Finding(entry(release)["seg"], "is missing")]
    shutil.rmtree(release / entry(release)["series"])
    assert Finding(entry(release)["series"], "is missing") in check_dicom(release, names(release))


@pytest.mark.parametrize("place", ["dicom/extra.dcm", "other/IM0001.dcm", "dicom/synthetic_0001/note.txt"])
def test_a_file_that_belongs_to_no_series_is_found(mr: Path, place: str) -> None:
    (mr / place).parent.mkdir(exist_ok=True)
    shutil.copy(series(mr)[0], mr / place)
    assert check_dicom(mr, names(mr)) == [Finding(place, "is not in a folder that dicom/index.json names")]


@pytest.mark.parametrize("content", [b"", b"not DICOM", bytes(128) + b"DICM" + b"\xff" * 40])
def test_a_file_that_is_not_dicom_is_found(mr: Path, content: bytes) -> None:
    file = series(mr)[0]
    file.write_bytes(content)
    found = {finding.path: finding.problem for finding in check_dicom(mr, names(mr))}
    assert found[file.relative_to(mr).as_posix()].startswith("cannot be read as DICOM")


def test_a_truncated_file_is_found(release: Path) -> None:
    file = series(release)[0]
    file.write_bytes(file.read_bytes()[:-100])
    found = {finding.path: finding.problem for finding in check_dicom(release, names(release))}
    assert found[file.relative_to(release).as_posix()].startswith("cannot be read as DICOM")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "synthmed-dicom/1", "cases": {"x": {"shape": [1, 2]}}}', "{" * 100000]
)
def test_an_unusable_index_is_named(mr: Path, content: str) -> None:
    (mr / "dicom/index.json").write_text(content)
    [finding] = check_dicom(mr, names(mr))
    assert finding.path == "dicom/index.json"


def test_a_missing_index_is_named(mr: Path) -> None:
    (mr / "dicom/index.json").unlink()
    [finding] = check_dicom(mr, names(mr))
    assert finding.path == "dicom/index.json"


def test_an_index_that_leads_outside_reads_nothing_there(mr: Path) -> None:
    index = json.loads((mr / "dicom/index.json").read_text())
    index["cases"][CASE]["series"] = "../../etc"
    index["cases"]["../../x"] = index["cases"].pop(CASE)
    (mr / "dicom/index.json").write_text(json.dumps(index))
    assert Finding("../../etc", "is missing") in check_dicom(mr, names(mr))


@pytest.mark.parametrize("kind", ["IM0004.dcm", "SEG-", "index.json"])
def test_no_damage_raises(mr: Path, kind: str) -> None:
    """Whatever is done to a file, the check ends with findings or none; SHA256SUMS sees what it does not look at."""
    rng = random.Random(kind)
    file = next(mr / name for name in names(mr) if kind in name)
    content = file.read_bytes()
    found = 0
    for _ in range(12):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 3, 20])):
            damaged[rng.randrange(min(len(damaged), 3000))] = rng.randrange(256)
        file.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        found += bool(check_dicom(mr, names(mr)))
    assert found >= 6


def test_multi_frame_faults_are_found(enhanced: Path) -> None:
    [file] = series(enhanced)

    def swap(data: Dataset) -> None:
        measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.PixelSpacing = list(measures.PixelSpacing)[::-1]
        del data.SyntheticData

    rewrite(file, swap)
    assert problems(enhanced) == [
        "PixelSpacing is swapped, not 1.3 between rows and 0.9 between columns",
        "SyntheticData is missing, not YES",
    ]


def test_reversed_frames_are_found(enhanced: Path) -> None:
    def reverse(data: Dataset) -> None:
        data.PixelData = data.pixel_array[::-1].tobytes()

    rewrite(series(enhanced)[0], reverse)
    assert problems(enhanced) == ["its voxels are flipped along slices"]


def test_a_series_that_differs_from_its_nifti_is_found(tmp_path: Path) -> None:
    """An index that was made to fit the fault does not hide it from the NIfTI beside it."""
    from dicom_releases import approved

    from synthmed.config import ExportConfig

    cohort = approved(tmp_path, "CT")
    release = tmp_path / "release"
    release.mkdir()
    EXPORTERS["nifti"](cohort, release, ExportConfig())
    write_dicom(cohort, release, ExportConfig())
    assert check_dicom(release, names(release)) == []
    other = approved(tmp_path / "other", "CT", n=1)
    shutil.copy(other.folder / "images/synthetic_0000.nii.gz", release / "nifti/imagesTr/synthetic_0001_0000.nii.gz")
    [problem] = problems(release)
    assert problem.startswith("its voxels differ from its NIfTI by up to ")


def read(file: Path) -> Dataset:
    import pydicom

    return pydicom.dcmread(file)
