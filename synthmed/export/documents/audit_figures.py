"""The audit in a table that a reader of the card understands: what was found beside what the policy allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privacy.multiplicity import holm
from privacy.policy import MEMBERSHIP
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.markdown import bullets, number, numbers, table
from synthmed.words import counted

_WORDS = {
    "identity_matches": "Samples that are recognisably one training patient",
    "copy_rate_upper": "Share of such samples, upper bound",
    "match_excess_upper": "Matches with training beyond those with held-out patients, upper bound",
    "membership_p": "Membership of the training set, smallest p after Holm's correction",
    "linkability_risk": "Risk that two parts of a training patient's scan can be linked, lower bound",
    "inference_risk": "Risk that one part of a training patient's scan tells another, lower bound",
    "identifying_headers": "Headers that identify someone",
    "burned_in": "Volumes with text in their voxels",
    "faces": "Volumes with a face",
    "recall_lower": "Planted copies that the audit found, lower bound",
    "disguise_recall": "Planted copies found under the hardest disguise",
    "train_patients": "Training patients",
    "holdout_patients": "Held-out patients",
}
_MEASURED_AS = {
    "disguise_recall": "least_disguise_recall",
    "linkability_risk": "linkability_risk_lower",
    "inference_risk": "inference_risk_lower",
}
_LIMITS = {"max_": "at most", "min_": "at least"}
_LEVELS = {
    "confidence": "bounds hold at a confidence of",
    "risk_confidence": "lower bounds of risks at",
    "false_match_rate": "chance that an honest set holds one sample that counts as a match:",
    "fdr": "share of false alarms among samples flagged for a look:",
}


def audit_section(cohort: ApprovedCohort, report: Mapping[str, Any]) -> str:
    """Return the card's section on the audit.

    Parameters
    ----------
    cohort : ApprovedCohort
        Its approval names verdict, reasons and policy.
    report : mapping
        The audit's ``report.json``.
    """
    approval = cohort.approval
    thresholds = numbers(approval.policy["thresholds"])
    levels = [f"{text} {number(thresholds[key])}" for key, text in _LEVELS.items() if key in thresholds]
    return "\n\n".join(
        [
            "## Privacy audit",
            f"Verdict: **{approval.verdict}** by the policy `{approval.policy['name']}`. {' '.join(approval.reasons)}.",
            "This is evidence, not proof: the audit could have missed what lies below its power, and it says nothing\n"
            "of attacks that it did not try. The full record, with its sources, is `audit/report.md`.",
            table(("Measured", "Found", "The policy asks for"), audit_rows(report, thresholds)),
            f"Levels: {'; '.join(levels)}.",
        ]
    )


def audit_rows(report: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return a row for each threshold that bounds a measurement: in words, as measured, as allowed.

    Each figure is the one that `privacy.policy.judge` holds against the threshold.
    """
    measured = numbers(report.get("measurements"))
    if measured.keys() >= set(MEMBERSHIP):
        measured["membership_p"] = min(holm([measured[name] for name in MEMBERSHIP]))
    rows = []
    for name, limit in thresholds.items():
        prefix, key = name[:4], name[4:]
        value = measured.get(_MEASURED_AS.get(key, key))
        if prefix in _LIMITS and value is not None:
            rows.append((_WORDS.get(key, key.replace("_", " ")), number(value), f"{_LIMITS[prefix]} {number(limit)}"))
    return rows


def set_sizes(report: Mapping[str, Any]) -> str:
    """Say how many scans and patients trained and judged the model."""
    sizes = {role: numbers(report.get(role)) for role in ("train", "holdout")}
    said = [
        f"{counted(sizes[role]['n_scans'], 'scan')} of {counted(sizes[role]['n_patients'], *words)}"
        for role, words in (
            ("train", ("training patient", "training patients")),
            ("holdout", ("other patient, held out", "other patients, held out")),
        )
        if {"n_scans", "n_patients"} <= sizes[role].keys()
    ]
    return "; ".join(said) or "not recorded"


def cited(report: Mapping[str, Any]) -> str:
    """Return the audit's sources as a list."""
    sources = report.get("citations", [])
    return bullets(str(item) for item in (sources.values() if isinstance(sources, Mapping) else sources))
