"""A policy is a table of thresholds; `judge` turns measurements into PASS, FAIL or INCONCLUSIVE.

`judge` is pure, so that whoever receives a report can judge its measurements again and find an edited verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from privacy.errors import UsageError
from privacy.multiplicity import holm
from privacy.words import counted

BUNDLED = ("default", "research", "strict")
RISKS = ("singling out", "linkability", "inference")
RANGES: dict[str, tuple[float, float]] = {
    "confidence": (0.8, 0.999),
    "false_match_rate": (1e-6, 0.1),
    "fdr": (0.001, 0.5),
    "max_identity_matches": (0, 3),
    "max_copy_rate_upper": (0.0, 0.1),
    "max_match_excess_upper": (0.0, 0.1),
    "min_membership_p": (1e-4, 0.2),
    "risk_confidence": (0.8, 0.9999),
    "max_linkability_risk": (0.0, 0.5),
    "max_inference_risk": (0.0, 0.5),
    "max_identifying_headers": (0, 3),
    "max_burned_in": (0, 1_000_000),
    "max_faces": (0, 1_000_000),
    "min_recall_lower": (0.5, 0.999),
    "min_disguise_recall": (0.0, 1.0),
    "min_train_patients": (5, 1_000_000),
    "min_holdout_patients": (10, 1_000_000),
}
COUNTS = (
    "max_identity_matches",
    "max_identifying_headers",
    "max_burned_in",
    "max_faces",
    "min_train_patients",
    "min_holdout_patients",
)
MEMBERSHIP = ("membership_p", "distance_p", "density_p")
"""Tests of one question; Holm's correction is over them."""
WEAK_SIGN = 0.05
"""A corrected p of membership below it that a policy lets pass is named as a sign all the same."""


@dataclass(frozen=True)
class Policy:
    """Thresholds under a name.

    Attributes
    ----------
    name : str
    thresholds : dict of str to float
        One value for each key of `RANGES`.
    reasons : dict of str to str
        Why each threshold has its value.
    maps_to : dict of str to tuple of str
        Which of the three risks of WP216 (singling out, linkability, inference) each threshold bears on.
    """

    name: str
    thresholds: dict[str, float]
    reasons: dict[str, str]
    maps_to: dict[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """SHA-256 of the name and the values, as canonical JSON: what a verdict depends on."""
        content = {"name": self.name, "thresholds": {k: float(v) for k, v in self.thresholds.items()}}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def policy_from_values(name: str, thresholds: Mapping[str, float]) -> Policy:
    """Rebuild a policy from the name and thresholds that a report states.

    Raises
    ------
    UsageError
        If a threshold is unknown, missing or out of range.
    """
    values = {key: _value(name, key, value) for key, value in _complete(name, thresholds).items()}
    return Policy(name, values, {}, {})


def load_policy(name_or_path: str | Path) -> Policy:
    """Read a bundled policy by name, or a policy file by path.

    Parameters
    ----------
    name_or_path : str or Path
        ``"default"``, ``"strict"``, ``"research"`` or the path of a YAML file.

    Raises
    ------
    UsageError
        If there is no such policy, or a key or value in it is unknown, missing or out of range; or if a file
        takes the name of a bundled policy and changes its thresholds.
    """
    if str(name_or_path) in BUNDLED:
        text = (files("privacy") / "policies" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return _parse(text, str(name_or_path))
    path = Path(name_or_path)
    try:
        policy = _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"Cannot read the policy {name_or_path}",
            found=" ".join(str(error).split()),
            expected=f"one of {', '.join(BUNDLED)}, or a YAML file",
        ) from error
    if policy.name in BUNDLED and policy.sha256 != load_policy(policy.name).sha256:
        raise UsageError(
            f"{path} changes the thresholds of the bundled policy {policy.name!r}", next_step="Name it differently"
        )
    return policy


def judge(measurements: Mapping[str, Any], policy: Policy) -> tuple[str, list[str]]:
    """Turn measurements into a verdict.

    Evidence of a leak is FAIL, whatever else is missing; no evidence, but too little power to have seen it,
    is INCONCLUSIVE.

    Parameters
    ----------
    measurements : mapping
        The ``measurements`` of a report (numbers only).
    policy : Policy

    Returns
    -------
    verdict : str
        ``"PASS"``, ``"FAIL"`` or ``"INCONCLUSIVE"``.
    reasons : list of str
        What led to it, in plain words; for PASS, what was shown.

    Raises
    ------
    UsageError
        If a measurement that the verdict needs is missing or is not a number.
    """
    m = _Measured(measurements)
    limits = policy.thresholds
    failures = _failures(m, limits)
    if failures:
        return "FAIL", failures
    doubts = _doubts(m, limits)
    if doubts:
        return "INCONCLUSIVE", doubts
    return "PASS", [_passed(m, limits)]


class _Measured:
    """Measurements by name, each checked to be a finite number when it is asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> float:
        value = self._values.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value != value
            or abs(value) == float("inf")
        ):
            raise UsageError(f"The measurement {key!r} is not usable", found=repr(value), expected="a finite number")
        return value


def _failures(m: _Measured, limits: Mapping[str, float]) -> list[str]:
    reasons = []
    if m["identity_matches"] > limits["max_identity_matches"]:
        reasons.append(
            f"{m['identity_matches']:.0f} of {m['samples']:.0f} distinct samples match one training patient more"
            f" closely than people who differ do (allowed: {limits['max_identity_matches']:.0f})"
        )
    if m["holdout_matches"] > limits["max_identity_matches"]:
        reasons.append(
            f"{m['holdout_matches']:.0f} of {m['samples']:.0f} distinct samples match one held-out patient more"
            f" closely than people who differ do (allowed: {limits['max_identity_matches']:.0f})"
        )
    if m["copy_rate"] > limits["max_copy_rate_upper"]:
        reasons.append(f"{m['copy_rate']:.1%} of the samples match (allowed: {limits['max_copy_rate_upper']:.1%})")
    p = min(holm([m[name] for name in MEMBERSHIP]))
    if p < limits["min_membership_p"]:
        reasons.append(
            f"The samples lie closer to training patients than to held-out ones: permutation p ="
            f" {p:.2g} over {len(MEMBERSHIP)} tests (limit {limits['min_membership_p']:.2g})"
        )
    if m["match_excess"] > limits["max_match_excess_upper"]:
        reasons.append(
            f"The match rate to training exceeds that to held-out patients by {m['match_excess']:.1%}"
            f" (allowed: {limits['max_match_excess_upper']:.1%})"
        )
    return [*reasons, *_risks(m, limits), *_carried(m, limits)]


def _risks(m: _Measured, limits: Mapping[str, float]) -> list[str]:
    """Say which attack works on training patients and not on held-out ones."""
    attacks = (
        ("linkability_risk", "max_linkability_risk", "Two parts of a training patient's scan can be linked"),
        ("inference_risk", "max_inference_risk", "One part of a training patient's scan tells the other"),
        ("attribute_risk", "max_inference_risk", "A training patient's scan tells an attribute"),
    )
    return [
        f"{text} through the samples more often than a held-out patient's: risk {risk:.1%}, at least {lower:.1%}"
        f" (allowed: {limits[limit]:.1%})"
        for key, limit, text in attacks
        if key in m or key != "attribute_risk"
        for risk, lower in [(m[key], m[f"{key}_lower"])]
        if lower > limits[limit]
    ]


def _carried(m: _Measured, limits: Mapping[str, float]) -> list[str]:
    """Say what the files carry besides their voxels, and what their voxels show."""
    findings = (
        ("identifying_headers", "finding", "findings", "in headers or names that could identify a patient"),
        ("burned_in", "sample", "samples", "with what seems to be text burned into the voxels"),
        ("faces", "sample", "samples", "with a whole head and its face"),
    )
    return [
        f"{counted(m[key], one, many)} {text} (allowed: {limits[f'max_{key}']:.0f})"
        for key, one, many, text in findings
        if m[key] > limits[f"max_{key}"]
    ]


def _doubts(m: _Measured, limits: Mapping[str, float]) -> list[str]:
    reasons = []
    for role, key in (("training", "train_patients"), ("held-out", "holdout_patients")):
        if m[key] < limits[f"min_{key}"]:
            reasons.append(f"Only {counted(m[key], f'{role} patient')}; the policy needs {limits[f'min_{key}']:.0f}")
    if m["recall_lower"] < limits["min_recall_lower"]:
        reasons.append(
            f"The audit found {m['recall']:.1%} of the copies it planted itself, a lower bound of"
            f" {m['recall_lower']:.3f}; the policy needs {limits['min_recall_lower']:.2f}"
        )
    if m["least_disguise_recall"] < limits["min_disguise_recall"]:
        reasons.append(
            f"Under one disguise it found {m['least_disguise_recall']:.0%} of them; the policy needs"
            f" {limits['min_disguise_recall']:.0%} under each"
        )
    bounds = (
        ("copy_rate_upper", "max_copy_rate_upper", "of all samples could be copies"),
        (
            "match_excess_upper",
            "max_match_excess_upper",
            "more matches to training than to held-out patients are possible",
        ),
    )
    for key, limit, text in bounds:
        if m[key] > limits[limit]:
            reasons.append(
                f"With {counted(m['samples'], 'distinct sample')}, up to {m[key]:.1%} {text}; the policy allows"
                f" {limits[limit]:.1%}: audit more samples"
            )
    return reasons


def _passed(m: _Measured, limits: Mapping[str, float]) -> str:
    """Say what was measured, so that a small p of membership is not read as none."""
    risks = [m[f"{key}_risk_lower"] for key in ("linkability", "inference", "attribute") if f"{key}_risk_lower" in m]
    shown = f"risk of linkability and inference at least {max(risks):.1%}"
    risk = shown if max(risks) >= 0.0005 else "no risk of linkability or inference shown"
    p = min(holm([m[name] for name in MEMBERSHIP]))
    sign = ", a weak sign of who was in training" if p < WEAK_SIGN else ""
    return (
        f"{counted(m['identity_matches'], 'identity match', 'identity matches')} in"
        f" {counted(m['samples'], 'distinct sample')} (at {limits['confidence']:.0%} confidence at most"
        f" {m['copy_rate_upper']:.1%} of all samples), {m['recall']:.1%} of the planted copies found;"
        f" smallest p of {len(MEMBERSHIP)} tests of membership {p:.2g} after Holm's correction{sign} (limit"
        f" {limits['min_membership_p']:.2g}); {risk}; {counted(m['identifying_headers'], 'identifying header')}"
    )


def _parse(text: str, source: str) -> Policy:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"The policy {source} is not YAML", found=" ".join(str(error).split())) from error
    if not isinstance(content, dict) or set(content) != {"name", "purpose", "thresholds"}:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UsageError(f"The policy {source} has the wrong keys", found=found, expected="name, purpose, thresholds")
    if not isinstance(content["name"], str) or not isinstance(content["thresholds"], dict):
        raise UsageError(f"The policy {source} is malformed", expected="name: text, thresholds: a table")
    entries = _complete(source, content["thresholds"])
    parsed = {key: _entry(source, key, entry) for key, entry in entries.items()}
    return Policy(
        name=content["name"],
        thresholds={key: value for key, (value, _, _) in parsed.items()},
        reasons={key: reason for key, (_, reason, _) in parsed.items()},
        maps_to={key: risks for key, (_, _, risks) in parsed.items()},
    )


def _complete(source: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    unknown, missing = sorted(set(map(str, entries)) - set(RANGES)), [key for key in RANGES if key not in entries]
    if unknown or missing:
        raise UsageError(
            f"The policy {source} has the wrong thresholds",
            found=f"unknown {', '.join(unknown) or 'none'}, missing {', '.join(missing) or 'none'}",
            expected=", ".join(RANGES),
        )
    return {key: entries[key] for key in RANGES}


def _entry(source: str, key: str, entry: Any) -> tuple[float, str, tuple[str, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"value", "maps_to", "reason"}:
        raise UsageError(f"{key} in the policy {source} is malformed", expected="value, maps_to and reason")
    risks = entry["maps_to"]
    if not isinstance(risks, list) or not risks or any(risk not in RISKS for risk in risks):
        raise UsageError(
            f"{key} in the policy {source} maps to an unknown risk", found=str(risks), expected=", ".join(RISKS)
        )
    if not isinstance(entry["reason"], str) or not entry["reason"].strip():
        raise UsageError(f"{key} in the policy {source} has no reason")
    return _value(source, key, entry["value"]), entry["reason"].strip(), tuple(risks)


def _value(source: str, key: str, value: Any) -> float:
    low, high = RANGES[key]
    wrong = isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high
    if wrong or (key in COUNTS and value != int(value)):
        kind = "a whole number" if key in COUNTS else "a number"
        raise UsageError(
            f"{key} in the policy {source} is out of range", found=repr(value), expected=f"{kind} from {low} to {high}"
        )
    return int(value) if key in COUNTS else float(value)
