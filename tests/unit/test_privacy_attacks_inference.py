"""Linkability and attribute inference: by hand, without a leak, and with one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from privacy.attacks.halves import halves, nearest, unit
from privacy.attacks.inference import LEAST_GAIN, attribute_risks, guess_attribute, guess_gain
from privacy.attacks.linkability import chance, link
from privacy.attributes import columns_of
from privacy.codes import Codes
from privacy.residual import residual_risk

SHAPE = (6, 10, 5)


def views(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw pictures whose halves are tied weakly, as anatomy ties them."""
    shared = rng.normal(size=(count, 1, 1, 1))
    return (0.4 * shared + rng.normal(size=(count, *SHAPE))).astype(np.float32)


def world(seed: int, copies: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw 100 samples, 60 members and 40 held-out patients; the first samples copy the first members."""
    rng = np.random.default_rng(seed)
    samples, real = views(100, rng), views(100, rng)
    samples[:copies] = real[:copies] + noise * rng.normal(size=(copies, *SHAPE))
    return samples, real, np.arange(100) < 60


def with_codes(samples: np.ndarray, real: np.ndarray, is_train: np.ndarray) -> Codes:
    blank = np.zeros((1, 2, 1, 1), np.float32)
    return Codes(unit(samples), unit(real), blank, blank, np.arange(len(real)), is_train)


def test_halves_share_nothing_and_leave_out_the_middle() -> None:
    picture = np.arange(8.0).reshape(1, 1, 8, 1)
    assert [part.ravel().tolist() for part in halves(picture)] == [[0, 1, 2], [5, 6, 7]]
    picture = np.arange(9.0).reshape(1, 9, 1, 1)
    assert [part.ravel().tolist() for part in halves(picture)] == [[0, 1, 2], [6, 7, 8]]


def test_unit_rows_are_centred_and_flat_ones_vanish() -> None:
    rows = unit(np.array([[1.0, 3.0], [5.0, 5.0]]))
    assert rows == pytest.approx(np.array([[-math.sqrt(0.5), math.sqrt(0.5)], [0, 0]]))


@pytest.mark.parametrize("block", [1, 7, 4_000_000])
def test_nearest_is_the_same_in_any_chunk(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.attacks.halves.BLOCK", block)
    samples = np.array([[0.1], [0.9], [0.9], [0.5]])
    assert nearest(np.array([[1.0], [-1.0]]), samples, 3).tolist() == [[1, 2, 3], [0, 3, 1]]
    assert nearest(np.array([[1.0], [-1.0]]), samples, 1).tolist() == [[1], [0]]
    assert nearest(np.array([[1.0]]), samples, 9).shape == (1, 4)


def test_chance_of_a_link_by_hand() -> None:
    assert chance(10, 1) == pytest.approx(0.1)
    assert chance(5, 2) == pytest.approx(1 - 3 / 10)  # C(3, 2) of C(5, 2) pairs avoid both
    assert chance(1, 3) == 1


def test_copies_link_the_halves_of_their_members_only() -> None:
    samples, real, is_train = world(0, copies=30)
    linked = link(samples, real, 1)
    assert linked[:30].all()
    assert linked[30:].mean() < 0.15
    found = residual_risk(linked, is_train, 0.95)
    assert found.risk == pytest.approx(0.5, abs=0.1)
    assert found.lower > 0.15


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_the_other_half_of_a_copied_member_is_guessed(noise: float) -> None:
    samples, real, is_train = world(0, copies=30, noise=noise)
    gain = guess_gain(samples, real)
    assert gain[:30].min() > 0.5
    found = residual_risk(gain > gain[~is_train].max(), is_train, 0.95)
    assert found.lower > 0.2


def test_gain_by_hand() -> None:
    real = np.array([1.0, 2, 0, 0, 3, 1]).reshape(1, 1, 6, 1)
    samples = np.stack([real[0], -real[0], real[0] * [[[1.0], [1], [0], [0], [-1], [1]]]])
    other = np.corrcoef([samples[:, 0, 4:, 0].mean(0), [3, 1]])[0, 1]
    back = np.corrcoef([samples[:, 0, :2, 0].mean(0), [1, 2]])[0, 1]
    assert guess_gain(samples, real) == pytest.approx([((1 - other) + (1 - back)) / 2], abs=1e-5)


@pytest.mark.parametrize("samples", [1, 5])
def test_identical_samples_tell_nothing(samples: int) -> None:
    _, real, is_train = world(0)
    same = np.repeat(real[:1], samples, axis=0)
    for success in (link(same, real, 1), guess_gain(same, real) > LEAST_GAIN):
        assert residual_risk(success, is_train, 0.95).risk == 0


def test_flat_halves_give_numbers() -> None:
    samples, real, _ = world(0)
    gain = guess_gain(np.zeros_like(samples), np.zeros_like(real))
    assert gain.tolist() == [0] * len(real)


def test_no_risk_is_claimed_without_a_leak() -> None:
    claimed = 0
    for seed in range(30):
        samples, real, is_train = world(seed)
        for success in (link(samples, real, 1), guess_gain(samples, real) > LEAST_GAIN):
            claimed += residual_risk(success, is_train, 0.95).lower > 0
    assert claimed <= binom.ppf(0.999, 60, 0.05)


def test_attributes_of_copied_members_are_guessed() -> None:
    rng = np.random.default_rng(0)
    people, made = rng.normal(size=(100, 20)), rng.normal(size=(80, 20))
    made[:40] = people[:40] + 0.1 * rng.normal(size=(40, 20))
    age, sex = rng.uniform(20, 80, 100), rng.choice(["f", "m", "x"], 100)
    ages, sexes = rng.uniform(20, 80, 80), rng.choice(["f", "m", "x"], 80)
    ages[:40], sexes[:40] = age[:40], sex[:40]
    given = with_codes(made, people, np.arange(100) < 60)
    found = attribute_risks(given, {"age": age, "sex": sex}, {"age": ages, "sex": sexes}, 0.95)
    assert found["attribute_risks"] == pytest.approx([2 / 3, 2 / 3], abs=0.15)
    assert min(found["attribute_risks_lower"]) > 0.1
    honest = attribute_risks(given, {"age": rng.permutation(age)}, {"age": ages}, 0.95)
    assert honest["attribute_risk_lower"] == 0


def test_a_guess_by_hand() -> None:
    eye = np.eye(4)
    given = with_codes(eye[[0, 0, 1]] + 0.0, eye[[0, 1, 2]], np.array([True, True, False]))
    right, naive = guess_attribute(given, np.array([10.0, 20.0, np.nan]), np.array([10.4, np.nan, 14.0]), 1)
    assert right.tolist() == [True, False, False]  # within 0.5 of 10; 14 is not 20; unknown
    assert naive.tolist() == [False, False, False]  # the median is 12.2
    right, naive = guess_attribute(given, np.array(["f", "m", ""]), np.array(["m", "f", "m"]), 2)
    assert right.tolist() == [False, True, False]
    assert naive.tolist() == [False, True, False]


def test_attributes_that_cannot_be_compared_are_passed_over() -> None:
    samples, real, is_train = np.eye(4)[:2], np.eye(4)[:3], np.array([True, True, False])
    given = with_codes(samples, real, is_train)
    nowhere = {"a": np.array([1.0, 2.0, np.nan]), "b": np.array(["u", "v", "w"]), "c": np.ones(3)}
    assert attribute_risks(given, nowhere, {"a": np.ones(2), "b": np.ones(2), "d": np.ones(2)}, 0.95) == {}


def test_columns_are_numbers_where_all_are() -> None:
    first, second = columns_of(["61", " 7.5 ", ""], ["3", "inf"])
    assert np.array_equal(first, [61, 7.5, np.nan], equal_nan=True)
    assert np.array_equal(second, [3, np.nan], equal_nan=True)
    first, second = columns_of(["61", ""], ["f"])
    assert first.tolist() == ["61", ""]
    assert second.tolist() == ["f"]
