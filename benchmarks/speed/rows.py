"""The rows of the benchmark of training: contenders by cohort, and what each measure of speed is worth."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from baselines import tutorial

from speed.cohorts import Cohort, stacked
from speed.measuring import Clock, Row, add_ratios, in_turn, spread
from speed.steps import (
    caching_seconds,
    latent_shape,
    optimiser_seconds,
    our_autoencoder,
    our_denoiser,
    tutorial_autoencoder,
    tutorial_denoiser,
)
from synthmed.config import Config, apply_overrides
from synthmed.models.autoencoder import build_autoencoder
from synthmed.models.denoiser import build_denoiser
from synthmed.training.latents import AUGMENTED_COPIES

Works = Mapping[str, tuple[int, Callable[[], Sequence[float]]]]
"""By name: the batch size, and what measures seconds of steps."""

BASELINE = "tutorial"
OUT_OF_MEMORY = "out of memory"
HEADS = (32, 128, 256)


def contender_rows(cohort: Cohort, steps: int, rounds: int, clock: Clock) -> list[Row]:
    """Return seconds a step and a sample of both stages, at the tutorial's batch and at ours."""
    data, config, seed = stacked(cohort.train), cohort.config, cohort.config.seed
    small, split = tutorial.BATCH_SIZE, cohort.train
    coder, network = config.autoencoder_training.batch_size, config.denoiser_training.batch_size

    def plain(batch: int) -> Callable[[], Sequence[float]]:
        return partial(tutorial_autoencoder, data, batch, steps, clock, seed)

    coding: Works = {
        BASELINE: (small, plain(small)),
        "tutorial, discriminator": (small, partial(plain(small), adversarial=True)),
        **({"tutorial, our batch": (coder, plain(coder))} if coder != small else {}),
        "synthmed, its batch": (small, partial(our_autoencoder, _batched(config, small), split, steps, clock)),
        "synthmed": (coder, partial(our_autoencoder, config, split, steps, clock)),
    }
    noising: Works = {
        BASELINE: (small, partial(tutorial_denoiser, data, small, steps, clock, seed)),
        "tutorial, our batch": (network, partial(tutorial_denoiser, data, network, steps, clock, seed)),
        "synthmed, its batch": (small, partial(our_denoiser, _batched(config, small), split, steps, clock)),
        "synthmed": (network, partial(our_denoiser, config, split, steps, clock)),
    }
    named = {"cohort": cohort.name}
    return [
        *step_rows(coding, BASELINE, rounds, named | {"stage": "autoencoder"}),
        *step_rows(noising, BASELINE, rounds, named | {"stage": "denoiser"}),
    ]


def ablation_rows(cohort: Cohort, steps: int, rounds: int, clock: Clock) -> list[Row]:
    """Return what a step takes with one measure of speed left out at a time; the recipe as it is is the baseline."""
    config, split = cohort.config, cohort.train
    coder, network = config.autoencoder_training.batch_size, config.denoiser_training.batch_size

    def code(*overrides: str, stem: bool = True) -> tuple[int, Callable[[], Sequence[float]]]:
        return coder, partial(our_autoencoder, apply_overrides(config, overrides), split, steps, clock, stem=stem)

    def denoise(*overrides: str, cached: bool = True) -> tuple[int, Callable[[], Sequence[float]]]:
        return network, partial(our_denoiser, apply_overrides(config, overrides), split, steps, clock, cached=cached)

    coding: Works = {
        "recipe": code(),
        "without Haar stem": code(stem=False),
        "float32": code("autoencoder_training.precision=32-true"),
        "without augmentation": code("autoencoder_training.augment=false"),
        "with discriminator": code("autoencoder.adversarial_weight=0.01", "autoencoder.adversarial_start=0"),
    }
    noising: Works = {
        "recipe": denoise(),
        "latents not cached": denoise(cached=False),
        "float32": denoise("denoiser_training.precision=32-true"),
        **{f"heads: {config.denoiser.width // n}": denoise(f"denoiser.num_head_channels={n}") for n in HEADS},
    }
    named = {"cohort": cohort.name}
    return [
        *step_rows(coding, "recipe", rounds, named | {"stage": "autoencoder"}),
        *step_rows(noising, "recipe", rounds, named | {"stage": "denoiser"}),
        *_optimiser_rows(cohort, steps, rounds, clock),
        _caching_row(cohort, clock),
    ]


def step_rows(works: Works, baseline: str, rounds: int, named: Row) -> list[Row]:
    """Measure works in turn and return a row each, its ratio that of seconds a sample."""
    seconds = in_turn({name: partial(_or_nothing, name, work) for name, (_, work) in works.items()}, rounds)
    rows = []
    for name, (batch, _) in works.items():
        found = spread(seconds[name])
        each = found["median"] / batch if found["median"] else None
        note = "" if found["repeats"] else OUT_OF_MEMORY
        rows.append({"name": name, **named, "batch": batch, **found, "s a sample": each, "note": note})
    return add_ratios(rows, baseline, "s a sample")


def _or_nothing(name: str, work: Callable[[], Sequence[float]]) -> Sequence[float]:
    """Return the seconds and tell them, or none where memory ran out."""
    try:
        seconds = work()
        print(f"{name}: {', '.join(f'{value:.3g}' for value in seconds[:5])} s", file=sys.stderr, flush=True)
        return seconds
    except MemoryError:
        return []
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return []


def _optimiser_rows(cohort: Cohort, steps: int, rounds: int, clock: Clock) -> list[Row]:
    config, split = cohort.config, cohort.train
    models = {
        "autoencoder": build_autoencoder(config.autoencoder, max(1, split.num_classes)),
        "denoiser": build_denoiser(config.denoiser, latent_shape(config, split), 0),
    }
    rows = []
    for stage, model in models.items():
        works: Works = {
            f"AdamW alone, {kind}": (1, partial(optimiser_seconds, model, kind, steps, clock))
            for kind in ("fused", "foreach", "loop")
        }
        rows += step_rows(works, "AdamW alone, fused", rounds, {"cohort": cohort.name, "stage": stage})
    return [row | {"s a sample": None, "batch": None} for row in rows]


def _caching_row(cohort: Cohort, clock: Clock) -> Row:
    found = spread(caching_seconds(cohort.config, cohort.train, clock))
    name = f"encoding a scan, once in each of {AUGMENTED_COPIES} copies"
    return {"name": name, "cohort": cohort.name, "stage": "denoiser", **found, "note": "what caching costs"}


def _batched(config: Config, size: int) -> Config:
    return apply_overrides(config, [f"autoencoder_training.batch_size={size}", f"denoiser_training.batch_size={size}"])
