"""The verb that writes the page that a governance board reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.cli.common import RunDir, Target


@app.command()
def report(
    target: Target,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page [default: RUN/report.html].")] = None,
    with_real_pairs: Annotated[
        bool, typer.Option("--with-real-pairs", help="Show real scans beside the nearest samples: the steward's page.")
    ] = False,
    run_dir: RunDir = None,
    json: Json = False,
) -> Answer:
    """Write a run's report: one HTML file that needs no network.

    It shows what is done of the run, runs nothing itself, and holds no real scan unless --with-real-pairs is given.
    It is for the house: it tells how large real patients' structures are. A release has its own, audit/report.html.

    Example: synthmed report runs/hippocampus_mri -o report.html
    """
    from synthmed.pipeline import open_run

    run = open_run(target, run_dir)

    from synthmed.run_report import write_run_report  # it loads torch, which a wrong name need not wait for

    page = write_run_report(run, output, real_pairs=with_real_pairs)
    text = f"Report: {page}"
    if with_real_pairs:
        text += "\nIt shows scans of real patients and names them: it stays with the data steward."
    return Answer("report", {"file": str(page), "shows_real_scans": with_real_pairs}, text, json)
