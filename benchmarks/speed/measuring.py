"""Times in turn, medians and ratios to a named baseline, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthmed.files import write_json

Row = dict[str, Any]
Clock = Callable[[], float]
CLOCKS = ("wall", "process")


def clock_of(kind: str) -> Clock:
    """Return a clock in seconds.

    Parameters
    ----------
    kind : {"wall", "process"}
        ``process`` counts the processor's time of this process over its threads, so that waiting for other processes
        is left out: for a busy machine.
    """
    if kind == "wall":
        return time.perf_counter
    import torch

    threads = torch.get_num_threads()
    return lambda: time.process_time() / threads


class Stopwatch:
    """Seconds since it was made, without those that were spent in `paused` work."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began, self._out = clock, clock(), 0.0

    @property
    def seconds(self) -> float:
        """Return the seconds that count."""
        return self._clock() - self._began - self._out

    def paused(self, work: Callable[[], Any]) -> Any:
        """Return what `work` does, its time not counted."""
        began = self._clock()
        try:
            return work()
        finally:
            self._out += self._clock() - began


def in_turn(works: Mapping[str, Callable[[], Sequence[float]]], rounds: int) -> dict[str, list[float]]:
    """Do every piece of work `rounds` times, one after the other, so that all meet the same load.

    Parameters
    ----------
    works : mapping of str to callable
        Each returns seconds, one a repeat that it makes itself.
    rounds : int

    Returns
    -------
    dict
        All seconds by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name] += work()
    return seconds


def differences(moments: Sequence[float], skipped: int) -> list[float]:
    """Return the seconds between successive moments, without the first `skipped`."""
    return [b - a for a, b in zip(moments[skipped:], moments[skipped + 1 :], strict=False)]


def spread(seconds: Sequence[float]) -> Row:
    """Return median, least, most and number of repeats; None where nothing was measured."""
    if not seconds:
        return {"median": None, "low": None, "high": None, "repeats": 0}
    return {
        "median": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "repeats": len(seconds),
    }


def add_ratios(rows: Sequence[Row], baseline: str, value: str = "median", name: str = "times as fast") -> list[Row]:
    """Return rows with how many times as fast as the baseline each is.

    Parameters
    ----------
    rows : sequence of dict
        Each has ``name`` and `value`.
    baseline : str
        Name of a row; without it, or where either value is missing, a ratio is None.
    value : str
        The seconds that are compared.
    name : str
        Of the column.
    """
    against = next((row[value] for row in rows if row["name"] == baseline), None)
    return [row | {name: against / row[value] if against and row[value] else None} for row in rows]


def table_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return a table of these columns, the first one to the left; missing values are empty."""
    cells = [list(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    lines = []
    for first, *others in cells:
        padded = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def markdown_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return the same as a table in Markdown."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[_cell(row.get(column)).replace("|", "/") for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def conditions(**extra: Any) -> Row:
    """Return what the figures depend on beside the code: threads, cores, load and versions."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "threads": torch.get_num_threads(),
        "cores": cores,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **extra,
    }


def told(facts: Mapping[str, Any]) -> str:
    """Return conditions as one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def limit_memory(gib: float) -> float | None:
    """Bound this process's memory, so that a network that is too large for the machine fails by itself.

    Parameters
    ----------
    gib : float
        0 for three quarters of what is free; below 0 for no bound.

    Returns
    -------
    float or None
        The bound, GiB.
    """
    free = Path("/proc/meminfo")
    if gib < 0 or (gib == 0 and not free.is_file()):
        return None
    if gib == 0:
        line = next(line for line in free.read_text().splitlines() if line.startswith("MemAvailable"))
        gib = 0.75 * int(line.split()[1]) / 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30), resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return round(gib, 1)


def write_rows(out: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write rows as CSV where the file's name says so, else rows and conditions as JSON."""
    if out.suffix != ".csv":
        write_json(out, {"conditions": dict(facts), "rows": list(rows)})
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
