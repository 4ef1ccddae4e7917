"""What a network predicts on a noise path, the training loss and guidance.

Time runs from data to noise, t in [0, 1]; a path (`synthmed.diffusion.noise_paths`) gives

    x_t = alpha(t) x_0 + sigma(t) eps,    eps ~ N(0, I).

One velocity serves every path: the tangent of the path scaled so that alpha s - sigma a = 1,

    v = a(t) x_0 + s(t) eps   =>   x_0 = s x_t - sigma v,   eps = alpha v - a x_t.

On the rectified path (a, s) = (-1, 1) and v = dx_t/dt = eps - x_0 (Lipman et al. 2023, arXiv:2210.02747); on a
variance-preserving path (a, s) = (-sigma, alpha) and v = alpha eps - sigma x_0 (Salimans and Ho 2022,
arXiv:2202.00512, appendix D). The samplers are in `synthmed.diffusion.samplers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synthmed.diffusion.noise_paths import PATHS as PATHS
from synthmed.diffusion.noise_paths import NoisePath as NoisePath

MIN_SNR_GAMMA = 5.0
_SMALLEST_ALPHA = 0.01


def add_noise(path: NoisePath, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t = alpha(t) x_0 + sigma(t) eps.

    Parameters
    ----------
    x0, noise : Tensor, shape (B, ...)
    t : Tensor, shape (B,), in [0, 1]
    """
    return _like(path.alpha(t), x0) * x0 + _like(path.sigma(t), x0) * noise


def target(path: NoisePath, prediction: str, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what a network of this `prediction` type should output at x_t; shapes as in `add_noise`."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x0
    a, s = path.tangent(t)
    return _like(a, x0) * x0 + _like(s, x0) * noise


def to_sample(path: NoisePath, prediction: str, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the x_0 that a network's output implies.

    Parameters
    ----------
    prediction : {"epsilon", "sample", "velocity"}
    output, x_t : Tensor, shape (B, ...)
    t : Tensor, shape (B,); with ``"epsilon"`` alpha(t) must not be 0, see `start_time`
    """
    if prediction == "sample":
        return output
    sigma = _like(path.sigma(t), x_t)
    if prediction == "epsilon":
        return (x_t - sigma * output) / _like(path.alpha(t), x_t)
    return _like(path.tangent(t)[1], x_t) * x_t - sigma * output


def to_noise(path: NoisePath, prediction: str, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the eps that a network's output implies; as `to_sample`, with sigma(t) > 0 for ``"sample"``."""
    if prediction == "epsilon":
        return output
    alpha = _like(path.alpha(t), x_t)
    if prediction == "sample":
        return (x_t - alpha * output) / _like(path.sigma(t), x_t)
    return alpha * output - _like(path.tangent(t)[0], x_t) * x_t


def start_time(path: NoisePath, prediction: str) -> float:
    """Return the largest time at which this prediction type determines x_0.

    That is 1, except for a predicted eps on a path that ends in pure noise: where alpha = 0, eps = x_t tells nothing
    of x_0 (Lin et al. 2024, arXiv:2305.08891), so such a network is trained and sampled up to alpha = 0.01.
    """
    grid = torch.linspace(1.0, 0.0, 1001, dtype=torch.float64)
    if prediction != "epsilon":
        return 1.0
    return float(grid[path.alpha(grid) >= _SMALLEST_ALPHA].max()) if float(path.alpha(grid[:1])) < 1e-6 else 1.0


def loss_weight(path: NoisePath, prediction: str, t: Tensor) -> Tensor:
    """Return the weight of a squared error at times `t`, with SNR = alpha^2 / sigma^2 and gamma = 5.

    velocity : 1
    epsilon : min(1, gamma / SNR), which is min-SNR (Hang et al. 2023, arXiv:2303.09556, equation 9)
    sample : min(1 / sigma^2, 1 + gamma), the velocity's weight truncated, so that times near 1 count too
    """
    if prediction == "velocity":
        return torch.ones_like(t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    if prediction == "sample":
        return sigma.square().reciprocal().clamp(max=1.0 + MIN_SNR_GAMMA)
    return (MIN_SNR_GAMMA * sigma.square() / alpha.square()).clamp(max=1.0)


def training_loss(
    network: Callable[..., Tensor],
    path: NoisePath,
    prediction: str,
    x0: Tensor,
    condition: Tensor | None,
    *,
    generator: torch.Generator,
    drop_probability: float = 0.0,
    share: slice = slice(None),
) -> Tensor:
    """Return each sample's weighted squared error at one random time, stratified over the batch.

    Parameters
    ----------
    network : callable
        ``network(x_t, t, condition, drop)`` -> prediction, shape of `x_t`; `drop` marks the samples that get the
        learned null, and is None without a condition.
    x0 : Tensor, shape (B, C, i, j, k), standardised latents
    condition : Tensor, shape (B, D), or None
    generator : torch.Generator
        Draws times, noise and drops, on its own device.
    drop_probability : float
        Share of samples trained without their condition, for classifier-free guidance (Ho and Salimans 2022,
        arXiv:2207.12598).
    share : slice
        The samples of the batch to compute, and `network` with them; everything is drawn for all.

    Returns
    -------
    Tensor, shape (B,), or as many as `share` takes
    """
    device, batch = generator.device, len(x0)
    strata = torch.randperm(batch, generator=generator, device=device)
    u = (strata + torch.rand(batch, generator=generator, device=device)) / batch
    t = _times(path, prediction, u.to(x0.device))
    noise = torch.randn(x0.shape, generator=generator, device=device).to(x0)
    drop = None
    if condition is not None:
        drop = (torch.rand(batch, generator=generator, device=device) < drop_probability).to(x0.device)
    given, dropped = (None if each is None else each[share] for each in (condition, drop))
    return _loss(network, path, prediction, x0[share], noise[share], t[share], given, dropped)


@torch.no_grad()
def holdout_loss(
    network: Callable[..., Tensor],
    path: NoisePath,
    prediction: str,
    x0: Tensor,
    condition: Tensor | None,
    *,
    seed: int = 0,
    num_levels: int = 8,
    batch_size: int = 32,
) -> Tensor:
    """Return each case's loss averaged over fixed noise levels and noise, comparable between evaluations.

    The levels are the midpoints of equal shares of the times that training draws. Noise depends on `seed` and the
    case's place in `x0` only, not on `batch_size`. The caller puts the network in evaluation mode.

    Returns
    -------
    Tensor, shape (N,)
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(x0), device=x0.device)
    for level in range(num_levels):
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        t = _times(path, prediction, torch.full((len(x0),), (level + 0.5) / num_levels, device=x0.device))
        for part in torch.arange(len(x0), device=x0.device).split(batch_size):
            c = None if condition is None else condition[part]
            total[part] += _loss(network, path, prediction, x0[part], noise[part], t[part], c, None)
    return total / num_levels


def guided_denoiser(
    network: Callable[..., Tensor],
    path: NoisePath,
    prediction: str,
    condition: Tensor | None,
    guidance_scale: float = 1.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``denoise(x_t, t) -> x_0`` with classifier-free guidance: D = D_null + scale (D_condition - D_null).

    A scale of 1 is the plain conditional model and 0 the unconditional one; each costs a single evaluation.

    References
    ----------
    Ho and Salimans 2022, arXiv:2207.12598, equation 6 with scale = 1 + w.
    """

    def evaluate(x: Tensor, t: Tensor, given: Tensor | None) -> Tensor:
        return to_sample(path, prediction, network(x, t, given), x, t)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        if condition is None or guidance_scale == 0.0:
            return evaluate(x, t, None)
        if guidance_scale == 1.0:
            return evaluate(x, t, condition)
        null = evaluate(x, t, None)
        return null + guidance_scale * (evaluate(x, t, condition) - null)

    return denoise


def _times(path: NoisePath, prediction: str, u: Tensor) -> Tensor:
    return path.quantile(u.clamp(1e-5, 1.0 - 1e-5)) * start_time(path, prediction)


def _loss(
    network: Callable[..., Tensor],
    path: NoisePath,
    prediction: str,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Tensor | None,
    drop: Tensor | None,
) -> Tensor:
    output = network(add_noise(path, x0, noise, t), t, condition, drop)
    error = (output.float() - target(path, prediction, x0, noise, t).float()).square().flatten(1).mean(1)
    return loss_weight(path, prediction, t) * error


def _like(values: Tensor, x: Tensor) -> Tensor:
    """Give per-sample values (B,) the rank and type of `x` (B, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1)).to(x)
