"""The command line: each verb parses, makes one call and prints.

Heavy libraries load inside the verbs, so that ``synthmed --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from synthmed import __version__
from synthmed.errors import EXIT_BUG, EXIT_INTERRUPTED, ConfigError

EXIT_CODES = """Exit codes: 0 done · 1 a bug · 2 wrong command or configuration · 3 refused: the audit says FAIL ·
4 refused: the audit is INCONCLUSIVE · 5 unusable scans · 6 training diverged · 7 the disk is full or read-only ·
8 a release does not verify · 130 interrupted (the same command resumes)"""

app = typer.Typer(
    name="synthmed",
    help="Turn a private cohort of 3D scans into a synthetic cohort whose privacy was measured before it could leave.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[str, typer.Argument(help="A configuration (file, or a shipped name), or the directory of a run.")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Where the run is kept [default: runs/NAME].")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; repeatable.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no stage lines.")]
Source = Annotated[str, typer.Argument(help="A folder of NIfTI or DICOM, a CSV, a dataset.json or a datalist.")]
Images = Annotated[str | None, typer.Option(help="Sub-folder or glob of the images.")]
Labels = Annotated[str | None, typer.Option(help="Sub-folder or glob of the labels.")]
Subjects = Annotated[str | None, typer.Option(help="CSV in the folder that maps a volume to its patient.")]
Covariates = Annotated[str | None, typer.Option(help="CSV in the folder with one row a case or patient.")]
Modality = Annotated[str | None, typer.Option(help="MR, CT or PT [default: what the files say, else MR].")]


def main() -> None:
    """Run the command line and end the process with its documented exit code."""
    # Waiting threads that spin make two busy processes ten times slower; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, _interrupt)
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        _run(arguments, debug)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. What was finished is kept; the same command resumes.", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _run(arguments: list[str], debug: bool) -> NoReturn:
    try:
        code = app(arguments, standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        _end(error)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(error: Exception) -> NoReturn:
    """Print one line about an error and exit with its code."""
    if isinstance(error, typer.Abort):
        raise KeyboardInterrupt
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own errors, wherever they are defined
        error.show()
        sys.exit(error.exit_code)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        typer.echo(f"synthmed: {error}", err=True)
        sys.exit(code)
    typer.echo(
        f"synthmed: unexpected {type(error).__name__}: {error}. Run again with --debug for the details", err=True
    )
    sys.exit(EXIT_BUG)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"synthmed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the verb."""


@app.command()
def plan(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path("config.yaml"),
    images: Images = None,
    labels: Labels = None,
    subjects: Subjects = None,
    covariates: Covariates = None,
    modality: Modality = None,
) -> None:
    """Propose a configuration for a cohort.

    It fits the scans and this machine's memory and cores.

    Example: synthmed plan scans/ --images imagesTr --labels labelsTr --subjects subjects.csv -o mine.yaml
    """
    from synthmed.files import write_text
    from synthmed.prepare.planner import plan_cohort

    if output.exists():
        raise ConfigError(f"{output} exists already", next_step="Remove it or name another file with -o")
    cohort = _cohort(source, images, labels, subjects, covariates, modality)
    _, text = plan_cohort(cohort)
    write_text(output, text)
    typer.echo(f"{text}\nWritten to {output}. Next: synthmed run {output}")


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
) -> None:
    """Read a cohort and split it by patient.

    Puts every scan on one grid and prints the cohort's fingerprint.

    Example: synthmed prepare scans/ --subjects subjects.csv --run-dir runs/mine
    """
    from synthmed.cohort.read import format_fingerprint
    from synthmed.files import read_json
    from synthmed.pipeline import open_run, run_stages
    from synthmed.stages import Run

    if _is_cohort(source):
        from synthmed.config import apply_overrides
        from synthmed.prepare.planner import plan_cohort

        config, _ = plan_cohort(_cohort(source, images, labels, subjects, covariates, modality))
        config = apply_overrides(config, set_ or ())
        run = Run(config, run_dir or Path("runs") / config.name)
    else:
        run = open_run(source, run_dir, set_ or ())
    run_stages(run, "prepare", progress=not quiet, say=_say(quiet))
    typer.echo(format_fingerprint(read_json(run.stage("prepare") / "fingerprint.json")))
    typer.echo(f"Prepared in {run.stage('prepare')}. Next: synthmed run {run.root}")


@app.command()
def train(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Train the autoencoder and the denoiser.

    Prepares first, where that was not done; a killed training resumes exactly.

    Example: synthmed train hippocampus_mri --set denoiser_training.max_steps=2000
    """
    run = _stages(target, run_dir, set_, quiet, "denoiser")
    typer.echo(f"Trained in {run.root}. Next: synthmed generate {run.root} -n 100")


@app.command()
def generate(
    target: Target,
    number: Annotated[int | None, typer.Option("-n", "--num-samples", help="How many volumes.")] = None,
    run_dir: RunDir = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Draw labelled volumes from the model.

    Goes on where it stopped, and extends a smaller set.

    Example: synthmed generate runs/hippocampus_mri -n 500
    """
    overrides = [*(set_ or ()), *([f"sampling.num_samples={number}"] if number is not None else [])]
    run = _stages(target, run_dir, overrides, quiet, "generate")
    typer.echo(f"{run.config.sampling.num_samples} volumes in {run.stage('generate')}. They are not audited yet.")


@app.command()
def evaluate(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Measure fidelity and utility.

    Utility is what a segmenter trained on the synthetic set scores on held-out patients.

    Example: synthmed evaluate runs/hippocampus_mri
    """
    from synthmed.evaluation import format_evaluation
    from synthmed.files import read_json

    run = _stages(target, run_dir, set_, quiet, "evaluate")
    typer.echo(format_evaluation(read_json(run.stage("evaluate") / "evaluation.json")))


@app.command()
def audit(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Audit a run's synthetic set.

    Exit code 0 PASS, 3 FAIL, 4 INCONCLUSIVE.

    For sets from another generator: python -m privacy audit --train DIR --holdout DIR --synthetic DIR --out DIR

    Example: synthmed audit runs/hippocampus_mri --set audit.policy=strict
    """
    from synthmed.files import read_json

    run = _stages(target, run_dir, set_, quiet, "audit")
    report = read_json(run.stage("audit") / "release" / "report.json")
    typer.echo((run.stage("audit") / "release" / "report.md").read_text(encoding="utf-8"))
    raise typer.Exit({"PASS": 0, "FAIL": 3}.get(report["verdict"], 4))


@app.command()
def export(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Write the release, if the audit passed.

    The audit must be of these very bytes; otherwise nothing is written.

    Example: synthmed export runs/hippocampus_mri
    """
    run = _stages(target, run_dir, set_, quiet, "export")
    typer.echo(
        f"Release: {run.stage('export') / 'release'}. Check it: synthmed verify {run.stage('export') / 'release'}"
    )


@app.command()
def verify(release: Annotated[Path, typer.Argument(help="The directory of a release.")]) -> None:
    """Check that a release is what was approved.

    Recomputes checksums, the gate's decision and the marks of synthetic data.

    Example: synthmed verify runs/hippocampus_mri/export/release
    """
    from synthmed.errors import VerificationFailed
    from synthmed.export import verify as findings_of

    findings = findings_of(release)
    for finding in findings:
        typer.echo(str(finding))
    if findings:
        raise VerificationFailed(f"{release} does not verify: {len(findings)} finding(s), listed above")
    typer.echo(f"{release} verifies: every file is as it was approved.")


@app.command()
def run(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Do all of it, skipping what is done.

    Prepare, train, generate, evaluate, audit and, if the audit passes, export.

    Example: synthmed run hippocampus_mri
    """
    from synthmed.summary import summarise

    typer.echo(summarise(_stages(target, run_dir, set_, quiet, "export")))


@app.command()
def demo(run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Run everything on the phantom cohort.

    Then show that a set with copies slipped in is refused, with the evidence.

    Example: synthmed demo
    """
    from synthmed.demo import run_demo

    typer.echo(run_demo(run_dir or Path("runs") / "demo", set_ or (), progress=not quiet, say=_say(quiet)))


def _stages(target, run_dir, overrides, quiet, last):  # type: ignore[no-untyped-def]
    from synthmed.pipeline import open_run, run_stages

    opened = open_run(target, run_dir, overrides or ())
    run_stages(opened, last, progress=not quiet, say=_say(quiet))
    return opened


def _say(quiet: bool):  # type: ignore[no-untyped-def]
    return (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True))


def _is_cohort(source: str) -> bool:
    path = Path(source)
    return (path.is_dir() and not (path / "config.yaml").is_file()) or path.suffix.lower() in {
        ".csv",
        ".json",
    }


def _cohort(source, images, labels, subjects, covariates, modality):  # type: ignore[no-untyped-def]
    from synthmed.config import parse_config

    section = {"path": source, "images": images, "labels": labels, "subjects": subjects, "covariates": covariates}
    return parse_config({"cohort": section | {"modality": modality}}).cohort
