"""The parser itself, and the options before the verb."""

from __future__ import annotations

from typing import Annotated

import typer

from synthmed import __version__

EXIT_CODES = """Exit codes: 0 done · 1 a bug · 2 wrong command or configuration · 3 refused: the audit says FAIL ·
4 refused: the audit is INCONCLUSIVE · 5 unusable scans · 6 training diverged, or nothing drawn is like a scan ·
7 the disk is full or read-only · 8 a release does not verify · 9 a server did not take the whole release ·
130 interrupted (the same command resumes)"""

app = typer.Typer(
    name="synthmed",
    help="Turn a private cohort of 3D scans into a synthetic cohort whose privacy was measured before it could leave.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"synthmed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the verb."""
