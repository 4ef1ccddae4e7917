"""The command line: each verb parses, makes one call and prints.

Heavy libraries load inside the verbs, so that ``synthmed --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from synthmed.cli import making, releasing, sending, sharing  # noqa: F401 (their verbs register themselves)
from synthmed.cli.app import EXIT_CODES, app
from synthmed.errors import EXIT_BUG, EXIT_INTERRUPTED

__all__ = ["EXIT_CODES", "app", "main"]


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
