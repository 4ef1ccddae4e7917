"""Where the set comes from: settings, versions, digests, and whose methods were used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthmed.report.facts import Facts
from synthmed.report.markup import Markup, bullets, details, element, paragraph, section, table


def source_section(facts: Facts) -> Markup:
    """Return the resolved configuration, the versions, the digests and the citations."""
    parts: list[Markup] = []
    if facts.digests:
        parts.append(table("Digests, SHA-256", ("Of", "Digest"), facts.digests.items(), plain=True))
    if facts.versions:
        parts.append(table("Versions", ("Software", "Version"), facts.versions.items()))
    if facts.settings:
        settings = table("Settings", ("Setting", "Value"), _flat(facts.settings), plain=True)
        parts.append(details("Resolved configuration", settings))
    cited = (facts.audit or {}).get("citations", [])
    if cited:
        parts += [element("h3", "Sources of the audit's methods"), bullets(str(item) for item in cited)]
    return section("source", "Where it comes from", parts or [paragraph("Nothing is recorded.")])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, _said(value)


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "none"
    return "none" if value is None or value == {} else str(value)
