"""Mask, centre and groups on random volumes: the affine stays the patient's, and `restore` stays exact."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from test_grid_inverse import CODES, SHAPES, SPACINGS, returned, volume, window

from synthmed.label_groups import group_labels
from synthmed.prepare.preprocess import preprocess, restore
from synthmed.prepare.space import Space
from synthmed.volume import Volume

CENTRES = st.sampled_from(["image", "label", "foreground"])
GROUPS = {5: (2,), 9: (3, 4)}


def filed(image: Volume, seed: int) -> Volume:
    """Values 0 to 4 in a box of at least two voxels a side."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, np.array(image.shape) - 3)
    high = low + rng.integers(2, np.array(image.shape) - low + 1)
    inside = np.zeros(image.shape, dtype=bool)
    inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    values = rng.integers(1, 5, image.shape) * inside
    return Volume(values[None].astype(np.float32), image.affine)


def asked(space: Space, mask: str, centre: str) -> Space:
    return Space.from_json({**space.to_json(), "mask": mask, "centre": centre})


@settings(max_examples=60, deadline=None)
@given(
    SHAPES, SHAPES, st.sampled_from(CODES), st.sampled_from(CODES), st.floats(0, 20), CENTRES, st.booleans(),
    st.integers(0, 999),
)  # fmt: skip
def test_what_the_grid_holds_returns_to_where_it_was(
    shape: tuple[int, int, int],
    grid: tuple[int, int, int],
    source: str,
    target: str,
    tilt: float,
    centre: str,
    masked: bool,
    seed: int,
) -> None:
    image = volume(shape, source, (1.5, 1.5, 1.5), tilt, seed)
    label = filed(image, seed)
    grouped = group_labels(label, GROUPS)
    space = asked(window(grid, (1.5, 1.5, 1.5), target), "label" if masked else "none", centre)
    done = preprocess(image, grouped, space, label)
    kept = returned(image, done)
    if masked:
        assert (label.array[kept] > 0).all()
    assert done.label is not None
    labels = restore(done.label.array, done.record, nearest=True)
    held = restore(np.ones_like(done.label.array), done.record, fill=0.0).array > 0
    assert np.array_equal(labels.array[held], grouped.array[held])
    assert done.label_voxels_cut == np.count_nonzero(grouped.array[~held])


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(CODES), SPACINGS, SPACINGS, st.floats(0, 20), st.integers(0, 999))
def test_the_middle_of_the_label_is_within_half_a_voxel_of_the_middle_of_the_grid(
    shape: tuple[int, int, int],
    axcodes: str,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    tilt: float,
    seed: int,
) -> None:
    image = volume(shape, axcodes, spacing, tilt, seed)
    label = filed(image, seed)
    done = preprocess(image, label, asked(window((8, 9, 10), target, "RAS"), "none", "label"))
    places = np.argwhere(label.array[0])
    middle = apply_affine(image.affine, (places.min(axis=0) + places.max(axis=0)) / 2)
    index = apply_affine(np.linalg.inv(done.image.affine), middle)
    assert (np.abs(index - (np.array([8, 9, 10]) - 1) / 2) <= 0.5 + 1e-5).all()


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(CODES), SPACINGS, SPACINGS, st.floats(1, 1e4), st.integers(0, 999))
def test_nothing_outside_of_the_mask_changes_what_is_prepared(
    shape: tuple[int, int, int],
    axcodes: str,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    other: float,
    seed: int,
) -> None:
    image = volume(shape, axcodes, spacing, 5.0, seed)
    label = filed(image, seed)
    changed = Volume(np.where(label.array > 0, image.array, np.float32(other)), image.affine)
    space = Space((8, 8, 8), target, "RAS", "percentile", (1.0, 99.0), (0.0, 1000.0), mask="label", centre="foreground")
    first, second = (preprocess(one, label, space) for one in (image, changed))
    assert np.array_equal(first.image.array, second.image.array)
    assert first.record.to_json() == second.record.to_json()
