"""The page of a run, whatever of it is done; with the steward's pairs only where they are asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthmed import __version__
from synthmed.errors import ConfigError, InputError
from synthmed.export.documents.audit_figures import audit_rows
from synthmed.export.documents.markdown import numbers
from synthmed.export.documents.page import model_digests, structures
from synthmed.export.provenance import public_configuration
from synthmed.export.samples import SUFFIX, TABLE, Description, parse_description, read_samples
from synthmed.files import GENERATION, MANIFEST, read_json, sha256_file, write_text
from synthmed.report import Facts, Preview, chosen, preview_of_files, render_report
from synthmed.stages import Run
from synthmed.training.journal import read_log

_RELEASE_MARKS = ("SHA256SUMS", "provenance.dsse.json")


def write_run_report(run: Run, out: Path | None = None, *, real_pairs: bool = False) -> Path:
    """Write a run's page.

    Parameters
    ----------
    run : Run
        What of it is done is shown; the rest is said to be missing.
    out : Path, optional
        The file [default: ``report.html`` in the run, ``steward-report.html`` with real pairs].
    real_pairs : bool
        Show the pairs that the audit drew: scans of real patients beside the samples nearest to them.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If the run has made nothing to show yet, a record cannot be read, or pairs are asked for and there is none.
    ConfigError
        If `out` lies in a release.
    """
    if not run.root.is_dir():
        raise InputError(f"There is no run {run.root}", next_step="Make it first: synthmed run CONFIG")
    file = out or run.root / ("steward-report.html" if real_pairs else "report.html")
    _refuse_release(file)
    facts = run_facts(run, real_pairs=real_pairs)
    if not (facts.training or facts.number_of_volumes or facts.evaluation or facts.audit):
        raise InputError(
            f"The run {run.root} has nothing to show yet",
            expected="a network in training, volumes, or an audit",
            next_step=f"Go on with it: synthmed run {run.root}",
        )
    write_text(file, render_report(facts))
    return file


def run_facts(run: Run, *, real_pairs: bool = False) -> Facts:
    """Collect what a run's page shows; real scans only where `real_pairs` asks for them."""
    audit = _optional(run.stage("audit") / "release" / "report.json")
    rows = audit_rows(audit, numbers(audit.get("policy", {}).get("thresholds"))) if audit else []
    logs = {name: read_log(run.stage(name)) for name in ("autoencoder", "denoiser")}
    description = _description(run)
    previews, number = _previews(run, description) if description else ([], 0)
    return Facts(
        title=run.config.export.title,
        audit=audit,
        audit_rows=rows,
        evaluation=_optional(run.stage("evaluate") / "evaluation.json"),
        training={name: log for name, log in logs.items() if log},
        previews=previews,
        number_of_volumes=number,
        structures=structures(description) if description else (),
        settings=public_configuration(run.config),
        versions={"synthmed": __version__, **((audit or {}).get("versions") or {})},
        digests=_digests(run, description, audit),
        pairs=_pairs(run.stage("audit") / "steward" / "pairs") if real_pairs else (),
    )


def _refuse_release(file: Path) -> None:
    for folder in file.absolute().parents:
        if any((folder / mark).exists() for mark in _RELEASE_MARKS):
            raise ConfigError(
                f"{file} lies in a release, whose files are signed", next_step="Name a file outside it with -o"
            )


def _optional(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(f"Cannot use {file}", found=type(content).__name__, expected="a JSON object")
    return content


def _description(run: Run) -> Description | None:
    """Return what the volumes are, None until the set is complete."""
    folder = run.stage("generate")
    if not (folder / MANIFEST).is_file():
        return None
    return parse_description((folder / GENERATION).read_text(encoding="utf-8"), folder / GENERATION)


def _previews(run: Run, description: Description) -> tuple[list[Preview], int]:
    folder = run.stage("generate")
    samples = read_samples(folder)
    shown = set(chosen([sample.name for sample in samples]))
    values = description.space.label_values

    def content(kind: str, name: str) -> bytes:
        return (folder / kind / (name + SUFFIX)).read_bytes()

    previews = [
        preview_of_files(s.name, content("images", s.name), content("labels", s.name) if s.has_label else None, values)
        for s in samples
        if s.name in shown
    ]
    return previews, len(samples)


def _digests(run: Run, description: Description | None, audit: Mapping[str, Any] | None) -> dict[str, str]:
    files = {
        TABLE: run.stage("generate") / TABLE,
        GENERATION: run.stage("generate") / GENERATION,
        "report.json": run.stage("audit") / "release" / "report.json",
    }
    models = model_digests(description) if description else {}
    policy = (audit or {}).get("policy", {}).get("sha256")
    found = {name: sha256_file(file) for name, file in files.items() if file.is_file()}
    return models | ({"policy": str(policy)} if policy else {}) | found


def _pairs(folder: Path) -> tuple[bytes, ...]:
    drawn = tuple(file.read_bytes() for file in sorted(folder.glob("*.png")))
    if not drawn:
        raise InputError(f"No pairs are drawn in {folder}", next_step="Run `synthmed audit` first")
    return drawn
