"""The two records: the release's, which names nobody, and the steward's, which shows every pair and stays home."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from privacy.attacks import AttackResult
from privacy.cleaning import Cleaned
from privacy.distributions import score_distributions
from privacy.errors import EXIT_CODES
from privacy.evidence import Evidence
from privacy.margins import SPACES
from privacy.metadata import IDENTIFYING, MetadataFinding, summary
from privacy.policy import Policy, judge
from privacy.records import Scan, digest
from privacy.similarity import Matches

SCHEMA = "privacy-audit/2"
STEWARD_SCHEMA = "privacy-audit-steward/2"
ALWAYS_CITED = (
    "Baker and Matthews 2004, Lucas-Kanade 20 years on, doi 10.1023/B:VISI.0000011205.11775.fd",
    "Fukunaga 1990, Introduction to statistical pattern recognition, ISBN 0-12-269851-7",
    "Article 29 Working Party 2014, Opinion 05/2014 on anonymisation techniques (WP216)",
    "EDPB 2024, Opinion 28/2024 on AI models and personal data",
)


@dataclass(frozen=True)
class Power:
    """How many planted copies the audit found itself.

    Attributes
    ----------
    planted, found : int
    recall_lower : float
        One-sided lower bound at the policy's confidence.
    by_disguise : dict of str to float
        Recall under each disguise.
    smallest_copies : int
        Copies a set must hold for one to be seen at the policy's confidence; 0 where nothing is seen.
    """

    planted: int
    found: int
    recall_lower: float
    by_disguise: dict[str, float]
    smallest_copies: int


@dataclass(frozen=True)
class Findings:
    """Everything an audit found, names included: what both records are made from."""

    train: list[Scan]
    holdout: list[Scan]
    synthetic: list[Scan]
    samples: list[Scan]
    notes: tuple[str, ...]
    policy: Policy
    seed: int
    cleaned: Cleaned
    evidence: Evidence
    matches: Matches
    results: dict[str, AttackResult]
    power: Power
    metadata: tuple[MetadataFinding, ...]


@dataclass(frozen=True)
class AuditReport:
    """The outcome of an audit.

    Attributes
    ----------
    verdict : str
        ``"PASS"``, ``"FAIL"`` or ``"INCONCLUSIVE"``.
    reasons : list of str
    release : dict
        Schema ``privacy-audit/2``; names no patient, file or path.
    steward : dict
        Names all of them; stays home.
    samples : list of dict
        One row for each synthetic file; names files and patients.
    """

    verdict: str
    reasons: list[str]
    release: dict[str, Any]
    steward: dict[str, Any]
    samples: list[dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """0 for PASS, 3 for FAIL, 4 for INCONCLUSIVE."""
        return EXIT_CODES[self.verdict]


def build_report(findings: Findings) -> AuditReport:
    """Judge the findings and state them twice."""
    measurements = measure(findings)
    verdict, reasons = judge(measurements, findings.policy)
    release = _release(findings, measurements, verdict, reasons)
    rows = sample_rows(findings)
    return AuditReport(verdict, reasons, release, _steward(findings, release, rows), rows)


def measure(findings: Findings) -> dict[str, Any]:
    """Collect what the policy judges: numbers only, rounded to six digits."""
    power, evidence = findings.power, findings.evidence
    out: dict[str, Any] = {
        "samples": len(findings.samples),
        "train_patients": len(evidence.train),
        "holdout_patients": len(evidence.holdout),
        "purged_holdout_scans": int((~findings.cleaned.kept).sum()),
        "merged_patients": _patients(findings.train) + _patients(findings.holdout) - _clusters(findings),
        "recall": power.found / power.planted,
        "recall_lower": power.recall_lower,
        "least_disguise_recall": min(power.by_disguise.values()),
        "identifying_headers": sum(item.severity == IDENTIFYING for item in findings.metadata),
        "burned_in": sum(item.kind == "burned-in" for item in findings.metadata),
        "faces": sum(item.kind == "face" for item in findings.metadata),
    }
    for result in findings.results.values():
        out |= result.measurements
    return {key: tidy(value) for key, value in out.items()}


def sample_rows(findings: Findings) -> list[dict[str, Any]]:
    """Return one row for each synthetic file: scores, p-value, flag and the nearest patient."""
    columns = {key: column for result in findings.results.values() for key, column in result.per_sample.items()}
    found, scans = findings.evidence.samples, [*findings.train, *findings.holdout]
    held_out = findings.evidence.samples_holdout
    row_of = {scan.content: k for k, scan in enumerate(findings.samples)}
    rows = []
    for scan in findings.synthetic:
        k = row_of[scan.content]
        rows.append(
            {
                "file": scan.name,
                "score": tidy(float(found.score[k])),
                "similarity": tidy(float(found.similarity[k])),
                "holdout_similarity": tidy(float(held_out.similarity[k])),
                "holdout_score": tidy(float(held_out.score[k])),
                "holdout_patient": scans[held_out.scan[k]].patient if held_out.scan[k] >= 0 else "",
                "p_value": tidy(float(columns["p_value"][k])),
                "flag": _flag(columns["match"][k], held_out.score[k] >= 1, columns["flagged"][k]),
                "nearest_patient": scans[found.scan[k]].patient if found.scan[k] >= 0 else "",
                "nearest_scan": scans[found.scan[k]].name if found.scan[k] >= 0 else "",
                "candidates": _candidates(findings.matches, k, scans),
                "row": k,
            }
        )
    return sorted(rows, key=lambda row: (-row["score"], row["file"]))


def _flag(matches: bool, held_out: bool, unusual: bool) -> str:
    return "match" if matches else "holdout-match" if held_out else "look" if unusual else ""


def _candidates(matches: Matches, k: int, scans: list[Scan]) -> str:
    """List the scans that sample `k` was registered to, each with its similarities in the order of `VIEWS`."""
    pairs = zip(matches.index[k], matches.views[k], strict=True)
    listed = [f"{scans[index].name} ({', '.join(f'{v:.2f}' for v in views)})" for index, views in pairs if index >= 0]
    return "; ".join(listed)


def tidy(value: Any) -> Any:
    """Round numbers to six significant digits, so that a report is the same text everywhere it is the same result."""
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return float(f"{float(value):.6g}")


def _release(findings: Findings, measurements: dict[str, Any], verdict: str, reasons: list[str]) -> dict[str, Any]:
    policy, power = findings.policy, findings.power
    n = len(findings.samples)
    space = findings.cleaned.real.gallery.space
    cited = [text for result in findings.results.values() for text in result.citations]
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "reasons": reasons,
        "policy": {"name": policy.name, "sha256": policy.sha256, "thresholds": dict(policy.thresholds)},
        "seed": findings.seed,
        "synthetic": {"n": len(findings.synthetic), "sha256": sorted(scan.sha256 for scan in findings.synthetic)},
        "train": {"n_scans": len(findings.train), "n_patients": len(findings.evidence.train)},
        "holdout": {
            "n_scans": int((~findings.cleaned.real.is_train & findings.cleaned.kept).sum()),
            "n_patients": len(findings.evidence.holdout),
        },
        "measurements": measurements,
        "scores": score_distributions(findings.evidence),
        "power": {
            "planted": power.planted,
            "found": power.found,
            "recall": tidy(power.found / power.planted),
            "recall_lower": tidy(power.recall_lower),
            "by_disguise": {name: tidy(value) for name, value in power.by_disguise.items()},
            "smallest_detectable_copies": power.smallest_copies,
            "smallest_detectable_rate": tidy(min(1.0, (power.smallest_copies or n) / n)),
        },
        "space": {
            "voxel_mm": tidy(space.spacing),
            "grid": list(space.fine),
            "method": "reoriented to RAS, cut to the content, resampled about its centre",
            "evidence": {name: list(views) for name, views in SPACES.items()},
        },
        "notes": list(findings.notes),
        "metadata": summary(findings.metadata),
        "versions": _versions(),
        "citations": sorted({*cited, *ALWAYS_CITED}),
    }


def _steward(findings: Findings, release: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    scans = [*findings.train, *findings.holdout]
    purged = sorted({scans[k].patient for k in np.flatnonzero(~findings.cleaned.kept)})
    return {
        "schema": STEWARD_SCHEMA,
        "notice": "Names patients and files. Stays with the data steward.",
        "verdict": release["verdict"],
        "reasons": release["reasons"],
        "sets": {
            role: {"sha256": digest(part), "files": sorted(_place(scan) for scan in part)}
            for role, part in (
                ("train", findings.train),
                ("holdout", findings.holdout),
                ("synthetic", findings.synthetic),
            )
        },
        "purged_holdout_patients": purged,
        "merged_patients": _merged(findings),
        "metadata": [asdict(item) for item in findings.metadata],
        "pairs": [_pair(findings, row) for row in rows if row["flag"]],
        "release": release,
    }


def _pair(findings: Findings, row: dict[str, Any]) -> dict[str, Any]:
    scans = [*findings.train, *findings.holdout]
    source = scans[findings.evidence.samples.scan[row["row"]]]
    return {key: value for key, value in row.items() if key != "row"} | {
        "sample_path": _place(findings.samples[row["row"]]),
        "source_path": _place(source),
    }


def _place(scan: Scan) -> str:
    return str(scan.path) if scan.path is not None else scan.name


def _merged(findings: Findings) -> list[list[str]]:
    """List the identifiers that were found to be one patient."""
    groups: dict[int, set[str]] = {}
    for number, scan in zip(findings.cleaned.real.gallery.patient, [*findings.train, *findings.holdout], strict=True):
        groups.setdefault(int(number), set()).add(scan.patient)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _patients(scans: list[Scan]) -> int:
    return len({scan.patient for scan in scans})


def _clusters(findings: Findings) -> int:
    shared = {scan.patient for scan in findings.train} & {scan.patient for scan in findings.holdout}
    return len(np.unique(findings.cleaned.real.gallery.patient)) + len(shared)


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for package in ("synthmed", "torch", "numpy", "scipy", "nibabel", "pydicom", "highdicom"):
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "not installed"
    return out
