"""The plot: what a set is worth to a segmenter against how much of it is somebody's scan."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

# After Paul Tol's schemes for any colour vision, dark enough for text; every point is named beside it as well.
COLOURS = {
    "synthmed": "#0077BB",
    "tutorial": "#00786C",
    "augmentation": "#AA3377",
    "copies": "#CC3311",
    "noise": "#666666",
}
NAMES = {"synthmed": "synthmed", "tutorial": "MONAI tutorial", "copies": "copies of scans"}
MARKERS = {"PASS": "o", "FAIL": "X", "INCONCLUSIVE": "s"}
INK = "#333333"
GAP = 0.075  # between labels, in shares of real


def draw(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw one point a method, with both 95 % intervals; methods without a ratio are left out.

    Parameters
    ----------
    rows : sequence of dict
        As `baselines.tables.method_row` returns them.
    path : Path
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = [row for row in rows if row["ratio"] is not None]
    top = max([1.0, *(row["ratio_high"] for row in drawn)])
    axes.set_xlim(-6, 106)
    axes.set_ylim(min([0.0, *(row["ratio_low"] for row in drawn)]) - 0.04, top + 0.16)
    axes.axhline(1.0, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    axes.annotate(
        "real training scans", (50, 1.0), (0, 4), textcoords="offset points", ha="center", color=INK, fontsize=9
    )
    for row in drawn:
        _point(axes, row)
    for row, place in zip(drawn, _label_places(drawn), strict=True):
        _label(axes, row, place)
    _frame(axes, title)
    axes.legend(handles=_verdicts(drawn), loc="center", frameon=False, fontsize=9, title="The audit says")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _point(axes: Any, row: dict[str, Any]) -> None:
    x, y = 100 * row["match_share"], row["ratio"]
    across = [[x - 100 * row["match_share_low"]], [100 * row["match_share_high"] - x]]
    along = [[max(y - row["ratio_low"], 0.0)], [max(row["ratio_high"] - y, 0.0)]]
    axes.errorbar(
        x,
        y,
        xerr=across,
        yerr=along,
        color=COLOURS.get(row["method"], INK),
        marker=MARKERS[row["verdict"]],
        markersize=10,
        markeredgecolor="white",
        elinewidth=1.8,
        capsize=3,
        zorder=3,
    )


def _label_places(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the height of each label, moved apart where points of one side are close, off the line of real scans."""
    places = [1.0 - GAP if abs(row["ratio"] - 1.0) < GAP else row["ratio"] for row in rows]
    left = sorted((k for k, row in enumerate(rows) if _is_left(row)), key=places.__getitem__)
    right = sorted((k for k, row in enumerate(rows) if not _is_left(row)), key=places.__getitem__, reverse=True)
    for order, direction in ((left, 1), (right, -1)):
        for before, after in pairwise(order):
            places[after] = direction * max(direction * places[after], direction * places[before] + GAP)
    return places


def _label(axes: Any, row: dict[str, Any], height: float) -> None:
    left = _is_left(row)
    edge = 100 * (row["match_share_high"] if left else row["match_share_low"])
    axes.annotate(
        NAMES.get(row["method"], row["method"]),
        (edge, height),
        (10 if left else -10, 0),
        textcoords="offset points",
        ha="left" if left else "right",
        va="center",
        fontsize=11,
        fontweight="bold" if row["method"] == "synthmed" else "normal",
        color=COLOURS.get(row["method"], INK),
    )


def _is_left(row: dict[str, Any]) -> bool:
    return bool(row["match_share"] < 0.5)


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("Volumes that match a training patient, %   (left is private)", fontsize=10)
    axes.set_ylabel("Dice of a segmenter trained on the set\n(1: trained on real scans)", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _verdicts(rows: Sequence[dict[str, Any]]) -> list[Any]:
    from matplotlib.lines import Line2D

    found = [verdict for verdict in MARKERS if any(row["verdict"] == verdict for row in rows)]
    return [Line2D([], [], color=INK, marker=MARKERS[v], linestyle="", markersize=8, label=v) for v in found]
