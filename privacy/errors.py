"""The errors that a user of the audit may see, each with the exit code of the command line."""

from __future__ import annotations

EXIT_CODES = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}


class AuditError(Exception):
    """Report a problem in one line that a user can act on.

    Parameters
    ----------
    what : str
        What is wrong, naming the file, option or key.
    found, expected : str, optional
        The value found and the value that would have been right.
    next_step : str, optional
        What the user should do now.
    """

    exit_code = 1

    def __init__(self, what: str, *, found: str = "", expected: str = "", next_step: str = "") -> None:
        self.what, self.found, self.expected, self.next_step = what, found, expected, next_step
        parts = [what, f"found {found}" if found else "", f"expected {expected}" if expected else ""]
        line = "; ".join(part for part in parts if part)
        super().__init__(f"{line}. {next_step}" if next_step else line)


class UsageError(AuditError):
    """Options, a policy or a table of patients that cannot be followed (exit code 2)."""

    exit_code = 2


class InputError(AuditError):
    """Volumes that cannot be read, or must not be compared (exit code 5)."""

    exit_code = 5
