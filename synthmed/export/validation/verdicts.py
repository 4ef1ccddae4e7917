"""What a validator says of a release, counted by message: the message, how many files, the first of them.

Commands run in the release's directory with relative names, so that nothing they say holds a path of this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PASSED, FAILED, ABSENT, UNUSED = "passed", "failed", "not installed", "nothing to look at"
MOST_FILES = 256
"""Of slices and segmentations that dciodvfy reads; of cases that dcm2niix and the check of label values read."""

_TIMEOUT = 600


@dataclass(frozen=True)
class Said:
    """One message of a validator.

    Attributes
    ----------
    message : str
    times : int
    first : str
        The first file that it is about; empty where it is about the whole.
    """

    message: str
    times: int
    first: str


@dataclass(frozen=True)
class Verdict:
    """What one validator said of a release.

    Attributes
    ----------
    tool : str
    status : str
        ``passed``, ``failed``, ``not installed`` or ``nothing to look at``.
    version, command : str
        The command as started in the release's directory.
    looked_at : tuple of str
        Names in the release; a pattern where it was everything.
    available : int
        How many files of that kind there are.
    errors, warnings : tuple of Said
    """

    tool: str
    status: str
    version: str = ""
    command: str = ""
    looked_at: tuple[str, ...] = ()
    available: int = 0
    errors: tuple[Said, ...] = ()
    warnings: tuple[Said, ...] = ()


Messages = Iterable[tuple[str, str, str]]
"""(level, message, file); a level that begins with W is a warning, any other an error."""


def judge(tool: str, version: str, command: str, looked_at: Sequence[str], available: int, said: Messages) -> Verdict:
    """Count messages, and make a verdict of them."""
    counted: dict[tuple[bool, str], list[str]] = {}
    for level, message, name in said:
        counted.setdefault((level[:1].upper() == "W", message), []).append(name)
    both = [(warns, Said(text, len(names), min(names))) for (warns, text), names in sorted(counted.items())]
    errors = tuple(one for warns, one in both if not warns)
    warnings = tuple(one for warns, one in both if warns)
    status = FAILED if errors else PASSED
    return Verdict(tool, status, version, command, tuple(looked_at), available, errors, warnings)


def spread(items: Sequence[str], most: int) -> list[str]:
    """Return at most `most` items, evenly spread, the first among them."""
    return list(items) if len(items) <= most else [items[i * len(items) // most] for i in range(most)]


def executable(name: str) -> str | None:
    """Return where a console tool is: beside this Python first, then on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def installed_version(distribution: str) -> str:
    """Return the version of a Python distribution; ``unknown`` for a tool installed by other means."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def run(part: Path, command: Sequence[str]) -> tuple[int, str, str]:
    """Run a command in the release; return its exit status, what it printed, and what it printed to stderr."""
    try:
        done = subprocess.run(
            command,
            cwd=part,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"Error - did not end within {_TIMEOUT} s"
    except OSError as error:
        return 127, "", f"Error - cannot be started: {error.strerror}"
    return done.returncode, done.stdout, done.stderr


def side_by_side(work: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """Return `work` of each name, in order, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(work, names))
