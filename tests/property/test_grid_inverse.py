"""Preprocessing and its inverse on random shapes, orientations, spacings and grids."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from scipy.spatial.transform import Rotation

from synthmed.prepare.preprocess import Preprocessed, Record, Space, preprocess, restore
from synthmed.volume import Volume

CODES = ["".join(p) for letters in itertools.product("RL", "AP", "SI") for p in itertools.permutations(letters)]
SIDES = st.integers(8, 13)
SHAPES = st.tuples(SIDES, SIDES, SIDES)
SPACINGS = st.tuples(*[st.floats(0.5, 4.0)] * 3)


def volume(shape: tuple[int, int, int], axcodes: str, spacing: tuple[float, ...], tilt: float, seed: int) -> Volume:
    """Noise from 1 to 100 in any orientation, up to 20 degrees oblique."""
    turn = inv_ornt_aff(axcodes2ornt(tuple(axcodes)), shape)[:3, :3].T
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.radians(tilt) * np.array([0.6, 0.0, 0.8])).as_matrix() @ turn
    affine[:3, :3] *= spacing
    affine[:3, 3] = [3.0, -40.0, 11.5]
    array = np.random.default_rng(seed).uniform(1, 100, (1, *shape)).astype(np.float32)
    return Volume(array, affine)


def window(grid: tuple[int, int, int], spacing: tuple[float, ...], axcodes: str) -> Space:
    a, b, c = spacing
    return Space(grid, (a, b, c), axcodes, "window", intensity_range=(0.0, 100.0))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(CODES), st.sampled_from(CODES), st.floats(0, 20), SHAPES, st.integers(0, 99))
def test_crops_pads_flips_and_permutations_are_undone_exactly(
    shape: tuple[int, int, int], source: str, target: str, tilt: float, grid: tuple[int, int, int], seed: int
) -> None:
    image = volume(shape, source, (1.5, 1.5, 1.5), tilt, seed)
    done = preprocess(image, image_label(image), window(grid, (1.5, 1.5, 1.5), target))
    kept = returned(image, done)
    assert done.label is not None
    assert np.array_equal(
        restore(done.label.array, done.record, nearest=True).array[kept], image_label(image).array[kept]
    )


def returned(image: Volume, done: Preprocessed) -> np.ndarray:
    """Hold that every voxel that is not 0 goes back to where it was; return where these are."""
    back = restore(done.image.array, done.record)
    assert back.geometry.agrees_with(image.geometry, atol=1e-9)
    kept = back.array != 0
    assert kept.sum() == np.count_nonzero(done.image.array)
    assert np.array_equal(back.array[kept], image.array[kept])
    return kept


def image_label(image: Volume) -> Volume:
    return Volume((image.array > 50).astype(np.float32), image.affine)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(CODES), SPACINGS, SPACINGS, st.floats(0, 20), st.integers(0, 99))
def test_a_linear_ramp_keeps_its_place_in_space(
    shape: tuple[int, int, int],
    axcodes: str,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    tilt: float,
    seed: int,
) -> None:
    """Intensity that is linear in world coordinates stays that function of the new affine, away from the ends."""
    image = volume(shape, axcodes, spacing, tilt, seed)
    slope = np.array([0.3, -0.2, 0.25])
    centre = apply_affine(image.affine, (np.array(shape) - 1) / 2)

    def ramp(affine: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
        points = apply_affine(affine, np.moveaxis(np.indices(grid), 0, -1))
        return 50 + (points - centre) @ slope

    ramped = Volume(ramp(image.affine, shape)[None], image.affine)
    done = preprocess(ramped, None, Space((8, 8, 8), target, "RAS", "window", intensity_range=(-1e4, 1e4)))
    inside = np.ones((8, 8, 8), dtype=bool)
    to_source = np.linalg.inv(image.affine) @ done.image.affine
    index = apply_affine(to_source, np.moveaxis(np.indices((8, 8, 8)), 0, -1))
    reach = 4 * np.max(np.abs(to_source[:3, :3]).sum(axis=1)) / 2
    inside = ((index > reach) & (index < np.array(shape) - 1 - reach)).all(axis=-1)
    assert np.allclose(done.image.array[0][inside], ramp(done.image.affine, (8, 8, 8))[inside], atol=0.05)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from(CODES), SPACINGS, SPACINGS, st.integers(0, 99))
def test_the_inverse_lies_on_the_source_grid_and_smooth_images_return(
    shape: tuple[int, int, int],
    axcodes: str,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    seed: int,
) -> None:
    image = volume(shape, axcodes, spacing, 10.0, seed)
    finer = tuple(min(s, t) for s, t in zip(spacing, target, strict=True))
    axes = [np.cos(np.linspace(0, 1.5, n)) for n in shape]
    smooth = Volume(50 + 30 * np.einsum("i,j,k->ijk", *axes)[None], image.affine)
    reoriented = window((64, 64, 64), finer, axcodes)
    done = preprocess(smooth, None, reoriented)
    back = restore(done.image.array, done.record)
    assert back.geometry.agrees_with(image.geometry, atol=1e-9)
    whole = all(m <= 64 for m in done.record.resampled_shape)
    if whole:
        assert np.abs(back.array - smooth.array)[0, 1:-1, 1:-1, 1:-1].max() < 2.0


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.sampled_from(CODES), SPACINGS, st.integers(0, 99))
def test_a_record_survives_json(
    shape: tuple[int, int, int], axcodes: str, spacing: tuple[float, float, float], seed: int
) -> None:
    image = volume(shape, axcodes, spacing, 5.0, seed)
    done = preprocess(image, None, window((8, 8, 8), (1.0, 2.0, 1.5), "RAS"))
    again = Record.from_json(done.record.to_json())
    assert np.array_equal(restore(done.image.array, again).array, restore(done.image.array, done.record).array)
    assert np.array_equal(again.source.affine, image.affine)
