"""A segmenter learns what its training pairs teach, with the same budget whatever they are."""

import numpy as np
import pytest
import torch

from synthmed.evaluation.augmentation import Changes, augment, augment_pair
from synthmed.evaluation.cases import Cases, joined
from synthmed.evaluation.learning import Budget, shrink, shuffled
from synthmed.evaluation.segmenter import build_segmenter, dice_on, pad_to_multiple, predict, train_segmenter
from synthmed.evaluation.utility import measure_utility, size_curve

GRID = (16, 20, 16)


def boxes(n, seed=0, flip=False):
    """Return dark volumes with a bright and a middle box; `flip` swaps their labels."""
    rng = np.random.default_rng(seed)
    images, labels = np.full((n, 1, *GRID), -0.9, np.float32), np.zeros((n, 1, *GRID), np.uint8)
    for image, label in zip(images[:, 0], labels[:, 0], strict=True):
        i, j, k = rng.integers(2, 5, 3)
        first, second = (
            (slice(i, i + 9), slice(j, j + 6), slice(k, k + 9)),
            (slice(i, i + 9), slice(j + 7, j + 13), slice(k, k + 9)),
        )
        image[first], image[second] = 0.8, 0.0
        label[first], label[second] = (2, 1) if flip else (1, 2)
    images += 0.05 * rng.standard_normal(images.shape).astype(np.float32)
    return Cases(torch.from_numpy(images), torch.from_numpy(labels), tuple(f"p{seed}-{i}" for i in range(n)))


BUDGET = {"steps": 40, "batch_size": 4}


@pytest.fixture(scope="module")
def trained():
    cases = boxes(12)
    return train_segmenter(cases.images, cases.labels, 3, **BUDGET, seed=0)


def test_a_segmenter_learns_a_trivial_phantom(trained):
    test = boxes(6, seed=1)
    untrained = dice_on(build_segmenter(3, 0).eval(), test.images, test.labels, 3)
    learnt = dice_on(trained, test.images, test.labels, 3)
    assert learnt.shape == (6, 2)
    assert learnt.mean() > 0.85 > 0.5 > untrained.mean()


def test_training_repeats_bit_for_bit_and_leaves_the_global_generator_alone():
    cases = boxes(4)
    state = torch.random.get_rng_state()
    models = [train_segmenter(cases.images, cases.labels, 3, steps=2, batch_size=2, seed=s) for s in (5, 5, 6)]
    assert torch.equal(state, torch.random.get_rng_state())
    first, second, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_budgets_run(steps):
    cases = boxes(3)
    model = train_segmenter(cases.images, cases.labels, 3, steps=steps, batch_size=8, seed=0)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_prediction_keeps_a_grid_that_does_not_divide_by_the_strides(trained):
    images = boxes(3).images[..., :15, :19, :13]
    alone = predict(trained, images, batch_size=1)
    assert alone.shape == images.shape
    assert alone.dtype == torch.uint8
    assert torch.equal(alone, predict(trained, images, batch_size=3))


def test_padding_repeats_the_edge():
    x = torch.arange(5, dtype=torch.uint8).view(1, 1, 1, 1, 5)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 4, 4, 8)
    assert padded[0, 0, 2, 3].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert padded.dtype == torch.uint8


@pytest.mark.slow
def test_utility_rewards_faithful_pairs_and_punishes_swapped_labels():
    real, test = boxes(12, seed=2), boxes(8, seed=3)
    sets = {"trtr": real, "tstr": boxes(12, seed=4)}
    good = measure_utility(sets, test, ["a", "b"], **BUDGET, seeds=[0])
    bad = measure_utility({"trtr": real, "tstr": boxes(12, seed=4, flip=True)}, test, ["a", "b"], **BUDGET, seeds=[0])
    assert good["ratio"]["low"] <= good["ratio"]["value"] <= good["ratio"]["high"]
    assert good["ratio"]["value"] == pytest.approx(1.0, abs=0.1)
    assert bad["ratio"]["high"] < 0.5
    for name in sets:
        assert good["sets"][name]["n_training"] == 12
        assert good["sets"][name]["structures"].keys() == {"a", "b"}
        assert good["sets"][name]["dice"]["n"] == 8


def test_utility_averages_seeds_and_counts_patients():
    data, test = boxes(4), boxes(4, seed=1)
    found = measure_utility({"tstr": data, "trtr": data}, test, ["a", "b"], steps=2, batch_size=2, seeds=[0, 1])
    per_seed = found["sets"]["tstr"]["dice_of_seeds"]
    assert len(per_seed) == 2
    assert found["sets"]["tstr"]["dice"]["value"] == pytest.approx(np.mean(per_seed))
    assert found["sets"]["tstr"]["dice_of_seeds"] == found["sets"]["trtr"]["dice_of_seeds"]


class TestAugment:
    def test_moves_image_and_label_together(self):
        cases = boxes(6)
        marked = (cases.labels == 1).float() * 2 - 1
        images, labels = augment_pair(marked, (cases.labels == 1).to(torch.uint8), torch.Generator().manual_seed(0))
        inside, outside = images[labels == 1], images[labels == 0]
        assert inside.mean() > 0.5
        assert outside.mean() < -0.5
        assert (labels != (cases.labels == 1)).any()
        assert set(labels.unique().tolist()) <= {0, 1}

    def test_never_mirrors(self):
        """A mark on the right stays on the right."""
        image = torch.full((50, 1, *GRID), -1.0)
        label = torch.zeros((50, 1, *GRID), dtype=torch.uint8)
        label[:, :, 11:14, 8:12, 6:10] = 1
        _, moved = augment_pair(image, label, torch.Generator().manual_seed(1))
        places = moved.nonzero()
        means = [places[places[:, 0] == b][:, 2].float().mean() for b in range(50)]
        assert min(means) > GRID[0] / 2

    def test_rotation_keeps_volume_on_a_grid_that_is_not_a_cube(self):
        turn = Changes(rotation=1.0, scaling=0.0, shift=0.0)
        shape = (20, 40, 24)
        distance = sum((x - (n - 1) / 2) ** 2 for x, n in zip(np.indices(shape), shape, strict=True))
        ball = torch.from_numpy(distance < 8**2)[None, None].expand(4, -1, -1, -1, -1)
        _, turned = augment_pair(ball.float(), ball.to(torch.uint8), torch.Generator().manual_seed(0), turn)
        overlap = 2 * (turned.bool() & ball).sum() / (turned.sum() + ball.sum())
        assert overlap > 0.94  # a ball turned about its centre is itself, up to the voxels on its surface

    def test_no_change_is_none(self):
        images = boxes(3).images
        nothing = Changes(0, 0, 0, 0, 0, 0, 0)
        assert torch.allclose(
            augment(images, torch.Generator().manual_seed(0), nothing), images.clamp(-1, 1), atol=1e-4
        )


class TestOrder:
    def test_every_case_comes_once_a_pass(self):
        order = shuffled(5, 12, torch.Generator().manual_seed(0))
        assert sorted(order[:5].tolist()) == sorted(order[5:10].tolist()) == list(range(5))

    def test_two_sources_take_turns_however_many_cases_each_has(self):
        order = shuffled(103, 41, torch.Generator().manual_seed(0), boundary=3)
        assert len(order) == 41
        assert (order[::2] < 3).all()
        assert (order[1::2] >= 3).all()
        assert len(order[1::2].unique()) == 20


def test_shrinking_averages_blocks_and_never_goes_above_the_limit():
    x = torch.arange(5 * 4 * 4, dtype=torch.float32).view(1, 1, 5, 4, 4)
    assert shrink(x, 80) is x
    small = shrink(x, 20)
    assert small.shape == (1, 1, 3, 2, 2)
    assert small[0, 0, 0, 0, 0] == x[0, 0, :2, :2, :2].mean()
    assert small[0, 0, 2, 0, 0] == x[0, 0, 4:, :2, :2].mean()  # the last block is half full


@pytest.mark.slow
def test_real_and_synthetic_together_beat_few_real_pairs_and_bad_ones_do_not_help():
    real, test = boxes(3, seed=2), boxes(6, seed=3)
    budget = Budget(30, 4, torch.device("cpu"))
    row, bad = (
        size_curve(made, real, test, 2, sizes=[1, 3, 9], budget=budget, seeds=[0])[0]
        for made in (boxes(12, seed=4), boxes(12, seed=4, flip=True))
    )
    assert row["patients"] == 1
    assert row["gain"]["low"] > bad["gain"]["value"]
    assert row["both"]["value"] > bad["both"]["value"] + 0.1


def test_both_takes_turns_and_the_gain_is_reported():
    real, made = boxes(3, seed=2), boxes(5, seed=4)
    sets = {"trtr": real, "both": joined(real, made)}
    found = measure_utility(sets, boxes(4, seed=3), ["a", "b"], steps=2, batch_size=2, seeds=[0, 1])
    assert sets["both"].boundary == 3
    assert found["sets"]["both"]["n_training"] == 8
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]
    assert "ratio" not in found


def test_patients_are_taken_whole_and_repeatably():
    cases = boxes(6)
    scans = Cases(cases.images, cases.labels, ("a", "a", "b", "b", "c", "c"), tuple({"n": i} for i in range(6)))
    few = scans.take_patients(2, seed=1)
    assert len(few) == 4
    assert few.num_patients == 2
    assert [row["n"] for row in few.covariates] == sorted(row["n"] for row in few.covariates)
    assert few.patients == scans.take_patients(2, seed=1).patients
    assert {scans.take_patients(2, seed=s).patients for s in range(8)} != {few.patients}
