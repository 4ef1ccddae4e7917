"""Noise paths x_t = alpha(t) x_0 + sigma(t) eps, from data (t = 0) to noise (t = 1).

A path has alpha(0) = 1, sigma(0) = 0, sigma(1) = 1 or nearly so, and sigma / alpha rises with t. Its tangent (a, s) is
d(alpha, sigma)/dt scaled so that alpha s - sigma a = 1. A new path is a small frozen dataclass and a line in `PATHS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class NoisePath(Protocol):
    """A noise path: two schedules, the scaled tangent, and how training draws its times."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return the signal's amplitude at times `t` in [0, 1]."""

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise's standard deviation at times `t` in [0, 1]."""

    def tangent(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (a, s) of the velocity v = a x_0 + s eps, with alpha s - sigma a = 1."""

    def quantile(self, u: Tensor) -> Tensor:
        """Map uniform `u` in (0, 1) to the times that training draws."""


class _VariancePreserving:
    """alpha^2 + sigma^2 = 1, with times drawn uniformly."""

    def alpha(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def tangent(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -self.sigma(t), self.alpha(t)

    def quantile(self, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class LinearPath(_VariancePreserving):
    """DDPM's linear beta schedule in continuous time: log alpha = -t^2 (beta_max - beta_min)/4 - t beta_min/2.

    References
    ----------
    Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, arXiv:2011.13456, equation 33.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2.0 * self._log_alpha(t)))


@dataclass(frozen=True)
class CosinePath(_VariancePreserving):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    References
    ----------
    Nichol and Dhariwal 2021, arXiv:2102.09672, equation 17, without its offset: t = 0 is never evaluated.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * (1.0 - t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)


@dataclass(frozen=True)
class RectifiedPath:
    """The straight line alpha = 1 - t, sigma = t, with logit-normal times.

    A latent of thousands of dimensions shows what it is to become while it is still nearly all noise: most of what can
    be told of a hippocampus is told between t = 0.99 and 0.85, which times about 0.5 hardly visit. So the times lie
    about 0.8, and widely.

    References
    ----------
    Liu et al. 2023, arXiv:2209.03003; Esser et al. 2024, arXiv:2403.03206, equation 19 for the times and section 5.3.2
    for their shift.
    """

    location: float = math.log(4.0)
    scale: float = 1.5

    def alpha(self, t: Tensor) -> Tensor:
        return 1.0 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def tangent(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.location + self.scale * torch.special.ndtri(u))


PATHS: dict[str, NoisePath] = {"linear": LinearPath(), "cosine": CosinePath(), "rectified": RectifiedPath()}
