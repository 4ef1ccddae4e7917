"""BIDS for magnetic resonance: images as a raw dataset, label maps as a derivative of it.

BIDS has no room for CT, no word for a generated image and no suffix for magnetic resonance of unrecorded weighting.
So the dataset is ``raw`` (its images stand where scans would, with nothing that they are computed from beside them),
``GeneratedBy`` names the generator, every sidecar says that the image is synthetic, and the suffix is ``T1w`` as a
placeholder, which README and sidecars say too. Label maps are the approved files, byte for byte; ``dseg.tsv`` names
their values.

References
----------
Gorgolewski et al. 2016, doi 10.1038/sdata.2016.44; BIDS 1.11.1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthmed import __version__
from synthmed.config import ExportConfig
from synthmed.errors import ConfigError, InputError, ReleaseRefused
from synthmed.export.cohort import ApprovedCohort, Columns
from synthmed.export.samples import SUFFIX, WARNING, Sample
from synthmed.files import write_json, write_text
from synthmed.io import read_label
from synthmed.words import counted

ROOT = "bids"
LABELS = f"{ROOT}/derivatives/labels"
IMAGE_SUFFIX = "T1w"
_BIDS_VERSION = "1.11.1"
_GENERATOR = [
    {"Name": "synthmed", "Version": __version__, "Description": "Drawn from a 3D latent diffusion model; no scanner."}
]
_WEIGHTING = (
    f"Not recorded: the suffix {IMAGE_SUFFIX} is a placeholder, because BIDS has none for an unknown weighting."
)
_UNITS = {"age": "year", "weight": "kg", "height": "cm"}
_OWN_COLUMN = "participant_id"


def write_bids(cohort: ApprovedCohort, release: Path, config: ExportConfig) -> Columns:
    """Write ``release/bids``: one subject a case, and its label map under ``bids/derivatives/labels``.

    Parameters
    ----------
    cohort : ApprovedCohort
    release : Path
        The release being written.
    config : ExportConfig
        Title, licence and statement of source.

    Returns
    -------
    dict of str to dict
        For each case: bids_image and bids_label, paths in the release.

    Raises
    ------
    ConfigError
        If the volumes are not magnetic resonance.
    InputError
        If two cases would be one subject, or a label map is not one.
    ReleaseRefused
        If a file is not the approved one any more, or a label map holds a value that nothing declares.
    """
    modality = cohort.description.space.modality
    if modality != "MR":
        raise ConfigError(
            "BIDS has no CT" if modality == "CT" else f"The BIDS export holds MR only, not {modality}",
            found=f"modality {modality}",
            expected="MR",
            next_step="Take bids out of export.formats",
        )
    subjects = subject_labels([s.name for s in cohort.samples])
    root, labels = release / ROOT, release / LABELS
    root.mkdir()
    _describe(root, cohort, config)
    write_text(root / "participants.tsv", participants(cohort.samples, subjects))
    write_json(root / "participants.json", column_descriptions(cohort.samples))
    if cohort.samples[0].has_label:
        _describe_labels(labels, cohort, config)
    return {s.name: _write_case(s, subjects[s.name], cohort, root, labels) for s in cohort.samples}


def subject_labels(names: Sequence[str]) -> dict[str, str]:
    """Map each case to its BIDS label: letters and digits alone, different from any other even in lower case.

    Raises
    ------
    InputError
        If two cases would be one subject.
    """
    labels = {name: name.replace("-", "").replace("_", "") for name in names}
    owners: dict[str, str] = {}
    for name, label in labels.items():
        owner = owners.setdefault(label.casefold(), name)
        if owner != name:
            raise InputError(
                "Two cases would be one BIDS subject",
                found=f"{owner} and {name}, both sub-{label}",
                expected="names that differ in their letters and digits",
            )
    return labels


def participants(samples: Sequence[Sample], subjects: Mapping[str, str]) -> str:
    """Return ``participants.tsv``: a row a case with the conditions that it was drawn for; ``n/a`` where none."""
    keys = _condition_keys(samples)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
    writer.writerow([_OWN_COLUMN, *map(_column, keys)])
    for sample in samples:
        writer.writerow([f"sub-{subjects[sample.name]}", *(_cell(sample.condition.get(key)) for key in keys)])
    return stream.getvalue()


def column_descriptions(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return ``participants.json``: what each column means, and the levels of those that are not numbers."""
    columns: dict[str, Any] = {}
    for key in _condition_keys(samples):
        values = [v for s in samples if (v := s.condition.get(key)) is not None]
        content: dict[str, Any] = {"Description": f"{key} that the model was asked for; nobody was measured."}
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            content |= {"Units": _UNITS.get(key, "arbitrary")}
        else:
            content["Levels"] = {_cell(v): f"{key} {_cell(v)}" for v in sorted(values, key=str)}
        columns[_column(key)] = content
    return columns


def _condition_keys(samples: Sequence[Sample]) -> list[str]:
    return sorted({key for sample in samples for key in sample.condition})


def _column(key: str) -> str:
    name = _cell(key)
    return f"condition_{name}" if name == _OWN_COLUMN else name


def _cell(value: Any) -> str:
    """Return one cell of a TSV: no tab and no line break, ``n/a`` for what is missing."""
    return "n/a" if value is None else " ".join(str(value).split()) or "n/a"


def _describe(root: Path, cohort: ApprovedCohort, config: ExportConfig) -> None:
    write_json(root / "dataset_description.json", _description(config.title, "raw", config))
    write_text(
        root / "README.md",
        f"# {config.title}\n\n{WARNING}. {counted(len(cohort.samples), 'volume')} drawn from a generative model; none "
        "is a scan of a person, and the participants listed here do not exist.\n\n"
        f"Source: {config.source_statement}\n\n"
        f"The weighting of the images is not recorded. The suffix {IMAGE_SUFFIX} is a placeholder, because BIDS has\n"
        "none for magnetic resonance of unknown weighting. Do not take it for a statement about the contrast.\n\n"
        "`participants.tsv` holds the conditions that each case was drawn for. Label maps, where there are any, are\n"
        "in `derivatives/labels`; they were drawn together with the images. Licence, limits and the privacy audit are\n"
        "in the release that this directory is a part of.\n",
    )


def _describe_labels(labels: Path, cohort: ApprovedCohort, config: ExportConfig) -> None:
    labels.mkdir(parents=True)
    space = cohort.description.space
    content = _description(f"{config.title}: label maps", "derivative", config)
    write_json(labels / "dataset_description.json", content)
    write_text(
        labels / "README.md",
        f"# Label maps\n\n{WARNING}. Each map was drawn from the generative model together with its image. No expert\n"
        "has looked at them, and the privacy audit looks at the images only. `dseg.tsv` names their values.\n",
    )
    names = {0: "background"} | {v: space.structure(v) for v in space.label_values if v}
    rows = "".join(f"{value}\t{_cell(name)}\n" for value, name in names.items())
    write_text(labels / "dseg.tsv", f"index\tname\n{rows}")


def _description(title: str, kind: str, config: ExportConfig) -> dict[str, Any]:
    return {
        "Name": title,
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": kind,
        "License": config.license,
        "GeneratedBy": _GENERATOR,
        "SyntheticData": True,
    }


def _write_case(sample: Sample, subject: str, cohort: ApprovedCohort, root: Path, labels: Path) -> dict[str, str]:
    stem = f"sub-{subject}/anat/sub-{subject}"
    image = root / f"{stem}_{IMAGE_SUFFIX}{SUFFIX}"
    image.parent.mkdir(parents=True)
    image.write_bytes(cohort.image(sample))
    write_json(root / f"{stem}_{IMAGE_SUFFIX}.json", _sidecar(sample, cohort))
    cells = {"bids_image": image.relative_to(root.parent).as_posix(), "bids_label": ""}
    if sample.has_label:
        label = labels / f"{stem}_dseg{SUFFIX}"
        label.parent.mkdir(parents=True)
        label.write_bytes(cohort.label(sample))
        _check_values(label, cohort.description.space.label_values)
        content = {"SyntheticData": True, "Manual": False, "Description": "Drawn together with the image."}
        write_json(labels / f"{stem}_dseg.json", content)
        cells["bids_label"] = label.relative_to(root.parent).as_posix()
    return cells


def _sidecar(sample: Sample, cohort: ApprovedCohort) -> dict[str, Any]:
    """Return what a reader of the image alone must know; nothing in it describes an acquisition."""
    space = cohort.description.space
    return {
        "SyntheticData": True,
        "ImageComments": WARNING,
        "Manufacturer": "synthmed",
        "ManufacturersModelName": "3D latent diffusion model",
        "SoftwareVersions": __version__,
        "Weighting": _WEIGHTING,
        "IntensityRange": list(space.intensity_range),
        "Condition": dict(sample.condition),
    }


def _check_values(label: Path, declared: Sequence[int]) -> None:
    found = {int(value) for value in np.unique(read_label(label).array)}
    if undeclared := sorted(found - {0, *declared}):
        raise ReleaseRefused(
            "The label maps hold values that the model never learned",
            found=", ".join(map(str, undeclared[:5])),
            expected=f"only {', '.join(map(str, declared))}",
        )
