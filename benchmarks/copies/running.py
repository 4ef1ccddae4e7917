"""One split of one set from end to end: fit, plant, judge, draw sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from copies.baselines import BASELINES
from copies.datasets import PLANS, Plan, load, read, split, subset
from copies.generators import fit_generator, fit_round_trip
from copies.judging import Floats, Judge, Problem, Scores
from copies.ours import audit
from copies.sets import Amounts, Query, SetResult, draw_sets, negatives, plants
from copies.transforms import Cell

JUDGES: dict[str, Judge] = {"audit": audit, **BASELINES}
SET_SIZE = 200


@dataclass(frozen=True)
class Settings:
    """What a run does; see the command's options.

    Attributes
    ----------
    data : Path
    cells : tuple of Cell
    judges : tuple of str
    plants, disguised, generated, dispersed, clean_sets : int
        Numbers a set of data, shared out over its splits.
    splits : int or None
        Overrides the plan's.
    patients : int or None
        How many patients of a set are used; None for all.
    folder : Path or None
        Generated scans to be judged as well.
    seed : int
    """

    data: Path
    cells: tuple[Cell, ...]
    judges: tuple[str, ...]
    plants: int
    disguised: int
    generated: int
    dispersed: int
    clean_sets: int
    splits: int | None
    patients: int | None
    folder: Path | None
    seed: int

    def plan(self, dataset: str) -> Plan:
        """Return the shares and the number of splits of a set."""
        plan = PLANS[dataset]
        return Plan(plan.shares, self.splits or plan.splits)


@dataclass(frozen=True)
class Judgement:
    """A judge's word on every query of a split.

    Attributes
    ----------
    score : ndarray, shape (n,)
    own : ndarray of bool, shape (n,), or None
        What it calls a copy by its own threshold.
    right : ndarray of bool, shape (n,)
        Whether it names a patient who is in the copy.
    sets : list of SetResult
    """

    score: Floats
    own: NDArray[np.bool_] | None
    right: NDArray[np.bool_]
    sets: list[SetResult]


@dataclass(frozen=True)
class SplitResult:
    """All judgements of one split, with what they are about.

    Attributes
    ----------
    dataset : str
    facts : str
        Numbers of patients and scans, and what the round trip loses.
    kind : ndarray of str, shape (n,)
    cell : list of Cell or None
    judgements : dict
    seconds : dict of str to float
    """

    dataset: str
    facts: str
    kind: NDArray[np.str_]
    cell: list[Cell | None]
    judgements: dict[str, Judgement]
    seconds: dict[str, float]


def run_split(settings: Settings, dataset: str, number: int) -> SplitResult:
    """Run one seeded split.

    Parameters
    ----------
    settings : Settings
    dataset : str
    number : int
        Of the split, from 0; its seed is ``1000 * settings.seed + number``.
    """
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    plan, seed = settings.plan(dataset), 1000 * settings.seed + number
    title = f"{dataset} {number + 1}/{plan.splits}"
    problem, queries, facts = _prepare(settings, dataset, seed, title, seconds)
    judgements = {}
    for name in settings.judges:
        with _timed(title, name, seconds):
            scores = JUDGES[name](problem)
        with _timed("", "sets", seconds):
            count = -(-settings.clean_sets // plan.splits)
            judgements[name] = _judgement(queries, scores, draw_sets(queries, scores, SET_SIZE, count, seed))
    kind, cell = np.array([q.kind for q in queries]), [q.cell for q in queries]
    return SplitResult(dataset, f"{title}: {facts}", kind, cell, judgements, seconds)


def _prepare(
    settings: Settings, dataset: str, seed: int, title: str, seconds: dict[str, float]
) -> tuple[Problem, list[Query], str]:
    """Read, split, fit what is fitted, and make everything that is judged."""
    plan = settings.plan(dataset)
    with _timed(title, "read", seconds):
        cohort = load(dataset, settings.data)
        cohort = subset(cohort, settings.patients, seed) if settings.patients else cohort
        parts = split(cohort, plan.shares, seed)
        train, holdout = cohort.take(parts.train), cohort.take(parts.holdout)
    with _timed(title, "autoencoder", seconds):
        round_trip = fit_round_trip(train, seed)
        generator = fit_generator(train, round_trip.models[0])
    with _timed(title, "make scans", seconds):
        amounts = _amounts(settings, plan.splits)
        queries = plants(cohort, parts, settings.cells, amounts.plants, round_trip, seed)
        queries += negatives(cohort, parts, generator, amounts, round_trip, seed) + _folder(settings.folder)
    owners = cohort.owners(parts.train), cohort.owners(parts.holdout)
    problem = Problem(train, owners[0], holdout, owners[1], [query.volume for query in queries], SET_SIZE, seed)
    groups = (parts.train, parts.holdout, parts.others)
    counts = " / ".join(f"{len(set(cohort.owners(rows)))} ({len(rows)})" for rows in groups)
    sizes = ", ".join(f"{n} channels {p:.1f} dB" for n, p in zip(round_trip.latents, round_trip.psnr, strict=True))
    return problem, queries, f"train / holdout / others {counts} patients (scans); round trip {sizes}"


def _amounts(settings: Settings, splits: int) -> Amounts:
    numbers = (settings.plants, settings.disguised, settings.generated, settings.dispersed)
    return Amounts(*(-(-number // splits) for number in numbers))


def _judgement(queries: list[Query], scores: Scores, sets: list[SetResult]) -> Judgement:
    own = None if scores.threshold is None else scores.score >= scores.threshold
    right = np.array([named in query.sources for named, query in zip(scores.patient, queries, strict=True)])
    return Judgement(np.asarray(scores.score, dtype=np.float64), own, right, sets)


def _folder(folder: Path | None) -> list[Query]:
    if folder is None:
        return []
    paths = sorted(path for path in folder.rglob("*") if path.name.endswith((".nii", ".nii.gz")))
    if not paths:
        raise FileNotFoundError(f"No NIfTI file under {folder}")
    return [Query(read(path), "folder") for path in paths]


@contextmanager
def _timed(title: str, part: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
    if title:
        print(f"[{title}] {part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
