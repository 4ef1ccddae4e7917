"""The page: one file, nothing from the network, and a policy that lets a browser run nothing but what is in it.

References
----------
Content Security Policy Level 3, W3C, section 6.7.3.3 (hashes of inline scripts and styles).
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from html import escape
from importlib.resources import files

from synthmed.report.audit import audit_section
from synthmed.report.facts import Facts
from synthmed.report.markup import Markup, element, figure, join, paragraph, section
from synthmed.report.quality import quality_section
from synthmed.report.source import source_section
from synthmed.report.training import training_section
from synthmed.report.verdict import verdict_section
from synthmed.report.viewer import viewer_section

REAL = "This page shows scans of real patients. It stays with the data steward and must never be part of a release."
SYNTHETIC = "Synthetic. Not for clinical use. No scan of a person is on this page."
UNCLEARED = (
    "Synthetic, but not cleared by the audit: a volume may be a copy of a patient's scan. Treat this page as you treat "
    "the scans of patients."
)
_SECTIONS = (
    ("verdict", "Verdict"),
    ("volumes", "Volumes"),
    ("audit", "Audit"),
    ("quality", "Use and likeness"),
    ("training", "Training"),
    ("source", "Source"),
)


def render_report(facts: Facts) -> str:
    """Return the page as one HTML document; the same facts give the same text.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    str
        HTML 5 with style, script, pictures and previews inside.
    """
    style, script = asset("page.css"), asset("viewer.js")
    body = [
        _header(facts),
        element("main", join(_parts(facts)), id="content"),
        element("footer", paragraph("Made by synthmed. This file loads nothing and sends nothing.")),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(style, script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_title(facts))}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{join(body).html}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def content_policy(style: str, script: str) -> str:
    """Return the policy that allows this style and this script, by their hashes, and pictures inside the page."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``assets/``."""
    return (files("synthmed.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


def _title(facts: Facts) -> str:
    return f"{facts.title}: the steward's report" if facts.pairs else f"{facts.title}: report"


def _header(facts: Facts) -> Markup:
    links = join((element("a", name, href=f"#{anchor}") for anchor, name in _anchors(facts)), " ")
    warning, kind = (SYNTHETIC, "warning") if facts.cleared else (UNCLEARED, "warning real")
    if facts.pairs:
        warning, kind = REAL, "warning real"
    return join(
        [
            element("a", "Skip to the content", href="#content", class_="skip"),
            element(
                "header",
                join(
                    [
                        element("h1", facts.title),
                        paragraph(warning, class_=kind),
                        element("nav", links, aria_label="Sections"),
                    ]
                ),
            ),
        ]
    )


def _anchors(facts: Facts) -> tuple[tuple[str, str], ...]:
    return (_SECTIONS[0], ("pairs", "Closest pairs"), *_SECTIONS[1:]) if facts.pairs else _SECTIONS


def _parts(facts: Facts) -> list[Markup]:
    pairs = [_pairs(facts)] if facts.pairs else []
    sections = (viewer_section, audit_section, quality_section, training_section, source_section)
    return [verdict_section(facts), *pairs, *(make(facts) for make in sections)]


def _pairs(facts: Facts) -> Markup:
    drawn = [paragraph(REAL, class_="warning real")]
    for number, png in enumerate(facts.pairs, 1):
        data = base64.b64encode(png).decode("ascii")
        alt = f"Pair {number}: a synthetic volume, the real scan nearest to it and their difference, in three planes"
        image = Markup(f'<img class="pair" alt="{alt}" src="data:image/png;base64,{data}">')
        drawn.append(
            figure(
                image, f"Pair {number}. Left the sample, laid over the real scan in the middle; right the difference."
            )
        )
    return section("pairs", "The closest pairs", drawn)
