"""Samples that lie too near to their mean come out with the spread of the training set."""

import pytest
import torch

from synthmed.config import DiffusionConfig, SamplingConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.models.checkpoint import LoadedDenoiser
from synthmed.sampling.generate import sample_latents, volume_seed
from synthmed.training.calibration import LARGEST_GAIN, calibrate

SHAPE = (3, 4, 4, 4)
CENTRE = torch.tensor([0.5, -1.0, 0.0]).view(3, 1, 1, 1)


class Gaussian(torch.nn.Module):
    """The exact velocity of N(CENTRE, spread^2) on the rectified path."""

    def __init__(self, spread):
        super().__init__()
        self.spread = torch.tensor(spread).view(3, 1, 1, 1)

    def forward(self, x, t, condition=None, drop=None, augmentation=None):
        t = t.view(-1, 1, 1, 1, 1)
        alpha, variance = 1 - t, ((1 - t) * self.spread) ** 2 + t**2
        clean = CENTRE + alpha * self.spread**2 / variance * (x - alpha * CENTRE)
        return (x - clean) / t.clamp_min(1e-4)


def denoiser(spread):
    mean, std = torch.full((3, 1, 1, 1), 2.0), torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    return LoadedDenoiser(Gaussian(spread), mean, std, SHAPE, Conditioning(), DiffusionConfig(), "", "")


def drawn(spread, train, seed=0):
    model = denoiser(spread)
    mean, std = calibrate(model, train, seed)
    scaled = LoadedDenoiser(model.model, mean, std, SHAPE, Conditioning(), DiffusionConfig(), "", "")
    seeds = [volume_seed(1, index) for index in range(200)]
    return (sample_latents(scaled, seeds, None, SamplingConfig()) - model.latent_mean) / model.latent_std


@pytest.fixture
def train():
    return CENTRE + torch.randn((500, *SHAPE), generator=torch.Generator().manual_seed(0))


def test_a_shrunk_model_gets_its_spread_back(train):
    latents = drawn([0.8, 0.9, 1.0], train)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), torch.ones(3), atol=0.04, rtol=0)


def test_the_samples_keep_their_own_mean(train):
    latents = drawn([0.8, 0.9, 1.0], train + 5)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3, 4)), CENTRE.flatten(), atol=0.06, rtol=0)


def test_a_model_that_needs_none_is_left_alone(train):
    model = denoiser([1.0, 1.0, 1.0])
    mean, std = calibrate(model, train, 0)
    torch.testing.assert_close(std / model.latent_std, torch.ones_like(std), atol=0.04, rtol=0)
    assert mean.shape == SHAPE


def test_the_factor_is_bounded(train):
    model = denoiser([0.1, 0.1, 0.1])
    _, std = calibrate(model, train, 0)
    torch.testing.assert_close(std / model.latent_std, torch.full_like(std, LARGEST_GAIN))


def test_one_seed_one_scale(train):
    first, again = calibrate(denoiser([0.8] * 3), train, 3), calibrate(denoiser([0.8] * 3), train, 3)
    other = calibrate(denoiser([0.8] * 3), train, 4)
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[1], other[1])
