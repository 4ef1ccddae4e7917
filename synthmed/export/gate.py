"""The gate's record: what was decided, by which rules, and which released file shows which approved case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from privacy.policy import BUNDLED, judge, load_policy, policy_from_values
from synthmed.export.approval import ReleaseApproval
from synthmed.export.cohort import Columns
from synthmed.export.findings import Finding
from synthmed.export.nifti import ROOT
from synthmed.export.samples import SUFFIX

GATE = "audit/gate.json"
GATE_SCHEMA = "synthmed-gate/2"
# Cells of cases.csv that name a voxel file, or a folder of such, and what these show.
SHOWN = {
    "image": "image",
    "label": "label",
    "dicom_series": "image",
    "dicom_seg": "label",
    "bids_image": "image",
    "bids_label": "label",
}
_VOXELS = (SUFFIX, ".dcm")


def gate_record(
    approval: ReleaseApproval, columns: Columns, formats: Iterable[str], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the gate's decision, bound to every file with voxels.

    Parameters
    ----------
    approval : ReleaseApproval
    columns : dict of str to dict
        What the exporters wrote for each case.
    formats : iterable of str
    digests : mapping of str to str
        Name in the release -> SHA-256.
    """
    relabelled = any(columns[name].get("label_sha256", digest) != digest for name, digest in approval.labels.items())
    places = _places(digests)
    return {
        "schema": GATE_SCHEMA,
        "verdict": approval.verdict,
        "reasons": list(approval.reasons),
        "policy": dict(approval.policy),
        "formats": list(formats),
        "relabelled": relabelled,
        "approved": {
            "records": dict(approval.records),
            "images": dict(approval.images),
            "labels": dict(approval.labels),
        },
        "released": {
            name: {"case": case, "shows": shows, "sha256": digests[name]}
            for case, cells in columns.items()
            for cell, shows in SHOWN.items()
            if cells.get(cell)
            for name in places[cells[cell]]
        },
    }


def _places(names: Iterable[str]) -> dict[str, list[str]]:
    """Return what a cell may name -> the files that it means: itself, or those in the folder of that name."""
    places: dict[str, list[str]] = {}
    for name in sorted(names):
        for place in (name, *map(str, PurePosixPath(name).parents)):
            places.setdefault(place, []).append(name)
    return places


def holds_voxels(name: str) -> bool:
    """Say whether a file of a release holds voxels, by the ending of its name."""
    return name.endswith(_VOXELS)


def gate_findings(gate: Mapping[str, Any], report: Mapping[str, Any], digests: Mapping[str, str]) -> list[Finding]:
    """Hold the gate's record, the audit's report and the bytes against one another; judge the measurements again.

    Raises
    ------
    privacy.errors.AuditError, KeyError, TypeError, ValueError, AttributeError
        If either is not what its schema says.
    """
    approved, policy = gate["approved"], policy_from_values(gate["policy"]["name"], gate["policy"]["thresholds"])
    verdict, _ = judge(report["measurements"], policy)
    released = gate["released"]
    checks = [
        (gate["schema"] == GATE_SCHEMA, f"is not of schema {GATE_SCHEMA}"),
        (gate["verdict"] == report["verdict"] == verdict == "PASS", "its verdict is not what the measurements give"),
        (
            policy.name not in BUNDLED or policy.sha256 == load_policy(policy.name).sha256,
            "its thresholds are not those of the policy it names",
        ),
        (gate["policy"]["sha256"] == policy.sha256 == report["policy"]["sha256"], "its policy is not the report's"),
        (
            sorted(approved["images"].values()) == sorted(report["synthetic"]["sha256"]),
            "its images are not those that were audited",
        ),
        ({n for n in digests if holds_voxels(n)} == set(released), "the released volumes are not those it names"),
        *_coverage(gate),
        *_audited_bytes(gate, digests),
    ]
    findings = [Finding(GATE, text) for holds, text in checks if not holds]
    for name in ("report.json", "report.md"):
        if digests.get(f"audit/{name}") != approved["records"][name]:
            findings.append(Finding(f"audit/{name}", "is not the one that was approved"))
    changed = [name for name in digests.keys() & set(released) if released[name]["sha256"] != digests[name]]
    return findings + [Finding(name, "is not the file that the gate let through") for name in changed]


def _coverage(gate: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Check that every format shows every approved case with its label, and none that was not approved."""
    shown: dict[tuple[str, str], set[str]] = {}
    for name, entry in gate["released"].items():
        shown.setdefault((name.split("/")[0], entry["shows"]), set()).add(entry["case"])
    approved = {"image": set(gate["approved"]["images"]), "label": set(gate["approved"]["labels"])}
    formats = {name for name, _ in shown}
    checks = [(formats == set(gate["formats"]), "the released formats are not those it names")]
    for name in sorted(formats):
        for kind, cases in approved.items():
            text = f"the cases with {'an' if kind == 'image' else 'a'} {kind} in {name}/ are not those approved"
            checks.append((shown.get((name, kind), set()) == cases, text))
    return checks


def _audited_bytes(gate: Mapping[str, Any], digests: Mapping[str, str]) -> list[tuple[bool, str]]:
    """Check that NIfTI images, and label maps that kept their values, are the approved files byte for byte."""
    checks = []
    for folder, renumbered in ((ROOT, bool(gate["relabelled"])), ("bids", False)):
        for kind in ("image",) if renumbered else ("image", "label"):
            approved = gate["approved"][f"{kind}s"]
            same = all(
                digests.get(name) == approved.get(entry["case"])
                for name, entry in gate["released"].items()
                if name.startswith(f"{folder}/") and entry["shows"] == kind
            )
            checks.append((same, f"the released {kind}s in {folder}/ are not those approved"))
    return checks
