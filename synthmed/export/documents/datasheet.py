"""The datasheet: the questions that whoever takes a data set should ask, answered from what is known.

References
----------
Gebru et al. 2021, Datasheets for Datasets, doi 10.1145/3458723. The questions are put here in this project's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthmed import __version__
from synthmed.config import ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.audit_figures import set_sizes
from synthmed.export.documents.card import LIMITS, conditions, intensity_units, structures
from synthmed.export.documents.loading import formats_of
from synthmed.export.documents.markdown import line

_UNKNOWN = "Not known to the software that wrote this. Ask the publisher."
_FORMATS = {"nifti": "NIfTI-1 (nnU-Net v2 and MONAI)", "dicom": "DICOM", "bids": "BIDS"}

Answers = tuple[tuple[str, str], ...]


def render_datasheet(
    config: ExportConfig,
    cohort: ApprovedCohort,
    report: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, str]],
) -> str:
    """Return the release's ``DATASHEET.md``.

    Parameters
    ----------
    config : ExportConfig
    cohort : ApprovedCohort
    report : mapping
        The audit's ``report.json``.
    columns : mapping
        What the exporters wrote for each case.
    """
    sections: dict[str, Answers] = {
        "Motivation": _motivation(),
        "Composition": _composition(cohort, columns),
        "Collection": _collection(config, report),
        "Processing and labels": _processing(cohort),
        "Uses": _uses(),
        "Distribution": _distribution(config),
        "Maintenance": _maintenance(),
    }
    parts = [
        f"# Datasheet: {line(config.title)}",
        "The questions follow Gebru et al. 2021, Datasheets for Datasets (doi 10.1145/3458723). Answers say what the\n"
        "software that made the release knows; where it does not know, they say so.",
    ]
    for title, answers in sections.items():
        parts += [f"## {title}", *(f"**{question}** {answer}" for question, answer in answers)]
    return "\n\n".join(parts) + "\n"


def _motivation() -> Answers:
    return (
        ("Why was it made?", "To stand in for scans of patients where those cannot be shared: for developing and "
         "testing methods, and for teaching."),
        ("Who made it, and who paid?", _UNKNOWN),
    )  # fmt: skip


def _composition(cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]) -> Answers:
    space, asked = cohort.description.space, conditions(cohort)
    labelled = cohort.samples[0].has_label
    formats = ", ".join(_FORMATS[name] for name in formats_of(columns))
    return (
        ("What is one instance?", f"A synthetic {space.modality} volume{' with its label map' if labelled else ''}. "
         "It stands for no person."),
        ("How many are there?", f"{len(cohort.samples)}."),
        ("Is it a sample of something larger?", "Yes: as many draws from one generative model as were asked for. More "
         "could be drawn. The draws were not picked by how they look."),
        ("What does each instance consist of?", f"{space.grid[0]} x {space.grid[1]} x {space.grid[2]} voxels; "
         f"intensities: {intensity_units(space)}. Formats: {formats}."),
        ("Is there a label or target?", f"Yes, voxel labels: {', '.join(structures(cohort))}." if labelled else "No."),
        ("Is anything known of an instance beside its voxels?",
         f"The seed, and what the model was asked for: {', '.join(asked)}. These are requests, not measurements."
         if asked else "The seed that it was drawn from."),
        ("Are instances related?", "No two were meant to show the same body. They share a model, so they are less "
         "independent than scans of different people."),
        ("Are there splits?", "No. All are for training; test on real scans."),
        ("Are there errors or noise?", "Yes. Anatomy may be wrong in ways that no person has looked for, and a label "
         "may not fit its image."),
        ("Does it rely on anything outside?", "No."),
        ("Could it hold confidential matter?", "A volume could resemble a scan that the model was trained on. "
         "The audit in `audit/report.md` looked for that; its result is evidence, not proof."),
        ("Does it identify sub-populations?", f"By the conditions {', '.join(asked)}, as far as they do." if asked
         else "No."),
    )  # fmt: skip


def _collection(config: ExportConfig, report: Mapping[str, Any]) -> Answers:
    return (
        ("How was it acquired?", "It was computed. Nothing was measured on anyone for this release."),
        ("What was the model trained on?", f"{line(config.source_statement)} The audit counts {set_sizes(report)}."),
        ("Over what time were the source scans acquired, by whom, on what equipment?", _UNKNOWN),
        ("Were the people of the source told, did they consent, and was there an ethics review?", _UNKNOWN),
        ("Was the effect on those people considered?", "By the privacy audit, on the point of copying and membership. "
         f"Beyond that: {_UNKNOWN[0].lower()}{_UNKNOWN[1:]}"),
    )  # fmt: skip


def _processing(cohort: ApprovedCohort) -> Answers:
    space = cohort.description.space
    low, high = space.intensity_range
    scale = (
        f"intensities were clipped to {low:g} to {high:g}"
        if space.normalisation == "window"
        else f"each scan's {space.percentiles[0]:g} and {space.percentiles[1]:g} percentiles were put on {low:g} and "
        f"{high:g}"
    )
    labels = "The model drew each label map together with its image. Nobody corrected them."
    return (
        ("What was done to the source scans?", f"They were resampled to one grid ({' x '.join(map(str, space.grid))}, "
         f"{' x '.join(f'{edge:g}' for edge in space.spacing)} mm, {space.orientation}) and {scale}."),
        ("Who labelled it?", labels if cohort.samples[0].has_label else "Nobody; there are no labels."),
        ("Is the source available?", "No. It is not part of this release."),
        ("Is the software available?", f"synthmed {__version__}; `MODEL_CARD.md` has the model's settings."),
    )  # fmt: skip


def _uses() -> Answers:
    return (
        ("Has it been used already?", _UNKNOWN),
        ("What else could it be used for?", "Checking pipelines, pre-training, augmentation beside real scans, "
         "teaching."),
        ("What should nobody use it for?", " ".join(LIMITS[1:2] + LIMITS[-1:])),
        ("What about it could lead to harm?", " ".join(LIMITS[2:4])),
    )  # fmt: skip


def _distribution(config: ExportConfig) -> Answers:
    return (
        ("Under what licence?", f"{line(config.license)}; see `LICENSE`."),
        ("Who distributes it, where, and since when?", _UNKNOWN),
        ("How can a copy be checked?", "`SHA256SUMS` lists every file and is signed; `README.md` has the commands."),
    )


def _maintenance() -> Answers:
    return (
        ("Who maintains it, and how are errors reported?", _UNKNOWN),
        ("Will it change?", "A release is never changed in place: its files are signed. A new one would have another "
         "list of digests."),
        ("What if a patient of the source withdraws?", "The publisher must decide; the release itself names nobody "
         "and cannot be changed for one person."),
    )  # fmt: skip
