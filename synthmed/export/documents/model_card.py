"""The model card: what drew the volumes, what it learned from, how well it does, and where it fails.

References
----------
Mitchell et al. 2019, Model Cards for Model Reporting, doi 10.1145/3287560.3287596.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthmed import __version__
from synthmed.config import Config, ExportConfig
from synthmed.export.cohort import ApprovedCohort
from synthmed.export.documents.audit_figures import audit_rows, cited, set_sizes
from synthmed.export.documents.card import LIMITS, conditions
from synthmed.export.documents.markdown import bullets, line, numbers, table

_FEATURES = {"encoder": "self-taught encoder", "random_convolutions": "random convolutions", "radiomics": "radiomics"}
_DISTANCES = {
    "kid": "Kernel distance",
    "frechet": "Fréchet distance",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "modes": "Mode coverage",
    "auc": "Classifier's AUC",
}
_UNMEASURED = (
    "No figures of fidelity or utility come with this release. Compare the volumes with real scans of your own before "
    "you rely on them."
)


def render_model_card(
    config: ExportConfig,
    cohort: ApprovedCohort,
    report: Mapping[str, Any],
    *,
    run: Config | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> str:
    """Return the release's ``MODEL_CARD.md``.

    Only figures over whole sets are taken from `evaluation`; nothing about a single case.

    Parameters
    ----------
    config : ExportConfig
    cohort : ApprovedCohort
    report : mapping
        The audit's ``report.json``.
    run : Config, optional
        The settings that the models were trained with.
    evaluation : mapping, optional
        ``evaluate/evaluation.json`` of the run.
    """
    thresholds = numbers(cohort.approval.policy["thresholds"])
    rows = audit_rows(report, thresholds)
    sources = cited(report)
    parts = [
        f"# The model behind: {line(config.title)}",
        "The model itself is not part of this release; its volumes are.",
        f"## What it is\n\n{_what_it_is(cohort, run)}",
        f"## What it learned from\n\n{config.source_statement}\n\nThe audit counts {set_sizes(report)}. No patient is\n"
        "in both sets. What was held out is the audit's control and may have decided when training stopped and\n"
        "which weights were kept; no weight was fitted to it.",
        f"## How well it does\n\n{quality_section(evaluation)}",
        f"## What it gives away\n\nThe audit: **{cohort.approval.verdict}** by the policy "
        f"`{cohort.approval.policy['name']}`. Evidence, not proof.\n\n"
        + table(("Measured", "Found", "The policy asks for"), rows),
        f"## Intended use and limits\n\n{bullets(LIMITS)}",
        *([f"## Sources of the audit's methods\n\n{sources}"] if sources else []),
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(cohort: ApprovedCohort, run: Config | None) -> str:
    """Return a table of the architecture and of how volumes were drawn."""
    space = cohort.description.space
    drawn = [
        ("Output", f"{space.modality}, {' x '.join(map(str, space.grid))} voxels of "
         f"{' x '.join(f'{edge:g}' for edge in space.spacing)} mm, {space.num_classes} label classes"),
        ("Conditions", ", ".join(conditions(cohort)) or "none"),
        *cohort.description.facts.items(),
        ("Software", f"synthmed {__version__}"),
    ]  # fmt: skip
    return table(("", ""), [*(architecture_rows(run) if run else ()), *drawn])


def architecture_rows(run: Config) -> Iterator[tuple[str, str]]:
    """Yield what a model is made of and how long it was trained, a name and a text each."""
    coder, denoiser = run.autoencoder, run.denoiser
    yield "Kind", "latent diffusion: a 3D autoencoder, and a denoiser of its latents"
    yield (
        "Autoencoder",
        f"MONAI AutoencoderKL behind a Haar stem, image and label together; channels {_list(coder.channels)}; "
        f"{coder.latent_channels} latent channels; each latent cell {coder.downsampling} voxels a side",
    )
    if denoiser.kind == "transformer":
        yield "Denoiser", f"transformer over latent cells, width {denoiser.width}, depth {denoiser.depth}"
    else:
        yield "Denoiser", f"MONAI DiffusionModelUNet, channels {_list(denoiser.channels)}"
    yield "Diffusion", f"{run.diffusion.path} path, {run.diffusion.prediction} prediction"
    for name, training in (("autoencoder", run.autoencoder_training), ("denoiser", run.denoiser_training)):
        stop = f", or {training.patience} validations without progress" if training.patience else ""
        yield f"Training of the {name}", f"at most {training.max_steps} steps of {training.batch_size}{stop}"


def _list(values: tuple[int, ...]) -> str:
    return ", ".join(map(str, values))


def quality_section(evaluation: Mapping[str, Any] | None) -> str:
    """Return the table of utility, distances, diversity and reconstruction, as far as they were measured."""
    rows = list(_figures(evaluation)) if evaluation else []
    if not rows:
        return _UNMEASURED
    return (
        table(("Figure", "Synthetic (95 % interval)", "Real, for comparison"), rows)
        + "\n\nIntervals resample patients. Dice is of a segmenter on held-out real scans, trained on synthetic or on\n"
        "real cases, or on both. Distances are to held-out real scans; the comparison is training against held-out."
    )


def _figures(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield utility, distances, diversity and reconstruction, as far as they were measured."""
    utility = evaluation.get("utility", {})
    if utility.get("measured"):
        sets = utility["sets"]
        yield "Segmenter, mean Dice", _figure(sets["tstr"]["dice"]), _figure(sets["trtr"]["dice"])
        if utility.get("ratio"):
            yield "  as a share of real", _figure(utility["ratio"]), "1"
        if "both" in sets:
            yield (
                "Segmenter of real and synthetic, mean Dice",
                _figure(sets["both"]["dice"]),
                _figure(sets["trtr"]["dice"]),
            )
    yield from _conditions(evaluation.get("conditions", {}))
    for features, found in evaluation.get("distance", {}).items():
        for key in (key for key in _DISTANCES if features in _FEATURES and _measured(found.get(key))):
            title = f"{_DISTANCES[key]}, {_FEATURES[features]}"
            yield title, _figure(found[key]["synthetic"]), _figure(found[key]["floor"])
            if key == "kid" and found[key].get("ratio"):
                yield "  times the floor", _figure(found[key]["ratio"]), "1"
    pairs = evaluation.get("diversity", {})
    if pairs.get("synthetic") and pairs.get("real"):
        yield "Likeness of pairs, MS-SSIM", _figure(pairs["synthetic"]), _figure(pairs["real"])
    if psnr := evaluation.get("autoencoder", {}).get("psnr_db"):
        yield "Autoencoder on held-out scans, PSNR in dB", "", _figure(psnr)


def _measured(compared: Mapping[str, Any] | None) -> bool:
    return bool(compared and compared["synthetic"] and compared["floor"])


def _conditions(conditions: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield how well each condition is followed, beside what the same predictor tells from real scans."""
    for name, found in conditions.get("covariates", {}).items():
        key, measure = ("correlation", "correlation") if found["kind"] == "scalar" else ("auc", "AUC")
        made, real = (found.get(role, {}).get(key) for role in ("synthetic", "holdout"))
        if made and real:
            yield f"{name} asked and seen, {measure}", _figure(made), _figure(real)


def _figure(values: Mapping[str, float]) -> str:
    return f"{values['value']:.3f} ({values['low']:.3f} to {values['high']:.3f})"
