"""Seconds of training until a quality is reached, of both contenders, and what they draw at the end.

A stopwatch runs while a contender trains, its preparations (the block PCA, the cached latents) included, and stands
while it is measured.

- Autoencoder: PSNR (dB, over the intensity range) of held-out scans' reconstructions.
- Denoiser: the share of the variance of held-out latents that one prediction restores at a signal-to-noise ratio of
  1/4. Latents of unit variance without any structure give 0.2. The two latents differ, so this is a scale for each
  contender rather than between them; between them stands the kernel distance of what they draw.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speed.measuring import Row, Stopwatch
from speed.steps import LOSSES, NEVER, WARMING_UP, Training, time_steps
from synthmed.config import TrainingConfig
from synthmed.prepare.prepared import PreparedSplit
from synthmed.training.loop import fit
from synthmed.training.reconstruction import psnr

MARKS = 12
CASES = 8
SNR = 0.25
PROBED = 10
Measure = Callable[[nn.Module], float]


class Spent(Exception):
    """The budget is spent."""


@dataclass
class Curve:
    """A quality against seconds, measured at even marks of a budget.

    Attributes
    ----------
    budget : float, seconds
    seconds, values : list of float
    steps : list of int
    """

    budget: float
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def due(self, seconds: float) -> bool:
        """Say whether the next mark has been passed."""
        return seconds >= min(len(self.seconds) * self.budget / MARKS, self.budget)

    def add(self, seconds: float, value: float, step: int) -> None:
        """Note one measurement."""
        self.seconds.append(seconds)
        self.values.append(value)
        self.steps.append(step)

    def reached(self, target: float) -> float | None:
        """Return the seconds at which the target was first met; None where it never was."""
        return next((s for s, value in zip(self.seconds, self.values, strict=True) if value >= target), None)


def rows_of(curves: dict[str, Curve], targets: Sequence[float], stage: str, unit: str) -> list[Row]:
    """Return one row a contender and target; the first curve is the baseline of the ratio.

    A ratio needs both to have met the target; where the baseline alone did not, the row says how many times as fast at
    least.
    """
    baseline = next(iter(curves))
    rows = []
    for target in targets:
        for name, curve in curves.items():
            theirs, ours = curves[baseline].reached(target), curve.reached(target)
            ratio = f"{theirs / max(ours, 1e-9):.3g}" if theirs and ours is not None else None
            if theirs is None and ours is not None and name != baseline:
                ratio = f"> {curves[baseline].seconds[-1] / max(ours, 1e-9):.3g}"
            row = {"name": name, "stage": stage, "target": f"{target:g} {unit}", "seconds": ours}
            row |= {"times as fast": ratio, "best": max(curve.values), "steps": curve.steps[-1]}
            rows.append(row | {"budget": curve.budget, "curve": list(zip(curve.seconds, curve.values, strict=True))})
    return rows


def fit_ours(training: Training, curve: Curve, watch: Stopwatch, measure: Measure) -> nn.Module:
    """Train with the product's loop for at most the budget; return the averaged network.

    The schedule ends where the recipe's does or, with fewer seconds, with the budget: a few steps are timed beforehand,
    at the budget's cost.
    """
    kept: dict[str, Any] = {"step": 0}

    def loss(network: nn.Module, cases: Tensor, generator: torch.Generator, step: int) -> Tensor:
        kept["step"] = step
        return training.task.loss(network, cases, generator, step)

    def evaluate(average: nn.Module) -> dict[str, float]:
        kept["model"] = average
        if curve.due(watch.seconds):
            curve.add(watch.seconds, watch.paused(lambda: measure(average)), kept["step"] + 1)
        if watch.seconds >= curve.budget:
            raise Spent
        return LOSSES

    curve.add(watch.seconds, watch.paused(lambda: measure(training.model)), 0)
    probe = replace(training, model=deepcopy(training.model))
    pace = statistics.median(time_steps(probe, PROBED, lambda: watch.seconds)[WARMING_UP:])
    settings = within(training.settings, (curve.budget - watch.seconds) / pace if pace else math.inf)
    with tempfile.TemporaryDirectory() as folder, suppress(Spent):
        task = replace(training.task, loss=loss, evaluate=evaluate)
        fit(training.fabric, task, training.model, settings, Path(folder), seed=training.seed, progress=False)
    if kept["step"] + 1 > curve.steps[-1]:
        curve.add(watch.seconds, watch.paused(lambda: measure(kept["model"])), kept["step"] + 1)
    return kept["model"].eval()


def within(settings: TrainingConfig, steps: float) -> TrainingConfig:
    """Return settings of at most so many steps, the warm-up shortened alike, that are measured every other step."""
    fewer = max(1, int(min(settings.max_steps, steps)))
    warming = settings.warmup_steps * fewer // settings.max_steps
    often = {"max_steps": fewer, "warmup_steps": warming, "validate_every": 2}
    return settings.model_copy(update=often | {"checkpoint_every": NEVER, "patience": 0})


def watcher(curve: Curve, watch: Stopwatch, measure: Measure) -> Callable[[nn.Module, int], bool]:
    """Return what the tutorial's training calls after each step; see `baselines.tutorial.Watch`."""

    def after(model: nn.Module, step: int) -> bool:
        if curve.due(watch.seconds):
            curve.add(watch.seconds, watch.paused(lambda: _standing(model, measure)), step)
        return watch.seconds >= curve.budget

    return after


def mean_psnr(decode: Callable[[int], Tensor], split: PreparedSplit) -> float:
    """Return the mean PSNR, dB, of at most `CASES` evenly spaced cases.

    Parameters
    ----------
    decode : callable
        From a case to its reconstruction in [-1, 1], shape (1, 1, I, J, K).
    split : PreparedSplit
    """
    cases = spaced(len(split.images), CASES).tolist()
    found = [psnr(decode(case).clamp(-1, 1), split.images[case : case + 1]) for case in cases]
    return sum(found) / len(found)


def restored(guess: Callable[[Tensor], Tensor], latents: Tensor, seed: int = 0) -> float:
    """Return the share of the latents' variance that a guess from noisy ones restores, at most 1.

    Parameters
    ----------
    guess : callable
        From x = a z + s e, with a^2 = SNR / (1 + SNR) and a^2 + s^2 = 1, to z.
    latents : Tensor, shape (N, C, i, j, k)
        z, of unit variance over all of a training set.
    seed : int
        Of the noise e.
    """
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    a, s = (SNR / (1 + SNR)) ** 0.5, (1 / (1 + SNR)) ** 0.5
    with torch.no_grad():
        found = guess(a * latents + s * noise)
    error = (found - latents).double().square().sum()
    return float(1 - error / (latents - latents.mean()).double().square().sum())


def spaced(count: int, limit: int) -> Tensor:
    """Return at most `limit` evenly spaced places among `count`."""
    return torch.linspace(0, count - 1, min(count, limit)).round().long()


def _standing(model: nn.Module, measure: Measure) -> float:
    """Measure a network in evaluation mode, and let it train on."""
    training = model.training
    model.eval()
    try:
        return measure(model)
    finally:
        model.train(training)
