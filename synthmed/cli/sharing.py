"""The verbs that share a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app
from synthmed.cli.common import Quiet, RunDir, Target, say


@app.command()
def bundle(
    target: Target,
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write; must not exist.")],
    run_dir: RunDir = None,
    json: Json = False,
) -> Answer:
    """Write the trained model as a MONAI bundle, if the audit of its samples passed.

    Trains and audits nothing itself. The weights are not audited, only what they drew: see the bundle's README.

    Example: synthmed bundle runs/hippocampus_mri -o hippocampus_bundle
    """
    from synthmed.bundle import write_bundle
    from synthmed.pipeline import open_run

    write_bundle(open_run(target, run_dir), output)
    readme = output / "docs" / "README.md"
    text = (
        f"Bundle: {output}. The samples were audited, the weights were not: read {readme}.\n"
        f"In it: python -m monai.bundle run --config_file configs/inference.json --bundle_root ."
    )
    return Answer("bundle", {"folder": str(output), "readme": str(readme)}, text, json)


@app.command()
def publish(
    target: Target,
    name: Annotated[str, typer.Option("--name", help="What it is to be called, such as hippocampus-mri.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The directory to write; must not exist [default: ./NAME].")
    ] = None,
    run_dir: RunDir = None,
    quiet: Quiet = False,
    json: Json = False,
) -> Answer:
    """Make a pretrained model of a trained run, if the audit passes.

    Stores the weights in a quarter to half of the bytes, then draws, evaluates and audits with the stored weights,
    under stored/ in the run: what the card says holds for the very weights that leave. A model in synthmed/weights/
    ships with the package; any other is used by its folder.

    Example: synthmed publish runs/hippocampus_mri --name hippocampus-mri -o hippocampus-mri
    """
    from synthmed.models.library import read_entry, size_of
    from synthmed.pipeline import open_run
    from synthmed.publishing import publish as publish_run

    folder = publish_run(open_run(target, run_dir), name, output or Path(name), progress=not quiet, say=say(quiet))
    size = size_of(folder)
    entry = read_entry(folder).model_dump(mode="json", by_alias=True)
    text = (
        f"Model: {folder}, {size / 1e6:.1f} MB. The samples were audited, the weights were not: read "
        f"{folder / 'MODEL_CARD.md'}.\nDraw from it: synthmed generate --model {folder} -n 16"
    )
    return Answer("publish", entry | {"folder": str(folder), "bytes": size}, text, json)
