"""Words of reports and messages."""

from __future__ import annotations


def counted(number: float, one: str, many: str = "") -> str:
    """Return a count and its noun: ``counted(1, "sample")`` is "1 sample", of 2 "2 samples".

    Parameters
    ----------
    number : float
        A whole number, or what a record holds of it.
    one : str
    many : str, optional
        Default: `one` and an s.
    """
    return f"{number:.0f} {one if number == 1 else many or one + 's'}"
