"""What was measured as rows, and rows as text and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FIGURES = ("kid", "frechet", "recall", "coverage")


def method_row(method: str, made: Mapping[str, Any], measured: Mapping[str, Any]) -> Row:
    """Return one flat row of a method.

    Parameters
    ----------
    made : mapping
        ``count``, ``seconds`` and, where there was any, ``training_seconds`` a stage.
    measured : mapping
        ``utility``, ``fidelity`` and ``privacy`` as `baselines.judging` returns them.
    """
    utility, privacy = measured["utility"], measured["privacy"]
    row: Row = {"method": method, "volumes": made["count"]}
    row |= _interval("dice", utility["dice"]) | _interval("ratio", utility.get("ratio"))
    row |= {"verdict": privacy["verdict"], "matches": privacy["identity_matches"], "match_share": privacy["copy_rate"]}
    row |= {"match_share_low": privacy["copy_rate_lower"], "match_share_high": privacy["copy_rate_upper"]}
    row |= {"largest_score": privacy["largest_score"], "largest_null_score": privacy["largest_null_score"]}
    for name, value in distance_figures(measured["fidelity"]):
        row[name] = value
    trained = sum(made.get("training_seconds", {}).values())
    return row | {"training_seconds": round(trained, 1), "other_seconds": round(max(made["seconds"] - trained, 0.0), 1)}


def distance_figures(fidelity: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield distances to held-out scans and coverage of them, by kind of features, each with the real scans' own."""
    for features, found in fidelity.get("distance", {}).items():
        for key in FIGURES:
            if isinstance(found, Mapping) and key in found:
                for end, side in (("", "synthetic"), ("_floor", "floor")):
                    figure = found[key].get(side)
                    yield f"{key}_{features}{end}", float("nan") if figure is None else figure["value"]


def table_text(rows: Sequence[Row], real: Mapping[str, Any]) -> str:
    """Return the table that is printed.

    Parameters
    ----------
    real : mapping
        Dice of the segmenter that was trained on the training scans: ``value``, ``low``, ``high``.
    """
    names = [name for name in rows[0] if name.startswith("kid_") and not name.endswith("_floor")]
    titles = [f"KID {name.removeprefix('kid_').replace('_', ' ')} (real)" for name in names]
    head = ["method", "Dice", "share of real", "audit", "matches", "share (95 %)", "largest score", *titles, "seconds"]
    lines = [head]
    for row in rows:
        kid = [f"{row[name]:.2f} ({row[f'{name}_floor']:.2f})" for name in names]
        lines.append(
            [
                row["method"],
                f"{row['dice']:.3f}",
                _spread(row, "ratio", "{:.2f}"),
                row["verdict"],
                f"{row['matches']} of {row['volumes']}",
                f"{100 * row['match_share_low']:.0f} to {100 * row['match_share_high']:.0f} %",
                f"{row['largest_score']:.2f}",
                *kid,
                f"{row['training_seconds']:.0f} + {row['other_seconds']:.0f}",
            ]
        )
    lines.append(["real scans", f"{real['value']:.3f}", "1"])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells with their columns aligned; short lines are filled up."""
    columns = max(len(line) for line in lines)
    filled = [[*line, *[""] * (columns - len(line))] for line in lines]
    widths = [max(len(line[column]) for line in filled) for column in range(columns)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in filled)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows; a column that only some have is empty in the others."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _interval(name: str, found: Mapping[str, Any] | None) -> Row:
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: found["value"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


def _spread(row: Row, name: str, form: str) -> str:
    if row[name] is None:
        return "n/a"
    value, low, high = (form.format(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"
