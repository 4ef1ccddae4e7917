"""From files to drafts of cases, one function a format; `IMPORTERS` is the table that a new one joins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthmed.cohort.locating import (
    below,
    bids_subject,
    nifti_below,
    other_scans,
    sibling_labels,
    unique_names,
    volumes,
)
from synthmed.cohort.matching import (
    find_column,
    match_names,
    numbers_where_possible,
    read_table,
    summary,
)
from synthmed.cohort.phantom import LABEL_NAMES, Phantom
from synthmed.config import CohortConfig
from synthmed.errors import InputError
from synthmed.files import files_below, read_json, sha256_json
from synthmed.words import counted

if TYPE_CHECKING:
    from synthmed.io.dicom import Series

IMAGE_COLUMNS = ("image", "image_path", "path", "scan")
LABEL_COLUMNS = ("label", "label_path", "mask", "segmentation", "seg")
SUBJECT_COLUMNS = ("subject", "subject_id", "patient", "patient_id", "participant_id", "mrid")
CASE_COLUMNS = ("case", "case_id", "volume", "file", "filename", "name", "image")
_MODALITIES = {"mri": "MR", "mr": "MR", "t1": "MR", "t2": "MR", "flair": "MR", "ct": "CT", "pet": "PT", "pt": "PT"}


@dataclass(frozen=True)
class Draft:
    """A case before patients and covariates from other tables are joined; `subject` is None where it is unknown."""

    name: str
    image: Path | Series | Phantom
    label: Path | None = None
    subject: str | None = None
    covariates: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What an importer found."""

    drafts: list[Draft]
    label_names: Mapping[int, str] = field(default_factory=dict)
    modality: str | None = None
    notes: tuple[str, ...] = ()


Importer = Callable[[Path, CohortConfig], Found]


def from_folder(root: Path, config: CohortConfig) -> Found:
    """Read NIfTI files below a folder; labels are matched by name.

    `images` and `labels` are sub-folders, or globs whose wildcards capture the name of the case.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder", next_step="Give the folder that holds the scans")
    default = next((name for name in ("imagesTr", "images") if (root / name).is_dir()), None)
    images_at = config.images or default or "."
    labels_at = config.labels or sibling_labels(root, images_at)
    labels = volumes(root, labels_at, "labels") if labels_at else {}
    images = {n: file for n, file in volumes(root, images_at, "images").items() if file not in set(labels.values())}
    pairs = match_names(images, labels)
    if labels and not pairs:
        raise InputError(
            f"No label in {labels_at} goes with an image in {images_at}",
            found=f"images such as {next(iter(images), 'none')}, labels such as {next(iter(labels))}",
            expected="a label named as its image",
            next_step="Rename them, or capture the case by a glob such as --labels 'labels/mask_*.nii.gz'",
        )
    orphans = sorted(set(labels) - set(pairs.values()))
    notes = [f"{counted(len(orphans), 'label')} without an image: {summary(orphans)}"] if orphans else []
    if default is None and not config.images and (others := other_scans(root)):
        notes.append(
            f"not read, since there is NIfTI: {counted(len(others), 'file')} that may be DICOM: {summary(others)}"
        )
    drafts = [
        Draft(name, file, labels[pairs[name]] if name in pairs else None, bids_subject(file.relative_to(root)))
        for name, file in images.items()
    ]
    return Found(drafts, notes=tuple(notes))


def from_decathlon(root: Path, config: CohortConfig) -> Found:
    """Read a Decathlon or nnU-Net ``dataset.json``: version 1 lists its pairs, version 2 names its channels."""
    file = root / "dataset.json" if root.is_dir() else root
    content = _mapping(file)
    channels = content.get("channel_names") or content.get("modality") or {"0": "unknown"}
    channels = channels if isinstance(channels, dict) else {"0": channels}
    if len(channels) != 1:
        raise InputError(
            f"{file} has several channels",
            found=", ".join(str(name) for name in channels.values()),
            expected="one",
            next_step="Choose one with cohort.format=folder and a glob such as cohort.images='imagesTr/*_0000.nii.gz'",
        )
    names, modality = _label_names(file, content.get("labels", {})), _modality(next(iter(channels.values())))
    if isinstance(content.get("training"), list):
        return Found(_entries(file, content["training"]), names, modality)
    ending = str(content.get("file_ending", ".nii.gz"))
    images = sorted((file.parent / "imagesTr").glob(f"*_0000{ending}"))
    drafts = []
    for image in images:
        name = image.name.removesuffix(f"_0000{ending}")
        label = file.parent / "labelsTr" / f"{name}{ending}"
        drafts.append(Draft(name, image, label if label.exists() else None, bids_subject(Path(name))))
    return Found(drafts, names, modality)


def from_monai(root: Path, config: CohortConfig) -> Found:
    """Read a MONAI datalist: ``training`` and ``validation``, each a list of mappings with ``image``."""
    file = root / "dataset.json" if root.is_dir() else root
    content = _mapping(file)
    sections = [key for key in ("training", "validation") if isinstance(content.get(key), list)]
    drafts = [draft for key in sections for draft in _entries(file, content[key])]
    unread = [key for key, value in content.items() if isinstance(value, list) and key not in sections]
    notes = tuple(f"{file.name}: {key} ({len(content[key])} entries) was not read" for key in unread)
    return Found(drafts, _label_names(file, content.get("labels", {})), None, notes)


def from_csv(root: Path, config: CohortConfig) -> Found:
    """Read a table with a column ``image``; ``label``, ``subject`` and ``case`` are optional, the rest covariates."""
    columns, rows = read_table(root)
    image = find_column(columns, IMAGE_COLUMNS)
    if image is None:
        raise InputError(
            f"{root} names no images", found=f"the columns {', '.join(columns)}", expected="a column image"
        )
    label, subject = find_column(columns, LABEL_COLUMNS), find_column(columns, SUBJECT_COLUMNS)
    case = find_column(columns, ("case", "case_id"))
    others = [column for column in columns if column not in (image, label, subject, case)]
    values = numbers_where_possible(rows, others)
    blank = [str(n) for n, row in enumerate(rows, 2) if not row[image] or (subject and not row[subject])]
    if blank:
        raise InputError(
            f"{root} has {counted(len(blank), 'row')} without image or subject", found=f"row {summary(blank)}"
        )
    images = [below(root.parent, row[image]) for row in rows]
    names = [row[case] for row in rows] if case else unique_names(images)
    drafts = [
        Draft(
            name,
            file,
            below(root.parent, row[label]) if label and row[label] else None,
            row[subject] if subject else None,
            covariates,
        )
        for name, file, row, covariates in zip(names, images, rows, values, strict=True)
    ]
    return Found(drafts)


def from_dicom(root: Path, config: CohortConfig) -> Found:
    """Read every CT, MR or PT series below a folder; patients are PatientIDs."""
    from synthmed.io.dicom import scan

    series, skipped = scan(root)
    modality = _majority([one.modality for one in series])
    wanted = config.modality or modality
    chosen = [one for one in series if one.modality == wanted]
    notes = []
    if len(chosen) < len(series):
        notes.append(f"left out, for they are not {wanted}: {len(series) - len(chosen)} series")
    damaged = [str(item.path) for item in skipped if item.damaged]
    if damaged:
        raise InputError(
            f"{counted(len(damaged), 'DICOM file')} cannot be read",
            found=summary(damaged),
            next_step="Copy them again, or remove them: one of them may be a missing slice",
        )
    if skipped:
        reasons = sorted({item.reason for item in skipped})
        notes.append(f"{counted(len(skipped), 'file')} in no series ({summary(reasons)})")
    names = _series_names(chosen)
    drafts = [Draft(n, one, None, one.patient_id.strip() or None) for n, one in zip(names, chosen, strict=True)]
    return Found(drafts, modality=modality, notes=tuple(notes))


def from_phantom(root: Path, config: CohortConfig) -> Found:
    """Draw the procedural cohort; nothing is read from disk."""
    settings = config.phantom
    phantoms = [Phantom(settings.seed, n, settings.shape) for n in range(settings.num_subjects)]
    drafts = [Draft(f"phantom_{p.subject:04d}", p, None, f"P{p.subject:04d}", p.covariates) for p in phantoms]
    return Found(drafts, LABEL_NAMES, "MR")


IMPORTERS: dict[str, Importer] = {
    "folder": from_folder,
    "decathlon": from_decathlon,
    "monai": from_monai,
    "csv": from_csv,
    "dicom": from_dicom,
    "phantom": from_phantom,
}


def detect_format(root: Path) -> str:
    """Say which importer a path asks for.

    Raises
    ------
    InputError
        If nothing under it looks like a scan.
    """
    if root.is_file():
        if root.suffix.lower() in (".csv", ".tsv"):
            return "csv"
        if root.suffix.lower() == ".json":
            return _json_format(root)
        raise InputError(f"{root} is not a cohort", expected="a folder, a CSV or a dataset.json")
    if (root / "dataset.json").is_file():
        return _json_format(root / "dataset.json")
    if next(nifti_below(root), None) is not None:
        return "folder"
    if next(files_below(root), None) is None:
        raise InputError(
            f"{root} holds no scans",
            found="only what synthmed wrote, and hidden files" if any(root.iterdir()) else "an empty folder",
            expected="NIfTI files, DICOM series or a dataset.json",
        )
    return "dicom"


def _json_format(file: Path) -> str:
    content = _mapping(file)
    return "decathlon" if {"channel_names", "modality", "numTraining"} & set(content) else "monai"


def _mapping(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise InputError(
            f"{file} is not a data list",
            found=type(content).__name__,
            expected="a JSON object",
            next_step='A bare list goes under a key: {"training": [...]}',
        )
    return content


def _entries(file: Path, entries: list[Any]) -> list[Draft]:
    bad = [str(n) for n, entry in enumerate(entries) if not isinstance(entry, dict) or not _text(entry.get("image"))]
    if bad:
        raise InputError(f"{file} has {len(bad)} entries without one image", found=f"entry {summary(bad)}")
    keys = [find_column(list(entry), SUBJECT_COLUMNS) for entry in entries]
    nobody = [str(n) for n, (key, entry) in enumerate(zip(keys, entries, strict=True)) if key and not entry[key]]
    if nobody or (any(keys) and not all(keys)):
        nobody = nobody or [str(n) for n, key in enumerate(keys) if not key]
        raise InputError(f"{file} has {len(nobody)} entries without a patient", found=f"entry {summary(nobody)}")
    images = [below(file.parent, entry["image"]) for entry in entries]
    drafts = []
    for name, image, entry, subject in zip(unique_names(images), images, entries, keys, strict=True):
        others = {
            key: value if isinstance(value, str) else float(value)
            for key, value in entry.items()
            if key not in ("image", "label", "fold", subject) and isinstance(value, (str, int, float))
        }
        label = below(file.parent, entry["label"]) if _text(entry.get("label")) else None
        drafts.append(Draft(name, image, label, str(entry[subject]) if subject else None, others))
    return drafts


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _label_names(file: Path, labels: Any) -> dict[int, str]:
    """Read ``{"1": "Anterior"}`` (version 1) as well as ``{"Anterior": 1}`` (version 2)."""
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    names: dict[int, str] = {}
    for key, value in dict(labels).items():
        number, name = (key, value) if str(key).isdigit() else (value, key)
        if not str(number).isdigit():
            raise InputError(f"{file} has a label that is not one value", found=f"{key}: {value}", expected="a number")
        names[int(number)] = str(name)
    return {value: name for value, name in sorted(names.items()) if value != 0}


def _modality(name: object) -> str | None:
    return _MODALITIES.get(str(name).casefold().split("-")[0])


def _majority(values: list[str]) -> str | None:
    return max(sorted(set(values)), key=values.count) if values else None


def _series_names(series: list[Series]) -> list[str]:
    """Name each series by its patient and eight digits of its UID's hash; copies in other folders are numbered."""
    names = [f"{one.patient_id.strip() or 'unknown'}_{sha256_json([one.uid, one.part])[:8]}" for one in series]
    repeats = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name}_{count + 1}" if count else name for name, count in zip(names, repeats, strict=True)]
