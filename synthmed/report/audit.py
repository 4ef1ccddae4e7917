"""The audit's figures: scores beside their thresholds, what it could have seen, and what an attacker gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

from synthmed.report.charts import Series, histogram, legend, strip
from synthmed.report.facts import Facts
from synthmed.report.markup import (
    DRAWN,
    Content,
    Markup,
    bullets,
    details,
    element,
    figure,
    interval,
    join,
    number,
    paragraph,
    section,
    share,
    table,
)
from synthmed.words import counted

IDENTITY = 1.0  # the score from which a sample counts as a recognisable copy
_PAIRS = (
    "The samples nearest to a patient are drawn beside that patient's scan on the steward's page alone, which "
    "synthmed report --with-real-pairs writes: it shows real scans and stays at home."
)
_RISKS = {
    "linkability": "Link two halves of a scan",
    "inference": "Tell one half of a scan from the other",
    "attribute": "Tell an attribute from the scan",
}
_ATTACKS = {"distance": "Distance to the nearest sample", "density": "Density ratio"}
_DISTRIBUTIONS = {
    "How near each set comes to training patients": {
        "samples_to_training": "synthetic volumes",
        "holdout_to_training": "held-out patients",
        "training_to_training": "training patients, to one another",
    },
    "Which patients the synthetic volumes are nearer to": {
        "samples_to_training": "to training patients",
        "samples_to_holdout": "to held-out patients",
    },
}
_SCORES = {
    "tau_null": "exceeded by 5 % of held-out patients",
    "largest_null_score": "largest of a held-out patient",
    "largest_score": "largest of a synthetic volume",
}


def audit_section(facts: Facts) -> Markup:
    """Return the audit's distributions, thresholds and power."""
    audit = facts.audit
    if audit is None:
        return section("audit", "The audit", [paragraph("There is no audit yet: synthmed audit makes it.")])
    measured = audit.get("measurements", {})
    parts = [
        *_scores(facts, measured),
        paragraph(_PAIRS),
        *_membership(measured),
        *_risks(measured, audit.get("policy", {}).get("thresholds", {})),
        *_power(audit),
        *_carried(audit),
        _thresholds(audit),
    ]
    return section("audit", "The audit", parts)


def _scores(facts: Facts, measured: Mapping[str, Any]) -> Iterator[Markup]:
    """Draw how close samples come to training and to held-out patients."""
    if "largest_score" not in measured:
        return
    yield element("h3", "How close do samples come to a patient?")
    yield paragraph(
        "A score of 1 or more means that a sample is recognisably one patient. Held-out patients, on whom the model "
        "was not trained, show what chance gives."
    )
    known = {text: float(measured[key]) for key, text in _SCORES.items() if _is_number(measured.get(key))}
    if scores := (facts.audit or {}).get("scores"):
        yield from _distributions(scores, known)
    if known:
        top = max(IDENTITY, *known.values()) * 1.1
        rows: list[Sequence[Content]] = [
            (text.capitalize(), number(value), strip(0, value, value, (0, top), mark=IDENTITY))
            for text, value in known.items()
        ]
        rows.append(("A recognisable copy", f"{number(IDENTITY)} or more", ""))
        yield table("Scores, and the threshold of identity as an upright line", ("Score", "Value", DRAWN), rows)


def _distributions(scores: Mapping[str, Any], known: Mapping[str, float]) -> Iterator[Markup]:
    """Draw the audit's counts by bin: who comes how near to training, and which side the samples are nearer to."""
    marks = [Series("a recognisable copy", "limit", ((IDENTITY, 0.0),))]
    if (null := known.get(_SCORES["tau_null"])) is not None:
        marks.append(Series(_SCORES["tau_null"], "null", ((null, 0.0),)))
    edges = scores["edges"]
    for title, lines in _DISTRIBUTIONS.items():
        sets = [
            Series(text, style, _shares(scores["counts"][key], edges))
            for (key, text), style in zip(lines.items(), ("first", "second", "third"), strict=False)
            if sum(scores["counts"].get(key, ()))
        ]
        drawn = histogram(title, sets, edges, marks, "score", "share of the set")
        yield figure(drawn, join([legend([(s.style, s.name) for s in (*sets, *marks)]), f"{title}."]))


def _shares(counts: Sequence[int], edges: Sequence[float]) -> tuple[tuple[float, float], ...]:
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    return tuple((middle, count / sum(counts)) for middle, count in zip(middles, counts, strict=True))


def _membership(measured: Mapping[str, Any]) -> Iterator[Markup]:
    """Show how well attacks tell training patients from held-out ones; 0.5 is a coin."""
    rows: list[Sequence[Content]] = []
    for key, text in _ATTACKS.items():
        auc, low, high = (measured.get(f"{key}_auc{end}") for end in ("", "_lower", "_upper"))
        if _is_number(auc) and _is_number(low) and _is_number(high):
            drawn = strip(low, auc, high, (0, 1), mark=0.5)
            p = number(measured.get(f"{key}_p"))
            rows.append((text, interval(auc, low, high), drawn, p))
    expected = measured.get("member_share_expected")
    for depth, found in zip(measured.get("member_share_depth", []), measured.get("member_share", []), strict=False):
        drawn = strip(found, found, found, (0, 1), mark=expected)
        text = "Share of samples nearest to training" + ("" if depth == 1 else f", closest {100 * depth:.0f} %")
        rows.append((text, f"{number(found)} (by chance {number(expected)})", drawn, ""))
    if not rows:
        return
    yield element("h3", "Does the set tell who was in training?")
    yield paragraph(
        "An attacker who holds a scan guesses whether its patient was in the training set. An AUC of 0.5 is a "
        "coin; the upright line marks what chance gives."
    )
    yield table("Membership: area under the curve with its interval, and shares", ("Attack", "Found", DRAWN, "p"), rows)


def _risks(measured: Mapping[str, Any], thresholds: Mapping[str, float]) -> Iterator[Markup]:
    rows: list[Sequence[Content]] = []
    for key, text in _RISKS.items():
        value, low, high = (measured.get(f"{key}_risk{end}") for end in ("", "_lower", "_upper"))
        if _is_number(value) and _is_number(low) and _is_number(high):
            rates = [measured.get(f"{key}_{who}_rate") for who in ("train", "control")]
            shown = [share(rate) if _is_number(rate) else "-" for rate in rates]
            drawn = strip(low, value, high, (0, 1), mark=thresholds.get(f"max_{key}_risk"))
            rows.append((text, *shown, interval(value, low, high), drawn))
    if rows:
        yield element("h3", "What do the samples let an attacker do?")
        yield paragraph(
            "The same attack on training patients and on held-out ones. What it gains on the former is the risk, "
            "from 0 to 1; the lower end of its interval must not exceed the upright line."
        )
        head = ("Attack", "Succeeds on training", "On held-out", "Risk and its interval", DRAWN)
        yield table("Linkability and inference", head, rows)


def _power(audit: Mapping[str, Any]) -> Iterator[Markup]:
    power = audit.get("power", {})
    disguises = power.get("by_disguise", {})
    if not disguises:
        return
    least = audit.get("policy", {}).get("thresholds", {}).get("min_disguise_recall")
    yield element("h3", "What could the audit have seen?")
    copies, n = power.get("smallest_detectable_copies", 0), audit.get("measurements", {}).get("samples", 0)
    least_seen = "a single copy" if copies == 1 else f"one of {copies} copies"
    seen = (
        f"In a set of this size, {least_seen} or more would have been seen."
        if 0 < copies <= n
        else "No number of copies in a set of this size would have been seen with the confidence that the policy asks."
    )
    yield paragraph(
        f"It planted {power.get('planted')} copies of training scans under the disguises below and found "
        f"{power.get('found')} by the same search and threshold: a share of {number(power.get('recall'))}, at least "
        f"{number(power.get('recall_lower'))} at the policy's confidence. {seen}"
    )
    rows = [
        (name.replace("_", " ").capitalize(), share(found), strip(0, found, found, (0, 1), mark=least))
        for name, found in disguises.items()
    ]
    yield table("Planted copies found, by disguise", ("Disguise", "Found", DRAWN), rows)


def _carried(audit: Mapping[str, Any]) -> Iterator[Markup]:
    rows = audit.get("metadata")
    if rows is not None:
        yield element("h3", "What do the files carry?")
        found = [f"{r['severity']}: {r['what']} ({r['where']}, {counted(r['findings'], 'time')})" for r in rows]
        yield bullets(found or ["Nothing was found in file names, headers or voxels."])
    if audit.get("notes"):
        yield element("h3", "What was taken for granted?")
        yield bullets(str(note) for note in audit["notes"])


def _thresholds(audit: Mapping[str, Any]) -> Markup:
    policy = audit.get("policy", {})
    rows = [(key, number(value)) for key, value in policy.get("thresholds", {}).items()]
    return details(
        f"Every threshold of the policy {policy.get('name')}", table("Thresholds", ("Threshold", "Value"), rows)
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
