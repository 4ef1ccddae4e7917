"""The encoder learns from half of the patients, repeats itself, and tells sets that differ."""

import numpy as np
import pytest
import torch

from synthmed.evaluation.cases import Cases
from synthmed.evaluation.encoder import halves, learn_encoder, vicreg

GRID = (16, 16, 16)


def balls(n, seed, radius=(3.0, 6.0)):
    rng = np.random.default_rng(seed)
    axes = np.indices(GRID).astype(float)
    images = np.empty((n, 1, *GRID), np.float32)
    for image in images:
        centre = 7.5 + rng.uniform(-1, 1, 3)
        inside = np.sqrt(((axes - centre[:, None, None, None]) ** 2).sum(0)) < rng.uniform(*radius)
        image[0] = np.where(inside, 0.6, -0.6)
    images += 0.05 * rng.standard_normal(images.shape).astype(np.float32)
    return Cases(torch.from_numpy(images), None, tuple(f"p{i // 2}" for i in range(n)))


@pytest.fixture(scope="module")
def encoder():
    return learn_encoder(balls(32, 0), steps=12, seed=0)


def test_it_learns_from_half_of_the_patients_and_says_who_is_new_to_it(encoder):
    patients = balls(32, 0).patients
    lessons, unseen = halves(patients, 0)
    assert np.array_equal(encoder.unseen, unseen)
    assert encoder.num_lessons == len(lessons) == len(unseen) == 16
    assert not {patients[i] for i in lessons} & {patients[i] for i in unseen}


def test_the_same_seed_gives_the_same_features_and_the_batch_does_not_matter(encoder):
    state = torch.random.get_rng_state()
    again = learn_encoder(balls(32, 0), steps=12, seed=0)
    assert torch.equal(state, torch.random.get_rng_state())
    images = balls(5, 1).images
    assert np.array_equal(encoder.embed(images), again.embed(images))
    assert encoder.embed(images, batch_size=2) == pytest.approx(encoder.embed(images), abs=1e-5)
    assert encoder.embed(images).shape == (5, 128)


def test_features_follow_anatomy_more_than_contrast_and_noise(encoder):
    """Distance between small and large balls, over that between a ball and itself, brighter and noisier."""
    images = balls(12, 2, (4.0, 4.2)).images
    other = balls(12, 3, (6.0, 6.2)).images
    brighter = 1.1 * images + 0.05 + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    small, large, same = (encoder.embed(x) for x in (images, other, brighter))
    assert np.linalg.norm(small.mean(0) - large.mean(0)) > 1.5 * np.linalg.norm(small.mean(0) - same.mean(0))


def test_too_few_patients_teach_none():
    assert learn_encoder(balls(14, 0), steps=1, seed=0) is None


def test_the_loss_by_hand():
    """Two dimensions, each of variance 4 (no hinge), correlation 1: covariance 4 twice in each view, over D."""
    z = torch.tensor([[-2.0, -2.0], [-2.0, -2.0], [2.0, 2.0], [2.0, 2.0]]) * (3 / 4) ** 0.5
    covariance = 4.0 * 3 / 4 * 4 / 3
    assert vicreg(z, z) == pytest.approx(2 * 2 * covariance**2 / 2)
    assert vicreg(z, z + 1) == pytest.approx(25 * 1 + 2 * 2 * covariance**2 / 2)
    flat = torch.zeros(4, 2)
    assert vicreg(flat, flat) == pytest.approx(25 * (1 - 0.01), rel=1e-4)
