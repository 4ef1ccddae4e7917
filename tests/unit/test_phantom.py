"""The procedural cohort: deterministic, individual, and with covariates that show."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from synthmed.cohort.phantom import Phantom


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.stack([Phantom(0, n).render()[0].array.ravel() for n in range(24)])


def test_same_phantom_gives_the_same_voxels() -> None:
    first, second = Phantom(3, 5).render(), Phantom(3, 5).render()
    assert np.array_equal(first[0].array, second[0].array)
    assert np.array_equal(first[1].array, second[1].array)


@pytest.mark.parametrize("other", [Phantom(4, 5), Phantom(3, 6), Phantom(3, 5, scan=1)])
def test_seed_subject_and_scan_each_change_the_image(other: Phantom) -> None:
    assert not np.array_equal(other.render()[0].array, Phantom(3, 5).render()[0].array)


def test_rescan_keeps_the_segmentation() -> None:
    assert np.array_equal(Phantom(0, 1, scan=1).render()[1].array, Phantom(0, 1).render()[1].array)


def test_rescan_is_nearer_than_any_other_subject(images: NDArray[np.float32]) -> None:
    again = np.stack([Phantom(0, n, scan=1).render()[0].array.ravel() for n in range(24)])
    likeness = np.corrcoef(again, images)[:24, 24:]
    own = np.diag(likeness).copy()
    np.fill_diagonal(likeness, -1)
    assert own.min() > 0.98
    assert likeness.max() < own.min() - 0.02


def test_flipped_phantom_is_another() -> None:
    image = Phantom(0, 0).render()[0].array
    assert np.corrcoef(image.ravel(), image[:, ::-1].ravel())[0, 1] < 0.97


def test_age_enlarges_the_ventricles_and_sex_the_head() -> None:
    phantoms = [Phantom(0, n) for n in range(96)]
    ages = [float(p.covariates["age"]) for p in phantoms]
    rendered = [p.render() for p in phantoms]
    ventricles = [float((label.array == 1).sum()) for _, label in rendered]
    heads = np.array([float((image.array > 0.15 * image.array.max()).sum()) for image, _ in rendered])
    men = np.array([p.covariates["sex"] == "M" for p in phantoms])
    assert np.corrcoef(ages, ventricles)[0, 1] > 0.8
    assert heads[men].mean() > 1.15 * heads[~men].mean()


def test_every_phantom_has_both_structures() -> None:
    for n in range(24):
        label = Phantom(1, n).render()[1].array
        assert set(np.unique(label)) == {0.0, 1.0, 2.0}


def test_shape_and_place() -> None:
    image, label = Phantom(0, 0, shape=(24, 32, 20)).render()
    assert image.array.shape == label.array.shape == (1, 24, 32, 20)
    assert image.orientation == "RAS"
    assert image.affine[:3, 3].tolist() == [-11.5, -15.5, -9.5]


def test_a_cohort_takes_seconds() -> None:
    start = time.process_time()
    for n in range(24):
        Phantom(0, n).render()
    assert time.process_time() - start < 5
