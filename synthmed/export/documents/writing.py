"""Everything in a release that is written for its reader, and the description for machines, written last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthmed.config import Config, ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.card import render_card
from synthmed.export.documents.croissant import write_croissant
from synthmed.export.documents.datasheet import render_datasheet
from synthmed.export.documents.licence import render_license
from synthmed.export.documents.model_card import render_model_card
from synthmed.export.documents.page import write_page
from synthmed.files import write_text
from synthmed.report import Log


def write_documents(
    part: Path,
    config: ExportConfig,
    cohort: ApprovedCohort,
    report: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, str]],
    *,
    run: Config | None = None,
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Log] | None = None,
) -> None:
    """Write the cards, the licence, ``audit/report.html`` and, over all that lies there then, croissant.json.

    Parameters
    ----------
    part : Path
        The release being written, with its volumes, ``audit/`` and ``cases.csv``.
    config : ExportConfig
    cohort : ApprovedCohort
    report : mapping
        The audit's ``report.json``.
    columns : mapping
        What the exporters wrote for each case.
    run : Config, optional
        The settings that the models were trained with, for the model card.
    evaluation : mapping, optional
        ``evaluate/evaluation.json`` of the run, for the model card and the page.
    training : mapping of str to rows, optional
        Stage -> its ``log.csv``, for the page.
    """
    write_text(part / "README.md", render_card(config, cohort, report, columns))
    write_text(part / "LICENSE", render_license(config))
    write_text(part / "DATASHEET.md", render_datasheet(config, cohort, report, columns))
    write_text(part / "MODEL_CARD.md", render_model_card(config, cohort, report, run=run, evaluation=evaluation))
    write_page(part, config, cohort, report, run=run, evaluation=evaluation, training=training)
    write_croissant(part, config, cohort, columns)
