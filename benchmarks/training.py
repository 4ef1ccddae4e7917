"""Seconds of training beside MONAI's `3d_ldm` tutorial: a step, a sample, what each measure of speed is worth.

    python benchmarks/training.py [--cohorts NAME ...] [--parts NAME ...] [--steps N] [--rounds R] [--quick]
    python benchmarks/training.py --to-quality [--budget SECONDS] [--autoencoder-share T O] [--set KEY=VALUE ...]

Ours is `configs/hippocampus_mri.yaml`, the tutorial `baselines/tutorial.py`, both on the CPU. The cohort `hippocampus`
is prepared on the first call (SYNTHMED_DATA names where it is); `phantoms-64` and `phantoms-96` are procedural. A step
is a whole one: data, augmentation, loss, gradients, optimiser and average. The tutorial's discriminator, which joins
after 6 of 100 epochs, has a row of its own; ratios are to the step without it. Contenders are timed in turn.

With `--to-quality` both are trained from nothing for at most `--budget` seconds, `--autoencoder-share` of them in the
first stage; see `speed/quality.py`. `--set` changes our recipe, as a user with those seconds would.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from speed.cohorts import Cohort, hippocampus, phantoms
from speed.judging import REAL, distances_to_holdout, figure_text
from speed.measuring import CLOCKS, Clock, Row, clock_of, conditions, limit_memory, table_text, told, write_rows
from speed.quality import rows_of
from speed.racing import OURS, TUTORIAL, race_ours, race_tutorial
from speed.rows import ablation_rows, contender_rows

from synthmed.config import apply_overrides
from synthmed.errors import SynthmedError

COHORTS = ("hippocampus", "phantoms-64", "phantoms-96")
PARTS = ("contenders", "ablations")
PHANTOMS = (8, 4)
COLUMNS = (
    "name",
    "cohort",
    "stage",
    "batch",
    "median",
    "low",
    "high",
    "repeats",
    "s a sample",
    "times as fast",
    "note",
)
QUALITIES = ("name", "stage", "target", "seconds", "times as fast", "best", "steps", "KID [95 %]")
SHARES = (0.5, 0.15)
PSNR, RESTORED = (24.0, 26.0, 28.0), (0.3, 0.4, 0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = parse(arguments)
    clock = clock_of(options.clock)
    limited = limit_memory(options.memory)
    facts = conditions(
        seed=options.seed, clock=options.clock, rounds=options.rounds, steps=options.steps, memory_gib=limited
    )
    if options.to_quality:
        facts |= {"budget": options.budget, "autoencoder_share": options.autoencoder_share, "set": options.set}
    print(told(facts))
    try:
        wanted = options.cohorts[:1] if options.to_quality else options.cohorts
        cohorts = [open_cohort(name, options) for name in wanted]
        columns = QUALITIES if options.to_quality else COLUMNS
        run = partial(quality_rows, cohorts[0]) if options.to_quality else partial(speed_rows, cohorts)
        rows = run(options, clock)
    except SynthmedError as error:
        print(f"training.py: {error}", file=sys.stderr)
        return error.exit_code
    print(table_text(rows, columns))
    if options.json:
        write_rows(options.json, rows, facts)
    return 0


def open_cohort(name: str, options: argparse.Namespace) -> Cohort:
    """Return a cohort by its name."""
    if name == "hippocampus":
        return hippocampus(options.prepared, options.seed)
    side = int(name.partition("-")[2])
    return phantoms(side, *PHANTOMS, options.seed)


def speed_rows(cohorts: Sequence[Cohort], options: argparse.Namespace, clock: Clock) -> list[Row]:
    """Return the contenders' rows of every cohort, then the ablations' on the first one."""
    rows = []
    for cohort in cohorts if "contenders" in options.parts else ():
        rows += contender_rows(cohort, options.steps, options.rounds, clock)
    if "ablations" in options.parts:
        rows += ablation_rows(cohorts[0], options.steps, options.rounds, clock)
    return rows


def quality_rows(cohort: Cohort, options: argparse.Namespace, clock: Clock) -> list[Row]:
    """Return the seconds at which either contender reached each target, and the distance of what it drew."""
    (theirs, our), budget, volumes = options.autoencoder_share, options.budget, options.volumes
    ours = replace(cohort, config=apply_overrides(cohort.config, options.set))
    races = {
        TUTORIAL: race_tutorial(cohort, budget, theirs, volumes, options.tutorial_steps, clock),
        OURS: race_ours(ours, budget, our, volumes, clock),
    }
    drawn = {name: images for name, (_, _, images) in races.items()}
    figures = distances_to_holdout(drawn, cohort.train, cohort.holdout, options.seed)
    rows = rows_of({name: race[0] for name, race in races.items()}, options.psnr, "autoencoder", "dB")
    rows += rows_of({name: race[1] for name, race in races.items()}, options.restored, "denoiser", "restored")
    rows += [
        {"name": name, "stage": f"{options.volumes} volumes", "KID [95 %]": figure_text(figures[name])}
        for name in (*races, REAL)
    ]
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `--quick` takes small numbers and one cohort where nothing else was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", nargs="+", choices=COHORTS, help="all by default; --to-quality takes the first")
    parser.add_argument(
        "--prepared", type=Path, default=Path("runs/benchmark-hippocampus"), help="where it is prepared"
    )
    parser.add_argument("--steps", type=int, help="timed steps of each contender a round; default 10")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--to-quality", action="store_true")
    parser.add_argument("--budget", type=float, help="seconds of each contender; default 600")
    shares = {"nargs": 2, "type": float, "default": list(SHARES), "metavar": ("TUTORIAL", "OURS")}
    parser.add_argument("--autoencoder-share", **shares, help="of its budget; default 0.5 and 0.15")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of our recipe, in the race")
    parser.add_argument("--psnr", type=float, nargs="+", default=list(PSNR), help="targets of the autoencoder, dB")
    parser.add_argument("--restored", type=float, nargs="+", default=list(RESTORED), help="targets of the denoiser")
    parser.add_argument("--volumes", type=int, help="drawn at the end for their distance; default 32")
    parser.add_argument("--tutorial-steps", type=int, default=50, help="of its sampling: 1000 for DDPM, fewer for DDIM")
    parser.add_argument("--memory", type=float, default=0.0, help="GiB; default: three quarters of what is free")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds over threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few steps, one cohort: under two minutes")
    parser.add_argument("--json", type=Path, help="where to write the rows, as JSON or, by its name, CSV")
    options = parser.parse_args(arguments)
    if not all(0 < share < 1 for share in options.autoencoder_share):
        parser.error("--autoencoder-share lies between 0 and 1")
    full = {"cohorts": list(COHORTS), "steps": 10, "rounds": 3, "budget": 600.0, "volumes": 32}
    quick = {"cohorts": ["hippocampus"], "steps": 1, "rounds": 1, "budget": 16.0, "volumes": 4}
    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main())
