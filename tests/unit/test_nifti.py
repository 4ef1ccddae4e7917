"""NIfTI: what is written is exact and the same every time; what cannot be trusted is refused."""

from __future__ import annotations

import gzip
import hashlib
import stat
import subprocess
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from synthmed.errors import InputError, StorageError
from synthmed.io import read_label, read_volume, write_volume
from synthmed.volume import Volume

# A turn by 30 degrees about z with spacing 0.5 x 1.25 x 3 mm: cos 30 = sqrt(3) / 2, sin 30 = 1 / 2.
C, S = np.sqrt(3.0) / 2.0, 0.5
OBLIQUE = np.array(
    [[0.5 * C, -1.25 * S, 0, -10.5], [0.5 * S, 1.25 * C, 0, 20.25], [0, 0, 3.0, -30.125], [0, 0, 0, 1.0]]
)
LEFT_HANDED = OBLIQUE @ np.diag([-1.0, 1.0, 1.0, 1.0])


def _ramp(dtype: str = "float32") -> np.ndarray:
    return np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)


def _save(path: Path, array: np.ndarray, *, sform: int = 1, qform: int = 1, **header: object) -> Path:
    image = nib.Nifti1Image(array, OBLIQUE)
    image.set_sform(OBLIQUE, code=sform)
    image.set_qform(OBLIQUE, code=qform)
    for key, content in header.items():
        image.header[key] = content
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


# Writing.


@pytest.mark.parametrize("affine", [OBLIQUE, LEFT_HANDED], ids=["right-handed", "left-handed"])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_round_trip(tmp_path: Path, affine: np.ndarray, dtype: str, name: str) -> None:
    write_volume(tmp_path / name, Volume(_ramp()[np.newaxis], affine), dtype=dtype)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array[0], _ramp())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)


@pytest.mark.parametrize("affine", [OBLIQUE, LEFT_HANDED], ids=["right-handed", "left-handed"])
def test_another_reader_sees_the_same(tmp_path: Path, affine: np.ndarray) -> None:
    write_volume(tmp_path / "a.nii.gz", Volume(_ramp()[np.newaxis], affine))
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    assert image.GetPixelID() == SimpleITK.sitkInt16
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), _ramp())
    for index in ((0, 0, 0), (3, 4, 5), (3, 0, 0), (0, 4, 0)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((-x, -y, z), (affine @ [*index, 1])[:3], atol=1e-4)


def test_header_fields_at_their_offsets(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], OBLIQUE), dtype="int16")
    raw = (tmp_path / "a.nii").read_bytes()
    number = {"i2": "<i2", "f4": "<f4"}

    def field(offset: int, kind: str, count: int = 1) -> list[float]:
        return np.frombuffer(raw, number[kind], count, offset).tolist()

    assert raw[344:348] == b"n+1\0"
    assert field(70, "i2") == [4]  # datatype DT_INT16
    assert field(112, "f4", 2) == [1.0, 0.0]  # scl_slope, scl_inter: identity
    np.testing.assert_allclose(field(80, "f4", 3), [0.5, 1.25, 3.0], rtol=1e-7)  # pixdim
    assert raw[123] == 2  # xyzt_units: mm
    assert raw[148:228].rstrip(b"\0") == b"SYNTHETIC"  # descrip
    assert field(252, "i2", 2) == [1, 1]  # qform_code, sform_code
    assert len(raw) == 352 + 2 * 120
    header = nib.load(tmp_path / "a.nii").header
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-6)


def test_bytes_depend_on_the_volume_alone(tmp_path: Path) -> None:
    volume = Volume(_ramp()[np.newaxis], OBLIQUE)
    names = ["a.nii.gz", "b.nii.gz", "päth with späces/c.nii.gz"]
    for name in names:
        write_volume(tmp_path / name, volume)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    assert len(digests) == 1
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # deflate, no flags (no file name), time 0
    write_volume(tmp_path / "d.nii.gz", Volume(_ramp()[np.newaxis] + 1, OBLIQUE))
    assert (tmp_path / "d.nii.gz").read_bytes() != raw


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_the_packed_file_is_the_plain_one_and_the_plain_one_is_nibabels(tmp_path: Path, dtype: str) -> None:
    volume = Volume(_ramp()[np.newaxis], OBLIQUE)
    for name in ("a.nii", "a.nii.gz"):
        write_volume(tmp_path / name, volume, dtype=dtype)
    plain, packed = (tmp_path / "a.nii").read_bytes(), (tmp_path / "a.nii.gz").read_bytes()
    assert gzip.decompress(packed) == plain
    unpacker = zlib.decompressobj(31)
    assert unpacker.decompress(packed) == plain
    assert unpacker.eof  # one member, so that readers which stop after the first see all of it
    assert unpacker.unused_data == b""
    assert nib.load(tmp_path / "a.nii").to_bytes() == plain


def test_a_large_packed_file_is_read_by_other_programs(tmp_path: Path) -> None:
    """Large enough for several deflate blocks, noise and a flat background in one."""
    values = np.random.default_rng(0).integers(-1000, 1000, (1, 90, 70, 50)).astype(np.float32)
    values[:, 30:60] = 0
    write_volume(tmp_path / "a.nii.gz", Volume(values, OBLIQUE))
    done = subprocess.run(["gzip", "-dc", tmp_path / "a.nii.gz"], capture_output=True, check=True)
    np.testing.assert_array_equal(np.frombuffer(done.stdout, "<i2", offset=352), values[0].ravel("F"))
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nii.gz")))
    np.testing.assert_array_equal(image.transpose(2, 1, 0), values[0])
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj), values[0])


def test_spacing_is_rounded_to_six_decimals(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], np.diag([0.97656249, 1 / 3, 2.0000004, 1])))
    pixdim = nib.load(tmp_path / "a.nii").header["pixdim"][1:4]
    np.testing.assert_array_equal(pixdim, np.array([0.976562, 0.333333, 2.0], np.float32))


def test_integers_are_rounded_to_nearest_and_not_truncated(tmp_path: Path) -> None:
    values = np.array([0.4, 0.6, 1.5, 2.5, -0.6, -1.4, -32768.4, 32767.4], np.float32).reshape(1, 2, 2, 2)
    write_volume(tmp_path / "a.nii", Volume(values, np.eye(4)), dtype="int16")
    expected = [0, 1, 2, 2, -1, -1, -32768, 32767]
    assert np.asarray(nib.load(tmp_path / "a.nii").dataobj).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([0, 32768], "int16", r"values from 0 to 32768; expected int16, -32768 to 32767"),
        ([0, -32769], "int16", r"values from -32769 to 0"),
        ([0, 256], "uint8", r"expected uint8, 0 to 255"),
        ([0, -1], "uint8", r"values from -1 to 0"),
        ([0, np.nan], "float32", r"NaN or infinite"),
        ([0, np.inf], "int16", r"NaN or infinite"),
    ],
)
def test_values_that_do_not_fit_are_an_error_and_leave_no_file(
    tmp_path: Path, values: list[float], dtype: str, words: str
) -> None:
    array = np.array(values, np.float32).reshape(1, 2, 1, 1)
    with pytest.raises(InputError, match=words):
        write_volume(tmp_path / "a.nii.gz", Volume(array, np.eye(4)), dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_what_nifti_cannot_hold_is_an_error(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.1  # 5.7 degrees
    with pytest.raises(InputError, match=r"5\.71 degrees away from perpendicular"):
        write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], sheared))
    with pytest.raises(InputError, match="2 channels"):
        write_volume(tmp_path / "a.nii", Volume(np.stack([_ramp(), _ramp()]), np.eye(4)))
    with pytest.raises(InputError, match=r"'\.mha'"):
        write_volume(tmp_path / "a.mha", Volume(_ramp()[np.newaxis], np.eye(4)))
    with pytest.raises(InputError, match="80 characters"):
        write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], np.eye(4)), description="x" * 80)
    with pytest.raises(InputError, match="ASCII"):
        write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], np.eye(4)), description="synthétique")
    with pytest.raises(InputError, match=r"spacing \[1e-07"):
        write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], np.diag([1e-7, 1e3, 1e3, 1])))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.nii.gz"
    write_volume(target, Volume(_ramp()[np.newaxis], OBLIQUE))
    before = target.read_bytes()

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_volume(target, Volume(_ramp()[np.newaxis] + 1, OBLIQUE))
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_is_readable_by_others(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii", Volume(_ramp()[np.newaxis], OBLIQUE))
    assert stat.S_IMODE((tmp_path / "a.nii").stat().st_mode) == 0o644


# Reading.


def test_scale_factors_are_applied(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii", _ramp("uint8"))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([0.5, -3.0], "<f4").tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_volume(path).array[0], _ramp() * 0.5 - 3)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_every_scalar_type(tmp_path: Path, dtype: str) -> None:
    volume = read_volume(_save(tmp_path / "a.nii.gz", _ramp(dtype)))
    assert volume.array.dtype == np.float32
    assert volume.affine.dtype == np.float64
    np.testing.assert_array_equal(volume.array, _ramp()[np.newaxis])


def test_nifti2_and_big_endian(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(_ramp(), OBLIQUE), tmp_path / "two.nii")
    nib.save(nib.Nifti1Image(_ramp(">i2"), OBLIQUE, nib.Nifti1Header(endianness=">")), tmp_path / "big.nii")
    for name in ("two.nii", "big.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array[0], _ramp())


def test_trailing_axes_of_one_are_dropped(tmp_path: Path) -> None:
    volume = read_volume(_save(tmp_path / "a.nii", _ramp()[..., np.newaxis, np.newaxis]))
    np.testing.assert_array_equal(volume.array[0], _ramp())


def test_sform_comes_first_and_qform_alone_is_enough(tmp_path: Path) -> None:
    moved = OBLIQUE.copy()
    moved[:3, 3] += 5
    image = nib.Nifti1Image(_ramp(), OBLIQUE)
    image.set_sform(moved, code=2)
    image.set_qform(OBLIQUE, code=1)
    nib.save(image, tmp_path / "both.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "both.nii").affine, moved, atol=1e-5)
    _save(tmp_path / "q.nii", _ramp(), sform=0)
    np.testing.assert_allclose(read_volume(tmp_path / "q.nii").affine, OBLIQUE, atol=1e-5)


def test_a_turn_between_sform_and_qform_is_no_fault(tmp_path: Path) -> None:
    image = nib.Nifti1Image(_ramp(), OBLIQUE)
    turned = np.diag([0.5, 1.25, 3.0, 1.0])  # 30 degrees from OBLIQUE, as a template's space may be
    image.set_sform(turned, code=4)
    image.set_qform(OBLIQUE, code=1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, turned, atol=1e-6)


def test_a_path_with_spaces_and_umlauts(tmp_path: Path) -> None:
    path = _save(tmp_path / "Jürgens Scäns" / "头 1.NII.GZ", _ramp())
    np.testing.assert_array_equal(read_volume(str(path)).array[0], _ramp())


def _write(content: bytes):
    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def _array(array: np.ndarray, **header: object):
    def make(path: Path) -> None:
        _save(path, array, **header)

    return make


def _truncated(share: float):
    def make(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 1000, (16, 16, 16)).astype(np.int16)
        _save(path, noise)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def _wrong_checksum(path: Path) -> None:
    raw = bytearray(_save(path, _ramp()).read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)


def _flipped_byte(path: Path) -> None:
    _save(path, np.random.default_rng(0).integers(0, 1000, (16, 16, 16)).astype(np.int16))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)


def _mirrored_qform(path: Path) -> None:
    image = nib.Nifti1Image(_ramp(), OBLIQUE)
    image.set_sform(OBLIQUE, code=1)
    image.set_qform(LEFT_HANDED, code=1)
    nib.save(image, path)


def _swapped_qform(path: Path) -> None:
    image = nib.Nifti1Image(_ramp(), np.eye(4))
    image.set_sform(np.eye(4), code=1)
    image.set_qform(np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]), code=1)
    nib.save(image, path)


def _sform_row(row: int, values: list[float]):
    def make(path: Path) -> None:
        raw = bytearray(gzip.decompress(_save(path, _ramp(), qform=0).read_bytes()))
        raw[280 + 16 * row : 296 + 16 * row] = np.array(values, "<f4").tobytes()
        path.write_bytes(gzip.compress(raw))

    return make


def _rgb(path: Path) -> None:
    colour = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    _save(path, colour)


def _with_nan(path: Path) -> None:
    array = _ramp()
    array[1, 2, 3] = np.nan
    _save(path, array)


BAD = {
    "empty": (_write(b""), "0 bytes"),
    "text": (_write(b"not an image\n" * 40), "Cannot read"),
    "gzip of nothing": (_write(gzip.compress(b"")), "Cannot read"),
    "gzip of text": (_write(gzip.compress(b"hello" * 200)), "Cannot read"),
    "truncated to the header": (_truncated(0.01), "Cannot read"),
    "truncated by half": (_truncated(0.5), "Cannot read"),
    "truncated by a byte": (_truncated(0.9999), "Cannot read"),
    "wrong checksum": (_wrong_checksum, "CRC check failed"),
    "corrupt": (_flipped_byte, "Cannot read"),
    "4D": (_array(np.stack([_ramp()] * 2, axis=3)), r"shape \(4, 5, 6, 2\)"),
    "5D": (_array(_ramp()[..., None, None] * np.ones(3)), r"shape \(4, 5, 6, 1, 3\)"),
    "2D": (_array(_ramp()[0]), r"not a volume; found shape \(5, 6\)"),
    "zero-size": (_array(np.zeros((4, 0, 6), np.float32)), r"shape \(4, 0, 6\)"),
    "RGB": (_rgb, "RGB voxels"),
    "complex": (_array(_ramp("complex64")), "complex64 voxels"),
    "NaN": (_with_nan, "1 NaN or infinite of 120"),
    "infinite": (_array(_ramp() + np.float32(np.inf)), "120 NaN or infinite of 120"),
    "beyond float32": (_array(_ramp("float64") * 1e300), "119 NaN or infinite of 120"),
    "constant": (_array(np.full((4, 5, 6), 7, np.int16)), "constant; found 7 in every voxel"),
    "no place": (_array(_ramp(), sform=0, qform=0), "sform_code 0 and qform_code 0"),
    "singular sform": (_sform_row(1, [0, 0, 0, 0]), "unusable sform"),
    "NaN in the sform": (_sform_row(0, [np.nan, 0, 0, 0]), "unusable sform"),
    "mirrored qform": (_mirrored_qform, "two orientations; found sform RAS, qform LAS"),
    "swapped qform": (_swapped_qform, "two orientations; found sform RAS, qform ARI"),
    "metres": (_array(_ramp(), xyzt_units=1), "xyzt_units meter"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(tmp_path: Path, name: str) -> None:
    make, words = BAD[name]
    path = tmp_path / "bad.nii.gz"
    make(path)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_truncated_plain_file(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.nii", _ramp())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="Cannot read"):
        read_volume(path)


def test_refuses_other_formats_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read_volume(tmp_path / "absent.nii")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"the ending '\.png'"):
        read_volume(tmp_path / "a.png")
    nib.save(nib.MGHImage(_ramp(), OBLIQUE), tmp_path / "a.mgz")
    (tmp_path / "a.mgz").rename(tmp_path / "b.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        read_volume(tmp_path / "b.nii.gz")


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save(tmp_path / "a.nii.gz", _ramp())

    def deny(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(InputError, match=r"a\.nii\.gz.*Permission denied"):
        read_volume(path)


# Labels.


def test_labels_as_integers_or_whole_floats(tmp_path: Path) -> None:
    labels = _ramp("uint8") % 3
    for dtype in ("uint8", "int32", "float32"):
        volume = read_label(_save(tmp_path / f"{dtype}.nii.gz", labels.astype(dtype)))
        np.testing.assert_array_equal(volume.array[0], labels)
    background = np.zeros((4, 5, 6), np.uint8)
    assert not read_label(_save(tmp_path / "none.nii.gz", background)).array.any()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.where(_ramp() == 5, np.float32(0.5), 1), "the value 0.5; expected whole numbers"),
        (_ramp("int16") - 1, "values from -1 to 118"),
        (_ramp("int32") * 2**20, "labels below 16777216"),
        (np.where(_ramp() == 5, np.float32(np.nan), 1), "not finite"),
    ],
)
def test_refuses_labels(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_label(_save(tmp_path / "a.nii.gz", array))


def test_a_label_is_a_nifti_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder"):
        read_label(tmp_path)
