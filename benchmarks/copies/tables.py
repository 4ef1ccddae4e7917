"""From judgements to rates with intervals, and to text, CSV and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from copies.running import SplitResult
from copies.sets import NEGATIVES
from copies.transforms import STRENGTHS, TRANSFORMS, Cell

LEVEL = 0.95
LEVELS = {"fpr_1pct": 0.01, "fpr_0.1pct": 0.001}
POWER = 0.95


@dataclass(frozen=True)
class Rate:
    """Successes among trials, with the two-sided 95 % Clopper-Pearson interval."""

    hits: int
    trials: int

    @property
    def value(self) -> float:
        """The share of successes; nan without trials."""
        return self.hits / self.trials if self.trials else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends (doi 10.1093/biomet/26.4.404)."""
        k, n, tail = self.hits, self.trials, (1 - LEVEL) / 2
        low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
        high = 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k))
        return low, high

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]" if self.trials else "n/a"


@dataclass(frozen=True)
class Pooled:
    """One judge's word on all queries of a set, over its splits."""

    kind: NDArray[np.str_]
    cell: list[Cell | None]
    score: NDArray[np.float64]
    own: NDArray[np.bool_] | None
    right: NDArray[np.bool_]


def pool(results: Sequence[SplitResult], dataset: str, judge: str) -> Pooled:
    """Join the splits of a set."""
    mine = [result for result in results if result.dataset == dataset]
    judged = [result.judgements[judge] for result in mine]
    own = [j.own for j in judged if j.own is not None]
    return Pooled(
        np.concatenate([result.kind for result in mine]),
        [cell for result in mine for cell in result.cell],
        np.concatenate([j.score for j in judged]),
        np.concatenate(own) if own else None,
        np.concatenate([j.right for j in judged]),
    )


def threshold_at(negatives: NDArray[np.float64], rate: float) -> float | None:
    """Return the lowest observed level that at most a share `rate` of the negatives passes.

    Copies are those strictly above it. None where there are fewer negatives than 1 / rate.
    """
    allowed = int(rate * len(negatives) + 1e-9)
    if allowed < 1:
        return None
    return float(np.sort(negatives)[::-1][allowed])


def calls(data: Pooled) -> dict[str, NDArray[np.bool_] | None]:
    """Return who is called a copy at each realised false-positive rate, and by the judge's own threshold."""
    null = data.score[np.isin(data.kind, NEGATIVES)]
    levels = {name: threshold_at(null, rate) for name, rate in LEVELS.items()}
    return {name: None if at is None else data.score > at for name, at in levels.items()} | {"own": data.own}


def recall_rows(dataset: str, judge: str, data: Pooled) -> list[dict[str, Any]]:
    """Return, for each cell, the recall at the realised false-positive rates and at the judge's own threshold."""
    called = calls(data)
    rows = []
    present = {cell for cell, kind in zip(data.cell, data.kind, strict=True) if kind == "plant" and cell}
    for cell in sorted(present, key=lambda c: (list(TRANSFORMS).index(c[0]), c[1])):
        here = np.array([c == cell for c in data.cell]) & (data.kind == "plant")
        row: dict[str, Any] = {"dataset": dataset, "judge": judge, "cell": cell[0], "strength": STRENGTHS[cell[1]]}
        for name, hits in called.items():
            row |= _columns(name, None if hits is None else Rate(int(hits[here].sum()), int(here.sum())))
        decided = called["own"] if called["own"] is not None else called["fpr_1pct"]
        if decided is not None:
            row |= _columns("named", Rate(int((data.right & decided & here).sum()), int((decided & here).sum())))
        rows.append(row)
    return rows


def fpr_rows(dataset: str, judge: str, data: Pooled) -> list[dict[str, Any]]:
    """Return the false-positive rate of each kind of negative, at the judge's own and at the pooled thresholds."""
    called = calls(data)
    kinds = {kind: data.kind == kind for kind in (*NEGATIVES, "over", "under", "folder")}
    rows = []
    for kind, here in {**kinds, "pooled": np.isin(data.kind, NEGATIVES)}.items():
        if here.any():
            row: dict[str, Any] = {"dataset": dataset, "judge": judge, "kind": kind, "scans": int(here.sum())}
            for name, hits in called.items():
                row |= _columns(name, None if hits is None else Rate(int(hits[here].sum()), int(here.sum())))
            rows.append(row)
    return rows


def set_rows(results: Sequence[SplitResult], dataset: str, judge: str) -> list[dict[str, Any]]:
    """Return the share of sets that a judge objects to, by base and rate of copies."""
    found: dict[tuple[str, float], list[int]] = {}
    for result in results:
        for item in result.judgements[judge].sets if result.dataset == dataset else ():
            totals = found.setdefault((item.base, item.rate), [0, 0, 0])
            for k, value in enumerate((item.alarms, item.sets, item.pool)):
                totals[k] += value
    return [
        {"dataset": dataset, "judge": judge, "base": base, "rate": rate, "pool": size, **_columns("alarm", Rate(k, n))}
        for (base, rate), (k, n, size) in found.items()
    ]


def smallest_rate(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the lowest rate from which on the judge objects to 95 % of sets; None where none is, or it cries wolf.

    A judge that objects to more than 5 % of the sets without a copy detects nothing.
    """
    if any(row["rate"] == 0 and row["alarm"] > 1 - POWER for row in rows):
        return None
    smallest = None
    for row in sorted(rows, key=lambda r: -r["rate"]):
        if row["rate"] == 0 or row["alarm"] < POWER:
            break
        smallest = row["rate"]
    return smallest


def _columns(name: str, rate: Rate | None) -> dict[str, Any]:
    if rate is None:
        return {name: None}
    low, high = rate.interval if rate.trials else (None, None)
    return {name: rate.value, f"{name}_low": low, f"{name}_high": high, **_prefixed(name, rate)}


def _prefixed(name: str, rate: Rate) -> dict[str, int]:
    return {f"{name}_{key}": value for key, value in asdict(rate).items()}


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows; a column that a row lacks stays empty."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items() if v is not None} for row in rows
        )
