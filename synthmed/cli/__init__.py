"""The command line: each verb parses, makes one call and answers.

Heavy libraries load inside the verbs, so that ``synthmed --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from types import FrameType
from typing import NoReturn

import typer

from synthmed.cli import (  # noqa: F401 (their verbs register themselves)
    doctor,
    making,
    pretrained,
    releasing,
    reporting,
    sending,
    sharing,
)
from synthmed.cli.answer import FLAG, Answer, error_document
from synthmed.cli.app import EXIT_CODES, app
from synthmed.errors import EXIT_BUG, EXIT_INTERRUPTED

__all__ = ["EXIT_CODES", "app", "main"]

INTERRUPTED = "Interrupted. What was finished is kept; the same command resumes."


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
        typer.echo(f"\n{INTERRUPTED}", err=True)
        if FLAG in arguments:
            typer.echo(error_document(_verb(arguments), EXIT_INTERRUPTED, KeyboardInterrupt(INTERRUPTED)))
        sys.exit(EXIT_INTERRUPTED)


def _run(arguments: list[str], debug: bool) -> NoReturn:
    try:
        # With --json stdout is for the answer alone; what a library prints while a verb works goes to stderr.
        with redirect_stdout(sys.stderr if FLAG in arguments else sys.stdout):
            outcome = app(arguments, standalone_mode=False)
        if isinstance(outcome, Answer):
            _print(outcome)
    except Exception as error:
        if debug:
            raise
        _end(error, arguments)
    if isinstance(outcome, Answer):
        sys.exit(outcome.exit_code)
    if outcome == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _print(answer: Answer) -> None:
    """Print an answer; a reader that has seen enough, such as `head`, is no error."""
    try:
        typer.echo(answer)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _verb(arguments: Sequence[str]) -> str:
    """Return the verb that was asked for; empty where none was."""
    return next((a for a in arguments if not a.startswith("-")), "")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(error: Exception, arguments: Sequence[str]) -> NoReturn:
    """Print one line about an error, its document if that was asked for, and exit with its code."""
    if isinstance(error, typer.Abort):
        raise KeyboardInterrupt
    code = _report(error)
    if FLAG in arguments:
        typer.echo(error_document(_verb(arguments), code, error))
    sys.exit(code)


def _report(error: Exception) -> int:
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # the parser's own errors, wherever they are defined
        error.show()
        return int(error.exit_code)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        typer.echo(f"synthmed: {error}", err=True)
        return code
    typer.echo(
        f"synthmed: unexpected {type(error).__name__}: {error}. Run again with --debug for the details", err=True
    )
    return EXIT_BUG
