"""Every measure of fidelity and diversity on sets whose answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from synthmed.evaluation.diversity import compare_volumes, diversity, draw_pairs, label_volumes, ms_ssim, ms_ssim_scales
from synthmed.evaluation.features import radiomics, random_convolutions, standardiser_of
from synthmed.evaluation.fidelity import (
    dice_per_structure,
    distances,
    frechet,
    frechet_distance,
    kid,
    psnr,
    reconstruction,
)
from synthmed.evaluation.intervals import mean_interval, pair_interval, patient_weights

GRID = (16, 20, 16)


def blobs(n, *, seed=0, radius=(4.0, 6.0), noise=0.05):
    """Return bright ellipsoids of random size and place on a dark ground, with their masks."""
    rng = np.random.default_rng(seed)
    axes = np.indices(GRID).astype(float)
    images, labels = [], []
    for _ in range(n):
        centre = np.array(GRID) / 2 + rng.uniform(-2, 2, 3)
        distance = np.sqrt(((axes - centre[:, None, None, None]) ** 2).sum(0))
        mask = distance < rng.uniform(*radius)
        smooth = ndimage.gaussian_filter(mask.astype(float), 1)
        images.append(np.clip(1.6 * smooth - 0.8 + noise * rng.standard_normal(GRID), -1, 1))
        labels.append(mask)
    return torch.tensor(np.stack(images)[:, None]).float(), torch.tensor(np.stack(labels)[:, None]).to(torch.uint8)


def own(n):
    return [f"p{i}" for i in range(n)]


class TestPsnr:
    def test_by_hand(self):
        reference = torch.zeros(2, 1, 4, 4, 4)
        other = reference + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1, 1)
        assert psnr(reference, other) == pytest.approx([20.0, 40.0], abs=1e-4)  # 10 log10(4 / 0.04)

    def test_equal_images_stay_finite(self):
        x = torch.rand(1, 1, 4, 4, 4)
        assert psnr(x, x) == pytest.approx([10 * np.log10(4e10)])


class TestDice:
    def test_by_hand(self):
        a = torch.zeros(1, 1, 4, 1, 1, dtype=torch.uint8)
        b = a.clone()
        a[0, 0, :3] = 1
        b[0, 0, 2:] = 1
        assert dice_per_structure(a, b, 2).tolist() == [[pytest.approx(2 * 1 / (3 + 2))]]

    def test_absent_from_both_is_one_from_one_is_zero(self):
        a = torch.tensor([0, 1, 1, 1]).view(1, 1, 4, 1, 1)
        b = torch.tensor([0, 1, 1, 2]).view(1, 1, 4, 1, 1)
        assert dice_per_structure(a, b, 4).tolist() == [[pytest.approx(0.8), 0.0, 1.0]]

    @given(st.integers(0, 2**16))
    @settings(max_examples=20, deadline=None)
    def test_is_symmetric_and_within_bounds(self, seed):
        rng = np.random.default_rng(seed)
        a, b = (torch.tensor(rng.integers(0, 3, (2, 1, 3, 3, 3))) for _ in range(2))
        score = dice_per_structure(a, b, 3)
        assert np.array_equal(score, dice_per_structure(b, a, 3))
        assert ((score >= 0) & (score <= 1)).all()


class TestIntervals:
    def test_a_patients_cases_are_drawn_together(self):
        weights = patient_weights(["a", "a", "b", "c"], rng=np.random.default_rng(0), resamples=50)
        assert np.array_equal(weights[:, 0], weights[:, 1])
        assert (weights[:, 1:].sum(axis=1) == 3).all()

    def test_width_matches_the_standard_error_of_patients_not_of_scans(self):
        rng = np.random.default_rng(1)
        means = rng.standard_normal(200)
        values, patients = np.repeat(means, 4), np.repeat(np.arange(200), 4)
        interval = mean_interval(values, patients, rng=rng)
        standard_error = means.std() / np.sqrt(200)
        assert interval["high"] - interval["low"] == pytest.approx(2 * 1.96 * standard_error, rel=0.15)

    def test_mean_interval_covers_the_truth_as_often_as_it_says(self):
        hits = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            found = mean_interval(rng.normal(3.0, 1.0, 60), own(60), rng=rng)
            hits += found["low"] <= 3.0 <= found["high"]
        assert 0.89 <= hits / 200 <= 0.99

    def test_pairs_of_equal_value_have_no_width(self):
        pairs = np.array([[0, 1], [1, 2], [0, 2]])
        found = pair_interval(np.full(3, 0.7), pairs, own(3), rng=np.random.default_rng(0))
        assert (found["low"], found["high"]) == (pytest.approx(0.7), pytest.approx(0.7))


class TestKid:
    def test_by_hand(self):
        x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
        found = kid(x, y, own(2), own(2), rng=np.random.default_rng(0))
        within = (0 * 1 + 1) ** 3 + (2 * 3 + 1) ** 3
        across = np.mean([1.0, 1.0, 27.0, 64.0])
        assert found["value"] == pytest.approx(within - 2 * across)

    def test_is_unbiased_on_equal_distributions(self):
        values = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((25, 8)), rng.standard_normal((15, 8))
            values.append(kid(x, y, own(25), own(15), rng=rng)["value"])
        standard_error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values)) < 3 * standard_error

    def test_expected_value_of_a_shift_of_the_mean(self):
        """For D = 1, k = (ab + 1)^3 and x ~ N(0, 1), y ~ N(1, 1), E[k] follows from the moments."""

        def expected(m, n):  # moments of order 0..3 of two independent draws
            return sum(c * m[i] * n[i] for i, c in enumerate((1, 3, 3, 1)))

        zero, one = (1, 0, 1, 0), (1, 1, 2, 4)
        wanted = expected(zero, zero) + expected(one, one) - 2 * expected(zero, one)
        assert wanted == 22
        rng = np.random.default_rng(0)
        sets = [(rng.standard_normal((30, 1)), 1 + rng.standard_normal((30, 1))) for _ in range(200)]
        values = [kid(x, y, own(30), own(30), rng=rng)["value"] for x, y in sets]
        assert abs(np.mean(values) - wanted) < 3 * np.std(values) / np.sqrt(200)

    def test_two_scans_of_a_patient_do_not_count_as_likeness(self):
        rng = np.random.default_rng(3)
        values = []
        for _ in range(100):
            twins = np.repeat(rng.standard_normal((20, 6)), 2, axis=0)
            patients = np.repeat(np.arange(20), 2).astype(str)
            values.append(kid(twins, rng.standard_normal((40, 6)), patients, own(40), rng=rng)["value"])
        assert abs(np.mean(values)) < 3 * np.std(values) / 10

    def test_interval_holds_zero_for_equal_and_not_for_shifted_sets(self):
        rng = np.random.default_rng(4)
        x, y = rng.standard_normal((60, 10)), rng.standard_normal((60, 10))
        same = kid(x, y, own(60), own(60), rng=rng)
        shifted = kid(x + 1, y, own(60), own(60), rng=rng)
        assert same["low"] < 0 < same["high"]
        assert 0 < shifted["low"] < shifted["value"] < shifted["high"]


class TestFrechet:
    def test_gaussians_by_hand(self):
        """Diagonal case: sum of (m - m')^2 + (s - s')^2."""
        x = np.array([[-1.0, -2.0], [1.0, -2.0], [-1.0, 2.0], [1.0, 2.0]])
        y = 3 * x + [4.0, 0.0]
        assert frechet_distance(x, y) == pytest.approx(16 + (3 - 1) ** 2 + (6 - 2) ** 2)

    def test_weights_stand_for_repeated_cases(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((6, 3)), rng.standard_normal((7, 3))
        weights = np.array([2.0, 0, 1, 1, 3, 0])
        repeated = np.repeat(x, weights.astype(int), axis=0)
        assert frechet_distance(x, y, weights) == pytest.approx(frechet_distance(repeated, y))

    def test_identical_sets_are_at_zero_and_the_interval_holds_the_value(self):
        x = np.random.default_rng(1).standard_normal((40, 5))
        assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
        found = frechet(x, x + 2, own(40), own(40), rng=np.random.default_rng(2))
        assert found["value"] == pytest.approx(20)
        assert found["low"] < found["value"] < found["high"]


class TestFeatures:
    def test_random_convolutions_do_not_depend_on_batch_or_global_seed(self):
        images, _ = blobs(5)
        torch.manual_seed(1)
        one = random_convolutions(images, batch_size=1)
        torch.manual_seed(2)
        assert random_convolutions(images, batch_size=4) == pytest.approx(one, abs=1e-5)
        assert one.shape == (5, 736)

    def test_radiomics_by_hand(self):
        image = torch.zeros(1, 1, 4, 4, 4)
        image[0, 0, 2:] = 1.0
        label = (image > 0).to(torch.uint8)
        row = radiomics(image, label, 2)[0]
        assert row[:4] == pytest.approx([0.5, 0.5, 0.0, -2.0])  # two equal halves: kurtosis 1 - 3
        assert row[4] == pytest.approx(np.log(2))
        assert row[12] == pytest.approx(16 / 48)  # one of three steps along i
        assert row[14] == 0.0
        assert row[18:22] == pytest.approx([0.5 ** (1 / 3), 2.5 / 4, 1.5 / 4, 1.5 / 4])
        assert row[27:29] == pytest.approx([1.0, 0.0])  # intensity inside
        assert (row[29:] == 0).all()  # the second structure is absent
        assert len(row) == 18 + 2 * 11
        assert radiomics(image, None, 2).shape == (1, 18)

    def test_radiomics_of_a_constant_image_are_finite(self):
        assert np.isfinite(radiomics(torch.full((1, 1, 5, 5, 5), -1.0), torch.ones(1, 1, 5, 5, 5), 1)).all()

    def test_standardiser_clips_and_leaves_near_constant_features_alone(self):
        features = np.stack([np.linspace(-1, 1, 50), np.full(50, 2.0)], axis=1)
        standardise = standardiser_of(features)
        assert standardise(features).std(axis=0) == pytest.approx([1.0, 0.0])
        assert standardise(np.array([[100.0, 2.001]]))[0] == pytest.approx([5.0, 0.1])


@pytest.fixture(scope="module")
def sets():
    return {name: blobs(n, seed=seed)[0] for name, n, seed in (("train", 40, 1), ("holdout", 30, 2), ("good", 40, 3))}

    def measure(self, sets, synthetic):
        features = [random_convolutions(x) for x in (synthetic, sets["train"], sets["holdout"])]
        return distances(*features, own(40), [f"h{i}" for i in range(30)], seed=0)

    def test_a_genuine_sample_reaches_the_floor(self, sets):
        found = self.measure(sets, sets["good"])
        for key in ("kid", "frechet"):
            synthetic, floor = found[key]["synthetic"], found[key]["floor"]
            assert synthetic["low"] <= floor["high"]
            assert floor["low"] <= synthetic["high"]
        assert found["n"] == 40
        assert found["n_holdout"] == 30

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda x: (x + 0.3).clamp(-1, 1),
            lambda x: x[:1].expand(40, -1, -1, -1, -1),
            lambda x: x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
        ],
        ids=["shifted", "collapsed", "noisy"],
    )
    def test_a_spoiled_set_is_told_from_the_floor(self, sets, spoil):
        found = self.measure(sets, spoil(sets["good"]))
        for key in ("kid", "frechet"):
            assert found[key]["synthetic"]["low"] > found[key]["floor"]["high"]

    def test_the_sets_are_size_matched(self, sets):
        few = self.measure(sets, sets["good"][:12])
        assert few["n"] == 12

    def test_more_noise_is_further_away(self, sets):
        noise = torch.randn(sets["good"].shape, generator=torch.Generator().manual_seed(0))
        values = [self.measure(sets, sets["good"] + a * noise)["kid"]["synthetic"]["value"] for a in (0, 0.1, 0.3)]
        assert values == sorted(values)


class TestDiversity:
    def test_a_collapsed_set_is_less_varied_than_a_real_one(self):
        varied, _ = blobs(12)
        collapsed = varied[:1] + 0.02 * torch.randn((12, 1, *GRID), generator=torch.Generator().manual_seed(0))
        real, fallen = diversity(varied, own(12), seed=0), diversity(collapsed, own(12), seed=0)
        assert fallen["low"] > real["high"]
        assert real["n"] == 12 * 11 / 2

    def test_equal_images_score_one(self):
        x, _ = blobs(2)
        assert ms_ssim(x, x) == pytest.approx([1.0, 1.0], abs=1e-5)

    def test_pairs_never_join_two_scans_of_a_patient(self):
        pairs = draw_pairs(["a", "a", "b", "b"], rng=np.random.default_rng(0))
        assert {tuple(p) for p in pairs} == {(0, 2), (0, 3), (1, 2), (1, 3)}
        assert diversity(blobs(2)[0], ["a", "a"], seed=0) is None

    @pytest.mark.parametrize("side", [8, 12, 16, 27, 32, 40, 48, 64, 96, 128])
    def test_the_scales_chosen_are_ones_that_monai_accepts(self, side):
        shape = (side, side + 3, side + 1)
        x = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0)) if side <= 48 else None
        if x is not None:
            assert ms_ssim(x, x) == pytest.approx([1.0], abs=1e-5)
        wanted = {8: 1, 12: 1, 16: 2, 27: 2, 32: 3, 40: 3, 48: 3, 64: 4, 96: 4, 128: 5}
        assert ms_ssim_scales(shape) == wanted[side]


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


class OffByTenth(torch.nn.Module):
    """An autoencoder that adds 0.1 to the image and forgets the last structure."""

    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.tensor(0.1))

    def encode(self, image, onehot=None):
        return torch.cat([image, onehot], 1) if onehot is not None else image

    def decode(self, latent):
        return latent[:, :1] + self.offset, latent[:, 1:-1] if latent.shape[1] > 1 else None


class TestReconstruction:
    def test_by_hand(self):
        images, labels = torch.zeros(10, 1, 4, 4, 4), torch.zeros(10, 1, 4, 4, 4, dtype=torch.uint8)
        labels[:, :, 0], labels[:, :, 1] = 1, 2
        found = reconstruction(OffByTenth(), images, labels, ["front", "back"], own(10), seed=0)
        assert found["psnr_db"]["value"] == pytest.approx(10 * np.log10(4 / 0.01), abs=1e-4)
        assert found["psnr_db"]["sd"] == pytest.approx(0, abs=1e-6)
        assert {name: dice["value"] for name, dice in found["dice"].items()} == {"front": 1.0, "back": 0.0}

    def test_without_labels_only_the_image_counts(self):
        found = reconstruction(OffByTenth(), torch.zeros(2, 1, 4, 4, 4), None, [], own(2), seed=0)
        assert found.keys() == {"psnr_db"}

    def test_decoded_intensities_are_clipped_to_the_scale(self):
        found = reconstruction(OffByTenth(), torch.ones(2, 1, 4, 4, 4), None, [], own(2), seed=0)
        assert found["psnr_db"]["value"] > 100
