"""Every measure of fidelity on sets whose answer is known: identical, shifted, collapsed and noisy ones."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from synthmed.evaluation.distances import biased_kid, frechet, frechet_distance, kid, kid_noise, kid_ratio
from synthmed.evaluation.features import radiomics, random_convolutions, standardiser_of
from synthmed.evaluation.fidelity import distances
from synthmed.evaluation.intervals import patient_weights
from synthmed.evaluation.manifold import density_and_coverage, precision_and_recall
from synthmed.evaluation.modes import centres_of, mode_coverage
from synthmed.evaluation.sample import Sample
from synthmed.evaluation.two_sample import folds, two_sample_auc

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


def sample(points, patients=None, draws=100):
    owners = tuple(own(len(points)) if patients is None else patients)
    return Sample(points, owners, patient_weights(owners, rng=np.random.default_rng(9), resamples=draws))


class TestKid:
    def test_by_hand(self):
        x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
        found = kid(sample(x), sample(y)).value
        within = (0 * 1 + 1) ** 3 + (2 * 3 + 1) ** 3
        across = np.mean([1.0, 1.0, 27.0, 64.0])
        assert found == pytest.approx(within - 2 * across)

    def test_is_unbiased_on_equal_distributions(self):
        values = []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((25, 8)), rng.standard_normal((15, 8))
            values.append(kid(sample(x), sample(y)).value)
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
        values = [kid(sample(x), sample(y)).value for x, y in sets]
        assert abs(np.mean(values) - wanted) < 3 * np.std(values) / np.sqrt(200)

    def test_two_scans_of_a_patient_do_not_count_as_likeness(self):
        rng = np.random.default_rng(3)
        values = []
        for _ in range(100):
            twins = np.repeat(rng.standard_normal((20, 6)), 2, axis=0)
            patients = np.repeat(np.arange(20), 2).astype(str)
            values.append(kid(sample(twins, patients), sample(rng.standard_normal((40, 6)))).value)
        assert abs(np.mean(values)) < 3 * np.std(values) / 10

    def test_interval_holds_zero_for_equal_and_not_for_shifted_sets(self):
        rng = np.random.default_rng(4)
        x, y = rng.standard_normal((60, 10)), rng.standard_normal((60, 10))
        same, shifted = (kid(sample(part), sample(y)).figure() for part in (x, x + 1))
        assert same["low"] < 0 < same["high"]
        assert 0 < shifted["low"] < shifted["value"] < shifted["high"]

    def test_the_ratio_of_biased_distances_is_one_for_equal_and_grows_with_a_shift(self):
        """Against V-statistics computed with their diagonals."""
        ratios = {0.0: [], 0.5: []}
        for seed in range(60):
            rng = np.random.default_rng(seed)
            made, train, holdout = (rng.standard_normal((40, 8)) for _ in range(3))
            noise = kid_noise(sample(np.concatenate([train, holdout])), 40, 40)
            floor = kid(sample(train, draws=2), sample(holdout, draws=2))
            for shift, found in ratios.items():
                sets = (sample(part, draws=2) for part in (made + shift, train, holdout))
                found.append(kid_ratio(*sets, noise).value)
            biased = (kernel(train, train) + kernel(holdout, holdout) - 2 * kernel(train, holdout)).mean()
            assert biased_kid(sample(train, draws=2), sample(holdout, draws=2)).value == pytest.approx(biased)
            assert floor.value + noise == pytest.approx(biased, rel=0.35)
        assert np.mean(ratios[0.0]) == pytest.approx(1.0, abs=0.1)
        assert np.mean(ratios[0.5]) > 2
        assert np.std(ratios[0.0]) < 0.5


def kernel(a, b):
    return (a @ b.T / a.shape[1] + 1) ** 3


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
        found = frechet(sample(x), sample(x + 2)).recentred().figure()
        assert found["value"] == pytest.approx(20)
        assert found["low"] < found["value"] < found["high"]


class TestManifold:
    """Kynkaanniemi et al. and Naeem et al., by hand and on known sets."""

    def test_by_hand(self):
        """Balls of y to its nearest: [-1, 1], [0, 2], [1, 9]; of x: [0.4, 0.6], [0.5, 0.7], [0.6, 100.4]."""
        y, x = np.array([[0.0], [1.0], [5.0]]), np.array([[0.5], [0.6], [50.5]])
        precision, recall = precision_and_recall(sample(x), sample(y), k=1)
        assert precision.value == pytest.approx(2 / 3)
        assert recall.value == pytest.approx(2 / 3)  # the outlier's ball reaches far
        density, coverage = density_and_coverage(sample(x), sample(y), k=1)
        assert density.value == pytest.approx((2 + 2 + 0) / 3)
        assert coverage.value == pytest.approx(2 / 3)

    def test_a_patients_other_scan_is_no_neighbour(self):
        y = np.array([[0.0], [0.01], [10.0], [10.01]])
        precision, _ = precision_and_recall(sample(np.full((4, 1), 5.0)), sample(y, ["a", "a", "b", "b"]), k=1)
        assert precision.value == 1.0

    @pytest.mark.parametrize(
        ("spoil", "low", "kept"),
        [
            (lambda x: 0.05 * x, ("recall", "coverage"), ("precision", "density")),
            (lambda x: np.where(x[:, :1] > 0, x, -x), ("recall", "coverage"), ("precision",)),
            (lambda x: 4 * x, ("precision", "density", "coverage"), ()),
            (lambda x: x + 5, ("precision", "density", "coverage", "recall"), ()),
        ],
        ids=["collapsed", "half of the modes", "noisy", "shifted"],
    )
    def test_spoiled_sets(self, spoil, low, kept):
        rng = np.random.default_rng(0)
        genuine, other, y = (rng.standard_normal((100, 4)) for _ in range(3))
        floor, found = self.shares(other, y), self.shares(spoil(genuine), y)
        good = self.shares(genuine, y)
        for name in floor:
            assert good[name].value == pytest.approx(floor[name].value, abs=0.15)
        for name in low:
            assert found[name].value < 0.85 * floor[name].value
        for name in kept:
            assert found[name].value > 0.95 * floor[name].value

    def shares(self, x, y):
        x, y = sample(x), sample(y)
        names = ("precision", "recall", "density", "coverage")
        return dict(zip(names, precision_and_recall(x, y) + density_and_coverage(x, y), strict=True))


class TestTwoSample:
    def auc(self, x, y, patients=None):
        return two_sample_auc(sample(x, patients), sample(y), rng=np.random.default_rng(0))

    def test_equal_sets_are_a_toss_up_and_shifted_ones_are_told(self):
        values = {0.0: [], 1.0: []}
        for seed in range(20):
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((40, 60)), rng.standard_normal((40, 60))
            for shift in values:
                values[shift].append(self.auc(x + shift, y).value)
        assert np.mean(values[0.0]) == pytest.approx(0.5, abs=0.05)
        assert min(values[1.0]) > 0.9

    def test_the_interval_holds_a_toss_up(self):
        rng = np.random.default_rng(3)
        found = self.auc(rng.standard_normal((60, 5)), rng.standard_normal((60, 5))).figure()
        assert found["low"] < 0.5 < found["high"]

    def test_scans_of_a_patient_lie_in_one_fold(self):
        dealt = folds(("a", "a", "b", "c", "b", "d", "e", "f"), rng=np.random.default_rng(1))
        assert dealt[0] == dealt[1]
        assert dealt[2] == dealt[4]
        assert set(dealt) == {0, 1, 2, 3, 4}

    def test_knowing_a_patient_does_not_help(self):
        """Twenty patients of many near-equal scans: a classifier that saw a patient's other scan would excel."""
        rng = np.random.default_rng(5)
        values = []
        for _ in range(10):
            scans = np.repeat(rng.standard_normal((10, 80)), 6, axis=0)
            values.append(self.auc(scans, rng.standard_normal((60, 80)), np.repeat(own(10), 6)).value)
        assert np.mean(values) < 0.65


class TestModes:
    def test_a_missing_mode_costs_its_share(self):
        y = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]], 10, axis=0)
        centres = np.unique(y, axis=0)
        assert mode_coverage(sample(y), sample(y), centres).value == 1.0
        assert mode_coverage(sample(y[:30]), sample(y), centres).value == pytest.approx(0.75)
        assert mode_coverage(sample(y[:1]), sample(y), centres).value == pytest.approx(0.25)

    def test_centres_find_the_clusters(self):
        rng = np.random.default_rng(0)
        points = np.repeat([[0.0, 0.0], [50.0, 0.0]], 8, axis=0) + 0.1 * rng.standard_normal((16, 2))
        assert sorted(centres_of(points, rng=rng)[:, 0].round()) == [0, 50]


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


class TestDistances:
    def measure(self, sets, synthetic):
        features = [random_convolutions(x) for x in (synthetic, sets["train"], sets["holdout"])]
        return distances(*features, own(40), [f"h{i}" for i in range(30)], seed=0)

    def test_a_genuine_sample_reaches_the_floor(self, sets):
        found = self.measure(sets, sets["good"])
        for key in ("kid", "frechet", "auc"):
            assert found[key]["synthetic"]["low"] <= found[key]["floor"]["high"]
        for key in ("precision", "recall", "density", "coverage", "modes"):
            assert found[key]["synthetic"]["high"] >= found[key]["floor"]["low"]
            assert found[key]["ratio"]["value"] > 0.8
        assert found["kid"]["ratio"]["value"] < 2
        assert found["n"] == 40
        assert found["n_holdout"] == 30

    @pytest.mark.parametrize(
        ("spoil", "falls"),
        [
            (lambda x: (x + 0.3).clamp(-1, 1), ("precision", "density", "coverage")),
            (lambda x: x[:1].expand(40, -1, -1, -1, -1), ("recall", "coverage", "modes")),
            (
                lambda x: x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
                ("precision", "density", "coverage"),
            ),
        ],
        ids=["shifted", "collapsed", "noisy"],
    )
    def test_a_spoiled_set_is_told_from_the_floor(self, sets, spoil, falls):
        found = self.measure(sets, spoil(sets["good"]))
        assert found["kid"]["synthetic"]["low"] > found["kid"]["floor"]["high"]
        assert found["kid"]["ratio"]["low"] > 2
        assert found["frechet"]["ratio"]["value"] > 1.5
        assert found["auc"]["synthetic"]["value"] > 0.9
        for key in falls:
            assert found[key]["synthetic"]["high"] < found[key]["floor"]["low"]

    def test_the_sets_are_size_matched(self, sets):
        features = [random_convolutions(x) for x in (sets["good"][:12], sets["train"], sets["holdout"])]
        assert distances(*features, own(40), [f"h{i}" for i in range(30)], seed=0)["n"] == 12

    @pytest.mark.slow
    def test_more_noise_is_further_away(self, sets):
        noise = torch.randn(sets["good"].shape, generator=torch.Generator().manual_seed(0))
        values = [self.measure(sets, sets["good"] + a * noise)["kid"]["ratio"]["value"] for a in (0, 0.1, 0.3)]
        assert values == sorted(values)
