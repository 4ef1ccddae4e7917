"""Arguments and small steps that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli import completion

Target = Annotated[
    str,
    typer.Argument(
        help="A configuration (file, or a shipped name), or the directory of a run.", autocompletion=completion.targets
    ),
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Where the run is kept [default: runs/NAME].")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one setting; repeatable.", autocompletion=completion.settings
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no stage lines.")]
Source = Annotated[str, typer.Argument(help="A folder of NIfTI or DICOM, a CSV, a dataset.json or a datalist.")]
Images = Annotated[str | None, typer.Option(help="Sub-folder or glob of the images.")]
Labels = Annotated[str | None, typer.Option(help="Sub-folder or glob of the labels.")]
Subjects = Annotated[str | None, typer.Option(help="CSV in the folder that maps a volume to its patient.")]
Covariates = Annotated[str | None, typer.Option(help="CSV in the folder with one row a case or patient.")]
Modality = Annotated[str | None, typer.Option(help="MR, CT or PT [default: what the files say, else MR].")]


def stages(target, run_dir, overrides, quiet, last):  # type: ignore[no-untyped-def]
    from synthmed.pipeline import open_run, run_stages

    opened = open_run(target, run_dir, overrides or ())
    run_stages(opened, last, progress=not quiet, say=say(quiet))
    return opened


def say(quiet: bool):  # type: ignore[no-untyped-def]
    return (lambda line: None) if quiet else (lambda line: typer.echo(line, err=True))


def is_cohort(source: str) -> bool:
    path = Path(source)
    return (path.is_dir() and not (path / "config.yaml").is_file()) or path.suffix.lower() in {
        ".csv",
        ".json",
    }


def cohort(source, images, labels, subjects, covariates, modality):  # type: ignore[no-untyped-def]
    from synthmed.config import parse_config

    section = {"path": source, "images": images, "labels": labels, "subjects": subjects, "covariates": covariates}
    return parse_config({"cohort": section | {"modality": modality}}).cohort
