"""The few pieces of HTML that the page is made of; every text is escaped here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

DRAWN = "Drawn"
"""Title of a column that repeats its row's figures as a picture."""


@dataclass(frozen=True)
class Markup:
    """HTML that is safe to join with other HTML."""

    html: str


Content = str | Markup


def text(content: Content) -> str:
    """Return HTML: markup as it is, a string escaped."""
    return content.html if isinstance(content, Markup) else escape(content)


def join(parts: Iterable[Content], between: str = "\n") -> Markup:
    """Return the parts one after the other."""
    return Markup(between.join(text(part) for part in parts))


def element(tag: str, content: Content = "", **attributes: str) -> Markup:
    """Return one element; an attribute's ``_`` stands for ``-``, and ``class_`` for ``class``."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"' for name, value in attributes.items()
    )
    return Markup(f"<{tag}{named}>{text(content)}</{tag}>")


def paragraph(content: Content, **attributes: str) -> Markup:
    """Return a paragraph."""
    return element("p", content, **attributes)


def bullets(items: Iterable[Content]) -> Markup:
    """Return a list."""
    return element("ul", join(element("li", item) for item in items))


def section(name: str, title: str, parts: Iterable[Content]) -> Markup:
    """Return a section with its heading; `name` is its anchor."""
    heading = element("h2", title, id=f"{name}-title")
    return element("section", join([heading, *parts]), id=name, aria_labelledby=f"{name}-title")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Content]], *, plain: bool = False) -> Markup:
    """Return a table that scrolls by itself where it is wider than the page; the first cell of a row names it.

    Parameters
    ----------
    caption : str
        Also what a screen reader calls the region that scrolls.
    head : sequence of str
        A column called `DRAWN` repeats its row's figures as a picture, and is left out where the page is narrow.
    rows : iterable of sequences of str or Markup
    plain : bool
        Cells of long text, such as digests, may break anywhere.
    """
    titles = join((element("th", title, scope="col", **_kind(title)) for title in head), "")
    body = [element("tr", join([element("th", row[0], scope="row"), *_cells(row[1:], head[1:])], "")) for row in rows]
    content = [element("caption", caption), element("thead", element("tr", titles)), element("tbody", join(body))]
    made = element("table", join(content), **({"class_": "plain"} if plain else {}))
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cells(row: Sequence[Content], head: Sequence[str]) -> Iterator[Markup]:
    for cell, title in zip(row, head, strict=True):
        yield element("td", cell, **_kind(title))


def _kind(title: str) -> dict[str, str]:
    return {"class_": "drawn"} if title == DRAWN else {}


def details(title: str, content: Content) -> Markup:
    """Return a part that is folded until someone opens it."""
    return element("details", join([element("summary", title), content]))


def figure(picture: Content, caption: Content) -> Markup:
    """Return a picture with its caption."""
    return element("figure", join([picture, element("figcaption", caption)]))


def number(value: float | int | None, digits: int = 3) -> str:
    """Return a number for a person: whole ones whole, others to so many significant digits, ``-`` for none."""
    if value is None or not math.isfinite(value):
        return "-"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.{digits}g}"


def share(value: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def interval(value: float, low: float, high: float) -> str:
    """Return a figure with the ends of its interval, three significant digits each."""
    figure, *ends = (f"{v:#.3g}".rstrip(".") for v in (value, low, high))
    return f"{figure} ({ends[0]} to {ends[1]})"
