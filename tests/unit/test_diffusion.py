"""Noise paths, predictions, losses and guidance against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from synthmed.diffusion.process import (
    PATHS,
    add_noise,
    guided_denoiser,
    holdout_loss,
    loss_weight,
    start_time,
    target,
    to_sample,
    training_loss,
)
from synthmed.diffusion.samplers import draw_noise, time_grid

PREDICTIONS = ("epsilon", "sample", "velocity")


def at(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


class TestPaths:
    def test_rectified_is_a_straight_line(self) -> None:
        path = PATHS["rectified"]
        assert path.alpha(at(0.25)).item() == 0.75
        assert path.sigma(at(0.25)).item() == 0.25

    def test_cosine_is_a_quarter_circle(self) -> None:
        path = PATHS["cosine"]
        assert path.alpha(at(1 / 3)).item() == pytest.approx(math.sqrt(3) / 2)
        assert path.sigma(at(1 / 3)).item() == pytest.approx(0.5)

    def test_linear_matches_ddpms_discrete_product(self) -> None:
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        discrete = torch.cumprod(1 - betas, 0).sqrt()
        continuous = PATHS["linear"].alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
        torch.testing.assert_close(continuous, discrete, rtol=0.03, atol=1e-4)

    def test_linear_keeps_precision_near_the_data(self) -> None:
        sigma = PATHS["linear"].sigma(torch.tensor([1e-6]))
        assert sigma.item() == pytest.approx(math.sqrt(0.1 * 1e-6), rel=1e-3)

    @pytest.mark.parametrize("name", PATHS)
    def test_ends_are_data_and_noise(self, name: str) -> None:
        path = PATHS[name]
        assert (path.alpha(at(0.0)).item(), path.sigma(at(0.0)).item()) == (1.0, 0.0)
        assert path.sigma(at(1.0)).item() == pytest.approx(1.0, abs=1e-4)
        assert 0.0 <= path.alpha(at(1.0)).item() < 0.01

    @pytest.mark.parametrize("name", PATHS)
    def test_tangent_is_parallel_to_the_derivative_and_scaled(self, name: str) -> None:
        path, step = PATHS[name], 1e-6
        t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
        (a, s), d_alpha, d_sigma = (
            path.tangent(t),
            (path.alpha(t + step) - path.alpha(t - step)) / (2 * step),
            (path.sigma(t + step) - path.sigma(t - step)) / (2 * step),
        )
        torch.testing.assert_close(path.alpha(t) * s - path.sigma(t) * a, torch.ones_like(t))
        torch.testing.assert_close(a * d_sigma, s * d_alpha, atol=1e-6, rtol=1e-6)

    def test_rectified_times_are_logit_normal_about_0_8(self) -> None:
        t = PATHS["rectified"].quantile(at(0.1586552539, 0.5, 0.8413447461))
        torch.testing.assert_close(t, torch.sigmoid(math.log(4.0) + 1.5 * at(-1.0, 0.0, 1.0)))


class TestTarget:
    x0, noise = torch.tensor([[2.0]]), torch.tensor([[-1.0]])

    def test_rectified_velocity_is_noise_minus_data(self) -> None:
        assert target(PATHS["rectified"], "velocity", self.x0, self.noise, torch.tensor([0.3])).item() == -3.0

    def test_variance_preserving_velocity(self) -> None:
        v = target(PATHS["cosine"], "velocity", self.x0, self.noise, torch.tensor([1 / 3]))
        assert v.item() == pytest.approx(math.sqrt(3) / 2 * -1.0 - 0.5 * 2.0)

    def test_a_batch_takes_each_samples_own_time(self) -> None:
        x = add_noise(PATHS["rectified"], torch.ones(2, 1, 2), torch.zeros(2, 1, 2), torch.tensor([0.25, 1.0]))
        assert x[:, 0, 0].tolist() == [0.75, 0.0]


class TestStartTime:
    def test_epsilon_stops_before_pure_noise(self) -> None:
        assert start_time(PATHS["rectified"], "epsilon") == pytest.approx(0.99)
        assert PATHS["cosine"].alpha(at(start_time(PATHS["cosine"], "epsilon"))).item() >= 0.01

    def test_all_else_starts_at_one(self) -> None:
        assert start_time(PATHS["linear"], "epsilon") == 1.0
        assert {start_time(p, kind) for p in PATHS.values() for kind in ("sample", "velocity")} == {1.0}


class TestTimeGrid:
    def test_shift_follows_its_equation(self) -> None:
        assert time_grid(2, shift=3.0).tolist() == [1.0, 0.75, 0.0]

    def test_start_scales_the_grid(self) -> None:
        assert time_grid(2, start=0.9).tolist() == pytest.approx([0.9, 0.45, 0.0])


class TestDrawNoise:
    def test_one_generator_a_sample_fills_in_order(self) -> None:
        noise = draw_noise((2, 3), [torch.Generator().manual_seed(seed) for seed in (4, 5)])
        assert torch.equal(noise[1], torch.randn(3, generator=torch.Generator().manual_seed(5)))


class TestLossWeight:
    t = torch.tensor([0.1, 0.5, 0.9])

    def test_velocity_counts_all_times_alike(self) -> None:
        assert loss_weight(PATHS["cosine"], "velocity", self.t).tolist() == [1.0, 1.0, 1.0]

    def test_epsilon_is_min_snr(self) -> None:
        snr = torch.tensor([81.0, 1.0, 1 / 81])
        torch.testing.assert_close(loss_weight(PATHS["rectified"], "epsilon", self.t), torch.clamp(snr, max=5.0) / snr)

    def test_sample_is_the_truncated_velocity_weight(self) -> None:
        weight = loss_weight(PATHS["rectified"], "sample", self.t)
        torch.testing.assert_close(weight, torch.tensor([6.0, 4.0, 1 / 0.81]))


class Recorder:
    """A network that predicts zero and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None, drop: Tensor | None = None) -> Tensor:
        self.calls.append((x, t, condition, drop))
        return torch.zeros_like(x)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestTrainingLoss:
    x0 = torch.randn(64, 2, 3, 3, 3, generator=seeded(1))

    def test_zero_network_pays_the_targets_power(self) -> None:
        loss = training_loss(Recorder(), PATHS["rectified"], "velocity", self.x0, None, generator=seeded())
        assert loss.shape == (64,)
        assert loss.mean().item() == pytest.approx(2.0, rel=0.05)

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_a_perfect_network_pays_nothing(self, path: str, prediction: str) -> None:
        def network(x: Tensor, t: Tensor, condition: Tensor | None, drop: Tensor | None) -> Tensor:
            sigma = PATHS[path].sigma(t).reshape(-1, 1, 1, 1, 1)
            noise = (x - PATHS[path].alpha(t).reshape(-1, 1, 1, 1, 1) * self.x0) / sigma
            return target(PATHS[path], prediction, self.x0, noise, t)

        loss = training_loss(network, PATHS[path], prediction, self.x0, None, generator=seeded())
        assert loss.max().item() < 1e-4

    def test_times_are_stratified(self) -> None:
        network = Recorder()
        training_loss(network, PATHS["cosine"], "velocity", self.x0, None, generator=seeded())
        strata = (network.calls[0][1] * 64).floor().sort().values
        assert strata.tolist() == list(range(64))

    def test_same_generator_state_same_loss(self) -> None:
        first, second = (
            training_loss(Recorder(), PATHS["linear"], "epsilon", self.x0, None, generator=seeded(3)) for _ in range(2)
        )
        assert torch.equal(first, second)

    def test_drops_the_stated_share_of_conditions(self) -> None:
        network, x0 = Recorder(), torch.zeros(2000, 1, 1, 1, 1)
        condition = torch.zeros(2000, 4)
        training_loss(network, PATHS["rectified"], "velocity", x0, condition, generator=seeded(), drop_probability=0.15)
        drop = network.calls[0][3]
        assert drop is not None
        assert drop.dtype == torch.bool
        assert drop.float().mean().item() == pytest.approx(0.15, abs=0.03)

    def test_without_a_condition_nothing_is_dropped(self) -> None:
        network = Recorder()
        training_loss(network, PATHS["rectified"], "velocity", self.x0, None, generator=seeded(), drop_probability=0.5)
        assert network.calls[0][2:] == (None, None)


class TestHoldoutLoss:
    x0 = torch.randn(5, 1, 2, 2, 2, generator=seeded(1))

    def loss(self, x0: Tensor, **options: int) -> Tensor:
        return holdout_loss(lambda x, t, c, d: 0.1 * x, PATHS["rectified"], "velocity", x0, None, **options)

    def test_is_deterministic_and_one_value_a_case(self) -> None:
        first = self.loss(self.x0)
        assert first.shape == (5,)
        assert torch.equal(first, self.loss(self.x0))

    def test_does_not_depend_on_the_batch_size(self) -> None:
        torch.testing.assert_close(self.loss(self.x0, batch_size=2), self.loss(self.x0, batch_size=5))

    def test_another_seed_draws_other_noise(self) -> None:
        assert not torch.equal(self.loss(self.x0), self.loss(self.x0, seed=1))

    def test_levels_are_midpoints_of_equal_shares(self) -> None:
        network = Recorder()
        holdout_loss(network, PATHS["cosine"], "velocity", self.x0, None, num_levels=4)
        assert [t[0].item() for _, t, _, _ in network.calls] == pytest.approx([0.125, 0.375, 0.625, 0.875])

    def test_batches_keep_each_cases_condition(self) -> None:
        network, condition = Recorder(), torch.arange(5.0)[:, None]
        holdout_loss(network, PATHS["cosine"], "velocity", self.x0, condition, num_levels=1, batch_size=2)
        assert [c.flatten().tolist() for _, _, c, _ in network.calls if c is not None] == [[0, 1], [2, 3], [4]]


class TestGuidance:
    condition = torch.tensor([[1.0]])

    def denoise(self, scale: float, condition: Tensor | None = condition) -> tuple[float, int]:
        calls = []

        def network(x: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
            calls.append(given)
            return torch.full_like(x, 2.0 if given is None else 5.0)

        denoise = guided_denoiser(network, PATHS["rectified"], "sample", condition, scale)
        return denoise(torch.zeros(1, 1), torch.tensor([0.5])).item(), len(calls)

    def test_scale_one_is_the_conditional_model_at_the_price_of_one(self) -> None:
        assert self.denoise(1.0) == (5.0, 1)

    def test_scale_zero_is_the_unconditional_model_at_the_price_of_one(self) -> None:
        assert self.denoise(0.0) == (2.0, 1)

    def test_other_scales_extrapolate_from_null_to_condition(self) -> None:
        assert self.denoise(3.0) == (2.0 + 3.0 * (5.0 - 2.0), 2)

    def test_without_a_condition_there_is_nothing_to_guide(self) -> None:
        assert self.denoise(3.0, None) == (2.0, 1)

    @pytest.mark.parametrize("prediction", PREDICTIONS)
    def test_returns_the_clean_sample_whatever_the_network_predicts(self, prediction: str) -> None:
        path, t = PATHS["cosine"], torch.tensor([0.4])
        x0, noise = torch.tensor([[1.5]]), torch.tensor([[-0.7]])
        output = target(path, prediction, x0, noise, t)
        denoise = guided_denoiser(lambda x, t, c: output, path, prediction, None)
        x_t = add_noise(path, x0, noise, t)
        torch.testing.assert_close(denoise(x_t, t), x0)
        torch.testing.assert_close(denoise(x_t, t), to_sample(path, prediction, output, x_t, t))
