"""`benchmarks/training.py`: ratios, both contenders' steps, ablations, and the race to a quality."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
import torch
import training
from small_runs import small_config
from speed import cohorts, measuring, quality, racing, rows, steps
from speed.stemless import Stemless

from synthmed.config import TrainingConfig, apply_overrides
from synthmed.diffusion.process import PATHS, target
from synthmed.models.devices import make_fabric
from synthmed.training.loop import Task, fit
from synthmed.training.schedule import learning_rate

SIDE = 24


def clock(values=iter(range(10**9))) -> float:
    return float(next(values))


@pytest.fixture(scope="module")
def cohort() -> cohorts.Cohort:
    found = cohorts.phantoms(SIDE, 4, 2, seed=0)
    config = small_config(
        preprocess={"grid": [SIDE] * 3},
        conditioning={"scalars": []},
        autoencoder={"channels": [16, 16, 16], "latent_channels": 8},
        sampling={"num_inference_steps": 2},
    )
    return replace(found, config=config)


def test_ratios_are_to_the_named_baseline_and_missing_values_stay_empty() -> None:
    found = measuring.add_ratios(
        [{"name": "a", "median": 4.0}, {"name": "b", "median": 2.0}, {"name": "c", "median": None}], "a"
    )
    assert [row["times as fast"] for row in found] == [1.0, 2.0, None]
    assert measuring.add_ratios(found, "none")[0]["times as fast"] is None
    text = measuring.table_text(found, ("name", "median", "times as fast"))
    assert text.splitlines()[-1] == "c"
    assert measuring.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "repeats": 3}


def test_contenders_take_turns() -> None:
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name) or [float(len(order))]) for name in "ab"}
    assert measuring.in_turn(works, 2) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert measuring.differences([1.0, 2.0, 4.0, 8.0], 1) == [2.0, 4.0]


def test_a_stopwatch_stands_while_something_is_measured() -> None:
    now = [0.0]

    def measure() -> str:
        now[0] += 100
        return "found"

    watch = measuring.Stopwatch(lambda: now[0])
    now[0] += 3
    assert watch.paused(measure) == "found"
    now[0] += 4
    assert watch.seconds == 7


def test_rows_become_csv_or_json(tmp_path: Path) -> None:
    measuring.write_rows(tmp_path / "new" / "rows.csv", [{"a": 1}, {"a": 2, "b": 3}], {})
    with (tmp_path / "new" / "rows.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]


def test_phantoms_are_split_and_scaled_as_prepared_scans(cohort: cohorts.Cohort) -> None:
    assert cohort.train.images.shape == (4, 1, SIDE, SIDE, SIDE)
    assert (float(cohort.train.images.min()), float(cohort.train.images.max())) == (-1.0, 1.0)
    assert not set(cohort.train.subject_ids) & set(cohort.holdout.subject_ids)
    stack = cohorts.stacked(cohort.train)
    assert torch.equal(stack[:, 1:].sum(1), torch.ones(4, SIDE, SIDE, SIDE))


def test_steps_of_both_contenders_are_counted(cohort: cohorts.Cohort) -> None:
    data, split, config = cohorts.stacked(cohort.train), cohort.train, cohort.config
    assert len(steps.our_autoencoder(config, split, 2, clock)) == 2
    assert len(steps.our_autoencoder(config, split, 1, clock, stem=False)) == 1
    adversarial = apply_overrides(config, ["autoencoder.adversarial_weight=0.01", "autoencoder.adversarial_start=0"])
    assert len(steps.our_autoencoder(adversarial, split, 1, clock)) == 1
    assert len(steps.our_denoiser(config, split, 2, clock)) == 2
    assert len(steps.our_denoiser(config, split, 1, clock, cached=False)) == 1
    assert len(steps.tutorial_denoiser(data, 2, 1, clock, 0)) == 1
    assert len(steps.caching_seconds(config, split, clock)) == 4
    assert len(steps.optimiser_seconds(torch.nn.Linear(2, 2), "foreach", 3, clock)) == 3


@pytest.mark.slow
def test_the_tutorials_discriminator_has_steps_of_its_own(cohort: cohorts.Cohort) -> None:
    data = cohorts.stacked(cohort.train)
    assert len(steps.tutorial_autoencoder(data, 1, 1, clock, 0)) == 1
    assert len(steps.tutorial_autoencoder(data, 1, 1, clock, 0, adversarial=True)) == 1


def test_without_the_stem_the_latent_keeps_its_shape(cohort: cohorts.Cohort) -> None:
    config = cohort.config.autoencoder
    noise = torch.zeros(1, 8, 3, 3, 3)
    image = cohort.train.images[:1]
    decoded, logits, mean, _ = Stemless(config, 3)(image, torch.zeros(1, 3, *image.shape[2:]), noise)
    assert (decoded.shape, logits.shape[1], mean.shape) == (image.shape, 3, noise.shape)


def test_a_contender_without_memory_has_an_empty_row() -> None:
    def fail() -> list[float]:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    found = rows.step_rows({"a": (2, lambda: [4.0]), "b": (2, fail)}, "a", 2, {})
    assert [row["s a sample"] for row in found] == [2.0, None]
    assert found[1]["note"] == rows.OUT_OF_MEMORY
    with pytest.raises(ZeroDivisionError):
        rows.step_rows({"a": (1, lambda: [1 / 0])}, "a", 1, {})


def test_a_curve_says_when_a_target_was_reached() -> None:
    slow, fast = quality.Curve(100.0), quality.Curve(100.0)
    for k, (low, high) in enumerate(((20.0, 25.0), (24.0, 27.0), (27.0, 27.5))):
        slow.add(10.0 * k + 10, low, k)
        fast.add(5.0 * k + 5, high, k)
    found = quality.rows_of({"tutorial": slow, "ours": fast}, (24.0, 27.2, 30.0), "autoencoder", "dB")
    assert [row["seconds"] for row in found] == [20.0, 5.0, None, 15.0, None, None]
    assert [row["times as fast"] for row in found] == ["1", "4", None, "> 2", None, None]


def test_what_is_restored_is_1_for_the_truth_and_a_fifth_for_the_best_linear_guess_at_white_noise() -> None:
    latents = torch.randn(8, 4, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    assert quality.restored(lambda x: latents, latents) == 1
    assert quality.restored(lambda x: 0.2**0.5 * x, latents) == pytest.approx(0.2, abs=0.02)


def test_each_guess_turns_a_networks_true_answer_into_the_clean_latent(cohort: cohorts.Cohort) -> None:
    latents = torch.randn(2, 8, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    path, kind = PATHS[cohort.config.diffusion.path], cohort.config.diffusion.prediction

    def ours(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return target(path, kind, latents, noise, t)

    assert quality.restored(lambda x: racing.our_guess(ours, cohort.config, x), latents) > 0.999
    assert quality.restored(lambda x: racing.tutorial_guess(lambda x, t: noise, x), latents) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("name", [racing.TUTORIAL, racing.OURS])
def test_a_race_without_seconds_still_draws(cohort: cohorts.Cohort, name: str) -> None:
    if name == racing.OURS:
        coding, denoising, images = racing.race_ours(cohort, 0.0, 0.5, 2, clock)
    else:
        coding, denoising, images = racing.race_tutorial(cohort, 0.0, 0.5, 2, 2, clock)
    assert images.shape == (2, 1, SIDE, SIDE, SIDE)
    assert coding.values
    assert denoising.values


def test_a_schedule_ends_with_the_budget() -> None:
    recipe = TrainingConfig(max_steps=4000, warmup_steps=50, validate_every=250)
    short, none, ample = (quality.within(recipe, steps) for steps in (400.7, -3.0, math.inf))
    assert (short.max_steps, short.warmup_steps) == (400, 5)
    assert learning_rate(short, 399) < 1e-4 * recipe.learning_rate
    assert none.max_steps == 1
    assert (ample.max_steps, ample.warmup_steps) == (4000, 50)


def test_our_steps_are_those_that_the_budget_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 1 s by this clock, and the timing of steps takes eleven; the rest of 30 s is trained."""
    now, lengths = [0.0], []

    def counted(
        fabric: Any, task: Task, model: torch.nn.Module, settings: TrainingConfig, *rest: Any, **more: Any
    ) -> Any:
        lengths.append(settings.max_steps)
        return fit(fabric, task, model, settings, *rest, **more)

    def loss(model: torch.nn.Module, cases: torch.Tensor, generator: torch.Generator, step: int) -> torch.Tensor:
        now[0] += 1
        return model(torch.ones(len(cases), 1)).square().mean()

    settings = TrainingConfig(max_steps=4000, batch_size=2, precision="32-true")
    curve, model = quality.Curve(30.0), torch.nn.Linear(1, 1)
    task = Task("denoiser", 4, loss, lambda model: steps.LOSSES, tuple(steps.LOSSES), {})
    made = steps.Training(task, model, make_fabric("cpu", "32-true"), settings, 0)
    watch = measuring.Stopwatch(lambda: now[0])
    monkeypatch.setattr(quality, "fit", counted)
    quality.fit_ours(made, curve, watch, lambda model: 1.0)
    assert lengths == [19]
    assert curve.steps[-1] == 19
    assert curve.seconds[-1] == 30


def test_quick_lowers_only_what_was_not_asked_for() -> None:
    options = training.parse(["--quick", "--steps", "7"])
    assert (options.cohorts, options.steps, options.rounds) == (["hippocampus"], 7, 1)
    assert training.parse([]).cohorts == list(training.COHORTS)
    assert training.limit_memory(-1) is None


def test_the_command_races_to_the_targets(
    cohort: cohorts.Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def race(values: list[float], images: torch.Tensor) -> racing.Race:
        curve = quality.Curve(9.0)
        for k, value in enumerate(values):
            curve.add(3.0 * k, value, k)
        return curve, curve, images

    monkeypatch.setattr(training, "open_cohort", lambda name, options: cohort)
    monkeypatch.setattr(training, "race_tutorial", lambda *_: race([0.0, 0.0, 25.0], cohort.train.images))
    monkeypatch.setattr(training, "race_ours", lambda *_: race([0.0, 25.0], cohort.holdout.images))
    wanted = [
        "--to-quality",
        "--psnr",
        "25",
        "--restored",
        "0.5",
        "--memory",
        "-1",
        "--json",
        str(tmp_path / "rows.csv"),
    ]
    assert training.main(wanted) == 0
    with (tmp_path / "rows.csv").open() as stream:
        found = list(csv.DictReader(stream))
    assert [row["seconds"] for row in found[:2]] == ["6.0", "3.0"]
    assert found[1]["times as fast"] == "2"
    assert "training scans" in capsys.readouterr().out
