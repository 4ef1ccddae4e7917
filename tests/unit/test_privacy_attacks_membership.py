"""The distance and the density attack: by hand, silent where nothing leaked, and awake where something did."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, multivariate_normal

from privacy.attack_stats import even_scans, membership_measurements, patient_scores, permutation_test, tail_test
from privacy.attacks.density import density_ratio, log_density, project
from privacy.attacks.distance import leaks
from privacy.attacks.membership import membership, nearest_counts
from privacy.codes import Codes
from privacy.margins import Best
from privacy.policy import load_policy

Scores = Callable[[Codes], np.ndarray]
ATTACKS: dict[str, Scores] = {"distance": leaks, "density": density_ratio}
SPECTRUM = 1 / np.sqrt(1 + np.arange(48))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def codes(samples: np.ndarray, real: np.ndarray, patient: np.ndarray, is_train: np.ndarray) -> Codes:
    return Codes(
        unit(samples), unit(real), np.zeros((len(samples), 2, 1, 1)), np.zeros((len(real), 2, 1, 1)), patient, is_train
    )


def people(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw scans round one mean, some people far more typical than others."""
    own = rng.normal(size=(count, 48)) * SPECTRUM * np.exp(0.35 * rng.normal(size=(count, 1)))
    own[:, 0] += 1.5
    return own


def world(
    seed: int, copies: int = 0, noise: float = 0.05, members: int = 50, held: int = 25, samples: int = 120
) -> Codes:
    """Draw members, one in three scanned twice, held-out patients alike, and samples with copies of members."""
    rng = np.random.default_rng(seed)
    persons, made = people(members + held, rng), people(samples, rng)
    is_train = np.arange(members + held) < members
    twice = np.flatnonzero(np.arange(members + held) % 3 == 0)
    owner = np.concatenate([np.arange(members + held), twice])
    real = persons[owner] + 0.02 * rng.normal(size=(len(owner), 48)) * SPECTRUM
    made[:copies] = real[:copies] + noise * np.linalg.norm(real[:copies], axis=1, keepdims=True) / np.sqrt(
        48
    ) * rng.normal(size=(copies, 48))
    return codes(made, real, owner, is_train[owner])


def p_value(attack: Scores, given: Codes, seed: int, rounds: int = 499) -> float:
    given = even_scans(given)
    scored = patient_scores(attack(given), given.patient, given.is_train)
    return tail_test(scored, np.random.default_rng([seed, 1]), rounds=rounds)[0]


def test_leaks_by_hand() -> None:
    angles = np.deg2rad([0.0, 90.0, 90.0, 40.0])
    real = np.stack([np.cos(angles), np.sin(angles)], 1)
    given = codes(np.array([[1.0, 0.0], [0.6, 0.8]]), real, np.array([0, 1, 1, 2]), np.array([True, True, True, False]))
    z = np.arctanh(
        np.clip(np.array([[1, 0.0, np.cos(angles[3])], [0.6, 0.8, np.cos(np.deg2rad(13.1301024))]]), 0, 0.99999)
    )
    expected = [z[0, 0] - z[0, 2], z[1, 1] - z[1, 2], z[1, 2] - z[1, 1]]
    assert leaks(given) == pytest.approx([expected[k] for k in (0, 1, 1, 2)], abs=1e-3)


def test_leaks_of_one_patient_are_compared_with_nothing() -> None:
    given = codes(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]), np.array([5]), np.array([True]))
    assert leaks(given) == pytest.approx([np.arctanh(0.6)], rel=1e-5)


def test_leaks_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    given = world(0, copies=5)
    whole = {name: attack(given) for name, attack in ATTACKS.items()}
    for name in ATTACKS:  # the package holds functions of these names
        monkeypatch.setattr(sys.modules[f"privacy.attacks.{name}"], "BLOCK", 700)
    for name, attack in ATTACKS.items():
        assert attack(given) == pytest.approx(whole[name], abs=1e-3)


def test_log_density_is_a_mixture_of_normals_of_other_owners() -> None:
    kernels, points = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]]), np.array([[0.5, 0.5]])
    width = 3 ** (-1 / 6)
    left = [multivariate_normal.pdf(points[0], kernel, width**2 * np.eye(2)) for kernel in kernels[1:]]
    found = log_density(points, kernels, np.array([7]), np.array([7, 8, 9]))
    assert found + -np.log(2 * np.pi) == pytest.approx(np.log(np.mean(left)))


def test_the_axes_have_unit_variance_over_real_scans() -> None:
    real, samples = project(world(0))
    assert real.shape[1] == samples.shape[1] == 32
    assert real.mean(0) == pytest.approx(0, abs=1e-5)
    assert np.cov(real.T, bias=True) == pytest.approx(np.eye(32), abs=1e-3)


@pytest.mark.parametrize("members", [8, 50])
def test_the_axes_are_those_of_a_singular_value_decomposition(members: int) -> None:
    """Fewer scans than a code has numbers, and more: the two matrices that the axes may come from."""
    given = world(2, members=members, held=4)
    real, samples = project(given)
    centre = given.real.mean(0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(given.real - centre, full_matrices=False)
    count = min(32, len(given.real) // 3)
    expected = (given.samples - centre) @ axes[:count].T / spread[:count] * np.sqrt(len(given.real))
    assert real.shape[1] == count
    assert (len(given.real) < 48) == (members == 8)
    assert samples @ samples.T == pytest.approx(expected @ expected.T, abs=1e-9)


@pytest.mark.parametrize("length", [3, 40])
def test_scans_that_are_all_alike_have_one_axis(length: int) -> None:
    alike = np.ones((9, length))
    given = codes(np.eye(1, length), alike, np.arange(9), np.arange(9) < 5)
    real, samples = project(given)
    assert real.shape == (9, 1)
    assert samples.shape == (1, 1)
    assert len(np.unique(density_ratio(given))) == 1


@pytest.mark.parametrize("name", ATTACKS)
def test_labels_are_not_looked_at(name: str) -> None:
    given = world(1, copies=5)
    assert np.array_equal(ATTACKS[name](given), ATTACKS[name](replace(given, is_train=~given.is_train)))


@pytest.mark.parametrize("name", ATTACKS)
def test_p_values_are_uniform_where_samples_do_not_depend_on_the_split(name: str) -> None:
    runs = 200
    p = np.array([p_value(ATTACKS[name], world(seed), seed, rounds=199) for seed in range(runs)])
    for level in (0.02, 0.05, 0.1, 0.5):
        assert binom.ppf(0.0005, runs, level) <= (p <= level).sum() <= binom.ppf(0.9995, runs, level)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_members_who_were_scanned_more_often_raise_no_alarm(name: str, share: float) -> None:
    """Without care for it, two different scans of each member reach higher than one of each held-out patient."""
    alarms, runs = 0, 100
    for seed in range(runs):
        rng = np.random.default_rng([seed, 2])
        scans = 1 + (rng.uniform(size=60) < np.where(np.arange(60) < 35, share, 1 - share))
        patient = np.repeat(np.arange(60), scans)
        given = codes(people(80, rng), people(len(patient), rng), patient, patient < 35)
        alarms += p_value(ATTACKS[name], given, seed, rounds=199) <= 0.05
    assert alarms <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize(
    ("name", "copies", "noise"), [("distance", 15, 0.02), ("distance", 15, 0.1), ("density", 15, 0.1)]
)
def test_a_leak_is_seen(name: str, copies: int, noise: float) -> None:
    p = [p_value(ATTACKS[name], world(seed, copies, noise), seed) for seed in range(10)]
    assert sum(value < 0.01 for value in p) >= 9


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("dispersion", [0.0, 0.3, 2.0])
def test_samples_that_are_all_alike_or_too_wild_raise_no_alarm(name: str, dispersion: float) -> None:
    alarms, runs = 0, 60
    for seed in range(runs):
        given = world(seed)
        centre = given.samples.mean(0)
        given = replace(given, samples=unit(centre + dispersion * (given.samples - centre)))
        alarms += p_value(ATTACKS[name], given, seed, rounds=199) <= 0.05
    assert alarms <= binom.ppf(0.999, runs, 0.05)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(("samples", "held"), [(1, 25), (120, 1), (1, 1)])
def test_a_single_sample_or_patient_gives_numbers(name: str, samples: int, held: int) -> None:
    given = world(0, samples=samples, held=held)
    scored = patient_scores(ATTACKS[name](given), given.patient, given.is_train)
    found = membership_measurements(name, scored, 0.95, np.random.default_rng(0))
    assert np.isfinite(scored.scores).all()
    assert np.isfinite(np.hstack([np.ravel(value) for value in found.values()])).all()
    assert found[f"{name}_p"] > 0.01


@pytest.mark.parametrize("name", ATTACKS)
def test_duplicated_codes_give_numbers(name: str) -> None:
    row = np.ones((12, 48))
    given = codes(row, row, np.arange(12), np.arange(12) < 6)
    assert p_value(ATTACKS[name], given, 0, rounds=99) == 1


def test_one_patient_alone_has_no_reference() -> None:
    assert density_ratio(codes(np.ones((3, 4)), np.ones((2, 4)), np.zeros(2, int), np.ones(2, bool))).tolist() == [0, 0]


def neighbours(patient: list[int]) -> Best:
    owner = np.array(patient)
    score = np.linspace(0.9, 0.1, len(owner))
    return Best(np.zeros_like(owner), owner, owner, score, score)


@pytest.mark.parametrize(("patient", "share"), [([0, -1, 7, 0, -1, 0], 0.75), ([-1, -1], 0.6)])
def test_a_sample_without_a_match_counts_for_neither_side(patient: list[int], share: float) -> None:
    evidence = SimpleNamespace(
        train=np.arange(6), holdout=np.arange(6, 10), scans=np.ones(10, int), samples_pooled=neighbours(patient)
    )
    found = membership(evidence, load_policy("default"), np.random.default_rng(0)).measurements
    assert found["member_share"][0] == share
    assert found["member_share_expected"] == 0.6
    assert 0.1 < found["membership_p"] <= 1


def test_copies_of_many_members_are_seen_and_of_one_member_are_not() -> None:
    member, rng, once = np.arange(30) < 15, np.random.default_rng(0), np.ones(30, int)
    score = np.linspace(0.5, 0.9, 15)
    p, each = permutation_test(nearest_counts(np.arange(15), score, np.arange(30)), member, once, rng, 999)
    assert p == each[0] == pytest.approx(0.001)
    one = nearest_counts(np.zeros(15, int), score, np.arange(30))
    p, each = permutation_test(one, member, once, rng, 999)
    assert p == pytest.approx(0.5, abs=0.06)  # one patient is a member with probability 1 / 2
    assert each == [p] * 4


def test_members_who_were_scanned_more_often_are_compared_with_their_like() -> None:
    """All members have two scans and all held-out patients one: no label can be exchanged."""
    counts = nearest_counts(np.arange(6), np.ones(6), np.arange(10))
    scans = np.where(np.arange(10) < 6, 2, 1)
    assert permutation_test(counts, np.arange(10) < 6, scans, np.random.default_rng(0), 99)[0] == 1


def test_depth_looks_at_the_samples_with_the_largest_scores() -> None:
    nearest = np.array([10, 11, 12, 13, 14, 0, 1, 2, 3, 4])
    counts = nearest_counts(nearest, np.linspace(0, 1, 10), np.arange(20))
    assert counts.sum(1).tolist() == [10, 5, 5, 5]  # five samples at least
    assert (counts[:, :10].sum(1) / counts.sum(1)).tolist() == [0.5, 1.0, 1.0, 1.0]


def test_patients_are_counted_in_the_order_given() -> None:
    counts = nearest_counts(np.array([40, 7, 40, -1]), np.arange(4.0), np.array([7, 9, 40]))
    assert counts[0].tolist() == [1, 0, 2]
