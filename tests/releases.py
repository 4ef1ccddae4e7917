"""Samples and audits as `generate` and `privacy` leave them, small and wholly known, for the tests of the release."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.policy import load_policy
from synthmed.config import ExportConfig
from synthmed.export import approve, export
from synthmed.export.seal import PROVENANCE, SEAL, SUMS, seal
from synthmed.io import write_volume
from synthmed.prepare.space import Space
from synthmed.volume import Volume

SHAPE, SPACING = (9, 7, 5), (1.0, 1.5, 2.5)
PASSING = {
    "samples": 200,
    "train_patients": 60,
    "holdout_patients": 40,
    "identity_matches": 0,
    "holdout_matches": 0,
    "copy_rate": 0.0,
    "copy_rate_upper": 0.015,
    "membership_p": 0.4,
    "match_excess": 0.0,
    "match_excess_upper": 0.02,
    "distance_p": 0.6,
    "density_p": 0.2,
    "linkability_risk": 0.03,
    "linkability_risk_lower": 0.0,
    "inference_risk": 0.0,
    "inference_risk_lower": 0.0,
    "identifying_headers": 0,
    "burned_in": 0,
    "faces": 0,
    "recall": 0.99,
    "recall_lower": 0.95,
    "least_disguise_recall": 0.8,
}


@dataclass(frozen=True)
class Made:
    """Where the samples and the audit's release directory are."""

    samples: Path
    audit: Path

    @property
    def report(self) -> Path:
        return self.audit / "report.json"

    def release(self, out: Path, **config: Any) -> Path:
        """Approve and export."""
        approval = approve(self.samples, self.report, "default")
        return export(self.samples, approval, out, config=ExportConfig(**config), audit_dir=self.audit)


def oblique_affine() -> np.ndarray:
    """Anisotropic, and rotated about two axes: 20 degrees about z, then 10 degrees about x."""
    a, b = np.radians(20), np.radians(10)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z * SPACING
    affine[:3, 3] = -12.0, 34.0, -5.5
    return affine


def phantom_image(index: int) -> np.ndarray:
    """No two voxels alike, so that any flip, swap or shift shows. Shape SHAPE, whole numbers."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE) + 7.0 * index


def phantom_label(values: tuple[int, ...]) -> np.ndarray:
    """Background, then one asymmetric block a value. Shape SHAPE."""
    label = np.zeros(SHAPE)
    for i, value in enumerate(values):
        label[2 * i : 2 * i + 2, 1:4, :2] = value
    return label


def make_samples(folder: Path, n: int = 6, *, labels: tuple[int, ...] = (1, 2), modality: str = "MR") -> Path:
    """Write what `generate` writes; no labels where `labels` is empty."""
    rows = []
    for i in range(n):
        name = f"synthetic_{i:04d}"
        write_volume(folder / "images" / f"{name}.nii.gz", Volume(phantom_image(i)[None], oblique_affine()))
        if labels:
            label = Volume(phantom_label(labels)[None], oblique_affine())
            write_volume(folder / "labels" / f"{name}.nii.gz", label, dtype="uint8")
        rows.append({"name": name, "seed": 1000 + i, "condition": json.dumps({"age": 50 + i})})
    write_table(folder, rows)
    space = Space(
        SHAPE, SPACING, modality=modality, label_values=(0, *labels) if labels else (), label_names={1: "left"}
    )
    record = {"space": space.to_json(), "sampler": "dpmpp_2m", "num_inference_steps": 20, "log": "/home/eve/secret.log"}
    (folder / "generation.json").write_text(json.dumps(record))
    return folder


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write samples.csv with the digests of the files as they are."""
    with (folder / "samples.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["name", "seed", "condition", "image_sha256", "label_sha256"])
        writer.writeheader()
        for row in rows:
            files = {kind: folder / f"{kind}s" / f"{row['name']}.nii.gz" for kind in ("image", "label")}
            writer.writerow(row | {f"{kind}_sha256": digest(file) for kind, file in files.items()})


def read_table(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of samples.csv without their digests."""
    with (folder / "samples.csv").open(newline="") as stream:
        return [{k: row[k] for k in ("name", "seed", "condition")} for row in csv.DictReader(stream)]


def digest(file: Path) -> str:
    """SHA-256, empty for a file that is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def make_audit(
    folder: Path, samples: Path, policy: str | Path = "default", verdict: str = "PASS", **changed: float
) -> Path:
    """Write report.json and report.md as the audit does, with `changed` measurements."""
    rules = load_policy(policy)
    report = {
        "schema": "privacy-audit/2",
        "verdict": verdict,
        "reasons": [],
        "policy": {"name": rules.name, "sha256": rules.sha256, "thresholds": rules.thresholds},
        "seed": 0,
        "synthetic": {
            "n": len(list((samples / "images").iterdir())),
            "sha256": sorted(digest(f) for f in (samples / "images").iterdir()),
        },
        "train": {"n_scans": 70, "n_patients": 60},
        "holdout": {"n_scans": 44, "n_patients": 40},
        "measurements": PASSING | changed,
        "versions": {"privacy": "0"},
        "citations": ["Wilson 1927, doi:10.1080/01621459.1927.10502953"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    (folder / "report.md").write_text(f"# Audit\n\n{verdict}\n")
    return folder


def statement_of(release: Path) -> dict[str, Any]:
    """Return the statement in a release's envelope."""
    return json.loads(base64.b64decode(json.loads((release / PROVENANCE).read_text())["payload"]))


def reseal(release: Path, key: Ed25519PrivateKey | None = None) -> None:
    """Forge checksums, statement and signatures that agree, as whoever tampers would with a key of their own."""
    predicate = statement_of(release)["predicate"]
    for record in predicate["runDetails"]["byproducts"]:
        record["digest"]["sha256"] = digest(release / record["name"])
    files = {p.relative_to(release).as_posix(): digest(p) for p in release.rglob("*") if p.is_file()}
    files = {name: value for name, value in files.items() if name not in (SUMS, *SEAL)}
    seal(release, files, predicate, key or Ed25519PrivateKey.generate())
