"""The release's page, ``audit/report.html``: what a governance board reads, made from what the release may state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthmed import __version__
from synthmed.config import Config, ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.audit_figures import audit_rows
from synthmed.export.documents.markdown import numbers
from synthmed.export.provenance import public_configuration
from synthmed.export.samples import FACTS, Description
from synthmed.files import write_text
from synthmed.report import Facts, Log, Preview, chosen, preview_of_files, render_report

PAGE = "audit/report.html"


def write_page(
    part: Path,
    config: ExportConfig,
    cohort: ApprovedCohort,
    report: Mapping[str, Any],
    *,
    run: Config | None = None,
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Log] | None = None,
) -> None:
    """Write ``audit/report.html``; its pictures are of approved volumes alone, read through the approval.

    Parameters
    ----------
    part : Path
        The release being written.
    config : ExportConfig
    cohort : ApprovedCohort
    report : mapping
        The audit's ``report.json``.
    run : Config, optional
        The settings that made the samples.
    evaluation : mapping, optional
        ``evaluate/evaluation.json`` of the run.
    training : mapping of str to rows, optional
        Stage -> its ``log.csv``, as `synthmed.training.journal.read_log` returns it.
    """
    approval, description = cohort.approval, cohort.description
    facts = Facts(
        title=config.title,
        audit=report,
        audit_rows=audit_rows(report, numbers(approval.policy["thresholds"])),
        evaluation=_for_release(evaluation),
        training=training or {},
        previews=_previews(cohort),
        number_of_volumes=len(cohort.samples),
        structures=structures(description),
        settings=public_configuration(run) if run else {},
        versions={"synthmed": __version__, **report.get("versions", {})},
        digests=model_digests(description) | {"policy": str(approval.policy["sha256"]), **approval.records},
    )
    write_text(part / PAGE, render_report(facts))


def _for_release(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Leave out what real patients' organs measure, which stays home."""
    return None if evaluation is None else {key: value for key, value in evaluation.items() if key != "labels"}


def structures(description: Description) -> tuple[str, ...]:
    """Return what each class of the labels is called, background first."""
    space = description.space
    return tuple(
        space.label_names.get(value, f"label {value}") if value else "background" for value in space.label_values
    )


def model_digests(description: Description) -> dict[str, str]:
    """Return the digests of the models that drew the volumes."""
    facts = description.facts
    return {name: facts[FACTS[name]] for name in ("autoencoder", "denoiser") if FACTS[name] in facts}


def _previews(cohort: ApprovedCohort) -> list[Preview]:
    shown = set(chosen([sample.name for sample in cohort.samples]))
    values = cohort.description.space.label_values
    return [
        preview_of_files(s.name, cohort.image(s), cohort.label(s) if s.has_label else None, values)
        for s in cohort.samples
        if s.name in shown
    ]
