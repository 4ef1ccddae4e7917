"""Properties of reading and writing, whatever the grid, the values and the damage."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_files import Grid, voxels, write_classic, write_enhanced
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from synthmed.errors import InputError
from synthmed.io import read_volume, write_volume
from synthmed.io.dicom import read_series
from synthmed.volume import Volume, reorient

FEW = settings(max_examples=25, deadline=None)
MANY = settings(max_examples=60, deadline=None)

coordinate = st.floats(-500, 500, allow_nan=False, width=32)
edge = st.floats(0.2, 6.0, allow_nan=False).map(lambda x: round(x, 4))
unit_quaternion = (
    st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: Rotation.from_quat(q).as_matrix())
)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    flip = np.diag([draw(st.sampled_from([-1.0, 1.0])), 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = draw(unit_quaternion) @ flip @ np.diag([draw(edge) for _ in range(3)])
    affine[:3, 3] = [draw(coordinate) for _ in range(3)]
    return affine


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    row, column = draw(unit_quaternion)[:2]
    return Grid(
        row=tuple(row),
        column=tuple(column),
        pixel_spacing=(draw(edge), draw(edge)),
        increment=draw(edge),
        origin=tuple(draw(coordinate) for _ in range(3)),
    )


whole = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    elements=st.integers(-32768, 32767).map(float),
).filter(lambda a: a.min() < a.max())


@MANY
@given(whole, affines())
def test_nifti_gives_back_voxels_and_affine(array: np.ndarray, affine: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii.gz"
        write_volume(path, Volume(array[np.newaxis], affine), dtype="int16")
        volume = read_volume(path)
        twin = Path(folder) / "b.nii.gz"
        write_volume(twin, Volume(array[np.newaxis], affine), dtype="int16")
        assert path.read_bytes() == twin.read_bytes()
        qform = nib.load(path).get_qform()
    np.testing.assert_array_equal(volume.array[0], array)
    np.testing.assert_allclose(volume.affine, affine, atol=5e-5)  # float32 holds 500 mm to 3e-5
    np.testing.assert_allclose(qform, affine, atol=5e-3)  # a quaternion's real part near 0 is known to 2^-12


@FEW
@given(grids(), st.permutations(range(5)))
def test_dicom_gives_back_the_grid_whatever_the_order_of_files(grid: Grid, order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_classic(Path(folder), grid=grid)
        volume = read_series([paths[k] for k in order])
    np.testing.assert_array_equal(volume.array[0], voxels().astype(np.float32) - 1024)
    for index in ((0, 0, 0), (7, 5, 4), (7, 0, 0), (0, 5, 0), (0, 0, 4)):
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], grid.ras(*index), atol=1e-3)


@FEW
@given(grids(), st.permutations(range(5)))
def test_enhanced_and_classic_agree(grid: Grid, order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_enhanced(Path(folder) / "a.dcm", grid=grid, order=order)
        classic = read_series(write_classic(Path(folder) / "b", grid=grid, intercept=0.0))
        enhanced = read_series([path])
    np.testing.assert_allclose(enhanced.affine, classic.affine, atol=1e-9)
    np.testing.assert_array_equal(enhanced.array[0], classic.array[0] * np.arange(1, 6, dtype=np.float32) - 10)


@FEW
@given(grids(), st.sampled_from(["RAS", "LPS", "PIR", "SAL"]))
def test_dicom_survives_reorientation_and_nifti(grid: Grid, axes: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        volume = reorient(read_series(write_classic(Path(folder) / "d", grid=grid)), axes)
        write_volume(Path(folder) / "a.nii.gz", volume)
        again = read_volume(Path(folder) / "a.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=2e-4)


damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8)


def _damaged(raw: bytes, changes: list[tuple[float, int]], limit: int) -> bytes:
    """`raw` with bytes of its first `limit` changed, where headers are."""
    result = bytearray(raw)
    for place, flip in changes:
        result[int(place * min(limit, len(raw)))] ^= flip
    return bytes(result)


@MANY
@given(damage)
def test_a_damaged_nifti_header_is_read_or_refused_and_never_a_crash(changes: list[tuple[float, int]]) -> None:
    raw = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)).to_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii.gz"
        path.write_bytes(gzip.compress(_damaged(raw, changes, 352)))
        try:
            volume = read_volume(path)
        except InputError:
            return
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.affine).all()


@MANY
@given(damage, st.integers(0, 4))
@example([(0.13671875, 1)], 0)  # a length of five bytes for a number of four
def test_a_damaged_dicom_header_is_read_or_refused_and_never_a_crash(
    changes: list[tuple[float, int]], which: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_classic(Path(folder))
        raw = paths[which].read_bytes()
        paths[which].write_bytes(_damaged(raw, changes, len(raw) - 96))
        try:
            volume = read_volume(folder)
        except InputError:
            return
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.affine).all()
