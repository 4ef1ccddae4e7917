"""The release described for machines: Croissant 1.1 with provenance in PROV-O and the responsible-AI vocabulary.

Every address is relative, so that the description goes wherever the directory goes. What only a publisher could state
(a date, a person, a web page) is left out rather than made up.

References
----------
Croissant Format Specification 1.1 and Croissant RAI 1.0, MLCommons; PROV-O, W3C Recommendation 2013.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from synthmed import __version__
from synthmed.config import ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.licence import spdx_address
from synthmed.export.samples import FACTS
from synthmed.files import sha256_file, write_json
from synthmed.words import counted

FILE = "croissant.json"
CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".tsv": "text/tab-separated-values",
}
_FILES = (
    "cases.csv", "README.md", "DATASHEET.md", "MODEL_CARD.md", "audit/report.json", "audit/report.md",
    "audit/report.html", "audit/gate.json", "nifti/dataset.json", "nifti/datalist.json", "bids/participants.tsv",
    "bids/derivatives/labels/dseg.tsv",
)  # fmt: skip
_NIFTI, _DICOM = ["application/gzip"], ["application/dicom", "image/dicom"]  # mlcroissant reads the latter
_SETS = {
    "nifti-images": ("nifti/images*/*.nii.gz", _NIFTI, "Images, NIfTI-1"),
    "nifti-labels": ("nifti/labelsTr/*.nii.gz", _NIFTI, "Label maps, NIfTI-1"),
    "dicom": ("dicom/**/*.dcm", _DICOM, "DICOM series of the images, and their segmentations"),
    "bids-images": ("bids/sub-*/anat/*.nii.gz", _NIFTI, "Images in the BIDS layout"),
    "bids-labels": ("bids/derivatives/labels/sub-*/anat/*.nii.gz", _NIFTI, "Label maps, BIDS derivatives"),
}
_DESCRIPTIONS = {
    "case": "Name of the case",
    "seed": "Seed that the case was drawn from",
    "condition": "What the model was asked for, a JSON object",
    "spacing": "Distance of voxel centres along the three axes, mm",
    "image": "Image, path in the release",
    "image_sha256": "SHA-256 of the image",
    "label": "Label map, path in the release; empty where there is none",
    "label_sha256": "SHA-256 of the label map",
    "dicom_series": "Directory of the DICOM series, path in the release",
    "dicom_series_uid": "Series Instance UID of the images",
    "dicom_seg": "DICOM segmentation, path in the release",
    "dicom_seg_uid": "Series Instance UID of the segmentation",
    "bids_image": "Image in the BIDS layout, path in the release",
    "bids_label": "Label map in the BIDS layout, path in the release",
}
_TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileProperty",
    "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
    "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
    "source", "subField", "transform",
)  # fmt: skip


def write_croissant(
    part: Path, config: ExportConfig, cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]
) -> None:
    """Write ``croissant.json``, after everything that it lists lies in the release.

    Parameters
    ----------
    part : Path
        The release being written, with ``cases.csv`` in it.
    config : ExportConfig
        Title, licence and statement of source.
    cohort : ApprovedCohort
    columns : mapping
        What the exporters wrote for each case.
    """
    write_json(part / FILE, describe(part, config, cohort, columns))


def describe(
    part: Path, config: ExportConfig, cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return the JSON-LD of a release; see `write_croissant`."""
    space = cohort.description.space
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": config.title,
        "description": f"{counted(len(columns), f'synthetic {space.modality} volume')}, drawn from a generative "
        f"model. None is a scan of a person. Not for clinical use. Source: {config.source_statement}",
        "version": "1.0.0",
        "url": "README.md",
        "license": _licence(config.license),
        "citeAs": f"@misc{{release, title = {{{config.title}}}, note = {{Synthetic; synthmed {__version__}}}}}",
        "keywords": ["synthetic", "medical imaging", "3D", space.modality],
        **_provenance(config, cohort),
        **_responsible(cohort),
        "distribution": [*_file_objects(part), *_file_sets(part)],
        "recordSet": [_cases(part)],
    }


def _licence(name: str) -> str | dict[str, str]:
    return spdx_address(name) or {"@type": "sc:CreativeWork", "name": name, "url": "LICENSE"}


def _context() -> dict[str, Any]:
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "prov": "http://www.w3.org/ns/prov#",
        "sc": "https://schema.org/",
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "description": {"@container": "@language"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "name": {"@container": "@language"},
        **{term: f"cr:{term}" for term in _TERMS},
    }


def _provenance(config: ExportConfig, cohort: ApprovedCohort) -> dict[str, Any]:
    """Return what the release was made from and by; the source is a statement, never a list of scans."""
    facts = cohort.description.facts
    models = {kind: facts[FACTS[kind]] for kind in ("autoencoder", "denoiser") if FACTS[kind] in facts}
    used = [
        {"@type": "prov:Entity", "prov:label": f"Weights of the {kind}", "sha256": digest}
        for kind, digest in models.items()
    ]
    settings = [f"{FACTS[k].lower()} {facts[FACTS[k]]}" for k in FACTS if k not in models and FACTS[k] in facts]
    return {
        "prov:wasDerivedFrom": {"@type": "prov:Entity", "prov:label": config.source_statement},
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": "; ".join(["Sampling from a 3D latent diffusion model", *settings]),
            "prov:used": used,
            "prov:wasAssociatedWith": {"@type": "prov:SoftwareAgent", "prov:label": f"synthmed {__version__}"},
        },
    }


def _responsible(cohort: ApprovedCohort) -> dict[str, Any]:
    labels = "Label maps were drawn from the model together with the images; nobody drew or checked them."
    return {
        "rai:dataCollection": "Nothing was collected from people for this release: each volume was drawn from a model "
        "that was trained on the training patients of the source.",
        "rai:dataCollectionType": ["Others"],
        "rai:dataUseCases": ["Development, pre-training and testing of methods", "Teaching"],
        "rai:dataLimitations": [
            "Not for diagnosis, treatment or any claim about a person.",
            "Rare anatomy and pathology are missing or wrong, and variety is lower than in life.",
            "Methods must be tested on real scans as well.",
        ],
        "rai:dataBiases": ["Whatever bias the source has is here too; it was not measured."],
        "rai:personalSensitiveInformation": [
            "No volume is a scan of a person. The audit in audit/report.md measured how far the volumes copy training "
            "scans or tell who was among them; it is evidence, not proof."
        ],
        **({"rai:dataAnnotationProtocol": [labels]} if cohort.samples[0].has_label else {}),
    }


def _file_objects(part: Path) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{(part / name).stat().st_size} B",
            "encodingFormat": _MEDIA_TYPES[Path(name).suffix],
            "sha256": sha256_file(part / name),
        }
        for name in _FILES
        if (part / name).is_file()
    ]


def _file_sets(part: Path) -> list[dict[str, Any]]:
    """Return a set for each kind of volume that the release holds; digests of their files are in ``SHA256SUMS``."""
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": f"{text}; SHA256SUMS holds the digest of each file.",
            "encodingFormat": media_type,
            "includes": pattern,
        }
        for name, (pattern, media_type, text) in _SETS.items()
        if next(part.glob(pattern), None)
    ]


def _cases(part: Path) -> dict[str, Any]:
    """Return the record set over ``cases.csv``, a field a column."""
    with (part / "cases.csv").open(newline="", encoding="utf-8") as stream:
        header = next(csv.reader(stream))
    return {
        "@type": "cr:RecordSet",
        "@id": "cases",
        "name": "cases",
        "description": "One record a case.",
        "key": {"@id": "cases/case"},
        "field": list(_fields(header)),
    }


def _fields(header: Iterable[str]) -> Iterable[dict[str, Any]]:
    for column in header:
        yield {
            "@type": "cr:Field",
            "@id": f"cases/{column}",
            "name": column,
            "description": _DESCRIPTIONS.get(column, column),
            "dataType": "sc:Integer" if column == "seed" else "sc:Text",
            "source": {"fileObject": {"@id": "cases.csv"}, "extract": {"column": column}},
        }
