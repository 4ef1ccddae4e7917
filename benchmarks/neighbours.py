"""The audit's searches for neighbours beside the naive loop: seconds, peak memory, and whether neighbours are the same.

    python benchmarks/neighbours.py [--quick] [--sizes QxG ...] [--searches NAME ...] [--json FILE]

Each search runs in a process of its own. ``nearest`` is what linkability, inference and attribute inference use,
``candidates`` what the embedding proposes for registration. The naive loop looks at one query at a time with numpy; its
seconds are scaled from `--naive` queries, on which the neighbours are compared. The target, for 10,000 queries in
100,000: at most 5 minutes and 4 GiB. The coarse search that goes with `candidates` correlates volumes over poses, not
vectors, and is not in here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from speed.measuring import CLOCKS, Row, add_ratios, conditions, spread, table_text, told, write_rows
from speed.searching import Cell, run_cell

SEARCHES = ("nearest", "candidates")
SIZES = tuple((q, g) for q in (1_000, 10_000) for g in (1_000, 10_000, 100_000))
QUICK_SIZES = ((200, 1_000), (200, 5_000))
TARGET = {"queries": 10_000, "gallery": 100_000, "seconds": 300.0, "gib": 4.0}
COLUMNS = ("name", "queries", "gallery", "seconds", "peak MiB", "of it data", "naive s", "times as fast", "identical")


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, compare and print; 1 where a neighbour differs."""
    options = _parser().parse_args(arguments)
    if options.cell:
        print(json.dumps(run_cell(Cell(**json.loads(options.cell)), options.found)))
        return 0
    rows = [row for name in options.searches for row in measure(name, options)]
    facts = conditions(seed=options.seed, dimension=options.dimension, clock=options.clock, runs=options.runs)
    print(told(facts))
    print(table_text(rows, COLUMNS))
    print(f"the naive loop: {options.naive} queries, scaled; seconds are medians of {options.runs}")
    print(verdict(rows))
    if options.json:
        write_rows(options.json, rows, facts)
    return 0 if all(row["identical"] for row in rows) else 1


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """Return one row a size for one search."""
    rows = []
    for queries, gallery in options.sizes or (QUICK_SIZES if options.quick else SIZES):
        cell = Cell(name, "audit", queries, gallery, options.dimension, queries, options.seed)
        naive = replace(cell, way="naive", asked=min(options.naive, queries))
        with tempfile.TemporaryDirectory() as folder:
            pairs = [[run_apart(c, Path(folder)) for c in (cell, naive)] for _ in range(options.runs)]
        rows.append(row_of([a for a, _ in pairs], [b for _, b in pairs], options.clock))
        print(f"{name}: {queries} in {gallery} done", file=sys.stderr, flush=True)
    return rows


def run_apart(cell: Cell, folder: Path) -> dict[str, Any]:
    """Search in a process of its own and return what it measured, with the neighbours as ``found``."""
    file = folder / f"{cell.way}.npy"
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--found", str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"found": np.load(file)}


def row_of(audit: Sequence[dict[str, Any]], naive: Sequence[dict[str, Any]], clock: str) -> Row:
    """Return the figures of one search at one size.

    Parameters
    ----------
    audit, naive : sequence of dict
        What `run_apart` returned, run by run.
    clock : {"wall", "process"}
    """
    first, plain = audit[0], naive[0]
    ours = spread([run[clock] for run in audit])
    theirs = spread([run[clock] * run["queries"] / run["asked"] for run in naive])
    pair = add_ratios([{"name": "audit", **ours}, {"name": "naive", **theirs}], "naive")
    return {
        "name": first["search"],
        "queries": first["queries"],
        "gallery": first["gallery"],
        "seconds": ours["median"],
        "peak MiB": max(run["peak"] for run in audit),
        "of it data": max(run["before"] for run in audit),
        "naive s": theirs["median"],
        "naive peak MiB": max(run["peak"] for run in naive),
        "naive queries": plain["asked"],
        "times as fast": pair[0]["times as fast"],
        "identical": all(same(a, b) for a, b in zip(audit, naive, strict=True)),
    }


def same(audit: dict[str, Any], naive: dict[str, Any]) -> bool:
    """Say whether the queries that the naive loop looked at have the very same neighbours."""
    return np.array_equal(audit["found"][: naive["asked"]], naive["found"])


def verdict(rows: Sequence[Row]) -> str:
    """Say whether the target is met, for each search that was measured at its size."""
    lines = []
    for row in rows:
        if (row["queries"], row["gallery"]) == (TARGET["queries"], TARGET["gallery"]):
            met = row["seconds"] <= TARGET["seconds"] and row["peak MiB"] <= 1024 * TARGET["gib"]
            lines.append(f"{row['name']}: the target of 5 minutes and 4 GiB is {'met' if met else 'missed'}")
    return "\n".join(lines) or "the target's size was not measured"


def parse_size(text: str) -> tuple[int, int]:
    """Read ``1000x100000``: queries and gallery."""
    queries, _, gallery = text.partition("x")
    return int(queries), int(gallery)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=parse_size, nargs="+", metavar="QxG", help="queries x gallery")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--naive", type=int, default=100, help="queries of the naive loop; default 100")
    parser.add_argument("--runs", type=int, default=1, help="of each search; the median counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds, all threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small sizes, under two minutes")
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
