"""One judge for every set: utility, fidelity and privacy, with the run's own settings and functions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import privacy
from baselines.source import Source
from synthmed.evaluation import compare, structure_names
from synthmed.evaluation.cases import Cases, real_cases, synthetic_cases
from synthmed.evaluation.conditions import covariate_figures
from synthmed.evaluation.encoder import Encoder, learn_encoder
from synthmed.evaluation.intervals import patient_weights, percentile_interval
from synthmed.evaluation.learning import Budget
from synthmed.evaluation.predictor import Questions, ask, questions_of, train_predictor
from synthmed.evaluation.utility import dice_on, train_segmenter
from synthmed.files import read_json, sha256_file

Array = NDArray[np.float64]
Scores = list[list[list[float]]]
CACHE = "steward/cache"
MEASURED = (
    "identity_matches",
    "copy_rate",
    "copy_rate_lower",
    "copy_rate_upper",
    "largest_score",
    "largest_null_score",
    "membership_p",
    "recall",
)


def segmenter_scores(source: Source, cases: Cases, seeds: Sequence[int], steps: int, *, progress: str) -> Scores:
    """Return the Dice on held-out patients of segmenters that were trained on `cases`, one a seed.

    It is what `synthmed.evaluation.utility.measure_utility` measures of each of its sets, kept case by case, so that
    the segmenter of real scans is trained once for all methods.

    Returns
    -------
    list, shape (seeds, held-out cases, structures)
    """
    settings, holdout = source.run.config.evaluation, real_cases(source.holdout)
    scores = []
    for seed in seeds:
        model = train_segmenter(
            cases.images,
            cases.segmentations,
            source.space.num_classes,
            steps=steps,
            batch_size=settings.segmenter_batch_size,
            seed=seed,
            progress=progress,
        )
        scores.append(dice_on(model, holdout.images, holdout.segmentations, source.space.num_classes).tolist())
    return scores


def utility_of(scores: Scores, real: Scores, patients: Sequence[str], seed: int) -> dict[str, Any]:
    """Return mean Dice and its ratio to that of real scans, each with an interval over held-out patients and seeds.

    Parameters
    ----------
    scores, real : list, shape (seeds, held-out cases, structures)
        Of a method, and of the training scans.
    patients : sequence of str
        Whose each held-out case is.
    """
    rng = np.random.default_rng(seed)
    cases = patient_weights(patients, rng=rng)
    runs = patient_weights([str(index) for index in range(len(scores))], rng=rng)
    top, bottom = (np.asarray(values).mean(axis=2) for values in (scores, real))
    above, below = (_resampled(dice, runs, cases) for dice in (top, bottom))
    result = {"dice": _figure(top.mean(), above), "dice_of_seeds": top.mean(axis=1).tolist(), "ratio": None}
    if bottom.mean() > 0:
        draws = np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
        result["ratio"] = _figure(top.mean() / bottom.mean(), draws)
    return result


def _resampled(dice: Array, runs: Array, cases: Array) -> Array:
    """Return the mean of Dice, shape (seeds, N), under each row of weights of seeds and of cases."""
    total = runs.sum(axis=1) * cases.sum(axis=1)
    return np.einsum("rs,sn,rn->r", runs, dice, cases, optimize=True) / total


def _figure(value: float, draws: Array) -> dict[str, float]:
    low, high = percentile_interval(draws)
    return {"value": float(value), "low": low, "high": high}


def fidelity_of(source: Source, folder: Path, seed: int) -> dict[str, Any]:
    """Return everything that `synthmed.evaluation.compare` says of a set, the self-taught encoder's space included."""
    low, high = source.space.intensity_range
    return compare(
        synthetic_cases(folder, source.space),
        real_cases(source.train),
        real_cases(source.holdout),
        structure_names(source.space),
        source.space.spacing,
        encoder=_encoder(source, seed),
        half_range=(high - low) / 2,
        seed=seed,
    )


def conditions_of(source: Source, folder: Path, seed: int) -> dict[str, Any]:
    """Return how truly a set follows what it was asked for, as `synthmed.evaluation` says it; empty without conditions.

    The predictor of real scans is learned once for all sets.
    """
    known = _predictor(source, seed)
    if known is None:
        return {}
    questions, network = known
    sets = {"holdout": real_cases(source.holdout), "synthetic": synthetic_cases(folder, source.space)}
    said = {role: [ask(network, cases, questions)] for role, cases in sets.items()}
    return covariate_figures(questions, sets, said, seed)


@cache
def _predictor(source: Source, seed: int) -> tuple[Questions, nn.Module] | None:
    config, train = source.run.config, real_cases(source.train)
    questions = questions_of(train, config.conditioning.scalars, config.conditioning.classes)
    if not questions.outputs or not config.evaluation.predictor_steps:
        return None
    budget = Budget(config.evaluation.predictor_steps, config.evaluation.segmenter_batch_size, torch.device("cpu"))
    return questions, train_predictor(train, questions, budget=budget, seed=seed)


@cache
def _encoder(source: Source, seed: int) -> Encoder | None:
    """Teach the encoder, which depends on the training scans alone, once for all sets."""
    steps = source.run.config.evaluation.encoder_steps
    return learn_encoder(real_cases(source.train), steps=steps, seed=seed) if steps else None


def privacy_of(source: Source, folder: Path, out: Path, seed: int, *, progress: bool) -> dict[str, Any]:
    """Audit a set as the pipeline does; what the audit learns from the real scans alone is shared.

    The run's own audit is taken where it judged these very volumes under the same policy and seed.

    Parameters
    ----------
    folder : Path
        Holds ``images/``.
    out : Path
        Receives ``steward/``, which stays home, and ``release/``.
    """
    found = _own_audit(source, folder, seed)
    if found is None:
        learned = source.run.stage("audit") / CACHE
        if learned.is_dir():
            shutil.copytree(learned, out / CACHE, dirs_exist_ok=True)
        prepared = source.run.stage("prepare")
        found = privacy.audit(
            train=prepared / "train",
            holdout=prepared / "holdout",
            synthetic=folder / "images",
            policy=source.run.config.audit.policy,
            seed=seed,
            out=out,
            progress=progress,
        ).release
    return {"verdict": found["verdict"], "reasons": found["reasons"], "policy": found["policy"]["name"]} | {
        name: found["measurements"][name] for name in MEASURED
    }


def _own_audit(source: Source, folder: Path, seed: int) -> dict[str, Any] | None:
    file = source.run.stage("audit") / "release" / "report.json"
    if not file.is_file():
        return None
    report = read_json(file)
    policy = privacy.load_policy(source.run.config.audit.policy)
    digests = sorted(sha256_file(image) for image in (folder / "images").glob("*.nii.gz"))
    same = report["seed"] == seed and report["policy"]["sha256"] == policy.sha256
    return report if same and sorted(report["synthetic"]["sha256"]) == digests else None
