"""The gate: an approval that only a passing audit makes, bound to the very bytes that the audit saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from privacy.errors import AuditError
from privacy.policy import Policy, judge, load_policy
from synthmed.errors import AuditInconclusive, InputError, ReleaseRefused
from synthmed.export.samples import SUFFIX, TABLE, Sample, read_samples
from synthmed.files import GENERATION, sha256_file
from synthmed.words import counted

REPORT_SCHEMA = "privacy-audit/2"
_MAKER = object()
_AGAIN = "Run `synthmed audit` on the samples as they are now"


@dataclass(frozen=True)
class ReleaseApproval:
    """Permission to release one set of files; `approve` is its only maker.

    Attributes
    ----------
    verdict : str
        Always ``"PASS"``.
    reasons : tuple of str
        What the audit showed, in plain words.
    policy : mapping
        ``name``, ``sha256`` and ``thresholds``.
    images, labels : mapping of str to str
        Sample name -> SHA-256 of the file.
    records : mapping of str to str
        SHA-256 of ``samples.csv``, ``generation.json``, ``report.json`` and ``report.md``.
    """

    verdict: str
    reasons: tuple[str, ...]
    policy: Mapping[str, Any]
    images: Mapping[str, str]
    labels: Mapping[str, str]
    records: Mapping[str, str]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("A ReleaseApproval is made by synthmed.export.approve alone")

    def read_bound(self, file: Path, digest: str) -> bytes:
        """Return the bytes of `file`; raise `ReleaseRefused` unless they are the approved ones."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ReleaseRefused(
                f"{file} was approved and cannot be read", found=error.strerror or str(error)
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise ReleaseRefused(f"{file} changed after it was approved", next_step=_AGAIN)
        return content


def approve(samples: Path, audit_report: Path, policy: str | Path) -> ReleaseApproval:
    """Judge an audit's measurements again and bind the result to the files that it measured.

    Parameters
    ----------
    samples : Path
        What ``generate`` wrote.
    audit_report : Path
        ``report.json`` of the audit's ``release/`` directory, its ``report.md`` beside it.
    policy : str or Path
        The policy of the audit: a bundled name or a YAML file.

    Raises
    ------
    ReleaseRefused
        If the verdict is FAIL, or report, policy and files do not belong together.
    AuditInconclusive
        If the audit was too weak to judge.
    InputError
        If a file cannot be read or used.
    privacy.errors.UsageError
        If there is no such policy.
    """
    rules = load_policy(policy)
    report = read_report(audit_report)
    table = read_samples(samples)
    images, labels = _digests(samples, table)
    _check_coverage(report, images)
    _check_policy(report, rules)
    reasons = _check_verdict(report, rules, audit_report.parent.parent / "steward" / "report.md")
    files = (samples / TABLE, samples / GENERATION, audit_report, audit_report.with_suffix(".md"))
    stated = {"name": rules.name, "sha256": rules.sha256, "thresholds": dict(rules.thresholds)}
    return ReleaseApproval(
        "PASS",
        tuple(reasons),
        MappingProxyType(stated),
        MappingProxyType(images),
        MappingProxyType(labels),
        MappingProxyType({file.name: _digest(file) for file in files}),
        _MAKER,
    )


def read_report(file: Path) -> dict[str, Any]:
    """Read the audit's ``report.json``; raise `InputError` where it is not one."""
    try:
        return parse_report(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = " ".join(str(error).split())
        raise InputError(f"Cannot use the audit report {file}", found=found, expected=REPORT_SCHEMA) from error


def parse_report(text: str) -> dict[str, Any]:
    """Parse an audit report; raise `ValueError` unless it has the parts that the gate needs."""
    report = json.loads(text)
    if not isinstance(report, dict) or report.get("schema") != REPORT_SCHEMA:
        raise ValueError(f"not a report of schema {REPORT_SCHEMA}")
    for part in ("policy", "synthetic", "measurements"):
        if not isinstance(report.get(part), dict):
            raise ValueError(f"the report lacks {part}")
    audited = report["synthetic"].get("sha256")
    if not isinstance(audited, list) or not all(isinstance(digest, str) for digest in audited):
        raise ValueError("the report does not list the digests of what it audited")
    return report


def _digest(file: Path) -> str:
    try:
        return sha256_file(file)
    except OSError as error:
        raise InputError(f"Cannot read {file}", found=error.strerror or str(error)) from error


def _digests(folder: Path, table: tuple[Sample, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of images and labels, each recomputed and equal to what the table says."""
    images = {s.name: _checked(folder / "images" / (s.name + SUFFIX), s.image_sha256) for s in table}
    labels = {s.name: _checked(folder / "labels" / (s.name + SUFFIX), s.label_sha256) for s in table if s.has_label}
    return images, labels


def _checked(file: Path, claimed: str) -> str:
    digest = _digest(file)
    if digest != claimed:
        raise ReleaseRefused(
            f"{file} is not the file that {TABLE} lists",
            found=f"SHA-256 {digest[:12]}…",
            expected=f"{claimed[:12]}…",
            next_step="Run `synthmed generate` again, then the audit",
        )
    return digest


def _check_coverage(report: Mapping[str, Any], images: Mapping[str, str]) -> None:
    audited, present = sorted(report["synthetic"]["sha256"]), sorted(images.values())
    if audited == present:
        return
    unaudited = [name for name, digest in images.items() if digest not in audited]
    detail = f", such as {unaudited[0]}" if unaudited else ""
    raise ReleaseRefused(
        "The audit report is about other files",
        found=f"{counted(len(present), 'image')}, {len(unaudited)} of them not audited{detail}",
        expected=f"exactly what was audited, {counted(len(audited), 'image')}",
        next_step=_AGAIN,
    )


def _check_policy(report: Mapping[str, Any], rules: Policy) -> None:
    stated = report["policy"]
    if stated.get("sha256") != rules.sha256 or stated.get("thresholds") != rules.thresholds:
        raise ReleaseRefused(
            "The policy is not the one that the audit was judged by",
            found=f"{rules.name} ({rules.sha256[:12]}…)",
            expected=f"{stated.get('name')} ({str(stated.get('sha256'))[:12]}…)",
            next_step=_AGAIN,
        )


def _check_verdict(report: Mapping[str, Any], rules: Policy, evidence: Path) -> list[str]:
    try:
        verdict, reasons = judge(report["measurements"], rules)
    except AuditError as error:
        raise ReleaseRefused(f"The audit report cannot be judged: {error}", next_step=_AGAIN) from error
    if verdict != report.get("verdict"):
        raise ReleaseRefused(
            "The audit report was edited: its verdict is not what its measurements give",
            found=str(report.get("verdict")),
            expected=verdict,
            next_step=_AGAIN,
        )
    look = f"The evidence: {evidence}"
    if verdict == "INCONCLUSIVE":
        raise AuditInconclusive(
            "The audit is INCONCLUSIVE, which blocks the release", found="; ".join(reasons), next_step=look
        )
    if verdict != "PASS":
        raise ReleaseRefused(
            f"The audit says {verdict}, which blocks the release", found="; ".join(reasons), next_step=look
        )
    return reasons
