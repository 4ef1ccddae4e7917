"""What an exporter may write from: an approved set, whose bytes are checked again each time they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthmed.export.approval import ReleaseApproval
from synthmed.export.samples import SUFFIX, TABLE, Description, Sample, parse_description, parse_samples
from synthmed.files import GENERATION

Columns = dict[str, dict[str, str]]


@dataclass(frozen=True)
class ApprovedCohort:
    """An approved set of samples; the only way from here to a voxel is through the approval.

    Attributes
    ----------
    folder : Path
        What ``generate`` wrote.
    samples : tuple of Sample
        Sorted by name.
    description : Description
    approval : ReleaseApproval
    """

    folder: Path
    samples: tuple[Sample, ...]
    description: Description
    approval: ReleaseApproval

    def image(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's image file; raise `ReleaseRefused` unless they are the approved ones."""
        file = self.folder / "images" / (sample.name + SUFFIX)
        return self.approval.read_bound(file, self.approval.images[sample.name])

    def label(self, sample: Sample) -> bytes:
        """Return the bytes of a sample's label file; raise `ReleaseRefused` unless they are the approved ones."""
        file = self.folder / "labels" / (sample.name + SUFFIX)
        return self.approval.read_bound(file, self.approval.labels[sample.name])


def open_approved(folder: Path, approval: ReleaseApproval) -> ApprovedCohort:
    """Read an approved set's table and description; raise `ReleaseRefused` where either has changed."""
    table, generation = (
        approval.read_bound(folder / name, approval.records[name]).decode() for name in (TABLE, GENERATION)
    )
    samples = parse_samples(table, folder / TABLE)
    return ApprovedCohort(folder, samples, parse_description(generation, folder / GENERATION), approval)
