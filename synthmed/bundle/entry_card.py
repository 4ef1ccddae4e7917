"""The card of a pretrained model: data, licence, training, figures, the audit of its stored weights' samples, limits.

References
----------
Mitchell et al. 2019, Model Cards for Model Reporting, doi 10.1145/3287560.3287596.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from synthmed import __version__
from synthmed.bundle.card import LIMITS
from synthmed.bundle.source import ApprovedModel
from synthmed.config import Config
from synthmed.export.documents.audit_figures import audit_rows, cited, set_sizes
from synthmed.export.documents.markdown import line, numbers, table
from synthmed.export.documents.model_card import architecture_rows, quality_section
from synthmed.models.library import PICTURE, Entry
from synthmed.words import counted

_NOT_AUDITED = """## What was not audited

**The weights themselves were not audited.** The audit looked at samples, as somebody does who has the samples and no
more. Whoever holds the weights can go further: draw without end until a rare copy comes; ask for other conditions,
seeds or settings than those audited; read the loss of a scan they already have, to learn whether its patient was in
the training set (membership inference); search the latent space for a patient. Nothing here bounds what such attacks
find. The losses under *Training* say how far training and held-out patients already differ for whoever can measure
them.

So the samples' audit alone is no reason to give weights to the public. What makes it right or wrong is what the source
allows: see *Data*. Volumes drawn with another seed, condition or setting were not audited either: audit them
(`python -m privacy audit --help`) before passing them on."""


def render_entry_card(
    model: ApprovedModel,
    entry: Entry,
    run: Config,
    evaluation: Mapping[str, Any],
    change: Mapping[str, float],
    seconds: Mapping[str, float],
) -> str:
    """Return ``MODEL_CARD.md``, with YAML front matter as the Hugging Face hub reads it.

    Parameters are those of `synthmed.bundle.entry.write_entry`, and what it opened.
    """
    report = json.loads(model.audit["report.json"])
    parts = [
        _front_matter(entry),
        f"# {entry.name}: {line(entry.title)}",
        f"![Sections of {min(8, entry.samples)} audited samples with their labels, all synthetic]({PICTURE})",
        f"Draws 3D volumes{' and their label maps' if entry.labels else ''} that are **synthetic** and **not for "
        "clinical use**:",
        f"```sh\nsynthmed generate --model {entry.name} -n {min(16, entry.samples)}\n```",
        f"## Data\n\n{model.config.source_statement}\n\nThe audit counts {set_sizes(report)}. No patient is\n"
        f"in both sets.\n\nLicence of the weights and of this card: {line(entry.license)}.",
        f"## What it is\n\n{table(('', ''), [*_output(entry), *architecture_rows(run)])}",
        f"## Training\n\n{table(('', *_STAGES), _training(model, seconds))}\n\nHeld-out patients may have decided "
        "when training stopped and which weights were kept; no weight was fitted to them.",
        f"## How well it does\n\nMeasured on what the stored weights draw.\n\n{quality_section(evaluation)}",
        f"## The stored weights\n\n{_stored(model, change)}",
        _audited(model, report),
        _NOT_AUDITED,
        LIMITS,
        *([f"## Sources of the audit's methods\n\n{sources}"] if (sources := cited(report)) else []),
    ]
    return "\n\n".join(parts) + "\n"


_STAGES = ("autoencoder", "denoiser")
_SIDES = {"train": "training patients", "holdout": "held-out patients"}
_MEASURED = {"loss": "Loss", "psnr": "PSNR in dB", "dice": "Dice of labels"}


def _front_matter(entry: Entry) -> str:
    content: dict[str, Any] = {
        "library_name": "synthmed",
        "license": "other",
        "license_name": entry.license,
        "tags": ["medical", "synthetic", "3d", entry.modality.lower()],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _output(entry: Entry) -> Iterator[tuple[str, str]]:
    grid, spacing = (" x ".join(f"{value:g}" for value in values) for values in (entry.grid, entry.spacing))
    low, high = entry.intensity_range
    yield "Output", f"{entry.modality}, {grid} voxels of {spacing} mm, intensities {low:g} to {high:g}"
    yield "Labels", ", ".join(f"{name} ({value})" for value, name in entry.labels.items()) or "none"
    yield "Conditions", ", ".join(map(_condition, entry.conditions.items())) or "none"
    yield (
        "Drawn by",
        (
            f"{entry.sampling.sampler}, {entry.sampling.num_inference_steps} steps, guidance scale "
            f"{entry.sampling.guidance_scale:g}"
        ),
    )
    yield "Software", f"synthmed {__version__}"


def _condition(item: tuple[str, Any]) -> str:
    name, values = item
    if isinstance(values[0], str):
        return f"{name} (one of {', '.join(value or 'empty: not known' for value in values)})"
    return f"{name} ({values[0]:.3g} to {values[1]:.3g} in the inner 95 % of training)"


def _training(model: ApprovedModel, seconds: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Yield rows: what a stage's record says, one column a stage."""
    records = (model.autoencoder_record, model.denoiser_record)
    networks = (model.autoencoder.model, model.denoiser.model)
    yield "Parameters", *(f"{sum(p.numel() for p in network.parameters()):,}" for network in networks)
    yield "Steps", *(str(record.get("steps", "")) for record in records)
    yield "Arithmetic", *(str(record.get("precision", "")) for record in records)
    yield "Seed", *(str(record.get("seed", "")) for record in records)
    yield "Minutes", *(f"{seconds[stage] / 60:.0f}" if stage in seconds else "" for stage in _STAGES)
    measured = [numbers(record.get("measurements")) for record in records]
    for key in dict.fromkeys(key for values in measured for key in values):
        side, _, what = key.partition("_")
        name = f"{_MEASURED.get(what, what)}, {_SIDES.get(side, side)}"
        yield name, *(f"{values[key]:.4g}" if key in values else "" for values in measured)


def _stored(model: ApprovedModel, change: Mapping[str, float]) -> str:
    rows = [
        ("Largest change of a voxel, share of the intensity range", f"{change['largest']:.2%}"),
        ("Root mean square change", f"{change['root_mean_square']:.3%}"),
        ("Voxels whose label changes", f"{change['labels']:.3%}"),
        *((f"SHA-256, {name}", digest) for name, digest in (
            ("autoencoder", model.autoencoder.digest), ("denoiser", model.denoiser.digest))),
    ]  # fmt: skip
    return (
        "The autoencoder is in half precision; the large matrices of the denoiser are in eight bits with a scale a "
        f"row.\nBeside the weights as trained, over {counted(change['volumes'], 'volume')} of one seed:\n\n"
        f"{table(('Stored weights', ''), rows)}"
    )


def _audited(model: ApprovedModel, report: Mapping[str, Any]) -> str:
    approval = model.approval
    return (
        f"## What was audited\n\n{counted(model.audited, 'sample')} that **these stored weights** drew (seed "
        f"{model.seed}, settings as above): verdict **{approval.verdict}** by the policy `{approval.policy['name']}`.\n"
        f"{' '.join(approval.reasons)}.\n\n"
        + table(
            ("Measured", "Found", "The policy asks for"), audit_rows(report, numbers(approval.policy["thresholds"]))
        )
        + "\n\nThe defaults of `synthmed generate --model` draw the first of these samples again, the same bytes on the"
        " same\nkind of machine. The full record is `audit/report.md`. It is evidence, not proof."
    )
