"""The verbs that plan, run and continue a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli import completion
from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.cli.common import (
    Covariates,
    Images,
    Labels,
    Modality,
    Quiet,
    RunDir,
    Set,
    Source,
    Subjects,
    Target,
    cohort,
    is_cohort,
    say,
    stages,
)
from synthmed.cli.pretrained import (
    Conditions,
    PretrainedModel,
    SampleFolder,
    SampleSeed,
    check_options_of_a_run,
    draw_pretrained,
)
from synthmed.errors import ConfigError
from synthmed.words import counted


@app.command()
def plan(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path("config.yaml"),
    images: Images = None,
    labels: Labels = None,
    subjects: Subjects = None,
    covariates: Covariates = None,
    modality: Modality = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Propose a configuration for a cohort.

    It fits the scans and this machine's memory and cores.

    Example: synthmed plan scans/ --images imagesTr --labels labelsTr --subjects subjects.csv -o mine.yaml
    """
    from synthmed.files import write_text
    from synthmed.prepare.planner import plan_cohort

    if output.exists():
        raise ConfigError(f"{output} exists already", next_step="Remove it or name another file with -o")
    found = cohort(source, images, labels, subjects, covariates, modality)
    config, text = plan_cohort(found, progress=not quiet)
    write_text(output, text)
    result = {"file": str(output), "config": config.model_dump(mode="json")}
    return Answer("plan", result, f"{text}\nWritten to {output}. Next: synthmed run {output}", json)


@app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="A configuration, a run, or the scans themselves (then it plans first).")
    ],
    run_dir: RunDir = None,
    set_: Set = None,
    images: Images = None,
    labels: Labels = None,
    subjects: Subjects = None,
    covariates: Covariates = None,
    modality: Modality = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Read a cohort and split it by patient.

    Puts every scan on one grid and prints the cohort's fingerprint.

    Example: synthmed prepare scans/ --subjects subjects.csv --run-dir runs/mine
    """
    from synthmed.cohort.read import format_fingerprint
    from synthmed.files import read_json
    from synthmed.pipeline import open_run, run_stages
    from synthmed.stages import Run

    if is_cohort(source):
        from synthmed.config import apply_overrides
        from synthmed.prepare.planner import plan_cohort

        found = cohort(source, images, labels, subjects, covariates, modality)
        config, _ = plan_cohort(found, progress=not quiet)
        config = apply_overrides(config, set_ or ())
        run = Run(config, run_dir or Path("runs") / config.name)
    else:
        run = open_run(source, run_dir, set_ or ())
    run_stages(run, "prepare", progress=not quiet, say=say(quiet))
    fingerprint, folder = read_json(run.stage("prepare") / "fingerprint.json"), run.stage("prepare")
    text = f"{format_fingerprint(fingerprint)}\nPrepared in {folder}. Next: synthmed run {run.root}"
    return Answer("prepare", {"directory": str(folder), "fingerprint": fingerprint}, text, json)


@app.command()
def train(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False, json: Json = False) -> Answer:
    """Train the autoencoder and the denoiser.

    Prepares first, where that was not done; a killed training resumes exactly.

    Example: synthmed train hippocampus_mri --set denoiser_training.max_steps=2000
    """
    run = stages(target, run_dir, set_, quiet, "denoiser")

    from synthmed.summary import training_facts

    text = f"Trained in {run.root}. Next: synthmed generate {run.root} -n 100"
    return Answer("train", training_facts(run), text, json)


@app.command()
def generate(
    target: Annotated[
        str | None,
        typer.Argument(help="A configuration or the directory of a run.", autocompletion=completion.targets),
    ] = None,
    number: Annotated[
        int | None, typer.Option("-n", "--num-samples", help="How many volumes [default: the run's; of a model 16].")
    ] = None,
    model: PretrainedModel = None,
    output: SampleFolder = None,
    seed: SampleSeed = None,
    condition: Conditions = None,
    run_dir: RunDir = None,
    set_: Set = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Draw labelled volumes from a run's model, or from a pretrained one.

    Goes on where it stopped, and extends a smaller set. With --model NAME it needs no run and no scans (see
    `synthmed models`), and --set takes the keys of sampling.

    Example: synthmed generate runs/hippocampus_mri -n 500
    """
    if model is not None:
        return draw_pretrained(model, target, number, output, seed, condition, run_dir, set_, quiet, json)
    check_options_of_a_run(target, output, seed, condition)
    overrides = [*(set_ or ()), *([f"sampling.num_samples={number}"] if number is not None else [])]
    run = stages(target, run_dir, overrides, quiet, "generate")
    count, folder = run.config.sampling.num_samples, run.stage("generate")
    result = {"directory": str(folder), "volumes": count, "table": str(folder / "samples.csv")}
    return Answer("generate", result, f"{counted(count, 'volume')} in {folder}, not audited yet.", json)


@app.command()
def evaluate(
    target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False, json: Json = False
) -> Answer:
    """Measure fidelity and utility.

    Utility is what a segmenter trained on the synthetic set scores on held-out patients.

    Example: synthmed evaluate runs/hippocampus_mri
    """
    run = stages(target, run_dir, set_, quiet, "evaluate")

    from synthmed.evaluation import format_evaluation
    from synthmed.files import read_json

    content = read_json(run.stage("evaluate") / "evaluation.json")
    return Answer("evaluate", content, format_evaluation(content), json)


@app.command()
def audit(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False, json: Json = False) -> Answer:
    """Audit a run's synthetic set.

    Exit code 0 PASS, 3 FAIL, 4 INCONCLUSIVE.

    For sets from another generator: python -m privacy audit --train DIR --holdout DIR --synthetic DIR --out DIR

    Example: synthmed audit runs/hippocampus_mri --set audit.policy=strict
    """
    from synthmed.files import read_json

    run = stages(target, run_dir, set_, quiet, "audit")
    folder = run.stage("audit") / "release"
    report, text = read_json(folder / "report.json"), (folder / "report.md").read_text(encoding="utf-8")
    return Answer("audit", report, text, json, {"PASS": 0, "FAIL": 3}.get(report["verdict"], 4))


@app.command()
def run(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False, json: Json = False) -> Answer:
    """Do all of it, skipping what is done.

    Prepare, train, generate, evaluate, audit and, if the audit passes, export.

    Example: synthmed run hippocampus_mri
    """
    done = stages(target, run_dir, set_, quiet, "export")

    from synthmed.summary import facts, summarise  # they load torch, which a wrong name need not wait for

    return Answer("run", facts(done), summarise(done), json)


@app.command()
def demo(run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False, json: Json = False) -> Answer:
    """Run everything on the phantom cohort.

    Then show that a set with copies slipped in is refused, with the evidence.

    Example: synthmed demo
    """
    from synthmed.demo import run_demo

    done = run_demo(run_dir or Path("runs") / "demo", set_ or (), progress=not quiet, say=say(quiet))
    return Answer("demo", done.facts(), done.text(), json)
