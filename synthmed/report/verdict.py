"""The first thing a reader sees: what was decided, and what that rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthmed.report.facts import Facts
from synthmed.report.markup import Markup, bullets, element, join, paragraph, section, table
from synthmed.words import counted

_MEANS = {
    "PASS": "The audit found nothing that its policy refuses, and it found enough of the copies that it planted "
    "itself. The policy lets the set leave; whoever answers for it decides, with the figures below.",
    "FAIL": "The audit found evidence that these volumes give training patients away. The set must not leave.",
    "INCONCLUSIVE": "The audit was too weak to say either way, which blocks a release as a failure does.",
}
_CAVEAT = (
    "This is evidence, not proof. The audit could have missed what lies below its power, given further down, and it "
    "says nothing of attacks that it did not try. It does not show that nobody can ever be recognised. A p of "
    "membership that the policy lets pass and that is small all the same is a weak sign that the set tells who was in "
    "training."
)
_MARKS = {True: "yes", False: "no", None: "-"}


def verdict_section(facts: Facts) -> Markup:
    """Return the verdict in plain words, the sets it rests on, and each measurement beside what the policy allows."""
    if facts.audit is None:
        return section(
            "verdict",
            "Verdict",
            [_badge("NOT AUDITED"), paragraph("These volumes were not audited yet, so they must not leave.")],
        )
    verdict = str(facts.audit.get("verdict"))
    policy = facts.audit.get("policy", {})
    parts = [
        _badge(verdict),
        paragraph(_MEANS.get(verdict, "")),
        element("h3", "What the audit says"),
        bullets(str(reason) for reason in facts.audit.get("reasons", [])),
        element("h3", "What it rests on"),
        bullets(_rests_on(facts.audit)),
        paragraph(_CAVEAT),
    ]
    if facts.audit_rows:
        rows = [(*row, _mark(row)) for row in facts.audit_rows]
        caption = f"Each figure beside what the policy {policy.get('name')} allows"
        parts.append(table(caption, ("Measured", "Found", "The policy asks for", "Met"), rows))
    return section("verdict", "Verdict", parts)


def _badge(verdict: str) -> Markup:
    kind = {"PASS": "pass", "FAIL": "fail"}.get(verdict, "unsure")
    return paragraph(join(["Privacy audit: ", element("strong", verdict)], ""), class_=f"badge {kind}")


def _rests_on(audit: Mapping[str, Any]) -> Iterator[str]:
    train, holdout = audit.get("train", {}), audit.get("holdout", {})
    measured = audit.get("measurements", {})
    yield (
        f"{counted(audit.get('synthetic', {}).get('n', '-'), 'synthetic volume')}, each of them compared with every "
        f"real scan; distinct among them: {measured.get('samples', '-')}."
    )
    yield f"{_sizes(train, 'patient')} that the model was trained on."
    yield (
        f"{_sizes(holdout, 'other patient')}, held out: what "
        "resembles them shows how much resemblance chance alone gives. No weight was fitted to them, but they may have "
        "decided when training stopped and which weights were kept."
    )
    power = audit.get("power", {})
    if power.get("planted"):
        yield (
            f"A test of the audit itself: of {power['planted']} disguised copies of training scans planted among the "
            f"samples, it found {power.get('found')}."
        )


def _sizes(side: Mapping[str, Any], patient: str) -> str:
    return f"{counted(side.get('n_scans', '-'), 'scan')} of {counted(side.get('n_patients', '-'), patient)}"


def _mark(row: tuple[str, str, str]) -> Markup:
    met = is_met(row[1], row[2])
    return element("span", _MARKS[met], class_={True: "met", False: "unmet", None: ""}[met])


def is_met(found: str, allowed: str) -> bool | None:
    """Say whether a figure keeps to ``at most x`` or ``at least x``; None where either is no number."""
    rule, _, limit = allowed.rpartition(" ")
    try:
        value, bound = float(found), float(limit)
    except ValueError:
        return None
    return {"at most": value <= bound, "at least": value >= bound}.get(rule)
