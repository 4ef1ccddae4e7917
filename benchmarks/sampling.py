"""Seconds and network evaluations a volume: a model's own sampler beside DDPM-1000 and DDIM-50 on the same model.

    python benchmarks/sampling.py RUN [--prepared DIR] [--volumes N] [--steps N ...] [--batch N] [--quick] [--json FILE]

RUN is the directory of a trained run, or a pretrained model such as hippocampus-mri. All samplers draw batches of the
same size, in turn, from the same noise; DDPM-1000 draws `--ddpm-batches` of them, two by default, and the table says on
how many volumes its figures stand. Decoding, with the finish, is timed apart. With held-out patients at hand (the run's
own, or `--prepared`, what `synthmed prepare` wrote) each set's kernel distance to them stands beside that of training
scans; no draw is screened or drawn again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from speed.drawing import DDIM, DDPM, Batch, Models, contenders, decode, draw, open_models
from speed.judging import REAL, distances_to_holdout, figure_text
from speed.measuring import CLOCKS, Clock, Row, add_ratios, clock_of, conditions, spread, table_text, told, write_rows

from synthmed.errors import SynthmedError
from synthmed.prepare.prepared import load_split

COLUMNS = ("name", "evaluations", "s a volume", "low", "high", "volumes", "x DDPM-1000", "x DDIM-50", "KID [95 %]")
LEAST = 16
"""Volumes, below which a kernel distance says nothing."""
QUICK = {"volumes": 2, "batch": 2, "ddpm_batches": 1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, time, compare and print."""
    options = parse(arguments)
    try:
        models = open_models(options.run)
        folder = options.prepared or models.prepared
        splits = None if folder is None else (load_split(folder, "train"), load_split(folder, "holdout"))
    except SynthmedError as error:
        print(f"sampling.py: {error}", file=sys.stderr)
        return error.exit_code
    clock = clock_of(options.clock)
    batches = draw_in_turn(models, options, clock)
    images, decoding = decode_all(models, batches, clock)
    enough = {name: part for name, part in images.items() if len(part) >= LEAST}
    figures = distances_to_holdout(enough, *splits, seed=models.seed) if splits and enough else {}
    rows = rows_of(batches, {name: figure_text(figure) for name, figure in figures.items()})
    facts = conditions(model=options.run, seed=models.seed, batch=options.batch, clock=options.clock)
    decoded = spread(decoding)
    print(told(facts))
    print(table_text(rows, COLUMNS))
    print(f"decoding and finish: {decoded['median']:.4g} s a volume, median of {decoded['repeats']}")
    print(
        f"KID of {REAL}: {figure_text(figures[REAL])}"
        if figures
        else f"no KID: no held-out patients, or under {LEAST} volumes"
    )
    count = sum(len(batch.seeds) for batch in batches.get(DDPM, []))
    print(f"{DDPM} is measured on {count} volumes" if count else f"{DDPM} was left out")
    if options.json:
        write_rows(options.json, rows, facts | {"decoding": decoded, "KID of training scans": figures.get(REAL)})
    return 0


def draw_in_turn(models: Models, options: argparse.Namespace, clock: Clock) -> dict[str, list[Batch]]:
    """Return the batches of every contender; all draw the same volumes, DDPM-1000 only the first ones."""
    ways = contenders(models.sampling, options.steps)
    if not options.ddpm_batches:
        del ways[DDPM]
    batches: dict[str, list[Batch]] = {name: [] for name in ways}
    first = next(iter(ways.values()))
    draw(models, first.model_copy(update={"num_inference_steps": 1}), options.batch, 0, clock)  # first calls are slow
    for number in range(-(-options.volumes // options.batch)):
        for name, sampling in ways.items():
            if name != DDPM or number < options.ddpm_batches:
                batches[name].append(draw(models, sampling, options.batch, number * options.batch, clock))
    return batches


def decode_all(
    models: Models, batches: dict[str, list[Batch]], clock: Clock
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Return each contender's images and the seconds of every decoding."""
    images, seconds = {}, []
    for name, drawn in batches.items():
        parts = [decode(models, batch, clock) for batch in drawn]
        images[name] = torch.cat([part for part, _ in parts])
        seconds += [value for _, values in parts for value in values]
    return images, seconds


def rows_of(batches: dict[str, list[Batch]], distances: dict[str, str]) -> list[Row]:
    """Return one row a contender, with how many times as fast as either standard it is."""
    rows = []
    for name, drawn in batches.items():
        seconds = spread([batch.seconds for batch in drawn])
        rows.append(
            {
                "name": name,
                "evaluations": drawn[0].evaluations,
                "s a volume": seconds["median"],
                "low": seconds["low"],
                "high": seconds["high"],
                "volumes": sum(len(batch.seeds) for batch in drawn),
                "KID [95 %]": distances.get(name, ""),
            }
        )
    for standard in (DDPM, DDIM):
        rows = add_ratios(rows, standard, "s a volume", f"x {standard}")
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `--quick` lowers what was not asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a trained run, or a pretrained model")
    parser.add_argument("--prepared", type=Path, help="what `synthmed prepare` wrote; default: the run's own")
    parser.add_argument("--volumes", type=int, help="of each sampler but DDPM-1000; default 64")
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="of the model's own sampler, beside its own")
    parser.add_argument("--batch", type=int, help="volumes that are drawn together; default 8")
    parser.add_argument("--ddpm-batches", type=int, help="default 2; 0 leaves it out")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds over threads")
    parser.add_argument("--quick", action="store_true", help="a batch of two volumes a sampler, under two minutes")
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else {"volumes": 64, "batch": 8, "ddpm_batches": 2}).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main())
