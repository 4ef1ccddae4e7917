"""What the field's validators say of a release, filed in ``validation/``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from synthmed.export.validation.validators import VALIDATORS
from synthmed.export.validation.verdicts import FAILED, Verdict
from synthmed.files import write_json
from synthmed.words import counted

__all__ = ["ROOT", "Verdict", "describe_failures", "validate_release"]

ROOT = "validation"


def validate_release(part: Path) -> list[Verdict]:
    """Run every validator that is installed, and write ``validation/<tool>.json`` for each, installed or not.

    The files hold the tool, its version, its command, what it looked at and what it said; no time and no path of this
    machine, so that the same release and the same tools give the same bytes.

    Parameters
    ----------
    part : Path
        The release being written, with everything in it but the checksums and what signs them.

    Returns
    -------
    list of Verdict
        One a tool, in the order of `VALIDATORS`.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    verdicts = [validator(part) for validator in VALIDATORS]
    for verdict in verdicts:
        write_json(part / ROOT / f"{verdict.tool}.json", asdict(verdict))
    return verdicts


def describe_failures(verdicts: list[Verdict]) -> list[str]:
    """Return a line for each error that a validator found: tool, message, how often, where first."""
    return [
        f"{verdict.tool}: {said.message}"
        + (f" ({counted(said.times, 'time')}, first {said.first})" if said.first else "")
        for verdict in verdicts
        if verdict.status == FAILED
        for said in verdict.errors
    ]
