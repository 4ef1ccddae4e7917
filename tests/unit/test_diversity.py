"""Diversity and anatomy on sets whose answer is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from synthmed.evaluation.anatomy import (
    compare_values,
    compare_volumes,
    describe_structures,
    gaps,
    label_volumes,
    shape_of,
)
from synthmed.evaluation.cases import Cases
from synthmed.evaluation.diversity import compare_intensities, diversity, draw_pairs, ms_ssim, ms_ssim_scales
from synthmed.evaluation.regression import accuracy, class_auc, correlation, slope
from synthmed.evaluation.sample import sample_of

GRID = (16, 20, 16)


def smooth(n, seed=0):
    """Return random smooth volumes in [-1, 1]."""
    coarse = torch.rand((n, 1, 4, 5, 4), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, GRID, mode="trilinear")


def own(n):
    return [f"p{i}" for i in range(n)]


def sample(points, patients=None):
    owners = own(len(points)) if patients is None else patients
    return sample_of(np.asarray(points, float).reshape(len(points), -1), owners, rng=np.random.default_rng(0))


class TestDiversity:
    def test_a_collapsed_set_is_less_varied_than_a_real_one(self):
        varied = smooth(12)
        collapsed = varied[:1] + 0.02 * torch.randn((12, 1, *GRID), generator=torch.Generator().manual_seed(0))
        real, fallen = diversity(varied, own(12), seed=0), diversity(collapsed, own(12), seed=0)
        assert fallen["low"] > real["high"]
        assert real["n"] == 12 * 11 / 2

    def test_equal_images_score_one(self):
        x = smooth(2)
        assert ms_ssim(x, x) == pytest.approx([1.0, 1.0], abs=1e-5)

    def test_pairs_never_join_two_scans_of_a_patient(self):
        pairs = draw_pairs(["a", "a", "b", "b"], rng=np.random.default_rng(0))
        assert {tuple(p) for p in pairs} == {(0, 2), (0, 3), (1, 2), (1, 3)}
        assert diversity(smooth(2), ["a", "a"], seed=0) is None

    @pytest.mark.parametrize("side", [8, 12, 16, 27, 32, 40, 48, 64, 96, 128])
    def test_the_scales_chosen_are_ones_that_monai_accepts(self, side):
        shape = (side, side + 3, side + 1)
        x = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0)) if side <= 48 else None
        if x is not None:
            assert ms_ssim(x, x) == pytest.approx([1.0], abs=1e-5)
        wanted = {8: 1, 12: 1, 16: 2, 27: 2, 32: 3, 40: 3, 48: 3, 64: 4, 96: 4, 128: 5}
        assert ms_ssim_scales(shape) == wanted[side]


class TestIntensities:
    def test_a_shift_is_the_distance_and_equal_sets_are_at_the_floor(self):
        train, holdout, made = 0.5 * smooth(20), 0.5 * smooth(20, 1), 0.5 * smooth(30, 2)
        patients = (own(20), own(20))
        good = compare_intensities(made, train, holdout, patients, seed=0)
        moved = compare_intensities(made + 0.3, train, holdout, patients, seed=0)
        assert good["synthetic"]["low"] <= good["floor"]["high"]
        assert moved["synthetic"]["value"] == pytest.approx(0.3, abs=0.05)
        assert moved["synthetic"]["low"] > moved["floor"]["high"]
        assert moved["ratio"]["low"] > 2


class TestVolumes:
    def test_in_cubic_millimetres(self):
        labels = torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8)
        labels[0, 0, :2, :2, :2] = 1
        labels[1, 0, 0] = 2
        assert label_volumes(labels, 2, 1.5).tolist() == [[12.0, 0.0], [0.0, 24.0]]

    def test_equal_shifted_and_empty(self):
        rng = np.random.default_rng(0)
        holdout = rng.normal(100, 10, 50)
        same = compare_volumes(holdout, holdout, holdout)
        moved = compare_volumes(holdout + 7, holdout, holdout)
        assert same["synthetic"]["ks"] == same["synthetic"]["wasserstein_mm3"] == 0
        assert moved["synthetic"]["wasserstein_mm3"] == pytest.approx(7)
        assert moved["synthetic"]["ks"] == pytest.approx(stats.ks_2samp(holdout + 7, holdout).statistic)
        gone = compare_volumes(np.where(np.arange(50) < 5, 0, holdout), holdout, holdout)
        assert gone["synthetic"]["empty"] == pytest.approx(0.1)
        assert gone["train"]["empty"] == 0


class TestShapes:
    def ball(self, radii, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0)):
        axes = [(x - (n - 1) / 2) * h / r for x, n, h, r in zip(np.indices(shape), shape, spacing, radii, strict=True)]
        return sum(a**2 for a in axes) < 1

    def test_a_ball_is_round_and_an_ellipsoid_as_long_as_it_is(self):
        assert shape_of(self.ball((12, 12, 12)), (1.0, 1.0, 1.0)) == pytest.approx((1, 1, 1), abs=0.1)
        elongation, flatness, _ = shape_of(self.ball((16, 8, 4)), (1.0, 1.0, 1.0))
        assert elongation == pytest.approx(0.5, abs=0.02)
        assert flatness == pytest.approx(0.25, abs=0.02)

    def test_a_cubes_sphericity(self):
        cube = np.zeros((30, 30, 30), bool)
        cube[5:25, 5:25, 5:25] = True
        assert shape_of(cube, (1.0, 1.0, 1.0))[2] == pytest.approx((np.pi / 6) ** (1 / 3), abs=0.03)

    def test_in_millimetres_and_not_in_voxels(self):
        spacing = (1.0, 1.0, 3.0)
        found = shape_of(self.ball((12, 12, 12), (40, 40, 14), spacing), spacing)
        assert found == pytest.approx((1, 1, 1), abs=0.15)  # stairs of 3 mm add surface

    @pytest.mark.parametrize("size", [1, 2])
    def test_the_smallest_and_the_absent(self, size):
        mask = np.zeros((4, 4, 4), bool)
        assert np.isnan(shape_of(mask, (1.0, 1.0, 1.0))).all()
        mask[0, 0, :size] = True
        assert np.isfinite(shape_of(mask, (1.0, 1.0, 1.0))).all()


class TestGaps:
    def test_are_those_of_scipy(self):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 9, 30).astype(float), rng.integers(2, 12, 40).astype(float)
        largest, area = gaps(sample(x), sample(y))
        assert largest.value == pytest.approx(stats.ks_2samp(x, y).statistic)
        assert area.value == pytest.approx(stats.wasserstein_distance(x, y))
        assert largest.figure()["low"] < largest.value < largest.figure()["high"]

    def test_the_absent_are_left_out_and_an_empty_set_has_no_figure(self):
        values = {"synthetic": np.array([np.nan, 1.0, 2.0]), "train": np.full(3, np.nan), "holdout": np.arange(3.0)}
        found = compare_values(values, dict.fromkeys(values, ("a", "b", "c")), seed=0)
        assert found["synthetic"]["n"] == 2
        assert found["train"] == {"mean": None, "sd": None, "n": 0, "ks": None, "wasserstein": None}


class TestRegression:
    def test_slope_and_correlation_by_hand(self):
        x = np.arange(20.0)
        y = 3 * x + 1
        assert slope(x, y, sample(x)).figure() == pytest.approx({"value": 3, "low": 3, "high": 3})
        assert correlation(x, -y, sample(x)).value == pytest.approx(-1)
        assert correlation(x, np.ones(20), sample(x)).figure() is None

    def test_the_interval_of_a_correlation_holds_the_truth(self):
        hits = 0
        for seed in range(100):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal(80)
            y = 0.6 * x + 0.8 * rng.standard_normal(80)
            found = correlation(x, y, sample(x)).figure()
            hits += found["low"] <= 0.6 <= found["high"]
        assert hits >= 87

    def test_classes_by_hand(self):
        chances = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.45, 0.55]])
        target = np.array([0, 0, 1, 1])
        assert class_auc(target, chances, sample(target)).value == pytest.approx(3 / 4)
        assert accuracy(target, chances, sample(target)).value == pytest.approx((1 / 2 + 1) / 2)

    def test_three_classes(self):
        target = np.array([0, 1, 2] * 5)
        assert class_auc(target, np.eye(3)[target], sample(target)).value == 1.0
        assert class_auc(target, np.full((15, 3), 1 / 3), sample(target)).value == 0.5


def test_volume_against_age_follows_what_was_made():
    """A structure that grows by 8 mm3 a year in real scans, and in synthetic ones not at all."""

    def cases(lengths, ages):
        labels = torch.zeros(len(ages), 1, 16, 8, 8, dtype=torch.uint8)
        for label, length in zip(labels, lengths, strict=True):
            label[0, :length, 2:4, 2:4] = 1
        rows = tuple({"age": age} for age in ages)
        return Cases(torch.zeros(labels.shape), labels, tuple(own(len(ages))), rows)

    ages = list(range(2, 14))
    real = cases(ages, ages)
    flat = cases([7, 8] * 6, ages)
    found = describe_structures(flat, real, real, ["core"], (1.0, 1.0, 2.0), ["age"], seed=0)["core"]["against"]["age"]
    assert found["holdout"]["slope"]["value"] == pytest.approx(8.0)
    assert found["holdout"]["correlation"]["value"] == pytest.approx(1.0)
    assert abs(found["synthetic"]["slope"]["value"]) < 0.5
    assert found["synthetic"]["n"] == 12
