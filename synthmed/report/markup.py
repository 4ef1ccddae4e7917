"""The few pieces of HTML that the page is made of; every text is escaped here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


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
    rows : iterable of sequences of str or Markup
    plain : bool
        Cells of long text, such as digests, may break anywhere.
    """
    cells = join((element("th", cell, scope="col") for cell in head), "")
    body = [
        element("tr", join([element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])], ""))
        for row in rows
    ]
    content = [element("caption", caption), element("thead", element("tr", cells)), element("tbody", join(body))]
    made = element("table", join(content), **({"class_": "plain"} if plain else {}))
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


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
