"""What is wrong with a file of a release."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong with one file of a release."""

    path: str
    problem: str

    def __str__(self) -> str:
        line = f"{self.path}: {self.problem}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
