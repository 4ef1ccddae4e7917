"""The errors that a user may see: what was wrong, what was found, what was expected, what to do next.

Every class carries the exit code that the command line ends with. Code raises one of these where data or
settings enter; anything else that escapes is a bug and ends with exit code 1.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 1
EXIT_INTERRUPTED = 130


class SynthmedError(Exception):
    """Report a problem in one line that a user can act on.

    Parameters
    ----------
    what : str
        What is wrong, naming the file, key or stage.
    found, expected : str, optional
        The value found and the value that would have been right.
    next_step : str, optional
        What the user should do now.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, *, found: str = "", expected: str = "", next_step: str = "") -> None:
        self.what, self.found, self.expected, self.next_step = what, found, expected, next_step
        parts = [what]
        if found:
            parts.append(f"found {found}")
        if expected:
            parts.append(f"expected {expected}")
        line = "; ".join(parts)
        super().__init__(f"{line}. {next_step}" if next_step else line)


class ConfigError(SynthmedError):
    """A configuration or command line that cannot be followed (exit code 2)."""

    exit_code = 2


class ReleaseRefused(SynthmedError):
    """The audit's verdict, or a broken binding to it, forbids the release (exit code 3)."""

    exit_code = 3


class AuditInconclusive(ReleaseRefused):
    """The audit is too weak to judge, which blocks a release as a FAIL does (exit code 4)."""

    exit_code = 4


class InputError(SynthmedError):
    """Data that cannot be read, or must not be guessed at (exit code 5)."""

    exit_code = 5


class TrainingDiverged(SynthmedError):
    """The loss is no longer finite, or the model draws nothing like a real scan (exit code 6)."""

    exit_code = 6


class StorageError(SynthmedError):
    """The disk is full or a file cannot be written (exit code 7)."""

    exit_code = 7


class VerificationFailed(SynthmedError):
    """A release does not match its own checksums or approval (exit code 8)."""

    exit_code = 8


class SendIncomplete(SynthmedError):
    """A server did not take the whole release, or does not say that it holds it (exit code 9)."""

    exit_code = 9
