"""The tables as text, and the plot of recall."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from copies.sets import RATES
from copies.tables import smallest_rate
from copies.transforms import PUBLISHED_ONLY

Rows = Sequence[dict[str, Any]]
TARGET = 0.95


def recall_text(rows: Rows, judges: Sequence[str]) -> str:
    """Return recall by cell of one set: the first judge in full, the others at 1 % false positives."""
    first, others = judges[0], judges[1:]
    table = {(r["judge"], r["cell"], r["strength"]): r for r in rows}
    head = ["cell", "strength", "plants", f"{first} at 1 % FPR", "at 0.1 %", "own threshold", "named", *others]
    lines = [head]
    for row in (r for r in rows if r["judge"] == first):
        target = "" if row["cell"] in PUBLISHED_ONLY else "*"
        cells = [_rate(row, name) for name in ("fpr_1pct", "fpr_0.1pct", "own")]
        beside = [_short(table[judge, row["cell"], row["strength"]].get("fpr_1pct")) for judge in others]
        plants = str(row.get("fpr_1pct_trials", row.get("own_trials", "")))
        lines.append([row["cell"] + target, row["strength"], plants, *cells, _short(row.get("named")), *beside])
    return _aligned(lines)


def summary_text(rows: Rows) -> str:
    """Return, for each judge, the marked cells that reach the target, the worst one, and the sources named right."""
    lines = [["judge", "marked cells >= 0.95 at 1 % FPR", "lowest", "at own threshold", "lowest", "named right"]]
    for judge in dict.fromkeys(r["judge"] for r in rows):
        mine = [r for r in rows if r["judge"] == judge and r["cell"] not in PUBLISHED_ONLY]
        named, hits = (sum(r.get(f"named_{key}", 0) for r in mine) for key in ("hits", "trials"))
        reached = [text for name in ("fpr_1pct", "own") for text in _reached(mine, name)]
        lines.append([judge, *reached, f"{named}/{hits}"])
    return _aligned(lines)


def fpr_text(rows: Rows) -> str:
    """Return the false-positive rates by kind of negative."""
    lines = [["judge", "negatives", "scans", "called copies at own threshold", "at pooled 1 %", "at pooled 0.1 %"]]
    lines += [
        [r["judge"], r["kind"], str(r["scans"]), *(_rate(r, name) for name in ("own", "fpr_1pct", "fpr_0.1pct"))]
        for r in rows
    ]
    return _aligned(lines)


def sets_text(rows: Rows) -> str:
    """Return the share of sets that each judge objects to, by rate, and the smallest rate it detects."""
    lines = [["judge", "base", "pool", *(f"{100 * rate:g} %" for rate in RATES), "false alarms", "smallest rate"]]
    for judge, base in dict.fromkeys((r["judge"], r["base"]) for r in rows):
        mine = [r for r in rows if (r["judge"], r["base"]) == (judge, base)]
        by_rate = {r["rate"]: r["alarm"] for r in mine}
        found = smallest_rate(mine)
        shares = [_short(by_rate.get(rate)) for rate in RATES]
        alarms = next(f"{r['alarm_hits']}/{r['alarm_trials']}" for r in mine if r["rate"] == 0)
        lines.append([judge, base, str(mine[0]["pool"]), *shares, alarms, f"{100 * found:g} %" if found else "none"])
    return _aligned(lines)


def plot(rows: Rows, judges: Sequence[str], path: Path) -> None:
    """Draw recall at a realised false-positive rate of 1 % as one panel a set: cells down, judges across."""
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(r["dataset"] for r in rows))
    cells = list(dict.fromkeys((r["cell"], r["strength"]) for r in rows))
    figure = Figure(figsize=(2.5 + 0.62 * len(judges) * len(datasets), 1.6 + 0.2 * len(cells)), layout="constrained")
    axes = figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0]
    for axis, dataset in zip(axes, datasets, strict=True):
        values = np.full((len(cells), len(judges)), np.nan)
        for r in rows:
            if r["dataset"] == dataset and r.get("fpr_1pct") is not None:
                values[cells.index((r["cell"], r["strength"])), judges.index(r["judge"])] = r["fpr_1pct"]
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color="w" if value < 0.6 else "k")
        axis.set_title(dataset)
        axis.set_xticks(range(len(judges)), judges, rotation=60, ha="right")
        axis.set_yticks(range(len(cells)), [f"{name} {strength}" for name, strength in cells], fontsize=7)
    figure.colorbar(image, ax=list(axes), label="recall at 1 % realised FPR", shrink=0.4)
    figure.savefig(path, dpi=130)


def _reached(rows: Rows, name: str) -> tuple[str, str]:
    found = [r for r in rows if r.get(name) is not None]
    if not found:
        return "n/a", "n/a"
    worst = min(found, key=lambda r: r[name])
    passed = sum(r[name] >= TARGET for r in found)
    return f"{passed} of {len(found)}", f"{worst['cell']} {worst['strength']} {worst[name]:.2f}"


def _rate(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None or row.get(f"{name}_low") is None:
        return "n/a"
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _short(value: float | None) -> str:
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
