"""The verbs that make a release and check one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.app import app
from synthmed.cli.common import Quiet, RunDir, Set, Target, stages


@app.command()
def export(target: Target, run_dir: RunDir = None, set_: Set = None, quiet: Quiet = False) -> None:
    """Write the release, if the audit passed.

    The audit must be of these very bytes; otherwise nothing is written.

    Example: synthmed export runs/hippocampus_mri
    """
    run = stages(target, run_dir, set_, quiet, "export")
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
