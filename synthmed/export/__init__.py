"""The release: written only with an approval, from the very bytes that were audited, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthmed.config import Config, ExportConfig
from synthmed.errors import ConfigError, ReleaseRefused, VerificationFailed
from synthmed.export.approval import ReleaseApproval, approve, parse_report
from synthmed.export.bids import write_bids
from synthmed.export.cohort import ApprovedCohort, Columns, open_approved
from synthmed.export.dicom.writing import write_dicom
from synthmed.export.documents.writing import write_documents
from synthmed.export.findings import Finding
from synthmed.export.gate import GATE, gate_record
from synthmed.export.nifti import write_nifti
from synthmed.export.provenance import RELEASED, predicate, public_configuration
from synthmed.export.samples import Sample
from synthmed.export.seal import seal, signed_by
from synthmed.export.signing import say_on_stderr, signing_key
from synthmed.export.validation.running import describe_failures, validate_release
from synthmed.export.verify import REPORT, digest_files, require_release, verify
from synthmed.files import atomic_directory, write_json, write_text
from synthmed.report import Log

__all__ = [
    "EXPORTERS",
    "ApprovedCohort",
    "Finding",
    "ReleaseApproval",
    "approve",
    "check_formats",
    "export",
    "require_release",
    "signed_by",
    "verify",
]

Exporter = Callable[[ApprovedCohort, Path, ExportConfig], Columns]
EXPORTERS: dict[str, Exporter] = {"nifti": write_nifti, "dicom": write_dicom, "bids": write_bids}


def export(
    samples: Path,
    approval: ReleaseApproval,
    out: Path,
    *,
    config: ExportConfig,
    audit_dir: Path,
    run: Config | None = None,
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Log] | None = None,
    say: Callable[[str], None] = say_on_stderr,
) -> Path:
    """Write a release, sign it, check it, and only then give it its name.

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
        Formats, key, title, licence and statement of source.
    audit_dir : Path
        The audit's ``release/`` directory with the approved ``report.json`` and ``report.md``.
    run : Config, optional
        The settings that made the samples, for the statement of provenance and the model card.
    evaluation : mapping, optional
        ``evaluation.json`` of the run, for the model card and the page.
    training : mapping of str to rows, optional
        Stage -> its ``log.csv`` as `synthmed.training.journal.read_log` returns it, for the page.
    say : callable
        Receives a line if a signing key had to be made, and one about the validators if they were asked for.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ReleaseRefused
        Without an approval, if a file changed since, or if the finished release does not verify.
    VerificationFailed
        If a validator was asked for and finds an error.
    ConfigError
        If `out` exists, a format is unknown or does not go with the modality, or the signing key cannot be used.
    InputError
        If a file cannot be used.
    StorageError
        If the disk is full or read-only.
    """
    if not isinstance(approval, ReleaseApproval):
        raise ReleaseRefused(
            "Nothing is exported without an approval", found=type(approval).__name__, next_step="Call approve() first"
        )
    cohort = open_approved(samples, approval)
    check_formats(config, cohort.description.space.modality)
    key = signing_key(config.key, say)
    settings = public_configuration(run) if run else {"export": config.model_dump(mode="json", include=RELEASED)}
    with atomic_directory(out) as part:
        columns = _write(cohort, part, config, audit_dir)
        report = parse_report((part / REPORT).read_text(encoding="utf-8"))
        write_documents(part, config, cohort, report, columns, run=run, evaluation=evaluation, training=training)
        if config.validate_with_tools:
            _validate(part, say)
        seal(part, _digests(part), predicate(cohort, settings, part), key)
        if findings := verify(part):
            raise ReleaseRefused("The release does not pass its own verification", found=_first(findings))
    return out


def check_formats(config: ExportConfig, modality: str | None) -> None:
    """Raise `ConfigError` where the formats are unknown, or not for this modality (None: not known yet)."""
    unknown = [name for name in config.formats if name not in EXPORTERS]
    if unknown:
        raise ConfigError(f"There is no export format {unknown[0]}", expected=f"one of {', '.join(EXPORTERS)}")
    if modality == "PT" and "dicom" in config.formats:
        raise ConfigError(
            "PET is released as NIfTI alone", found="the format dicom", next_step="Take dicom out of export.formats"
        )
    if modality not in ("MR", None) and "bids" in config.formats:
        raise ConfigError(
            "The format bids is for MR alone", found=f"modality {modality}", next_step="Take bids out of export.formats"
        )
    asked = {"export.enhanced": "--classic"} if config.enhanced else {}
    asked |= {"export.compression": "--compression none"} if config.compression != "none" else {}
    if asked and "dicom" not in config.formats:
        raise ConfigError(
            f"{' and '.join(asked)} {'are' if len(asked) > 1 else 'is'} for the format dicom",
            found=f"export.formats {', '.join(config.formats)}",
            next_step=f"Export with --format dicom, or with {' '.join(asked.values())}",
        )


def _write(cohort: ApprovedCohort, part: Path, config: ExportConfig, audit_dir: Path) -> Columns:
    """Write the volumes, the audit's record, the gate's and the table of cases; return the table's cells."""
    spacing = " ".join(f"{round(edge, 6):g}" for edge in cohort.description.space.spacing)
    columns: Columns = {sample.name: {"spacing": spacing} for sample in cohort.samples}
    for exporter in (EXPORTERS[name] for name in config.formats):
        for case, cells in exporter(cohort, part, config).items():
            columns[case] |= cells
    approval = cohort.approval
    (part / "audit").mkdir()
    for name in ("report.json", "report.md"):
        (part / "audit" / name).write_bytes(approval.read_bound(audit_dir / name, approval.records[name]))
    write_json(part / GATE, gate_record(approval, columns, config.formats, _digests(part)))
    write_text(part / "cases.csv", _cases(cohort.samples, columns))
    return columns


def _validate(part: Path, say: Callable[[str], None]) -> None:
    """File what the validators say of everything so far; raise `VerificationFailed` where one finds an error."""
    verdicts = validate_release(part)
    say("Validators: " + ", ".join(f"{verdict.tool} {verdict.status}" for verdict in verdicts))
    if failures := describe_failures(verdicts):
        raise VerificationFailed(
            "The release does not pass its validators",
            found=_first(failures),
            next_step="`synthmed export --no-validate` writes it, and you can run them yourself",
        )


def _first(items: Sequence[object]) -> str:
    return f"{items[0]} and {len(items) - 1} more" if len(items) > 1 else str(items[0])


def _digests(part: Path) -> dict[str, str]:
    """Return name in the release -> SHA-256 of everything written so far."""
    digests, unreadable = digest_files(
        part, sorted(p.relative_to(part).as_posix() for p in part.rglob("*") if p.is_file())
    )
    if unreadable:
        raise ReleaseRefused("A file of the release cannot be read back", found=str(unreadable[0]))
    return digests


def _cases(samples: tuple[Sample, ...], columns: Mapping[str, Mapping[str, str]]) -> str:
    stream = io.StringIO(newline="")
    names = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "seed", "condition", *names])
    for sample in samples:
        condition = json.dumps(dict(sample.condition), sort_keys=True, ensure_ascii=False)
        cells = columns[sample.name]
        writer.writerow([sample.name, sample.seed, condition, *(cells.get(name, "") for name in names)])
    return stream.getvalue()
