"""The few pieces of Markdown that the documents of a release are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Sequence[str]


def line(text: str) -> str:
    """Return `text` on one line."""
    return " ".join(text.split())


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table; a cell keeps to its line and its column whatever is in it."""
    body = [f"| {' | '.join(map(_cell, row))} |" for row in (head, *rows)]
    return "\n".join([body[0], "|" + "---|" * len(head), *body[1:]])


def bullets(items: Iterable[str]) -> str:
    """Return a list, an item a line."""
    return "\n".join(f"- {line(item)}" for item in items)


def number(value: float) -> str:
    """Return a number with four significant digits, whole ones as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numbers(values: Any) -> dict[str, float]:
    """Return the numbers of a mapping; nothing for what is no mapping."""
    items = values.items() if isinstance(values, Mapping) else ()
    return {k: v for k, v in items if isinstance(v, int | float) and not isinstance(v, bool)}


def _cell(text: str) -> str:
    return line(text).replace("|", "\\|")
