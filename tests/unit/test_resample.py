"""Labels on a coarser grid: whose voxel it is, and that thin structures keep their volume."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from synthmed.prepare.resample import Resampling, resample_image, resample_label

HALF = Resampling((2.0, 2.0, 2.0), (0.5, 0.5, 0.5), (12, 12, 12))


def volumes(array: np.ndarray) -> list[int]:
    return np.bincount(array.astype(int).ravel(), minlength=4)[1:4].tolist()


def test_the_point_spread_has_the_variance_between_both_voxels() -> None:
    # (2^2 - 1) / (8 ln 2) = 0.541: a standard deviation of 0.7355 source voxels.
    assert Resampling((2.0, 1.0, 0.5), (0, 0, 0), (1, 1, 1)).sigma == pytest.approx([0.7355, 0, 0], abs=1e-4)


def test_blocks_of_whole_target_voxels_stay_as_they_are() -> None:
    label = np.zeros((1, 24, 24, 24), dtype=np.float32)
    label[0, 4:16, 4:16, 4:16] = 2
    label[0, 16:20, 4:16, 4:16] = 1
    small = resample_label(label, HALF)
    wanted = np.zeros((1, 12, 12, 12))
    wanted[0, 2:8, 2:8, 2:8] = 2
    wanted[0, 8:10, 2:8, 2:8] = 1
    # Corners may go to the neighbour, by the blur; everything else is where it was.
    assert np.mean(small != wanted) < 0.02
    assert small.dtype == np.float32


def test_a_slanted_sheet_thinner_than_a_target_voxel_keeps_its_volume() -> None:
    i, j, k = np.indices((24, 24, 24))
    label = np.where(np.abs(i + 0.31 * j + 0.17 * k - 17) < 0.8, 3, 1).astype(np.float32)[None]
    assert volumes(resample_label(label, HALF))[2] * 8 == pytest.approx(volumes(label)[2], rel=0.05)


def test_a_sheet_that_cannot_keep_its_volume_is_not_lost() -> None:
    label = np.ones((1, 24, 24, 24), dtype=np.float32)
    label[0, 11, 4:20, 4:20] = 3
    found = np.argwhere(resample_label(label, HALF)[0] == 3)
    # Half a target voxel thick, and all of its voxels alike: all or none.
    assert set(found[:, 0]) == {5}
    assert len(found) >= 36


def test_every_volume_is_kept_where_shells_lie_in_shells() -> None:
    hills = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(24, 24, 24)), 3)
    label = np.digitize(hills, np.percentile(hills, [50, 60, 75])).astype(np.float32)[None]
    small = resample_label(label, HALF)
    for before, after in zip(volumes(label), volumes(small), strict=True):
        assert after * 8 == pytest.approx(before, rel=0.1)


def test_what_lies_in_a_corner_is_seen_where_it_reaches() -> None:
    label = np.zeros((1, 30, 12, 30), dtype=np.float32)
    label[0, :7, 5:, 20:] = 1
    how = Resampling((1.7, 0.4, 2.3), (0.25, -0.3, 0.6), (17, 30, 13))
    small, share = resample_label(label, how), resample_image(label, how).round(4)
    assert (small[share == 0] == 0).all()
    assert (small[share == 1] == 1).all()
    assert 100 < (share == 1).sum() < (small == 1).sum() < (share > 0).sum()


@pytest.mark.parametrize("first", [-30.0, 30.0])
def test_a_structure_beyond_the_target_is_not_there(first: float) -> None:
    label = np.zeros((1, 20, 20, 20), dtype=np.float32)
    label[0, 5:15, 5:15, 5:15] = 1
    assert not resample_label(label, Resampling((1.5,) * 3, (first, 0.0, 0.0), (10, 10, 10))).any()


def test_a_structure_at_the_edge_goes_on_beyond_it() -> None:
    label = np.zeros((1, 20, 20, 20), dtype=np.float32)
    label[0, :10] = 1
    beyond = resample_label(label, Resampling((1.5,) * 3, (-12.0, 0.0, 0.0), (10, 13, 13)))
    assert (beyond[0, :8] == 1).all()


def test_a_tie_goes_to_the_lowest_value() -> None:
    label = np.zeros((1, 2, 24, 24), dtype=np.float32)
    label[0, 0], label[0, 1] = 7, 5
    found = resample_label(label, Resampling((2.0, 2.0, 2.0), (0.5, 0.5, 0.5), (1, 12, 12)))
    assert np.unique(found).tolist() == [5]


def test_where_nothing_is_coarser_the_nearest_value_is_taken() -> None:
    label = np.array([0, 9, 9, 0], dtype=np.float32).reshape(1, 4, 1, 1)
    finer = Resampling((0.5, 1.0, 1.0), (-0.25, 0.0, 0.0), (8, 1, 1))
    assert resample_label(label, finer).ravel().tolist() == [0, 0, 9, 9, 9, 9, 0, 0]
    same = Resampling((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (4, 1, 1))
    assert resample_label(label, same) is label


def test_an_image_and_its_label_share_their_edges() -> None:
    label = np.zeros((1, 24, 24, 24), dtype=np.float32)
    label[0, 5:17, 3:20, 6:15] = 1
    image = resample_image(label, HALF)
    assert resample_label(label, HALF)[image > 0.6].all()
    assert not resample_label(label, HALF)[image < 0.4].any()
