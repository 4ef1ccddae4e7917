"""Training curves: the gap between training and held-out loss is what a model that memorises opens."""

from __future__ import annotations

from collections.abc import Iterator

from synthmed.report.charts import Series, legend, line_chart
from synthmed.report.facts import Facts, Log
from synthmed.report.markup import Markup, element, figure, join, number, paragraph, section

_LOSSES = {"train_loss": ("training scans", "first"), "holdout_loss": ("held-out scans", "second")}


def training_section(facts: Facts) -> Markup:
    """Return the curves of every stage that left a log."""
    parts = [part for stage, log in facts.training.items() for part in _stage(stage, log)]
    intro = paragraph(
        "Loss on scans that the model was trained on and on held-out scans. No weight is fitted to the latter, but "
        "with early stopping their loss decides when training ends and which weights are kept. A gap that keeps "
        "widening while the held-out loss rises is a model that learns its patients by heart."
    )
    return section("training", "Training", [intro, *parts] if parts else [paragraph("No training log comes with it.")])


def _stage(stage: str, log: Log) -> Iterator[Markup]:
    lines = [
        Series(name, style, points)
        for column, (name, style) in _LOSSES.items()
        if (points := tuple(_points(log, column)))
    ]
    if not lines:
        return
    yield element("h3", stage.capitalize())
    gap = ""
    if len(lines) == 2:
        seen, unseen = (series.points[-1][1] for series in lines)
        relative = f" ({100 * (unseen - seen) / seen:+.1f} %)" if seen > 0 else ""
        gap = f"At the end: training {number(seen)}, held-out {number(unseen)}; memorisation gap {unseen - seen:.3g}"
        gap = f"{gap}{relative}.{_lowest(*lines)}"
    drawn = line_chart(f"Loss of the {stage} by step. {gap}", lines, "step", "loss")
    names = [(series.style, series.name) for series in lines]
    yield figure(drawn, join([legend([*names, ("gapkey", "gap")] if len(lines) == 2 else names), gap]))


def _lowest(seen: Series, unseen: Series) -> str:
    """Say where the held-out loss was lowest, if that was not at the end."""
    step, loss = min(unseen.points, key=lambda point: point[1])
    if step == unseen.points[-1][0]:
        return ""
    there = dict(seen.points).get(step)
    beside = "" if there is None else f", training {number(there)}, gap {loss - there:.3g}"
    return f" The weights that were kept are of step {step:g}, of lowest held-out loss: {number(loss)}{beside}."


def _points(log: Log, column: str) -> Iterator[tuple[float, float]]:
    for row in log:
        if row.get(column):
            yield float(row["step"]), float(row[column])
