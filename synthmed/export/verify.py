"""Check a release against its own checksums and gate, as whoever receives it would: read only what it holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from privacy.errors import AuditError
from synthmed.errors import VerificationFailed
from synthmed.export.approval import parse_report
from synthmed.export.bids import IMAGE_SUFFIX, LABELS
from synthmed.export.bids import ROOT as BIDS
from synthmed.export.dicom.check import check_dicom
from synthmed.export.documents.page import PAGE
from synthmed.export.findings import Finding
from synthmed.export.gate import GATE, gate_findings
from synthmed.export.nifti import CHANNEL, ROOT, read_header
from synthmed.export.samples import SUFFIX
from synthmed.export.seal import SEAL, SUMS, seal_findings
from synthmed.export.signing import load_public_key
from synthmed.files import sha256_file

REPORT = "audit/report.json"
_THREADS = min(16, 2 * (os.cpu_count() or 1))
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_DOCUMENTS = ("README.md", "LICENSE", "DATASHEET.md", "MODEL_CARD.md", "croissant.json")
_REQUIRED = (*_DOCUMENTS, "cases.csv", REPORT, "audit/report.md", PAGE, GATE)


def verify(release: Path, key: Path | None = None) -> list[Finding]:
    """Recompute every digest, check the signatures, hold the gate's record against the bytes, look at every header.

    Links are never followed, and nothing outside the directory is read.

    Parameters
    ----------
    release : Path
        What `export` wrote.
    key : Path, optional
        The public key (PEM) that must have signed. Without it the signatures show only that one key signed all of
        it, and whose that is remains to be known.

    Returns
    -------
    list of Finding
        Empty if the release is what was approved. First the files that are missing, added, changed or links, then
        the signatures, then what follows inside; each part sorted by file.

    Raises
    ------
    ConfigError
        If `key` cannot be used.
    """
    expected = load_public_key(key) if key is not None else None
    if not release.is_dir():
        return [Finding(release.name, "is not a directory")]
    files, findings = _walk(release)
    digests, unreadable = digest_files(release, files)
    listed, problems = _read_sums(release, digests)
    findings += unreadable + problems
    findings += [Finding(name, "is missing") for name in _REQUIRED if name not in digests]
    findings += _check_sums(listed, digests)
    seal = seal_findings(release, digests, listed, expected)
    inside = _check_gate(release, digests) + _check_nifti(release, sorted(digests))
    inside += check_dicom(release, sorted(digests))
    return [_without_place(finding, release) for finding in _in_order(findings, seal, inside)]


def require_release(release: Path) -> None:
    """Refuse what is no release at all, with the way to one; how whole a release is, `verify` says.

    Raises
    ------
    VerificationFailed
        If there is no such folder, or nothing in it that only a release holds.
    """
    if any((release / name).exists() for name in (SUMS, GATE, *SEAL)):
        return
    inside = release / "export" / "release"
    if (inside / SUMS).is_file():
        next_step = f"Its release: synthmed verify {inside}"
        raise VerificationFailed(f"{release} is a run and not a release", next_step=next_step)
    found = f"no {SUMS} in it" if release.is_dir() else "a file" if release.exists() else "nothing of that name"
    raise VerificationFailed(
        f"{release} is no release",
        found=found,
        expected="a folder that `synthmed export` wrote",
        next_step="A run's is RUN/export/release",
    )


def _in_order(*parts: list[Finding]) -> list[Finding]:
    """Return the findings once each, part after part, each part sorted."""
    return list(dict.fromkeys(finding for part in parts for finding in sorted(part)))


def _without_place(finding: Finding, release: Path) -> Finding:
    """Leave out where the release lies, which an error that a library words may name."""
    if not release.is_absolute():
        return finding
    return Finding(finding.path, finding.problem.replace(f"{release}/", ""))


def _walk(release: Path) -> tuple[list[str], list[Finding]]:
    """Return the regular files, and a finding for each entry that is neither such nor a folder with content."""
    files, findings, folders = [], [], [(str(release), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            findings.append(Finding(prefix.rstrip("/") or release.name, f"cannot be read: {error.strerror or error}"))
            continue
        if prefix and not entries:
            findings.append(Finding(prefix.rstrip("/"), "is an empty folder"))
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                findings.append(Finding(name, "is a symbolic link"))
            elif entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{name}/"))
            elif entry.is_file(follow_symlinks=False):
                files.append(name)
            else:
                findings.append(Finding(name, "is not a regular file"))
    return sorted(files), findings


def digest_files(release: Path, names: Iterable[str]) -> tuple[dict[str, str], list[Finding]]:
    """Return the SHA-256 of each file, computed side by side, and a finding for each that cannot be read."""

    def digest(name: str) -> str | Finding:
        try:
            return sha256_file(release / name)
        except OSError as error:
            return Finding(name, f"cannot be read: {error.strerror or error}")

    names = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        results = dict(zip(names, pool.map(digest, names), strict=True))
    digests = {name: result for name, result in results.items() if isinstance(result, str)}
    return digests, [result for result in results.values() if isinstance(result, Finding)]


def _read_sums(release: Path, digests: Mapping[str, str]) -> tuple[dict[str, str], list[Finding]]:
    """Return what the checksums say (name -> SHA-256), and a finding for each line that says nothing usable."""
    listed: dict[str, str] = {}
    if SUMS not in digests:
        return listed, [Finding(SUMS, "is missing")]
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
    return listed, findings


def _leads_outside(name: str) -> bool:
    return name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts


def _check_sums(listed: Mapping[str, str], digests: Mapping[str, str]) -> list[Finding]:
    if SUMS not in digests:
        return []
    present = digests.keys() - {SUMS, *SEAL}
    findings = [Finding(name, "is missing") for name in listed.keys() - present]
    findings += [Finding(name, f"was added: {SUMS} does not list it") for name in present - listed.keys()]
    changed = [name for name in present & listed.keys() if listed[name] != digests[name]]
    return findings + [Finding(name, f"was changed: its digest is not that in {SUMS}") for name in changed]


def _check_gate(release: Path, digests: Mapping[str, str]) -> list[Finding]:
    gate = _load(release, GATE, digests, json.loads)
    report = _load(release, REPORT, digests, parse_report)
    findings = [item for item in (gate, report) if isinstance(item, Finding)]
    if isinstance(gate, Finding) or isinstance(report, Finding):
        return findings
    try:
        return gate_findings(gate, report, digests)
    except (AuditError, KeyError, TypeError, ValueError, AttributeError) as error:
        return [Finding(GATE, f"cannot be checked: {' '.join(str(error).split())}")]


def _load(release: Path, name: str, digests: Mapping[str, str], parse: Callable[[str], Any]) -> Any:
    if name not in digests:
        return Finding(name, "is missing")
    try:
        return parse((release / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return Finding(name, f"cannot be read: {' '.join(str(error).split())}")


def _check_nifti(release: Path, files: list[str]) -> list[Finding]:
    """Look at every header, and hold each label's geometry against its image's."""
    findings, geometries = [], {}
    for name in (n for n in files if n.endswith(SUFFIX)):
        try:
            geometries[name], problems = read_header(release / name)
            findings += [Finding(name, problem) for problem in problems]
        except ValueError as error:
            findings.append(Finding(name, f"is not a readable NIfTI-1 volume: {error}"))
    for name in geometries:
        image = _image_of(name)
        if image is not None and image not in geometries:
            findings.append(Finding(name, "has no image"))
        elif image is not None and not geometries[image].agrees_with(geometries[name]):
            findings.append(Finding(name, "does not lie on the grid of its image"))
    return findings


def _image_of(name: str) -> str | None:
    """Return the image that a label map belongs to, None where `name` is no label map."""
    if name.startswith(f"{ROOT}/labelsTr/"):
        return name.replace("/labelsTr/", "/imagesTr/").removesuffix(SUFFIX) + CHANNEL + SUFFIX
    if name.startswith(f"{LABELS}/"):
        return name.replace(LABELS, BIDS, 1).removesuffix(f"dseg{SUFFIX}") + IMAGE_SUFFIX + SUFFIX
    return None
