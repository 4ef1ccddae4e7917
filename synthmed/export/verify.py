"""Check a release against its own checksums and gate, as whoever receives it would: read only what it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from privacy.errors import AuditError
from privacy.policy import BUNDLED, judge, load_policy, policy_from_values
from synthmed.export.approval import parse_report
from synthmed.export.findings import Finding
from synthmed.export.nifti import CHANNEL, ROOT, read_header
from synthmed.export.samples import SUFFIX
from synthmed.files import sha256_file

SUMS, GATE, REPORT = "SHA256SUMS", "audit/gate.json", "audit/report.json"
GATE_SCHEMA = "synthmed-gate/1"
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_REQUIRED = ("README.md", "LICENSE", "cases.csv", REPORT, "audit/report.md", GATE)


def verify(release: Path) -> list[Finding]:
    """Recompute every digest, hold the gate's record against the bytes, and look at every NIfTI header.

    Links are never followed, and nothing outside the directory is read.

    Parameters
    ----------
    release : Path
        What `export` wrote.

    Returns
    -------
    list of Finding
        Sorted by file; empty if the release is what was approved.
    """
    if not release.is_dir():
        return [Finding(release.name, "is not a directory")]
    files, findings = _walk(release)
    digests = _digest_all(release, files, findings)
    findings += [Finding(name, "is missing") for name in _REQUIRED if name not in digests]
    findings += _check_sums(release, digests)
    findings += _check_gate(release, digests)
    findings += _check_nifti(release, sorted(digests))
    return sorted(set(findings))


def _walk(release: Path) -> tuple[list[str], list[Finding]]:
    """Return the regular files, and a finding for each entry that is anything else."""
    files, findings = [], []
    for entry in _entries(release):
        name = entry.relative_to(release).as_posix()
        if entry.is_symlink():
            findings.append(Finding(name, "is a symbolic link"))
        elif entry.is_file():
            files.append(name)
        elif not entry.is_dir():
            findings.append(Finding(name, "is not a regular file"))
    return sorted(files), findings


def _digest_all(release: Path, files: list[str], findings: list[Finding]) -> dict[str, str]:
    """Return the digest of each file; add a finding for one that cannot be read."""
    digests = {}
    for name in files:
        try:
            digests[name] = sha256_file(release / name)
        except OSError as error:
            findings.append(Finding(name, f"cannot be read: {error.strerror or error}"))
    return digests


def _entries(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _entries(entry)


def _check_sums(release: Path, digests: Mapping[str, str]) -> list[Finding]:
    if SUMS not in digests:
        return [Finding(SUMS, "is missing")]
    listed: dict[str, str] = {}
    findings = []
    for number, line in enumerate((release / SUMS).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if not match:
            findings.append(Finding(SUMS, f"line {number} is not a checksum and a name"))
        elif _leads_outside(match[2]):
            findings.append(Finding(SUMS, f"line {number} leads outside the release: {match[2]}"))
        elif match[2] in listed:
            findings.append(Finding(match[2], f"is listed twice in {SUMS}"))
        else:
            listed[match[2]] = match[1]
    present = digests.keys() - {SUMS}
    findings += [Finding(name, "is missing") for name in listed.keys() - present]
    findings += [Finding(name, f"was added: {SUMS} does not list it") for name in present - listed.keys()]
    changed = [name for name in present & listed.keys() if listed[name] != digests[name]]
    return findings + [Finding(name, f"was changed: its digest is not that in {SUMS}") for name in changed]


def _leads_outside(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts


def _check_gate(release: Path, digests: Mapping[str, str]) -> list[Finding]:
    gate = _load(release, GATE, digests, json.loads)
    report = _load(release, REPORT, digests, parse_report)
    findings = [item for item in (gate, report) if isinstance(item, Finding)]
    if isinstance(gate, Finding) or isinstance(report, Finding):
        return findings
    try:
        return _gate_problems(gate, report, digests)
    except (AuditError, KeyError, TypeError, ValueError, AttributeError) as error:
        return [Finding(GATE, f"cannot be checked: {' '.join(str(error).split())}")]


def _load(release: Path, name: str, digests: Mapping[str, str], parse: Callable[[str], Any]) -> Any:
    if name not in digests:
        return Finding(name, "is missing")
    try:
        return parse((release / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return Finding(name, f"cannot be read: {' '.join(str(error).split())}")


def _gate_problems(gate: Mapping[str, Any], report: Mapping[str, Any], digests: Mapping[str, str]) -> list[Finding]:
    """Hold gate, report and bytes against one another, and judge the report's measurements again."""
    approved, policy = gate["approved"], policy_from_values(gate["policy"]["name"], gate["policy"]["thresholds"])
    verdict, _ = judge(report["measurements"], policy)
    images, labels = sorted(approved["images"].values()), sorted(approved["labels"].values())
    released, found_labels = gate["released"], _digests_under(digests, "labels")
    voxels = {n for n in digests if n.endswith(SUFFIX)}
    checks = [
        (gate["schema"] == GATE_SCHEMA, f"is not of schema {GATE_SCHEMA}"),
        (gate["verdict"] == report["verdict"] == verdict == "PASS", "its verdict is not what the measurements give"),
        (
            policy.name not in BUNDLED or policy.sha256 == load_policy(policy.name).sha256,
            "its thresholds are not those of the policy it names",
        ),
        (gate["policy"]["sha256"] == policy.sha256 == report["policy"]["sha256"], "its policy is not the report's"),
        (images == sorted(report["synthetic"]["sha256"]), "its images are not those that were audited"),
        (images == _digests_under(digests, "images"), "the released images are not those approved"),
        (voxels == set(released), "the released volumes are not those it names"),
        (gate["relabelled"] or labels == found_labels, "the released labels are not those approved"),
        (len(labels) == len(found_labels), "there are not as many labels as were approved"),
    ]
    findings = [Finding(GATE, text) for holds, text in checks if not holds]
    for name in ("report.json", "report.md"):
        if digests.get(f"audit/{name}") != approved["records"][name]:
            findings.append(Finding(f"audit/{name}", "is not the one that was approved"))
    changed = [name for name in voxels & set(released) if released[name] != digests[name]]
    return findings + [Finding(name, "is not the file that the gate let through") for name in changed]


def _digests_under(digests: Mapping[str, str], kind: str) -> list[str]:
    return sorted(d for name, d in digests.items() if name.startswith(f"{ROOT}/{kind}") and name.endswith(SUFFIX))


def _check_nifti(release: Path, files: list[str]) -> list[Finding]:
    """Look at every header, and hold each label's geometry against its image's."""
    findings, geometries = [], {}
    for name in (n for n in files if n.endswith(SUFFIX)):
        try:
            geometries[name], problems = read_header(release / name)
            findings += [Finding(name, problem) for problem in problems]
        except ValueError as error:
            findings.append(Finding(name, f"is not a readable NIfTI-1 volume: {error}"))
    for name in (n for n in geometries if n.startswith(f"{ROOT}/labelsTr/")):
        case = PurePosixPath(name).name.removesuffix(SUFFIX)
        image = geometries.get(f"{ROOT}/imagesTr/{case}{CHANNEL}{SUFFIX}")
        if image is None:
            findings.append(Finding(name, "has no image"))
        elif not image.agrees_with(geometries[name]):
            findings.append(Finding(name, "does not lie on the grid of its image"))
    return findings
