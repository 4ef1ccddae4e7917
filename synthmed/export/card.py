"""The data card: what the release is, how it was made, what the audit measured, and what nobody should do with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from synthmed import __version__
from synthmed.config import ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.prepare.space import Space

_HUB_LICENSES = {"apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit", "odc-by", "pddl"}
_MODALITIES = {"MR": "magnetic resonance", "CT": "computed tomography", "PT": "positron emission tomography"}
_UNITS = {"CT": "Hounsfield units", "PT": "standardised uptake values"}


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
        f"# {config.title}",
        "**Synthetic.** Every volume here was drawn from a generative model; none is a scan of a person. "
        "**Not for clinical use.**",
        _contents(cohort, columns),
        _origin(config, cohort),
        _audit(cohort, report),
        _USE,
        _loading(cohort),
        _CHECKING,
    ]
    return "\n\n".join(parts) + "\n"


def render_license(config: ExportConfig) -> str:
    """Return the text of the release's ``LICENSE``."""
    return (
        f"{config.title}\n\nLicence of the volumes, labels and documents in this directory: {config.license}\n\n"
        'They are provided "as is", without warranty of any kind, express or implied, fitness for a particular\n'
        "purpose among them. They are synthetic and not for clinical use.\n"
    )


def _front_matter(config: ExportConfig, cohort: ApprovedCohort) -> str:
    known = config.license.lower() in _HUB_LICENSES
    content: dict[str, Any] = {
        "pretty_name": config.title,
        "license": config.license.lower() if known else "other",
        **({} if known else {"license_name": config.license}),
        "tags": ["synthetic", "medical", "3d", cohort.description.space.modality.lower()],
        "size_categories": [_size_category(len(cohort.samples))],
    }
    if cohort.samples[0].has_label:
        content["task_categories"] = ["image-segmentation"]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _size_category(n: int) -> str:
    return "n<1K" if n < 1_000 else "1K<n<10K" if n < 10_000 else "10K<n<100K"


def _contents(cohort: ApprovedCohort, columns: Mapping[str, Mapping[str, str]]) -> str:
    space, labelled = cohort.description.space, cohort.samples[0].has_label
    spacings = Counter(cells["spacing"] for cells in columns.values() if "spacing" in cells)
    names = ", ".join(space.label_names.get(v, f"label_{v}") for v in space.label_values if v)
    rows = [
        ("Cases", str(len(cohort.samples))),
        ("Modality", f"{_MODALITIES.get(space.modality, space.modality)} ({space.modality})"),
        ("Intensities", _units(space)),
        ("Spacing, mm", "; ".join(f"{spacing} ({n} cases)" for spacing, n in sorted(spacings.items()))),
        ("Labels", f"{names} (values: `nifti/dataset.json`)" if labelled else "none"),
        ("Conditions", ", ".join(sorted({key for s in cohort.samples for key in s.condition})) or "none"),
    ]
    text = (
        "`cases.csv` has one row a case: seed, condition, spacing, files, digests. `audit/` holds the privacy audit\n"
        "and the gate's decision."
    )
    return f"## Contents\n\n{_table(('', ''), rows)}\n\n{text}"


def _units(space: Space) -> str:
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
        f"has one) together with its image.\n\n{_table(('', ''), rows)}"
    )


def _audit(cohort: ApprovedCohort, report: Mapping[str, Any]) -> str:
    approval = cohort.approval
    people = [
        (f"{text} {key.removeprefix('n_')}", str(n))
        for role, text in (("train", "training"), ("holdout", "held-out"))
        for key, n in _counts(report, role)
    ]
    figures = [(key.replace("_", " "), _number(value)) for key, value in _numbers(report["measurements"])]
    limits = [(key.replace("_", " "), _number(value)) for key, value in _numbers(approval.policy["thresholds"])]
    cited = [f"- {line}" for line in _lines(report.get("citations", []))]
    parts = [
        "## Privacy audit",
        f"Verdict: **{approval.verdict}** by the policy `{approval.policy['name']}`. {' '.join(approval.reasons)}.",
        "This is evidence, not proof: the audit could have missed what lies below its power, and it says nothing of\n"
        "attacks that it did not try. The full record is `audit/report.md`.",
        _table(("Measured", ""), people + figures),
        _table(("Threshold of the policy", ""), limits),
        *(["Methods:\n\n" + "\n".join(cited)] if cited else []),
    ]
    return "\n\n".join(parts)


def _counts(report: Mapping[str, Any], role: str) -> list[tuple[str, float]]:
    part = report.get(role)
    return _numbers(part) if isinstance(part, Mapping) else []


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(k, v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)]


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(citations: Any) -> list[str]:
    items: Iterable[Any] = citations.values() if isinstance(citations, Mapping) else citations
    return [" ".join(str(item).split()) for item in items]


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {key} | {_cell(value)} |" for key, value in rows])


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def _loading(cohort: ApprovedCohort) -> str:
    loads = (
        "## Loading it\n\n"
        "nnU-Net v2: copy `nifti/` to `$nnUNet_raw/Dataset501_Synthetic`. MONAI:\n\n"
        "```python\nfrom monai.data import load_decathlon_datalist\n\n"
        'cases = load_decathlon_datalist("nifti/datalist.json", data_list_key="training")\n```'
    )
    if cohort.samples[0].has_label:
        return loads
    return f"{loads}\n\nThere are no labels, so the images lie in `imagesTs`, nnU-Net's place for cases without one."


_USE = """## Intended use and limits

- For developing, pre-training and testing methods, and for teaching.
- Not for diagnosis, treatment, or any claim about a person, and not as the only evidence that a method works:
  test on real scans.
- The model saw few patients. Rare anatomy and pathology are missing or wrong, variety is lower than in life, and
  whatever bias the source has is here too.
- Labels, where there are any, were drawn together with the images. No expert has looked at them, and the audit
  looks at images only.
- The held-out patients that the audit used also decided when the training of the model stopped.
- Do not try to identify or contact the people whose scans trained the model."""

_CHECKING = """## Checking it

`sha256sum -c SHA256SUMS` checks the files; `synthmed verify .` checks files, headers and the gate's decision."""
