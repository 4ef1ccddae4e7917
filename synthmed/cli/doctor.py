"""The verb that looks at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synthmed.cli.answer import Answer, Json
from synthmed.cli.app import app


@app.command()
def doctor(
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Where runs would be kept.")] = Path("runs"),
    json: Json = False,
) -> Answer:
    """Say what this machine can do, and what would not fit.

    Looks at device, memory, cores, disk, versions, DICOM codecs and validators, and estimates the largest grid
    that could be trained on. Changes nothing.

    Example: synthmed doctor
    """
    from synthmed.doctor import examine, format_diagnosis

    content = examine(run_dir)
    return Answer("doctor", content, format_diagnosis(content), json)
