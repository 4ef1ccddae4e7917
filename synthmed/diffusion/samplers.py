"""Samplers: from noise x_T to a clean x_0 along any noise path, given ``denoise(x_t, t) -> E[x_0 | x_t]``.

Each is a pure function of the schedule (alpha, sigma) at the times of a grid, so each serves every path and any number
of steps, and none clips. Below, a step goes from t to the next time s < t, and D = denoise(x_t, t). All rest on

    x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) D,                                (1)

the exact solution of the probability flow while D stays constant (DDIM; Song et al. 2021, arXiv:2010.02502, equation 12
with eps = (x_t - alpha_t D) / sigma_t). It is finite where alpha_t = 0 or sigma_s = 0.

A sampler has the signature ``sampler(denoise, x_T, path, times, *, generators) -> x_0`` with

x_T : Tensor, shape (B, ...), with standard deviation sigma(times[0])
times : Tensor, shape (num_steps + 1,), falling to 0; see `time_grid`
generators : sequence of torch.Generator
    Each draws for an equal, consecutive share of the batch: one a volume makes a volume independent of its batch.
    Only the ancestral sampler draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from synthmed.diffusion.noise_paths import NoisePath

Denoise = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[..., Tensor]
Level = tuple[float, float, float]


def time_grid(num_steps: int, shift: float = 1.0, start: float = 1.0) -> Tensor:
    """Return `num_steps` + 1 times from `start` down to 0, float64, with t' = shift t / (1 + (shift - 1) t).

    A shift above 1 spends more steps on the noisy side, which latents of many dimensions need.

    References
    ----------
    Esser et al. 2024, arXiv:2403.03206, equation 23.
    """
    t = torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64)
    return start * shift * t / (1.0 + (shift - 1.0) * t)


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Return standard normal noise of `shape` (B, ...), each generator filling B / len(generators) samples."""
    share = shape[0] // len(generators)
    return torch.cat([torch.randn((share, *shape[1:]), generator=g, device=g.device) for g in generators])


def ddim(
    denoise: Denoise, x_T: Tensor, path: NoisePath, times: Tensor, *, generators: Sequence[torch.Generator] = ()
) -> Tensor:
    """Sample with equation (1) alone: DDIM, which on the rectified path is Euler's method."""
    x = x_T
    for now, then in _steps(path, times):
        x = _step(x, _evaluate(denoise, x, now), now, then)
    return x


def ddpm(
    denoise: Denoise, x_T: Tensor, path: NoisePath, times: Tensor, *, generators: Sequence[torch.Generator]
) -> Tensor:
    """Sample from the posterior of each step, x_s ~ q(x_s | x_t, x_0 = D).

    With r = alpha_t / alpha_s and w = (r sigma_s / sigma_t)^2, the share of x_t's variance that x_s already had,

        x_s = alpha_s D + w (x_t - alpha_t D) / r + sigma_s sqrt(1 - w) z,    z ~ N(0, I).

    The step is to the next time of the grid, whatever its length, so few steps stay unbiased in scale.

    References
    ----------
    Ho et al. 2020, arXiv:2006.11239, equation 7; Kingma et al. 2021, arXiv:2107.00630, equations 23 to 25.
    """
    x = x_T
    for now, then in _steps(path, times):
        (_, alpha_t, sigma_t), (_, alpha_s, sigma_s) = now, then
        clean = _evaluate(denoise, x, now)
        ratio = alpha_t / alpha_s
        pull = ratio * (sigma_s / sigma_t) ** 2
        x = alpha_s * clean + pull * (x - alpha_t * clean)
        if sigma_s > 0.0:
            x = x + sigma_s * math.sqrt(max(0.0, 1.0 - ratio * pull)) * draw_noise(x.shape, generators).to(x)
    return x


def heun(
    denoise: Denoise, x_T: Tensor, path: NoisePath, times: Tensor, *, generators: Sequence[torch.Generator] = ()
) -> Tensor:
    """Sample with Heun's method in y = x / alpha against n = sigma / alpha, where dy/dn = eps (second order).

    Two evaluations a step: equation (1) predicts x_s, and the mean of eps at both ends replaces eps. A step from pure
    noise (alpha_t = 0) or to the data (sigma_s = 0) is equation (1) alone.

    References
    ----------
    Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """
    x = x_T
    for now, then in _steps(path, times):
        clean = _evaluate(denoise, x, now)
        predicted = _step(x, clean, now, then)
        (_, alpha_t, sigma_t), (_, alpha_s, sigma_s) = now, then
        if alpha_t == 0.0 or sigma_s == 0.0:
            x = predicted
            continue
        noise_t = (x - alpha_t * clean) / sigma_t
        noise_s = (predicted - alpha_s * _evaluate(denoise, predicted, then)) / sigma_s
        ratio = alpha_s / alpha_t
        x = ratio * x + (sigma_s - ratio * sigma_t) * 0.5 * (noise_t + noise_s)
    return x


def dpmpp_2m(
    denoise: Denoise, x_T: Tensor, path: NoisePath, times: Tensor, *, generators: Sequence[torch.Generator] = ()
) -> Tensor:
    """Sample with DPM-Solver++(2M): equation (1) on D extrapolated in lambda = log(alpha / sigma).

        D' = D_t + (lambda_s - lambda_t) / (2 (lambda_t - lambda_previous)) (D_t - D_previous)

    One evaluation a step, second order. The first and the last step, where an interval is infinite, are of first order.

    References
    ----------
    Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    x, previous, interval = x_T, None, math.inf
    for now, then in _steps(path, times):
        clean = _evaluate(denoise, x, now)
        next_interval = _log_snr(then) - _log_snr(now)
        extrapolated = clean
        if previous is not None and math.isfinite(next_interval):
            extrapolated = clean + next_interval / (2.0 * interval) * (clean - previous)
        x = _step(x, extrapolated, now, then)
        previous, interval = clean, next_interval
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}


def _steps(path: NoisePath, times: Tensor) -> Iterator[tuple[Level, Level]]:
    """Yield (t, alpha, sigma) at both ends of every step, in double precision."""
    times = times.double().cpu()
    levels = list(zip(times.tolist(), path.alpha(times).tolist(), path.sigma(times).tolist(), strict=True))
    yield from itertools.pairwise(levels)


def _evaluate(denoise: Denoise, x: Tensor, level: Level) -> Tensor:
    return denoise(x, torch.full((len(x),), level[0], dtype=x.dtype, device=x.device))


def _step(x: Tensor, clean: Tensor, now: Level, then: Level) -> Tensor:
    """Equation (1)."""
    ratio = then[2] / now[2]
    return ratio * x + (then[1] - now[1] * ratio) * clean


def _log_snr(level: Level) -> float:
    _, alpha, sigma = level
    if alpha == 0.0 or sigma == 0.0:
        return -math.inf if alpha == 0.0 else math.inf
    return math.log(alpha / sigma)
