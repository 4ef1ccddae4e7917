"""The release: written only with an approval, from the very bytes that were audited, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthmed.config import ExportConfig
from synthmed.errors import ConfigError, ReleaseRefused
from synthmed.export.approval import ReleaseApproval, approve, parse_report
from synthmed.export.card import render_card, render_license
from synthmed.export.cohort import ApprovedCohort, Columns, open_approved
from synthmed.export.findings import Finding
from synthmed.export.nifti import write_nifti
from synthmed.export.samples import Sample
from synthmed.export.verify import GATE_SCHEMA, SUMS, verify
from synthmed.files import sha256_file, storage_errors, write_json, write_text

__all__ = ["EXPORTERS", "ApprovedCohort", "Finding", "ReleaseApproval", "approve", "export", "verify"]

Exporter = Callable[[ApprovedCohort, Path, ExportConfig], Columns]
EXPORTERS: dict[str, Exporter] = {"nifti": write_nifti}


def export(samples: Path, approval: ReleaseApproval, out: Path, *, config: ExportConfig, audit_dir: Path) -> Path:
    """Write a release, check it, and only then give it its name.

    Everything goes to a hidden sibling of `out` first. A refused or interrupted export removes it; what a killed
    one leaves is removed by the next.

    Parameters
    ----------
    samples : Path
        What ``generate`` wrote; every file's digest is compared with the approval's as it is copied.
    approval : ReleaseApproval
        What `approve` returned for these samples.
    out : Path
        The release; must not exist.
    config : ExportConfig
        Formats, title, licence and statement of source.
    audit_dir : Path
        The audit's ``release/`` directory with the approved ``report.json`` and ``report.md``.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ReleaseRefused
        Without an approval, if a file changed since, or if the finished release does not verify.
    ConfigError
        If `out` exists or a format is unknown.
    InputError
        If a file cannot be used.
    StorageError
        If the disk is full or read-only.
    """
    if not isinstance(approval, ReleaseApproval):
        raise ReleaseRefused(
            "Nothing is exported without an approval", found=type(approval).__name__, next_step="Call approve() first"
        )
    unknown = [name for name in config.formats if name not in EXPORTERS]
    if unknown:
        raise ConfigError(f"There is no export format {unknown[0]}", expected=f"one of {', '.join(EXPORTERS)}")
    if out.exists() or out.is_symlink():
        raise _exists(out)
    with _whole_or_absent(out) as part:
        _write(open_approved(samples, approval), part, config, audit_dir)
        findings = verify(part)
        if findings:
            more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
            raise ReleaseRefused("The release does not pass its own verification", found=f"{findings[0]}{more}")
    return out


@contextmanager
def _whole_or_absent(out: Path) -> Iterator[Path]:
    """Yield a new hidden directory beside `out` that takes its name on success and vanishes on any failure."""
    prefix = f".{out.name}.partial-"
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in out.parent.glob(f"{prefix}*"):
            shutil.rmtree(stale)
        part = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        try:
            yield part
            part.chmod(0o755)
            _rename(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _rename(part: Path, out: Path) -> None:
    try:
        part.rename(out)
    except OSError as error:
        if out.exists():
            raise _exists(out) from error
        raise


def _exists(out: Path) -> ConfigError:
    return ConfigError(f"{out} exists already", next_step="Remove it or name another directory")


def _write(cohort: ApprovedCohort, part: Path, config: ExportConfig, audit_dir: Path) -> None:
    columns: Columns = {sample.name: {} for sample in cohort.samples}
    for exporter in (EXPORTERS[name] for name in config.formats):
        for case, cells in exporter(cohort, part, config).items():
            columns[case] |= cells
    approval = cohort.approval
    (part / "audit").mkdir()
    for name in ("report.json", "report.md"):
        (part / "audit" / name).write_bytes(approval.read_bound(audit_dir / name, approval.records[name]))
    write_json(part / "audit" / "gate.json", _gate(approval, columns))
    write_text(part / "cases.csv", _cases(cohort.samples, columns))
    report = parse_report((part / "audit" / "report.json").read_text(encoding="utf-8"))
    write_text(part / "README.md", render_card(config, cohort, report, columns))
    write_text(part / "LICENSE", render_license(config))
    files = sorted(p.relative_to(part).as_posix() for p in part.rglob("*") if p.is_file())
    write_text(part / SUMS, "".join(f"{sha256_file(part / name)}  {name}\n" for name in files))


def _gate(approval: ReleaseApproval, columns: Columns) -> dict[str, Any]:
    """Return the gate's decision and the digests it is bound to."""
    return {
        "schema": GATE_SCHEMA,
        "verdict": approval.verdict,
        "reasons": list(approval.reasons),
        "policy": dict(approval.policy),
        "relabelled": any(columns[name]["label_sha256"] != digest for name, digest in approval.labels.items()),
        "approved": {
            "records": dict(approval.records),
            "images": dict(approval.images),
            "labels": dict(approval.labels),
        },
        "released": {
            cells[kind]: cells[f"{kind}_sha256"]
            for cells in columns.values()
            for kind in ("image", "label")
            if cells.get(kind)
        },
    }


def _cases(samples: tuple[Sample, ...], columns: Mapping[str, Mapping[str, str]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "seed", "condition", *columns[samples[0].name]])
    for sample in samples:
        condition = json.dumps(dict(sample.condition), sort_keys=True, ensure_ascii=False)
        writer.writerow([sample.name, sample.seed, condition, *columns[sample.name].values()])
    return stream.getvalue()
