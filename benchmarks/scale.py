"""How seconds and memory of a run's stages grow with the number of volumes.

    python benchmarks/scale.py [--sizes 100 300 1000 3000 10000] [--stages prepare sample audit export]
        [--audit-sizes 30 100 300] [--side 24] [--clock process] [--quick] [--json FILE]

Every stage of every size is the product's own work in a process of its own, on phantoms of `--side` voxels along each
axis; prepare draws them, which is part of its seconds. ``sample`` draws from tiny models that are trained once, four
network evaluations a volume, none drawn again. ``audit`` compares as many samples with as many real scans, training and
held-out, and takes sizes of its own: it is the one whose cost grows with their product. ``export`` writes NIfTI with
every document, seals and verifies it; its approval stands on a made-up report, since models so small may fail.

The exponent is the slope of log seconds over log size, over all sizes and over the last two: 1 is linear. Where a fixed
part is large, as the audit's, it understates what large sizes take: a + b n + c n^2 is fitted beside it. MiB are the
largest resident set, and what of it was there before the stage began.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from speed.measuring import CLOCKS, Row, conditions, table_text, told, write_rows
from speed.scaling import LEAST_MODELS, NEEDS, do_stage, is_there, parts_at, power

from synthmed.errors import SynthmedError

STAGES = tuple(NEEDS)
SIZES, AUDIT_SIZES = (100, 300, 1_000, 3_000, 10_000), (30, 100, 300)
QUICK_SIZES, QUICK_AUDIT_SIZES = (20, 40), (20,)
COLUMNS = ("name", "volumes", "seconds", "ms a volume", "peak MiB", "of it before", "KiB a volume")
GOAL = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, fit and print."""
    options = _parser().parse_args(arguments)
    if options.one:
        stage, size, root = options.one
        try:
            print(json.dumps(do_stage(stage, int(size), Path(root), options.side, options.seed)))
        except SynthmedError as error:
            sys.exit(f"scale: {stage} of {size} volumes: {error}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(options, options.folder or Path(folder)))
    fits = [fit for stage in options.stages if (fit := fitted([row for row in rows if row["name"] == stage]))]
    facts = conditions(seed=options.seed, side=options.side, clock=options.clock)
    print(told(facts))
    print(table_text(rows, COLUMNS))
    for fit in fits:
        print(fit_text(fit))
    if options.json:
        write_rows(options.json, rows, facts | {"fits": fits})
    return 0


def measure(options: argparse.Namespace, root: Path) -> Iterator[Row]:
    """Yield a row for each stage and size, as they are measured."""
    wanted = dict.fromkeys(STAGES, options.sizes or (QUICK_SIZES if options.quick else SIZES))
    wanted["audit"] = options.audit_sizes or (QUICK_AUDIT_SIZES if options.quick else AUDIT_SIZES)
    _once("models", LEAST_MODELS, root, options)
    for stage in options.stages:
        for size in wanted[stage]:
            for needed in NEEDS[stage]:
                _once(needed, size, root, options)
            row = row_of(stage, size, run_apart(stage, size, root, options), options.clock)
            print(f"{stage}: {size} in {row['seconds']:.3g} s, {row['peak MiB']} MiB", file=sys.stderr, flush=True)
            yield row


def run_apart(stage: str, size: int, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Do a stage in a process of its own and return what it measured; end where that process has said why it failed."""
    words = ["--side", str(options.side), "--seed", str(options.seed), "--one", stage, str(size), str(root)]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(stage: str, size: int, found: dict[str, Any], clock: str) -> Row:
    """Return the figures of one stage at one size."""
    return {
        "name": stage,
        "volumes": size,
        "seconds": found[clock],
        "ms a volume": 1000 * found[clock] / size,
        "peak MiB": found["peak"],
        "of it before": found["before"],
        "KiB a volume": 1024 * (found["peak"] - found["before"]) / size,
    }


def fitted(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return how a stage's seconds and its own memory grow, and what they come to at `GOAL`; None for one size."""
    sizes, seconds = [row["volumes"] for row in rows], [row["seconds"] for row in rows]
    exponent = power(sizes, seconds)
    if exponent is None:
        return None
    last = power(sizes[-2:], seconds[-2:])
    grown, volumes = rows[-1]["peak MiB"] - rows[-2]["peak MiB"], sizes[-1] - sizes[-2]
    return {
        "name": rows[0]["name"],
        "exponent": exponent,
        "last exponent": last,
        "more KiB a volume": 1024 * grown / volumes if volumes else None,
        "largest": sizes[-1],
        "seconds at the goal": seconds[-1] * (GOAL / sizes[-1]) ** (last or exponent),
        "fixed, linear, quadratic": parts_at(sizes, seconds, GOAL),
    }


def fit_text(fit: dict[str, Any]) -> str:
    """Return a fit as one line."""
    text = f"{fit['name']}: exponent {fit['exponent']:.2f}, {fit['last exponent'] or 0:.2f} between the last two sizes"
    if fit["more KiB a volume"] is not None:
        text += f", where each volume more takes {fit['more KiB a volume']:.0f} KiB"
    if fit["largest"] < GOAL:
        text += f"; by the latter {GOAL} would take {fit['seconds at the goal'] / 3600:.2g} hours"
        if parts := fit["fixed, linear, quadratic"]:
            text += f", by a + b n + c n^2 {sum(parts) / 3600:.2g}, of which c n^2 {parts[2] / 3600:.2g}"
    return text


def _once(stage: str, size: int, root: Path, options: argparse.Namespace) -> None:
    if not is_there(stage, size, root):
        run_apart(stage, size, root, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help=f"volumes; default {' '.join(map(str, SIZES))}")
    parser.add_argument("--audit-sizes", type=int, nargs="+", help=f"default {' '.join(map(str, AUDIT_SIZES))}")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--side", type=int, default=24, help="voxels along each axis, a multiple of 8; default 24")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds, all threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small sizes, under two minutes")
    parser.add_argument("--folder", type=Path, help="where the runs lie, and stay; default: a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
