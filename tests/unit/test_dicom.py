"""DICOM series with a known grid, read back; and one test for every way in which a series can be no volume."""

from __future__ import annotations

import logging
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import OBLIQUE, Grid, rotated, voxels, write_classic, write_enhanced
from dicom_files import recode as recode_file
from pydicom.dataset import Dataset

from synthmed.errors import InputError
from synthmed.io import read_volume
from synthmed.io.dicom import find_series, read_series, scan
from synthmed.volume import Volume

POSITIONS = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "HFDL": ((0, 1, 0), (-1, 0, 0)),
    "HFDR": ((0, -1, 0), (1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
}


def assert_placed(volume: Volume, grid: Grid, expected: np.ndarray) -> None:
    """Check every voxel's value and, through the corners, where it lies."""
    np.testing.assert_array_equal(volume.array[0], expected)
    for i, j, k in np.ndindex(2, 2, 2):
        index = np.array([i, j, k]) * (np.array(volume.shape) - 1)
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], grid.ras(*index), atol=1e-4)


def test_a_supine_axial_series_has_the_affine_computed_by_hand(tmp_path: Path) -> None:
    write_classic(tmp_path, grid=Grid())
    volume = read_volume(tmp_path)
    # A column of pixels is 0.75 mm to the patient's left, a row 1.5 mm to the back, a slice 2.5 mm to the head.
    expected = [[-0.75, 0, 0, 20], [0, -1.5, 0, -30], [0, 0, 2.5, -40], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    assert volume.orientation == "LPS"
    np.testing.assert_array_equal(volume.array[0], voxels().astype(np.float32) - 1024)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("position", POSITIONS)
def test_classic_series_in_every_patient_position(tmp_path: Path, position: str, modality: str) -> None:
    grid = rotated(*POSITIONS[position])
    code = position if position.isupper() else "HFS"
    paths = write_classic(tmp_path, grid=grid, modality=modality, position=code, slope=0.5, intercept=-3.0)
    volume = read_series(paths)
    assert_placed(volume, grid, voxels() * np.float32(0.5) - 3)
    assert np.linalg.det(volume.affine[:3, :3]) > 0


@pytest.mark.parametrize("position", ["HFS", "FFS", "HFDL"])
def test_an_independent_reader_agrees(tmp_path: Path, position: str) -> None:
    paths = write_classic(tmp_path, grid=rotated(*POSITIONS[position]), position=position)
    volume = read_series(paths)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), volume.array[0])
    for index in ((0, 0, 0), (7, 0, 0), (0, 5, 0), (0, 0, 4)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], (-x, -y, z), atol=1e-4)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_enhanced_frames_in_any_order_with_a_slope_each(tmp_path: Path, modality: str) -> None:
    write_enhanced(tmp_path / "a.dcm", modality=modality, order=[3, 0, 4, 2, 1])
    expected = voxels().astype(np.float32) * np.arange(1, 6) - 10
    assert_placed(read_volume(tmp_path), OBLIQUE, expected)


def test_per_slice_rescale(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        data.RescaleSlope, data.RescaleIntercept = str(0.25 * (k + 1)), str(-k)

    write_classic(tmp_path, edit=edit)
    expected = voxels() * 0.25 * np.arange(1, 6) - np.arange(5)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], expected.astype(np.float32))


def test_signed_stored_values(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        data.PixelRepresentation = 1

    stored = voxels().astype(np.int16) - 100
    write_classic(tmp_path, stored=stored, edit=edit, intercept=0.0)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], stored)


def test_implicit_vr_without_preamble(tmp_path: Path) -> None:
    for path in write_classic(tmp_path):
        data = pydicom.dcmread(path)
        bare = Dataset()
        bare.update(data)
        bare.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[:2] == b"\x08\x00"
    assert_placed(read_volume(tmp_path), OBLIQUE, voxels().astype(np.float32) - 1024)


LOSSLESS = ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "ExplicitVRBigEndian"]


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    for path in write_classic(tmp_path, stored=voxels(16, 12, 4)):
        recode_file(path, getattr(gdcm.TransferSyntax, syntax))
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], voxels(16, 12, 4).astype(np.float32) - 1024)


def test_a_syntax_without_a_decoder_is_refused_by_name(tmp_path: Path) -> None:
    for path in write_classic(tmp_path, stored=voxels(16, 12, 4)):
        recode_file(path, gdcm.TransferSyntax.JPEG2000Lossless)
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
        data.save_as(path)
    with pytest.raises(InputError, match=r"Cannot decode.*MPEG-4"):
        read_volume(tmp_path)


def test_jpeg_baseline(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = np.frombuffer(data.PixelData, np.uint16).astype(np.uint8).tobytes()

    smooth = np.add.outer(np.arange(32), np.add.outer(2 * np.arange(16), 10 * np.arange(4))).astype(np.uint16)
    for path in write_classic(tmp_path, stored=smooth, edit=edit, intercept=0.0):
        recode_file(path, gdcm.TransferSyntax.JPEGBaselineProcess1)
    assert np.abs(read_volume(tmp_path).array[0] - smooth).max() <= 3


def test_signs_in_the_stored_bits_alone(tmp_path: Path) -> None:
    """PS3.5 section 8.1.1: a 12-bit -100 may be 0x0F9C as well as 0xFF9C."""

    def edit(k: int, data: Dataset) -> None:
        data.PixelRepresentation, data.BitsStored, data.HighBit = 1, 12, 11
        if k == 2:
            data.PixelData = (np.frombuffer(data.PixelData, np.uint16) & 0x0FFF).tobytes()

    stored = voxels().astype(np.int16) - 150
    write_classic(tmp_path, stored=stored, edit=edit, intercept=0.0)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], stored)


# Every fault below is in slice 2 of 5 unless it says otherwise.


def _set(keyword: str, content: object, k_only: int | None = 2):
    def edit(k: int, data: Dataset) -> None:
        if k_only is None or k == k_only:
            setattr(data, keyword, content)

    return edit


def _drop(keyword: str, k_only: int | None = 2):
    def edit(k: int, data: Dataset) -> None:
        if k_only is None or k == k_only:
            delattr(data, keyword)

    return edit


def _tilted(k: int, data: Dataset) -> None:
    data.ImagePositionPatient = [float(x) for x in OBLIQUE.position(k) + k * 0.05 * np.array(OBLIQUE.column)]


def _uneven(k: int, data: Dataset) -> None:
    data.ImagePositionPatient = OBLIQUE.position(k + 0.04 * (k == 2))


def _shifted_in_plane(k: int, data: Dataset) -> None:
    if k == 2:
        data.ImagePositionPatient = [float(x) for x in OBLIQUE.position(k) + 0.5 * np.array(OBLIQUE.row)]


def _repeated(k: int, data: Dataset) -> None:
    data.ImagePositionPatient = OBLIQUE.position(1 if k == 2 else k)


def _rgb(k: int, data: Dataset) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = data.PixelData[: data.Rows * data.Columns] * 3


def _short(k: int, data: Dataset) -> None:
    if k == 2:
        data.PixelData = data.PixelData[:40]


def _overlay_bits(k: int, data: Dataset) -> None:
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = (np.frombuffer(data.PixelData, np.uint16) | 0x8000).tobytes()


def _one_size_off(k: int, data: Dataset) -> None:
    if k == 2:
        data.Rows, data.PixelData = 5, data.PixelData[: 8 * 5 * 2]


FAULTS = {
    "gantry tilt of 1.1 degree": (_tilted, "Gantry tilt"),
    "uneven increments": (_uneven, "Uneven slice increments"),
    "slice shifted in plane": (_shifted_in_plane, "Uneven slice increments"),
    "repeated position": (_repeated, "1 of 5 slices at the position of another"),
    "mixed orientation": (_set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), "Mixed orientation"),
    "skewed cosines": (_set("ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0], None), "perpendicular"),
    "cosines of zero": (_set("ImageOrientationPatient", [0] * 6, None), "perpendicular"),
    "mixed matrix": (_one_size_off, "Slices of different size"),
    "mixed spacing": (_set("PixelSpacing", [1, 1]), "Slices of different size"),
    "spacing of zero": (_set("PixelSpacing", [0, 0], None), "Unusable geometry"),
    "localizer": (_set("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], None), "localizer"),
    "one localizer in the stack": (_set("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "no position": (_drop("ImagePositionPatient"), "No ImagePositionPatient"),
    "no orientation": (_drop("ImageOrientationPatient"), "No ImageOrientationPatient"),
    "no spacing": (_drop("PixelSpacing", None), "5 of 5 frames without it"),
    "short position": (_set("ImagePositionPatient", [1, 2]), "No ImagePositionPatient"),
    "no slope in CT": (_drop("RescaleSlope"), "Hounsfield"),
    "colour": (_rgb, "3 samples a pixel, RGB"),
    "inverted grey": (_set("PhotometricInterpretation", "MONOCHROME1"), "MONOCHROME1"),
    "palette": (_set("PhotometricInterpretation", "PALETTE COLOR"), "PALETTE COLOR"),
    "no pixels": (_drop("PixelData"), "No pixel data"),
    "truncated pixels": (_short, "Cannot decode the pixels"),
    "overlay in the pixels": (_overlay_bits, "wider than BitsStored"),
    "modality table": (_set("ModalityLUTSequence", [Dataset()]), "Modality LUT"),
    "constant": (_set("PixelData", bytes(96), None), "constant image"),
    "no rows": (_drop("Rows"), "CT without Rows"),
    "no modality": (_drop("Modality"), "no Modality"),
    "no series": (_drop("SeriesInstanceUID"), "CT without SeriesInstanceUID"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_refuses(tmp_path: Path, name: str) -> None:
    edit, words = FAULTS[name]
    write_classic(tmp_path, edit=edit)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.expected


def test_the_same_series_without_a_fault_is_read(tmp_path: Path) -> None:
    write_classic(tmp_path, edit=lambda k, data: None)
    assert_placed(read_volume(tmp_path), OBLIQUE, voxels().astype(np.float32) - 1024)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_refuses_a_missing_slice(tmp_path: Path, k: int) -> None:
    write_classic(tmp_path)[k].unlink()
    with pytest.raises(InputError, match=r"A missing slice.* gaps from 2.5 to 5 mm"):
        read_volume(tmp_path)


@pytest.mark.parametrize("left", [1, 2])
def test_refuses_too_few_slices(tmp_path: Path, left: int) -> None:
    with pytest.raises(InputError, match=f"Too few slices.*found {left};"):
        read_series(write_classic(tmp_path)[:left])


def test_refuses_not_a_number_from_the_rescale(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        if k == 0:
            data.RescaleSlope = "1e39"

    write_classic(tmp_path, edit=edit)
    with pytest.raises(InputError, match="not finite"):
        read_volume(tmp_path)


def test_scanner_rounding_is_no_fault(tmp_path: Path) -> None:
    def edit(k: int, data: Dataset) -> None:
        data.ImagePositionPatient = [round(x, 2) for x in OBLIQUE.position(k)]

    write_classic(tmp_path, edit=edit)
    volume = read_volume(tmp_path)
    np.testing.assert_allclose((volume.affine @ [7, 5, 4, 1])[:3], OBLIQUE.ras(7, 5, 4), atol=0.02)


def _enhanced_missing(k: int, data: Dataset) -> None:
    if k >= 0 and "PlanePositionSequence" in data:
        data.PlanePositionSequence[0].ImagePositionPatient = OBLIQUE.position(k + (k > 2))


def _enhanced_no_slope(k: int, data: Dataset) -> None:
    if k == 3:
        del data.PixelValueTransformationSequence


def _enhanced_fewer_groups(k: int, data: Dataset) -> None:
    if k == -1:
        del data.PerFrameFunctionalGroupsSequence[-1]


def _enhanced_fewer_pixels(k: int, data: Dataset) -> None:
    if k == -1:
        data.PixelData = data.PixelData[:-96]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_enhanced_missing, "A missing slice"),
        (_enhanced_no_slope, "Hounsfield"),
        (_enhanced_fewer_groups, "5 frames and functional groups for 4"),
        (_enhanced_fewer_pixels, "Cannot decode the pixels"),
    ],
)
def test_refuses_enhanced(tmp_path: Path, edit, words: str) -> None:
    write_enhanced(tmp_path / "a.dcm", edit=edit)
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path)


@pytest.mark.parametrize("syntax", [None, *LOSSLESS[:4]])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.995])
def test_refuses_a_truncated_file_in_every_syntax(tmp_path: Path, syntax: str | None, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64, 3)).astype(np.uint16)
    paths = write_classic(tmp_path, stored=noise)
    if syntax:
        recode_file(paths[1], getattr(gdcm.TransferSyntax, syntax))
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=paths[1].name):
        read_volume(tmp_path)


def test_a_damaged_jpeg_2000_stream_does_not_end_the_process(tmp_path: Path) -> None:
    paths = write_classic(tmp_path, stored=voxels(32, 24, 3))
    recode_file(paths[1], gdcm.TransferSyntax.JPEG2000Lossless)
    whole = paths[1].read_bytes()
    start = whole.rfind(b"\xff\x4f\xff\x51")  # start of codestream, image size
    messages = []
    for offset in range(4, 100, 2):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 0xFF
        paths[1].write_bytes(damaged)
        try:
            assert read_volume(tmp_path).shape == (32, 24, 3)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(paths[1].name in message for message in messages)


# Grouping.


def test_two_echoes_under_one_uid_are_two_series(tmp_path: Path) -> None:
    for echo, offset in ((10, 0), (30, 1000)):
        write_classic(
            tmp_path / str(echo), stored=voxels() + offset, modality="MR", intercept=0.0,
            edit=_set("EchoTime", echo, None),
        )  # fmt: skip
    first, second = find_series(tmp_path)
    assert (first.part, second.part) == ("EchoTime=10", "EchoTime=30")
    np.testing.assert_array_equal(read_series(first).array[0], voxels())
    np.testing.assert_array_equal(read_series(second).array[0], voxels() + 1000)


def test_time_points_of_two_echoes_are_split_by_both(tmp_path: Path) -> None:
    for time in (1, 2):
        for echo in (10, 30):

            def edit(k: int, data: Dataset, echo: int = echo, time: int = time) -> None:
                data.EchoTime, data.TemporalPositionIdentifier = echo, time

            write_classic(
                tmp_path / f"{echo}{time}", stored=voxels() + 100 * time + echo, modality="MR", edit=edit, intercept=0
            )
    series = find_series(tmp_path)
    assert [s.part for s in series] == [
        f"EchoTime={echo}, TemporalPositionIdentifier={time}" for echo in (10, 30) for time in (1, 2)
    ]
    for s, offset in zip(series, (110, 210, 130, 230), strict=True):
        np.testing.assert_array_equal(read_series(s).array[0], voxels() + offset)


def test_enhanced_time_points_in_one_file_are_split(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "a.dcm", order=[0, 1, 2, 3, 4, 0, 1, 2, 3, 4], modality="MR")
    data = pydicom.dcmread(path)
    for index, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + index // 5
        group.FrameContentSequence = [content]
    data.save_as(path)
    series = find_series(tmp_path)
    assert [s.part for s in series] == ["TemporalPositionIndex=1", "TemporalPositionIndex=2"]
    for s in series:
        assert s.files == (path,)
        assert_placed(read_series(s), OBLIQUE, voxels().astype(np.float32) * np.arange(1, 6) - 10)


def test_an_incomplete_time_point_is_not_split_but_refused(tmp_path: Path) -> None:
    for time in (1, 2):
        paths = write_classic(tmp_path / str(time), edit=_set("TemporalPositionIdentifier", time, None))
    paths[-1].unlink()
    (series,) = find_series(tmp_path)
    with pytest.raises(InputError, match="4 of 9 slices at the position of another"):
        read_series(series)


def test_a_copied_series_is_one_for_each_folder(tmp_path: Path) -> None:
    paths = write_classic(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for path in paths:
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    assert [series.files[0].parent.name for series in find_series(tmp_path)] == ["a", "b"]


def test_a_series_scattered_over_folders_is_one(tmp_path: Path) -> None:
    for path in write_classic(tmp_path):
        (tmp_path / path.stem).mkdir()
        path.rename(tmp_path / path.stem / "IM0")
    assert_placed(read_volume(tmp_path), OBLIQUE, voxels().astype(np.float32) - 1024)


def test_two_patients_under_one_uid_are_kept_apart(tmp_path: Path) -> None:
    write_classic(tmp_path / "a")
    write_classic(tmp_path / "b", edit=_set("PatientID", "P2", None))
    assert sorted(series.patient_id for series in find_series(tmp_path)) == ["P1", "P2"]


def test_several_series_in_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    write_classic(tmp_path, uid="1.2.8")
    write_enhanced(tmp_path / "e.dcm", uid="1.2.9")
    with pytest.raises(InputError, match=r"Several volumes.*1\.2\.8.*1\.2\.9"):
        read_volume(tmp_path)


def test_what_is_in_no_series_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_classic(tmp_path)
    (tmp_path / "LICENCE").write_text("free")
    (tmp_path / "lost.dcm").write_bytes(b"")
    write_classic(tmp_path / "report", edit=_set("Modality", "SR", None), uid="1.2.7")
    series, skipped = scan(tmp_path)
    assert [s.uid for s in series] == ["1.2.3.4"]
    reasons = {item.path.name: (item.reason, item.damaged) for item in skipped}
    assert reasons["LICENCE"] == ("not a DICOM file", False)
    assert reasons["lost.dcm"] == ("not a DICOM file", True)
    assert sum("SR, not a CT, MR or PT image" in reason for reason, _ in reasons.values()) == 5
    with caplog.at_level(logging.WARNING):
        find_series(tmp_path)
    assert len(skipped) == 7
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Left out 2 files, not a DICOM file",
        "Left out 5 files, SR, not a CT, MR or PT image",
    ]


def test_series_attributes(tmp_path: Path) -> None:
    paths = write_classic(tmp_path / "päth with späces")
    (series,) = find_series(tmp_path)
    assert (series.uid, series.patient_id, series.modality, series.description) == ("1.2.3.4", "P1", "CT", "phantom")
    assert series.files == tuple(sorted(paths))
    assert_placed(read_series(series), OBLIQUE, voxels().astype(np.float32) - 1024)


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No image series.*no files"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="No folder"):
        find_series(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="1 file, the first not a DICOM file"):
        read_volume(tmp_path)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, opened = write_classic(tmp_path)[-1], Path.open

    def deny(path: Path, *args, **kwargs):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(InputError, match=f"{closed.name}.*Permission denied"):
        read_volume(tmp_path)
