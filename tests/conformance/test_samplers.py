"""Every sampler on every noise path, with the exact denoiser of a Gaussian mixture."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from synthmed.diffusion.noise_paths import PATHS, NoisePath
from synthmed.diffusion.samplers import SAMPLERS, Denoise, draw_noise, time_grid

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
CENTRES = torch.tensor([[-1.2, -0.5], [1.0, 0.8], [0.9, -1.6]], dtype=torch.float64)
SPREADS = torch.tensor([0.25, 0.35, 0.15], dtype=torch.float64)
MEAN = WEIGHTS @ CENTRES
COVARIANCE = torch.einsum("k,ki,kj->ij", WEIGHTS, CENTRES - MEAN, CENTRES - MEAN) + (
    WEIGHTS @ SPREADS.square()
) * torch.eye(2, dtype=torch.float64)


def exact_denoiser(path: NoisePath) -> Denoise:
    """E[x_0 | x_t]: by Bayes, a mean over modes of each mode's own linear (Wiener) estimate."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        variance = alpha**2 * SPREADS**2 + sigma**2
        residual = x[:, None] - alpha[:, :, None] * CENTRES
        log_weight = WEIGHTS.log() - variance.log() - residual.square().sum(-1) / (2 * variance)
        estimate = CENTRES + (alpha * SPREADS**2 / variance)[:, :, None] * residual
        return (torch.softmax(log_weight, 1)[:, :, None] * estimate).sum(1)

    return denoise


@cache
def sample(sampler: str, path: str, num_steps: int, count: int = 6000) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    x = draw_noise((count, 2), [generator]).double()
    chosen = PATHS[path]
    return SAMPLERS[sampler](exact_denoiser(chosen), x, chosen, time_grid(num_steps), generators=[generator])


def mode_shares(x: Tensor) -> Tensor:
    nearest = torch.cdist(x, CENTRES).argmin(1)
    return torch.bincount(nearest, minlength=3) / len(x)


def distance_to_mixture(x: Tensor) -> float:
    """Largest deviation among the means, the covariances and the shares of the modes."""
    parts = (x.mean(0) - MEAN, torch.cov(x.T) - COVARIANCE, mode_shares(x) - WEIGHTS)
    return max(float(part.abs().max()) for part in parts)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sampler", SAMPLERS)
class TestMixture:
    def test_recovers_mean_covariance_and_mode_weights(self, sampler: str, path: str) -> None:
        x = sample(sampler, path, 100)

        assert torch.isfinite(x).all()
        assert (x.mean(0) - MEAN).abs().max() < 0.03
        assert (torch.cov(x.T) - COVARIANCE).abs().max() < 0.06
        assert (mode_shares(x) - WEIGHTS).abs().max() < 0.015

    def test_recovers_the_width_of_each_mode(self, sampler: str, path: str) -> None:
        x = sample(sampler, path, 100)
        nearest = torch.cdist(x, CENTRES).argmin(1)

        for mode in range(3):
            spread = (x[nearest == mode] - x[nearest == mode].mean(0)).square().mean().sqrt()
            assert float(spread) == pytest.approx(float(SPREADS[mode]), rel=0.2)

    def test_is_usable_at_twenty_steps(self, sampler: str, path: str) -> None:
        assert distance_to_mixture(sample(sampler, path, 20)) < 0.3

    def test_a_single_step_lands_on_the_posterior_mean(self, sampler: str, path: str) -> None:
        x = sample(sampler, path, 1, count=16)
        noise = draw_noise((16, 2), [torch.Generator().manual_seed(7)]).double()

        expected = exact_denoiser(PATHS[path])(noise, torch.ones(16, dtype=torch.float64))
        torch.testing.assert_close(x, expected, atol=1e-6, rtol=0)

    def test_a_point_mass_is_reached_in_any_number_of_steps(self, sampler: str, path: str) -> None:
        point = torch.tensor([3.0, -2.0], dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        noise = draw_noise((5, 2), [generator]).double()

        for num_steps in (1, 2, 3, 7):
            x = SAMPLERS[sampler](
                lambda x, t: point.expand_as(x), noise, PATHS[path], time_grid(num_steps, 3.0), generators=[generator]
            )
            torch.testing.assert_close(x, point.expand(5, 2), atol=1e-9, rtol=0)

    def test_does_not_clip(self, sampler: str, path: str) -> None:
        x = SAMPLERS[sampler](
            lambda x, t: torch.full_like(x, 40.0),
            torch.zeros(2, 3),
            PATHS[path],
            time_grid(4),
            generators=[torch.Generator().manual_seed(0)],
        )
        torch.testing.assert_close(x, torch.full((2, 3), 40.0), atol=1e-3, rtol=0)

    def test_a_sample_does_not_depend_on_its_batch(self, sampler: str, path: str) -> None:
        def run(seeds: list[int]) -> Tensor:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            x = draw_noise((len(seeds), 2), generators).double()
            return SAMPLERS[sampler](exact_denoiser(PATHS[path]), x, PATHS[path], time_grid(9), generators=generators)

        torch.testing.assert_close(run([5, 6, 7])[1:2], run([6]), atol=1e-12, rtol=0)


def flow_error(sampler: str, path: NoisePath, num_steps: int) -> float:
    """Error against the closed-form flow of a single Gaussian from t = 0.9 to t = 0.2.

    For x_0 ~ N(m, c^2), x_t = alpha m + sqrt(alpha^2 c^2 + sigma^2) z with z constant along the flow.
    """
    m, c, z = 1.5, 0.6, torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def at(t: float) -> Tensor:
        alpha, sigma = path.alpha(torch.tensor(t).double()), path.sigma(torch.tensor(t).double())
        return alpha * m + (alpha**2 * c**2 + sigma**2).sqrt() * z

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        return m + alpha * c**2 / (alpha**2 * c**2 + sigma**2) * (x - alpha * m)

    times = torch.linspace(0.9, 0.2, num_steps + 1, dtype=torch.float64)
    return float((SAMPLERS[sampler](denoise, at(0.9), path, times) - at(0.2)).abs().max())


@pytest.mark.parametrize("path", PATHS)
class TestOrder:
    @pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
    def test_error_against_the_exact_flow_falls_with_the_known_order(self, sampler: str, order: int, path: str) -> None:
        coarse, fine = (flow_error(sampler, PATHS[path], n) for n in (80, 160))
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)

    @pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
    def test_second_order_beats_ddim_on_the_mixture_at_equal_steps(self, sampler: str, path: str) -> None:
        reference = sample("heun", path, 400, count=500)
        second, first = (sample(name, path, 40, count=500) for name in (sampler, "ddim"))
        assert (second - reference).norm(dim=1).mean() < 0.5 * (first - reference).norm(dim=1).mean()
