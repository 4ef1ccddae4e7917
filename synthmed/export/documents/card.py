"""The data card: what the release is, how to load and check it, how it was made, and what nobody should do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from synthmed import __version__
from synthmed.config import ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.audit_figures import audit_section
from synthmed.export.documents.licence import hub_fields
from synthmed.export.documents.loading import formats_of, loading_section
from synthmed.export.documents.markdown import bullets, line, table
from synthmed.prepare.space import Space
from synthmed.words import counted

_MODALITIES = {"MR": "magnetic resonance", "CT": "computed tomography", "PT": "positron emission tomography"}
_UNITS = {"CT": "Hounsfield units", "PT": "standardised uptake values"}
_NAMED_IN = {
    "nifti": "values: `nifti/dataset.json`",
    "dicom": "segments: named in each DICOM SEG",
    "bids": "values: `bids/derivatives/labels/dseg.tsv`",
}
_PLACES = {
    "nifti": ("`nifti/`", "NIfTI images and label maps in the layout of nnU-Net v2; `datalist.json` for MONAI"),
    "dicom": ("`dicom/`", "a DICOM series a case, and its segmentation"),
    "bids": ("`bids/`", "the same images in the BIDS layout, label maps as a derivative"),
}


def render_card(
    config: ExportConfig,
    cohort: ApprovedCohort,
    report: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, str]],
) -> str:
    """Return the release's ``README.md``: YAML front matter as the Hugging Face hub reads it, then the card.

    Parameters
    ----------
    config : ExportConfig
    cohort : ApprovedCohort
    report : mapping
        The audit's ``report.json``.
    columns : mapping
        What the exporters wrote for each case.
    """
    parts = [
        _front_matter(config, cohort),
        f"# {line(config.title)}",
        "**Synthetic.** Every volume here was drawn from a generative model; none is a scan of a person. "
        "**Not for clinical use.**",
        _contents(config, cohort, columns),
        loading_section(config, cohort, columns),
        CHECKING,
        _origin(config, cohort),
        audit_section(cohort, report),
        f"## Intended use and limits\n\n{bullets(LIMITS)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(config: ExportConfig, cohort: ApprovedCohort) -> str:
    content: dict[str, Any] = {
        "pretty_name": line(config.title),
        **hub_fields(line(config.license)),
        "tags": ["synthetic", "medical", "3d", cohort.description.space.modality.lower()],
        "size_categories": [_size_category(len(cohort.samples))],
    }
    if cohort.samples[0].has_label:
        content |= {"task_categories": ["image-segmentation"], "annotations_creators": ["machine-generated"]}
    content["configs"] = [{"config_name": "cases", "data_files": "cases.csv", "default": True}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _size_category(n: int) -> str:
    return "n<1K" if n < 1_000 else "1K<n<10K" if n < 10_000 else "10K<n<100K"


def _contents(config: ExportConfig, cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]) -> str:
    space, formats = cohort.description.space, formats_of(columns)
    spacings = Counter(cells["spacing"] for cells in columns.values() if "spacing" in cells)
    rows = [
        ("Cases", str(len(cohort.samples))),
        ("Modality", f"{_MODALITIES.get(space.modality, space.modality)} ({space.modality})"),
        ("Intensities", intensity_units(space)),
        ("Spacing, mm", "; ".join(f"{spacing} ({counted(n, 'case')})" for spacing, n in sorted(spacings.items()))),
        ("Labels", _labels(cohort, formats)),
        ("Conditions", ", ".join(conditions(cohort)) or "none"),
    ]
    places = [
        *(_PLACES[name] for name in formats),
        ("`cases.csv`", "one row a case: seed, condition, spacing, files, digests"),
        ("`croissant.json`", "the release described for machines, Croissant 1.1"),
        ("`audit/report.html`", "start here: verdict, volumes and figures on one page, for any browser"),
        ("`audit/`", "the privacy audit and the gate's decision"),
        *([("`validation/`", "what the validators of these formats said")] if config.validate_with_tools else []),
        ("`DATASHEET.md`, `MODEL_CARD.md`", "what the release is made of, and the model that drew it"),
    ]
    return f"## Contents\n\n{table(('', ''), rows)}\n\n{table(('Where', 'What'), places)}"


def _labels(cohort: ApprovedCohort, formats: tuple[str, ...]) -> str:
    if not cohort.samples[0].has_label:
        return "none"
    return f"{', '.join(structures(cohort))} ({'; '.join(_NAMED_IN[name] for name in formats)})"


def structures(cohort: ApprovedCohort) -> list[str]:
    """Return the names of what the labels mark, without the background."""
    space = cohort.description.space
    return [space.structure(v) for v in space.label_values if v]


def conditions(cohort: ApprovedCohort) -> list[str]:
    """Return the names of what the cases were drawn for."""
    return sorted({key for sample in cohort.samples for key in sample.condition})


def intensity_units(space: Space) -> str:
    """Say what a voxel's value means, and its range."""
    low, high = space.intensity_range
    absolute = _UNITS.get(space.modality) if space.normalisation == "window" else None
    return f"{absolute or 'arbitrary units'}, {low:g} to {high:g}"


def _origin(config: ExportConfig, cohort: ApprovedCohort) -> str:
    rows = [("Software", f"synthmed {__version__}"), *cohort.description.facts.items()]
    return (
        "## How it was made\n\n"
        f"Source: {config.source_statement}\n\n"
        "A 3D autoencoder and a latent diffusion model were trained on the training patients of the source, which\n"
        "was split by patient before anything was fitted. Each case was drawn from its own seed, its label (if it\n"
        f"has one) together with its image. More in `MODEL_CARD.md`.\n\n{table(('', ''), rows)}"
    )


LIMITS = (
    "For developing, pre-training and testing methods, and for teaching.",
    "Not for diagnosis, treatment, or any claim about a person, and not as the only evidence that a method works: "
    "test on real scans.",
    "The model saw few patients. Rare anatomy and pathology are missing or wrong, variety is lower than in life, and "
    "whatever bias the source has is here too.",
    "Labels, where there are any, were drawn together with the images. No expert has looked at them, and the audit "
    "looks at images only.",
    "The held-out patients that the audit used may also have decided when the training of the model stopped and which "
    "of its weights were kept.",
    "Do not try to identify or contact the people whose scans trained the model.",
)

CHECKING = """## Checking it

```sh
sha256sum -c SHA256SUMS
openssl pkeyutl -verify -pubin -inkey signer.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
synthmed verify .
```

The first line checks every file against `SHA256SUMS`; the second, with OpenSSL 3, that the holder of `signer.pub`
signed that list; the third checks both, the headers, the signed statement of origin in `provenance.dsse.json`, and the
gate's decision against the files. Compare `signer.pub` with a key that you have from the publisher by another way
(`synthmed verify . --key THEIR.pub`): whoever changes a release could sign it anew with a key of their own."""
