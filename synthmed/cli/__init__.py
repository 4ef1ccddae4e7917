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

from synthmed import processes
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
from synthmed.errors import EXIT_BUG, EXIT_INTERRUPTED, ConfigError

__all__ = ["EXIT_CODES", "app", "main"]

INTERRUPTED = "Interrupted. What was finished is kept; the same command resumes."
LOST = (
    "One of the {} processes was killed, failed, or was told to stop, and so all of them ended. "
    "What was finished is kept; the same command resumes, with any number of processes."
)
_OF_MANY = ("prepare", "train", "generate", "evaluate", "audit", "export", "run")
"""The verbs that many processes may share."""


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
        text = INTERRUPTED if processes.world() == 1 else f"synthmed: {LOST.format(processes.world())}"
        if _speaks():
            typer.echo(f"\n{text}", err=True)
        if FLAG in arguments and processes.rank() == 0:
            typer.echo(error_document(_verb(arguments), EXIT_INTERRUPTED, KeyboardInterrupt(text)))
        sys.exit(EXIT_INTERRUPTED)


def _run(arguments: list[str], debug: bool) -> NoReturn:
    try:
        # With --json stdout is for the answer alone; what a library prints while a verb works goes to stderr.
        with redirect_stdout(sys.stderr if FLAG in arguments else sys.stdout):
            _meet(_verb(arguments))
            outcome = app(arguments, standalone_mode=False)
        if outcome == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(outcome, Answer) and processes.rank() == 0:
            _print(outcome)
        processes.leave()
    except Exception as error:
        if debug:
            raise
        _end(error, arguments)
    if isinstance(outcome, Answer):
        sys.exit(outcome.exit_code)
    sys.exit(outcome if isinstance(outcome, int) else 0)


def _meet(verb: str) -> None:
    """Bring the processes of a verb together, if there are many."""
    processes.join()
    if processes.world() > 1 and verb not in _OF_MANY:
        raise ConfigError(
            f"synthmed {verb} is the work of one process",
            found=str(processes.world()),
            expected="many for " + ", ".join(_OF_MANY),
            next_step="Start it without torchrun or srun",
        )


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
    if isinstance(error, typer.Abort) or processes.is_lost(error):
        raise KeyboardInterrupt
    code = _report(error)
    if FLAG in arguments and processes.rank() == 0:
        typer.echo(error_document(_verb(arguments), code, error))
    sys.exit(code)


def _speaks() -> bool:
    """Say whether this process tells how the command ended; the others' end does not interrupt it from here on."""
    if processes.world() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return processes.speaks()


def _report(error: Exception) -> int:
    code, speaks = getattr(error, "exit_code", None), _speaks()
    if hasattr(error, "show") and isinstance(code, int):  # the parser's own errors, wherever they are defined
        if speaks:
            error.show()
        return code
    if isinstance(code, int):
        line = str(error)
    else:
        code = EXIT_BUG
        line = f"unexpected {type(error).__name__}: {error}. Run again with --debug for the details"
    if speaks:
        typer.echo(f"synthmed: {line}", err=True)
    return code
