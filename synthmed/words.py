"""Words of reports and messages."""

from __future__ import annotations


def counted(number: float | str, one: str, many: str = "") -> str:
    """Return a count and its noun: ``counted(1, "volume")`` is "1 volume", of 2 "2 volumes".

    Parameters
    ----------
    number : float or str
        A whole number, or what a record holds of it; text, such as a dash, where it holds none.
    one : str
    many : str, optional
        Default: `one` and an s.
    """
    shown = number if isinstance(number, str) else f"{number:.0f}"
    return f"{shown} {one if number == 1 else many or one + 's'}"
