"""The command line in this process, for tests of what a verb answers."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from synthmed.cli import app
from synthmed.errors import SynthmedError


def invoke(*arguments: object) -> Any:
    """Return a verb's `Answer`; an error of synthmed's is raised as it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], standalone_mode=False)
    if isinstance(result.exception, SynthmedError):
        raise result.exception
    assert result.exception is None, result.exception
    return result.return_value
