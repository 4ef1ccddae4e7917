"""What a device makes of training and sampling: seconds, peak memory and the share of what it can do at best.

    python benchmarks/device.py [--device cuda] [--sides 128 256] [--precisions NAME ...] [--modes NAME ...]
        [--tasks NAME ...] [--repeats N] [--networks NAME] [--table FILE] [--json FILE]

Every row is a process of its own: a step of the autoencoder's training on whole volumes, a step of the denoiser's on
latents of such volumes, or a volume drawn from noise to its finish. `whole` draws with a decoding in one piece, on
grids that the product decodes in tiles. A row without figures says why. Networks are those that `synthmed plan`
proposes for the device, of random weights, with labels of two structures; scans and latents are noise. The product
itself samples in float32 and compiles nothing: rows in bf16-mixed (under autocast) and compiled rows say what these
would be worth.

The roof is measured in the row's precision and process: the faster of a large matrix product and a large convolution.
`--clock process` does not see the compilers that a compiled row starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from speed.measuring import CLOCKS, Row, conditions, limit_memory, markdown_text, told, write_rows
from speed.running import MODES, NETWORKS, PRECISIONS, TASKS, Cell, run_cell

from synthmed.config import WHOLE_VOXELS
from synthmed.errors import SynthmedError
from synthmed.models.devices import resolve_device

FIGURES = ("s", "samples/s", "peak MiB", "TFLOP", "TFLOP/s", "share", "compile s")
COLUMNS = ("task", "side", "precision", "mode", *FIGURES, "note")
MAISI: Row = {
    "task": "sampling, MAISI as published",
    "side": 256,
    "s": 8.0,
    "samples/s": 1 / 8,
    "peak MiB": round(15.4e9 / 2**20),
    "note": "A100 80G, 30 steps: denoising 3 s, decoding 5 s in 4 windows; whole 2 s and 22.7 GB",
}
SOURCE = (
    "MAISI's row is what its authors publish of its rectified-flow model (arXiv 2409.11169 and 2508.05772; "
    "`docs/performance.md` of github.com/NVIDIA-Medtech/NV-Generate-CTMR, 15.4 G taken as 10^9 bytes): of their A100, "
    "their networks and their number of steps, without a finish. Seconds on another device or after other steps are no "
    "ratio of methods."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print each row as it comes, and keep what was measured so far."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parse(words)
    if options.one:
        cell = Cell(**json.loads(options.one))
        if resolve_device(cell.device) == "cpu":
            limit_memory(options.memory)
        print(json.dumps(run_cell(cell)))
        return 0
    try:
        device = resolve_device(options.device)
    except SynthmedError as error:
        print(f"device.py: {error}", file=sys.stderr)
        return error.exit_code
    facts = conditions(date=date.today().isoformat(), device=device, seed=options.seed, clock=options.clock)
    facts |= {"networks": options.networks, "batch": options.batch, "repeats": options.repeats}
    rows: list[Row] = []
    for cell in cells(options, device):
        rows.append(run_apart(cell, options))
        facts["device"] = rows[-1].get("device name") or facts["device"]
        print(markdown_text(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
        if options.json:
            write_rows(options.json, rows, facts)
        if options.table:
            options.table.write_text(report(rows, facts, words), encoding="utf-8")
    print("\n" + report(rows, facts, words), end="")
    return 0


def cells(options: argparse.Namespace, device: str) -> Iterator[Cell]:
    """Yield what is to be measured; `whole` only where the product decodes in tiles."""
    for side, task, precision, mode in product(options.sides, options.tasks, options.precisions, options.modes):
        if task != "whole" or side**3 > WHOLE_VOXELS:
            sizes = {"batch": options.batch, "repeats": options.repeats, "seed": options.seed}
            yield Cell(task, side, precision, mode, device, options.networks, clock=options.clock, **sizes)


def run_apart(cell: Cell, options: argparse.Namespace) -> Row:
    """Measure in a process of its own, compiling everything anew; a process that dies leaves a row with the reason."""
    words = [sys.executable, __file__, "--memory", str(options.memory), "--one", json.dumps(asdict(cell))]
    with tempfile.TemporaryDirectory() as folder:
        surroundings = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder}
        try:
            done = subprocess.run(words, capture_output=True, text=True, env=surroundings, timeout=options.limit)
        except subprocess.TimeoutExpired:
            return asdict(cell) | {"note": f"not done within {options.limit:g} s"}
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "")
        why = "killed, as for want of memory" if done.returncode < 0 else last
        return asdict(cell) | {"note": f"its process ended with {done.returncode}: {why}"}
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def report(rows: Sequence[Row], facts: Row, words: Sequence[str]) -> str:
    """Return a dated table in Markdown with the device named, beside what MAISI's authors publish."""
    others = told({name: value for name, value in facts.items() if name not in ("device", "date")})
    lines = [
        f"## {facts['device']}, {facts['date']}",
        f"`python benchmarks/device.py {shlex.join(words)}`: {others}.",
        markdown_text([*rows, MAISI], COLUMNS),
        "s: median of the repeats, of a step or a volume; peak: of tensors on CUDA, growth of the resident set on the "
        "CPU, what the driver holds at the end on MPS; TFLOP: of matrix products, convolutions and attention; share: "
        "of what the device reached in the same precision and process, by the faster of a large matrix product and a "
        "large convolution.",
        SOURCE,
    ]
    return "\n\n".join(lines) + "\n"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--sides", nargs="+", type=int, default=[128, 256], help="voxels a side; multiples of 8")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--networks", choices=("planned", *NETWORKS), default="planned", help="small: as shipped")
    parser.add_argument("--batch", type=int, default=1, help="cases of a training step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds of a row")
    parser.add_argument("--memory", type=float, default=0.0, help="GiB on the CPU; default: 3/4 of what is free")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds over threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="where to write the dated table, in Markdown")
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
