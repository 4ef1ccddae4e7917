"""Variants of a recipe at an equal budget of seconds: held-out loss, distance to held-out scans, and utility.

    python benchmarks/ablations.py RUN [--variants NAME ...] [--seconds S] [--seeds N ...] [--utility] [--out DIR]
    python benchmarks/ablations.py RUN --try NAME KEY=VALUE ... --variants base NAME
    python benchmarks/ablations.py RUN --trained --variants base steps_10 guidance_3

RUN holds a prepared cohort and its trained autoencoder. Every variant changes RUN's configuration as `--set` would. Its
denoiser trains for S seconds of steps, timed beforehand; the autoencoder is RUN's own unless the variant changes it.
Variants that only sample otherwise share a denoiser; with --trained it is RUN's own, of its whole budget. What is on
disk is not made again. The table is written as Markdown, for benchmarks/ablations.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from baselines.judging import segmenter_scores, utility_of
from baselines.source import Source, open_source
from baselines.tables import distance_figures
from baselines.variants import VARIANTS, Trial, measure_variant

from synthmed.errors import ConfigError, SynthmedError
from synthmed.evaluation.cases import real_cases
from synthmed.files import read_json, write_json, write_text

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure the variants; print and write the table."""
    options = _parser().parse_args(arguments)
    try:
        variants = choose_variants(options.variants, options.tried or [])
        check_overrides(options.overrides)
        stages = ("prepare", "autoencoder", *(["denoiser"] if options.trained else []))
        source = open_source(options.run, stages, options.overrides)
        steps = source.run.config.evaluation.segmenter_steps if options.utility else 0
        trial = Trial(None if options.trained else options.seconds, options.samples, steps)
        out = options.out or Path("runs/ablations") / source.run.root.name
        results = run_variants(source, variants, options.seeds, trial, out, progress=not options.no_progress)
    except SynthmedError as error:
        print(f"ablations.py: {error}", file=sys.stderr)
        return error.exit_code
    text = markdown(variants, results, trial, options.seeds)
    write_text(out / "ablations.md", f"{text}\n")
    print(f"\n{text}\n\nwritten to {out / 'ablations.md'}")
    return 0


def choose_variants(names: Sequence[str] | None, tried: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return overrides by name, `tried` ones after those of the table.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    known = {**VARIANTS, **{name: tuple(overrides) for name, *overrides in tried}}
    wanted = list(names) if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError("There is no such variant", found=unknown[0], expected=", ".join(known))
    return {name: known[name] for name in wanted}


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse common changes of the autoencoder, which RUN has trained already."""
    wrong = [override for override in overrides if override.strip().startswith("autoencoder")]
    if wrong:
        raise ConfigError(
            f"--set {wrong[0]} is too late: the run's autoencoder is trained",
            next_step=f"Make a variant of it: --try NAME {wrong[0]}",
        )


def run_variants(
    source: Source,
    variants: Mapping[str, tuple[str, ...]],
    seeds: Sequence[int],
    trial: Trial,
    out: Path,
    *,
    progress: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Measure every variant with every seed; one that does not fit or cannot be drawn is told and left out."""
    results: dict[str, list[dict[str, Any]]] = {}
    real = {seed: real_scores(source, seed, trial, out, progress=progress) for seed in seeds}
    for name, overrides in variants.items():
        if name.startswith("guidance") and not _has_conditions(source):
            print(f"{name}: left out, the run has no conditions", flush=True)
            continue
        try:
            measured = [measure_variant(source, overrides, seed, trial, out, progress=progress) for seed in seeds]
        except SynthmedError as error:
            print(f"{name}: left out, {error}", flush=True)
            continue
        for seed, result in zip(seeds, measured, strict=True):
            if trial.segmenter_steps:
                result["utility"] = utility_of(result["scores"], real[seed], source.holdout.subject_ids, seed)
        results[name] = measured
        write_json(out / "results" / f"{name}.json", {"seeds": list(seeds), "results": measured})
        print(f"{name}: held-out loss {_spread([r['loss'] for r in measured], 4)}", flush=True)
    return results


def real_scores(source: Source, seed: int, trial: Trial, out: Path, *, progress: bool) -> Any:
    """Return Dice of the segmenter that was trained on real scans, learned once; None without utility."""
    if not trial.segmenter_steps:
        return None
    file = out / "real" / f"{trial.segmenter_steps}-{seed}.json"
    if not file.is_file():
        cases, shown = real_cases(source.train), "real" if progress else ""
        scores = segmenter_scores(source, cases, [seed], trial.segmenter_steps, progress=shown)
        write_json(file, {"scores": scores})
    return read_json(file)["scores"]


def markdown(variants: Mapping[str, tuple[str, ...]], results: Results, trial: Trial, seeds: Sequence[int]) -> str:
    """Return the table: one row a variant, means over seeds with the lowest and the highest."""
    if not results:
        return "No variant could be measured."
    floors = dict(_figures(next(iter(results.values()))[0]))
    figures = [name for name in floors if not name.endswith("_floor")]
    head = ["variant", "changes", "steps", "held-out loss (training)", "PSNR, dB"]
    head += [name.replace("_", " ", 1).replace("_", " ") for name in figures]
    if trial.segmenter_steps:
        head.append("Dice, share of real")
    lines = [head, ["---"] * len(head)]
    lines += [_row(name, variants[name], measured, figures) for name, measured in results.items()]
    floor = [f"{floors[f'{name}_floor']:.2f}" for name in figures]
    lines.append(["real scans", "", "", "", "", *floor, *(["1"] if trial.segmenter_steps else [])])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    budget = "The run's own denoiser" if trial.seconds is None else f"{trial.seconds:g} s of the denoiser's steps"
    told = (
        f"{budget}, {trial.samples} volumes, seeds {', '.join(map(str, seeds))}"
        f"{'; mean (lowest to highest)' if len(seeds) > 1 else ''}. * Another path, prediction or latent: the loss"
        " does not compare."
    )
    return f"{table}\n\n{told}"


def _row(
    name: str, overrides: tuple[str, ...], measured: Sequence[Mapping[str, Any]], figures: Sequence[str]
) -> list[str]:
    alone = any(override.startswith(("diffusion.", "autoencoder")) for override in overrides)
    loss = f"{_spread([m['loss'] for m in measured], 4)}{'*' if alone else ''}"
    gap = _spread([m["training_loss"] for m in measured], 4)
    cells = [name, ", ".join(f"`{o}`" for o in overrides), str(measured[0]["steps"]), f"{loss} ({gap})"]
    cells.append("" if measured[0]["psnr"] is None else f"{measured[0]['psnr']:.1f}")
    cells += [_spread([dict(_figures(m))[figure] for m in measured], 2) for figure in figures]
    if "utility" in measured[0]:
        ratios = [m["utility"]["ratio"] for m in measured]
        cells.append("n/a" if None in ratios else _spread([ratio["value"] for ratio in ratios], 3))
    return cells


def _figures(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return what the columns show, each with the real scans' own as ``<name>_floor``."""
    followed = [
        (f"{covariate} {measure}{end}", found[role][measure]["value"])
        for covariate, found in result.get("conditions", {}).items()
        for measure in ("correlation", "slope", "auc")
        for end, role in (("", "synthetic"), ("_floor", "holdout"))
        if measure in found.get(role, {})
    ]
    return [*distance_figures(result["fidelity"]), *followed]


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _has_conditions(source: Source) -> bool:
    conditioning = source.run.config.conditioning
    return bool(conditioning.classes or conditioning.scalars)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run whose autoencoder is trained")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help=f"of {', '.join(VARIANTS)}; all by default")
    parser.add_argument("--try", dest="tried", nargs="+", action="append", metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], metavar="KEY=VALUE", help="in every variant")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=300.0, help="of the denoiser's steps; default 300")
    budget.add_argument("--trained", action="store_true", help="train nothing: RUN's own denoiser")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--utility", action="store_true", help="also train segmenters")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("--out", type=Path, help="default: runs/ablations/NAME")
    return parser


if __name__ == "__main__":
    sys.exit(main())
