"""Error against evaluations for every sampler and noise path, with the exact denoiser of a Gaussian mixture.

    python benchmarks/samplers.py [--count 10000] [--seed 0]

The error is the sliced Wasserstein-1 distance (32 fixed directions) between samples and fresh draws from the mixture.
Its floor is the same distance between two sets of such draws. No network is involved: this is the solver's error.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from synthmed.diffusion.noise_paths import PATHS, NoisePath
from synthmed.diffusion.samplers import SAMPLERS, Denoise, draw_noise, time_grid

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
CENTRES = torch.tensor([[-1.2, -0.5], [1.0, 0.8], [0.9, -1.6]], dtype=torch.float64)
SPREADS = torch.tensor([0.25, 0.35, 0.15], dtype=torch.float64)
BUDGETS = (8, 16, 32, 64, 128)
SHIFTS = (1.0, 2.0, 3.0, 5.0)
EVALUATIONS_A_STEP = {"heun": 2}


def draw_mixture(count: int, generator: torch.Generator) -> Tensor:
    """Return exact samples, shape (count, 2)."""
    mode = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return CENTRES[mode] + SPREADS[mode, None] * noise


def exact_denoiser(path: NoisePath) -> Denoise:
    """Return E[x_0 | x_t]: each mode's Wiener estimate, weighted by the mode's posterior."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t[:1]), path.sigma(t[:1])
        variance = alpha**2 * SPREADS**2 + sigma**2
        residual = x[:, None] - alpha * CENTRES
        log_weight = WEIGHTS.log() - variance.log() - residual.square().sum(-1) / (2 * variance)
        estimate = CENTRES + (alpha * SPREADS**2 / variance)[:, None] * residual
        return (torch.softmax(log_weight, 1)[:, :, None] * estimate).sum(1)

    return denoise


def sliced_wasserstein(first: Tensor, second: Tensor, num_directions: int = 32) -> float:
    """Return the mean W1 distance over evenly spaced projections of two sets of equal size."""
    angles = torch.arange(num_directions, dtype=torch.float64) * torch.pi / num_directions
    directions = torch.stack([angles.cos(), angles.sin()])
    return float(((first @ directions).sort(0).values - (second @ directions).sort(0).values).abs().mean())


def error(sampler: str, path: str, budget: int, shift: float, truth: Tensor, seed: int) -> float:
    """Return the distance to `truth` after `budget` evaluations of the denoiser."""
    generator = torch.Generator().manual_seed(seed)
    noise = draw_noise(truth.shape, [generator]).double()
    times = time_grid(budget // EVALUATIONS_A_STEP.get(sampler, 1), shift)
    x = SAMPLERS[sampler](exact_denoiser(PATHS[path]), noise, PATHS[path], times, generators=[generator])
    return sliced_wasserstein(x, truth)


def main() -> None:
    """Print two tables: samplers by evaluations, and the timestep shift at 16 evaluations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="samples a cell")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, generator = time.perf_counter(), torch.Generator().manual_seed(options.seed + 1)
    truth, other = (draw_mixture(options.count, generator) for _ in range(2))

    print("path       sampler  " + "".join(f"{f'{n} evals':>12}" for n in BUDGETS))
    for path in PATHS:
        for sampler in SAMPLERS:
            cells = [error(sampler, path, n, 1.0, truth, options.seed) for n in BUDGETS]
            print(f"{path:<11}{sampler:<9}" + "".join(f"{cell:>12.4f}" for cell in cells))
    print(f"{'mixture against mixture':<20}{sliced_wasserstein(other, truth):>9.4f}\n")

    print("path       sampler  " + "".join(f"{f'shift {s:g}':>12}" for s in SHIFTS) + "   (16 evaluations)")
    for path in PATHS:
        cells = [error("dpmpp_2m", path, 16, s, truth, options.seed) for s in SHIFTS]
        print(f"{path:<11}{'dpmpp_2m':<9}" + "".join(f"{cell:>12.4f}" for cell in cells))
    print(f"\n{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
