"""What the page is made from: plain data, so that whoever has it (a release, a run) may ask for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synthmed.report.previews import Preview

Log = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Facts:
    """Everything on a page; a part that is not there is said to be missing.

    Attributes
    ----------
    title : str
    audit : mapping, optional
        The audit's ``report.json`` of its release.
    audit_rows : sequence of (what, found, allowed)
        What `synthmed.export.documents.audit_figures.audit_rows` made of it.
    evaluation : mapping, optional
        ``evaluation.json``.
    training : mapping of str to rows
        Stage -> ``log.csv`` as `synthmed.training.journal.read_log` reads it.
    previews : sequence of Preview
        Synthetic volumes alone.
    number_of_volumes : int
        How many the set holds.
    structures : sequence of str
        What each class of the labels is called, background first.
    settings : mapping
        What `synthmed.export.provenance.public_configuration` returned.
    versions, digests : mapping of str to str
    pairs : sequence of bytes
        PNG pictures of samples beside real scans. With any, the page is the steward's and must stay home.
    """

    title: str
    audit: Mapping[str, Any] | None = None
    audit_rows: Sequence[tuple[str, str, str]] = ()
    evaluation: Mapping[str, Any] | None = None
    training: Mapping[str, Log] = field(default_factory=dict)
    previews: Sequence[Preview] = ()
    number_of_volumes: int = 0
    structures: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[bytes] = ()

    @property
    def cleared(self) -> bool:
        """Say whether the audit passed: without that a volume may be a copy of a patient's scan."""
        return self.audit is not None and self.audit.get("verdict") == "PASS"
