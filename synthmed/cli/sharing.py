"""The verb that shares a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.app import app
from synthmed.cli.common import RunDir, Target


@app.command()
def bundle(
    target: Target,
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write; must not exist.")],
    run_dir: RunDir = None,
) -> None:
    """Write the trained model as a MONAI bundle, if the audit of its samples passed.

    Trains and audits nothing itself. The weights are not audited, only what they drew: see the bundle's README.

    Example: synthmed bundle runs/hippocampus_mri -o hippocampus_bundle
    """
    from synthmed.bundle import write_bundle
    from synthmed.pipeline import open_run

    write_bundle(open_run(target, run_dir), output)
    typer.echo(
        f"Bundle: {output}. The samples were audited, the weights were not: read {output / 'docs' / 'README.md'}.\n"
        f"In it: python -m monai.bundle run --config_file configs/inference.json --bundle_root ."
    )
