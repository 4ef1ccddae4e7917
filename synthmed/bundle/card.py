"""The words of a bundle: ``docs/README.md`` and ``LICENSE``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from synthmed import __version__
from synthmed.bundle.source import ApprovedModel

_RUN = """## Using it

It needs `synthmed`, which brings MONAI and PyTorch, and `fire` for MONAI's command line. In this directory:

```
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --num_samples 8 --seed 1
```

Volumes go to `output/`: `images/`, `labels/` where the model has labels, `samples.csv` (seed, condition, digests) and
`generation.json`. `--output_dir DIR`, `--device cpu` and, for instance, `--sampling#num_inference_steps 50` change the
defaults; `--conditions` takes a list such as `"[{'sex': 'F', 'age': 40}]"`, if the model has conditions. A second
call goes on where the first was stopped. A seed means the volumes that `synthmed generate` draws from it in the run
that this model comes from: the same bytes on the same kind of machine.

```python
from monai.bundle import ConfigWorkflow, load

workflow = ConfigWorkflow("configs/inference.json", workflow_type="inference", bundle_root=".")
workflow.initialize()
workflow.run()
denoiser = load("NAME OF THIS DIRECTORY", bundle_dir="..", workflow_type="inference")
```"""

_WEIGHTS = """## What was not audited

**The weights themselves were not audited.** The audit looked at samples, as somebody does who has the samples and no
more. Whoever holds the weights can go further: draw without end until a rare copy comes; ask for other conditions,
seeds or settings than those audited; read the loss of a scan they already have, to learn whether its patient was in
the training set; search the latent space for a patient. Nothing here bounds what such attacks find. Weights can carry
more of a patient than samples do.

So treat this directory as data derived from patients: give it to those whom the owner of the source allows to have it,
under an agreement, and not to the public on the strength of the samples' audit. Volumes drawn with another seed,
condition or setting were not audited either: audit them (`python -m privacy audit --help`) before passing them on."""

LIMITS = """## Intended use and limits

- For developing, pre-training and testing methods, and for teaching.
- Not for diagnosis, treatment, or any claim about a person.
- The model saw few patients. Rare anatomy and pathology are missing or wrong, and whatever bias the source has is
  here too.
- Labels, where there are any, are drawn together with the images. No expert has looked at them.
- Do not try to identify the people whose scans trained the model, or to recover their scans from it."""


def render_model_card(model: ApprovedModel) -> str:
    """Return the bundle's ``docs/README.md``, with YAML front matter as the Hugging Face hub reads it."""
    parts = [
        _front_matter(model),
        f"# {model.config.title}: the generative model",
        "A trained generative model of 3D medical volumes, as a MONAI bundle. What it draws is **synthetic** and **not "
        "for clinical use**.",
        _RUN,
        _made(model),
        _audit(model),
        _WEIGHTS,
        LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def render_license(model: ApprovedModel) -> str:
    """Return the text of the bundle's ``LICENSE``."""
    return (
        f"{model.config.title}: the generative model\n\n"
        f"Licence of the weights and documents in this directory: {model.config.license}\n\n"
        'They are provided "as is", without warranty of any kind, express or implied, fitness for a particular\n'
        "purpose among them. They are not for clinical use.\n"
    )


def _front_matter(model: ApprovedModel) -> str:
    content: dict[str, Any] = {
        "library_name": "monai",
        "license": "other",
        "license_name": model.config.license,
        "tags": ["monai", "medical", "synthetic", "3d", model.autoencoder.space.modality.lower()],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _made(model: ApprovedModel) -> str:
    space, conditioning = model.autoencoder.space, model.denoiser.conditioning
    covariates = [c.name for c in conditioning.classes] + [s.name for s in conditioning.scalars]
    low, high = space.intensity_range
    rows = [
        ("Software", f"synthmed {__version__}"),
        ("Grid and spacing", f"{_times(space.grid)} voxels of {_times(space.spacing)} mm, {space.orientation}"),
        ("Modality and intensities", f"{space.modality}, {low:g} to {high:g}"),
        ("Labels", ", ".join(space.structure(v) for v in space.label_values if v) or "none"),
        ("Conditions", ", ".join(covariates) or "none"),
        ("Denoiser", f"{model.denoiser_record['architecture']['kind']}, {_size(model.denoiser.model)} parameters"),
        ("Autoencoder", f"{_size(model.autoencoder.model)} parameters"),
        ("SHA-256 of the denoiser as trained", model.denoiser.digest),
        ("SHA-256 of the autoencoder as trained", model.autoencoder.digest),
    ]
    note = (
        "\n\n`models/model.json` holds the frequencies, means and covariances of the conditions in the training set."
        if covariates
        else ""
    )
    return f"## How it was made\n\nSource: {model.config.source_statement}\n\n{_table(rows)}{note}"


def _audit(model: ApprovedModel) -> str:
    sampling, approval = model.sampling, model.approval
    rows = [
        ("Samples", str(model.audited)),
        ("Seed", str(model.seed)),
        ("Sampler", f"{sampling.sampler}, {sampling.num_inference_steps} steps"),
        ("Guidance scale", f"{sampling.guidance_scale:g}"),
        ("Policy", str(approval.policy["name"])),
        ("SHA-256 of the report", approval.records["report.json"]),
    ]
    reasons = " ".join(approval.reasons)
    return (
        f"## What was audited\n\nSamples of this model: verdict **{approval.verdict}**. {reasons}.\n\n"
        f"{_table(rows)}\n\nThe defaults of `configs/inference.json` draw the first of these samples again. The full\n"
        "record is `docs/audit/report.md`. It is evidence, not proof."
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {key} | {' '.join(value.split()).replace('|', chr(92) + '|')} |" for key, value in rows]
    return "\n".join(["| | |", "|---|---|", *lines])


def _times(values: Iterable[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _size(network: Any) -> str:
    return f"{sum(p.numel() for p in network.parameters()):,}"
