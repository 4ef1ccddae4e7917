"""What is judged in one split: planted copies, other people, generated scans; and the sets drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from copies.datasets import Cohort, Split, Volume
from copies.generators import Generator, RoundTrip
from copies.judging import Scores
from copies.transforms import PUBLISHED_ONLY, TRANSFORMS, Cell, Material, cells

RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.10)
SCALES = {"generated": 1.0, "over": 1.5, "under": 0.5}
BASES = ("people", *SCALES, "folder")
NEGATIVES = ("others", "disguised", "generated")
"""Kinds whose pooled scores place the threshold of a realised false-positive rate."""


@dataclass(frozen=True)
class Amounts:
    """Numbers a split.

    Attributes
    ----------
    plants : int
        Copies a cell.
    disguised, generated, dispersed : int
        Disguised scans of people outside training; generated scans; over- and under-dispersed ones, each.
    """

    plants: int
    disguised: int
    generated: int
    dispersed: int


@dataclass(frozen=True)
class Query:
    """A scan to be judged.

    Attributes
    ----------
    volume : Volume
    kind : str
        ``plant``, ``others``, ``disguised``, ``generated``, ``over``, ``under`` or ``folder``.
    cell : tuple (transform, strength) or None
    sources : tuple of str
        Training patients of whom it is a copy; none for a negative.
    """

    volume: Volume
    kind: str
    cell: Cell | None = None
    sources: tuple[str, ...] = ()


def plants(
    cohort: Cohort, split: Split, chosen: Sequence[Cell], count: int, round_trip: RoundTrip, seed: int
) -> list[Query]:
    """Plant copies, each of another training scan as far as they go, each with its own generator."""
    made = []
    for name, strength in chosen:
        rng = np.random.default_rng([seed, 201, _code(name), strength])
        rows = split.kept_back if name == "same_patient" else split.train
        order = rng.permutation(rows)
        copies = min(count, len(rows)) if name == "same_patient" else count
        for k in range(copies):
            made.append(_plant(cohort, split, (name, strength), int(order[k % len(rows)]), round_trip, rng))
    return made


def negatives(
    cohort: Cohort, split: Split, generator: Generator, amounts: Amounts, round_trip: RoundTrip, seed: int
) -> list[Query]:
    """List people outside training as they are and disguised, and generated scans of three dispersions."""
    rng = np.random.default_rng([seed, 202])
    made = [Query(cohort.volume(int(row)), "others") for row in split.others]
    family = [cell for cell in cells() if cell[0] not in ("identity", "same_patient", "blend_colleague")]
    order = rng.permutation(len(family))
    for k in range(amounts.disguised):
        name, strength = family[order[k % len(family)]]
        row = int(split.others[k % len(split.others)])
        material = Material(cohort.volume(row), *_strangers(cohort, split, row, rng), None, round_trip)
        made.append(Query(TRANSFORMS[name](material, strength, rng), "disguised", (name, strength)))
    for kind, scale in SCALES.items():
        count = amounts.generated if kind == "generated" else amounts.dispersed
        made += [Query(volume, kind) for volume in generator.draw(count, scale, rng)]
    return made


@dataclass(frozen=True)
class SetResult:
    """How many sets of one base and rate a judge objected to."""

    base: str
    rate: float
    alarms: int
    sets: int
    pool: int


def draw_sets(queries: Sequence[Query], scores: Scores, size: int, count: int, seed: int) -> list[SetResult]:
    """Draw sets at every rate over every base, with replacement, and ask the judge about each.

    Copies come from the cells that have a target.

    Parameters
    ----------
    queries : sequence of Query
    scores : Scores
    size, count : int
        Samples a set, and sets a base and rate.
    seed : int
    """
    if scores.alarm is None:
        return []
    copies = [k for k, q in enumerate(queries) if q.kind == "plant" and q.cell and q.cell[0] not in PUBLISHED_ONLY]
    results = []
    for number, base in enumerate(BASES):
        kinds = ("others", "disguised") if base == "people" else (base,)
        pool = [k for k, q in enumerate(queries) if q.kind in kinds]
        for rate in RATES if pool and copies else RATES[: 1 if pool else 0]:
            rng = np.random.default_rng([seed, 203, number, round(1000 * rate)])
            planted = round(rate * size)
            sets = (
                np.concatenate([rng.choice(pool, size - planted), rng.choice(copies or pool, planted)])
                for _ in range(count)
            )
            results.append(SetResult(base, rate, sum(scores.alarm(rows) for rows in sets), count, len(pool)))
    return results


def _plant(
    cohort: Cohort, split: Split, cell: Cell, row: int, round_trip: RoundTrip, rng: np.random.Generator
) -> Query:
    name, strength = cell
    owner = cohort.patient[row]
    colleagues = [int(k) for k in split.train if cohort.patient[int(k)] != owner]
    colleague = int(rng.choice(colleagues))
    stranger = cohort.volume(int(rng.choice(split.others)))
    other = cohort.volume(row) if name == "same_patient" else None
    material = Material(cohort.volume(row), stranger, cohort.volume(colleague), other, round_trip)
    sources = (owner, cohort.patient[colleague]) if name == "blend_colleague" else (owner,)
    return Query(TRANSFORMS[name](material, strength, rng), "plant", cell, sources)


def _strangers(cohort: Cohort, split: Split, row: int, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """Return two further scans of people outside training, neither of the scan's own patient."""
    pool = [int(k) for k in split.others if cohort.patient[int(k)] != cohort.patient[row]]
    first, second = rng.choice(pool, 2)
    return cohort.volume(int(first)), cohort.volume(int(second))


def _code(name: str) -> int:
    return list(TRANSFORMS).index(name)
