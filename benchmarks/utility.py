"""Utility against privacy: a run's synthetic volumes beside other ways to a set of labelled volumes, on one judge.

    python benchmarks/utility.py RUN [--methods NAME ...] [--budget SECONDS|auto] [--out DIR] [--quick]

RUN is the directory of a finished run. Every method learns from RUN's training patients, makes as many volumes as RUN
generated, and is judged on RUN's held-out patients: a segmenter trained on its volumes and tested on real ones,
distances to real ones, and the audit. A method that is finished is not run again. `audit/` in a method's folder
names patients: it stays home.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from baselines.generative import TutorialSettings, check_tutorial, make_synthmed, make_tutorial
from baselines.judging import fidelity_of, privacy_of, segmenter_scores, utility_of
from baselines.plotting import draw
from baselines.simple import make_augmentation, make_copies, make_noise
from baselines.source import Source, open_source, share_budget
from baselines.tables import method_row, table_text, write_csv

from synthmed.errors import ConfigError, SynthmedError
from synthmed.evaluation.cases import Cases, real_cases, synthetic_cases
from synthmed.files import read_json, write_json
from synthmed.sampling.generated import volume_name

METHODS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "synthmed": make_synthmed,
    "tutorial": make_tutorial,
    "augmentation": make_augmentation,
    "copies": make_copies,
    "noise": make_noise,
}
TUTORIAL_STEPS = 50
QUICK_BUDGET = 30.0
QUICK_SEGMENTER_STEPS = 60
QUICK_TUTORIAL_STEPS = 20


@dataclass(frozen=True)
class Settings:
    """What decides every figure beside the run itself; kept in the output, which other settings must not enter.

    Attributes
    ----------
    seed : int
        Of the sets and of the audit; the segmenters take it and the next ones.
    seconds : mapping of str to float
        The tutorial's budget a stage; see `baselines.tutorial.Budget`.
    tutorial_steps : int
        Of its sampling.
    segmenter_steps, segmenter_seeds : int
    """

    seed: int
    seconds: Mapping[str, float]
    tutorial_steps: int
    segmenter_steps: int
    segmenter_seeds: int

    @property
    def seeds(self) -> range:
        """Return the segmenters' seeds."""
        return range(self.seed, self.seed + self.segmenter_seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make and judge the sets; print, write and draw what was found."""
    options = _parser().parse_args(arguments)
    try:
        source = open_source(options.run)
        settings = choose_settings(source, options)
        if "tutorial" in options.methods:
            check_tutorial(source.space.grid, settings.tutorial_steps)
        out = options.out or Path("runs/utility") / f"{source.run.root.name}{'-quick' if options.quick else ''}"
        claim(out, source, settings)
        rows, real = compare_methods(source, settings, options.methods, out, progress=not options.no_progress)
    except SynthmedError as error:
        print(f"utility.py: {error}", file=sys.stderr)
        return error.exit_code
    report(rows, real, out, source)
    return 0


def choose_settings(source: Source, options: argparse.Namespace) -> Settings:
    """Return the run's own settings, changed where the command line says so.

    Raises
    ------
    ConfigError
        If the run leaves segmenters out.
    """
    evaluation = source.run.config.evaluation
    if not evaluation.segmenter_steps:
        raise ConfigError("The run measures no utility", found="evaluation.segmenter_steps = 0")
    budget = options.budget
    steps, seeds = evaluation.segmenter_steps, evaluation.segmenter_seeds
    if options.quick:
        own = sum(share_budget(source.seconds, None).values())
        budget = min(own, QUICK_BUDGET) if budget is None else budget
        steps, seeds = min(steps, QUICK_SEGMENTER_STEPS), 1
    return Settings(
        seed=source.run.config.seed if options.seed is None else options.seed,
        seconds={name: round(value, 1) for name, value in share_budget(source.seconds, budget).items()},
        tutorial_steps=options.tutorial_steps or (QUICK_TUTORIAL_STEPS if options.quick else TUTORIAL_STEPS),
        segmenter_steps=steps,
        segmenter_seeds=options.segmenter_seeds or seeds,
    )


def claim(out: Path, source: Source, settings: Settings) -> None:
    """Take `out` for these settings, or make sure that it was begun with the same ones.

    Raises
    ------
    ConfigError
        If it was begun with others.
    """
    file = out / "settings.json"
    wanted = {"inputs": dict(source.inputs), "volumes": source.count, **asdict(settings)}
    if not file.is_file():
        write_json(file, wanted)
        return
    begun = read_json(file)
    differing = [key for key in wanted if begun.get(key) != wanted[key]]
    if differing:
        raise ConfigError(
            f"{out} was begun with another {differing[0]}",
            found=str(begun.get(differing[0])),
            expected=str(wanted[differing[0]]),
            next_step="Choose another --out, or remove this one",
        )


def compare_methods(
    source: Source, settings: Settings, methods: Sequence[str], out: Path, *, progress: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make and judge each method's set, going on where a former call stopped.

    Returns
    -------
    rows : list of dict
        One a method.
    real : dict
        Dice of the segmenters that were trained on the training scans.
    """

    def learn(read: Callable[[], Cases], caption: str) -> dict[str, Any]:
        shown = caption if progress else ""
        return {"scores": segmenter_scores(source, read(), settings.seeds, settings.segmenter_steps, progress=shown)}

    patients, seed = source.holdout.subject_ids, settings.seed
    real = once(out / "real" / "segmenter.json", partial(learn, lambda: real_cases(source.train), "real"))["scores"]
    rows = []
    for name in methods:
        folder = out / name
        made = once(folder / "made.json", partial(make, source, settings, name, folder, progress))
        read = partial(synthetic_cases, folder, source.space)
        scores = once(folder / "segmenter.json", partial(learn, read, name))["scores"]
        audit = partial(privacy_of, source, folder, folder / "audit", seed, progress=progress)
        measured = {
            "utility": utility_of(scores, real, patients, seed),
            "fidelity": once(folder / "fidelity.json", partial(fidelity_of, source, folder, seed)),
            "privacy": once(folder / "privacy.json", audit),
        }
        rows.append(method_row(name, made, measured))
        print(f"{name}: {measured['privacy']['verdict']}, Dice {measured['utility']['dice']['value']:.3f}", flush=True)
    return rows, utility_of(real, real, patients, settings.seed)["dice"]


def make(source: Source, settings: Settings, name: str, folder: Path, progress: bool) -> dict[str, Any]:
    """Make a method's set and return what it took, its volumes counted."""
    began = time.monotonic()
    extra = {}
    if name == "tutorial":
        extra = {"settings": TutorialSettings(settings.seconds, settings.tutorial_steps), "progress": progress}
    facts = METHODS[name](source, folder, settings.seed, **extra)
    seconds = time.monotonic() - began
    if name == "synthmed":
        seconds = sum(source.seconds[stage] for stage in ("autoencoder", "denoiser", "generate"))
    names = {file.name for file in (folder / "images").glob("*.nii.gz")}
    missing = {f"{volume_name(index)}.nii.gz" for index in range(source.count)} - names
    if missing:
        raise ConfigError(f"{folder} lacks volumes", found=f"no {min(missing)}", next_step="Remove it, and run again")
    return facts | {"count": len(names), "seconds": round(seconds, 1)}


def once(file: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `file` holds, after doing the work that it records where it is not there yet."""
    if not file.is_file():
        write_json(file, work())
    return read_json(file)


def report(rows: list[dict[str, Any]], real: dict[str, Any], out: Path, source: Source) -> None:
    """Print the table, write it as CSV and JSON, and draw the plot."""
    print(f"\n{table_text(rows, real)}")
    write_csv(rows, out / "utility.csv")
    write_json(out / "utility.json", {"real": real, "methods": rows, "settings": read_json(out / "settings.json")})
    title = f"{source.run.config.name}: {source.count} volumes a method, {len(source.holdout.images)} held-out scans"
    draw(rows, out / "utility.png", title)
    print(f"\nwritten to {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seed", type=int, help="default: the run's")
    parser.add_argument("--budget", type=_budget, help="seconds of training, or auto: the run's own (default)")
    parser.add_argument("--tutorial-steps", type=int, help="of sampling: 1000 for DDPM, fewer for DDIM (default 50)")
    parser.add_argument("--segmenter-seeds", type=int, help="default: the run's")
    parser.add_argument(
        "--quick", action="store_true", help="short trainings: about 5 minutes on phantoms on two cores"
    )
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("--out", type=Path, help="default: runs/utility/NAME")
    return parser


def _budget(text: str) -> float | None:
    return None if text == "auto" else float(text)


if __name__ == "__main__":
    sys.exit(main())
