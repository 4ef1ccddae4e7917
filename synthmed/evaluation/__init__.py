"""What a synthetic set is worth: fidelity, diversity and utility, beside what real scans score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synthmed.config import Config
from synthmed.evaluation.anatomy import Spacing, describe_structures
from synthmed.evaluation.cases import Cases, joined, real_cases, synthetic_cases
from synthmed.evaluation.conditions import measure_conditions
from synthmed.evaluation.diversity import compare_intensities, diversity
from synthmed.evaluation.encoder import Encoder, learn_encoder
from synthmed.evaluation.features import radiomics, random_convolutions
from synthmed.evaluation.fidelity import distances
from synthmed.evaluation.intervals import Array
from synthmed.evaluation.learning import Budget
from synthmed.evaluation.reconstruction import reconstruction
from synthmed.evaluation.table import format_evaluation
from synthmed.evaluation.utility import measure_utility, size_curve
from synthmed.files import read_json, write_json
from synthmed.models.checkpoint import load_autoencoder
from synthmed.models.devices import resolve_device
from synthmed.pictures import montage
from synthmed.prepare.prepared import load_space, load_split
from synthmed.prepare.space import Space

SCHEMA = "synthmed-evaluation/2"

__all__ = ["SCHEMA", "compare", "evaluate", "format_evaluation", "structure_names"]


def evaluate(
    config: Config,
    prepare_dir: Path,
    autoencoder_dir: Path,
    denoiser_dir: Path,
    generate_dir: Path,
    out: Path,
    *,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a generated set and its models against real patients; write ``evaluation.json`` and ``montage.png``.

    Parameters
    ----------
    config : Config
        Its `evaluation` section and `seed`.
    prepare_dir, autoencoder_dir, denoiser_dir, generate_dir : Path
        Directories of finished stages.
    out : Path
        Receives ``evaluation.json``, which names no patient and no path, and ``montage.png`` of synthetic cases.
    device : str
        ``"auto"`` takes a GPU where there is one.

    Returns
    -------
    dict
        The content of ``evaluation.json``.
    """
    chosen = torch.device(resolve_device(device))
    space = load_space(prepare_dir)
    train, holdout = (real_cases(load_split(prepare_dir, side)) for side in ("train", "holdout"))
    synthetic = synthetic_cases(generate_dir, space)
    structures = structure_names(space)
    model = load_autoencoder(autoencoder_dir, chosen).model
    settings, seed = config.evaluation, config.seed
    encoder = None
    if settings.encoder_steps:
        encoder = learn_encoder(train, steps=settings.encoder_steps, seed=seed, device=chosen, progress=progress)
    result = {
        "schema": SCHEMA,
        "seed": seed,
        "n": _sizes(synthetic, train, holdout),
        "structures": structures,
        "unit": _unit(space),
        "autoencoder": reconstruction(model, holdout.images, holdout.labels, structures, holdout.patients, seed=seed),
        "denoiser": denoising_losses(denoiser_dir),
        **compare(
            synthetic,
            train,
            holdout,
            structures,
            space.spacing,
            scalars=config.conditioning.scalars,
            encoder=encoder,
            half_range=(space.intensity_range[1] - space.intensity_range[0]) / 2,
            seed=seed,
        ),
        "conditions": judge_conditions(config, synthetic, train, holdout, chosen, progress=progress),
        "utility": judge_utility(config, synthetic, train, holdout, structures, chosen, progress=progress),
    }
    picture = out / "montage.png"
    montage(synthetic.images, synthetic.labels, spacing=space.spacing, title="Synthetic volumes").save(picture)
    write_json(out / "evaluation.json", result)
    return result


def compare(
    synthetic: Cases,
    train: Cases,
    holdout: Cases,
    structures: list[str],
    spacing: Spacing,
    *,
    seed: int,
    scalars: tuple[str, ...] = (),
    encoder: Encoder | None = None,
    half_range: float = 1.0,
) -> dict[str, Any]:
    """Return distances, diversity and anatomy of three sets; nothing here needs the models that drew the set.

    Parameters
    ----------
    structures : list of str
        Names of classes 1, 2, ...
    spacing : tuple of float, mm
    scalars : tuple of str
        Covariates to hold the structures' volumes against.
    encoder : Encoder, optional
        Adds its space of features.
    half_range : float
        Units of the release a step of 1 on the networks' scale.
    """
    moved = compare_intensities(
        synthetic.images, train.images, holdout.images, (train.patients, holdout.patients), seed=seed
    )
    found: dict[str, Any] = {
        "distance": _distance(synthetic, train, holdout, len(structures), encoder, seed),
        "diversity": {
            "measure": "MS-SSIM of random pairs of patients",
            "synthetic": diversity(synthetic.images, synthetic.patients, seed=seed),
            "real": diversity(holdout.images, holdout.patients, seed=seed),
            "intensities": {key: _scaled(value, 1.0 if key == "ratio" else half_range) for key, value in moved.items()},
        },
        "labels": {},
    }
    if structures:
        found["labels"] = describe_structures(synthetic, train, holdout, structures, spacing, scalars, seed=seed)
    return found


def judge_utility(
    config: Config,
    synthetic: Cases,
    train: Cases,
    holdout: Cases,
    structures: list[str],
    device: torch.device,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Measure what a segmenter learns from synthetic pairs, real pairs and both, or say why it was left out."""
    settings = config.evaluation
    if not structures:
        return {"measured": False, "reason": "the cohort has no labels"}
    if settings.segmenter_steps == 0:
        return {"measured": False, "reason": "evaluation.segmenter_steps is 0"}
    budget = Budget(settings.segmenter_steps, settings.segmenter_batch_size, device, progress)
    seeds = _seeds(config)
    measured = measure_utility(
        {"tstr": synthetic, "trtr": train, "both": joined(train, synthetic)},
        holdout,
        structures,
        steps=budget.steps,
        batch_size=budget.batch_size,
        seeds=seeds,
        device=device,
        progress=progress,
    )
    sizes = settings.utility_sizes
    curve = size_curve(synthetic, train, holdout, len(structures), sizes=sizes, budget=budget, seeds=seeds)
    return measured | {"sizes": curve}


def judge_conditions(
    config: Config, synthetic: Cases, train: Cases, holdout: Cases, device: torch.device, *, progress: bool
) -> dict[str, Any]:
    """Measure whether conditions are true, or say why it was left out."""
    settings, asked = config.evaluation, config.conditioning
    if not asked.scalars and not asked.classes:
        return {"measured": False, "reason": "the model has no conditions"}
    if settings.predictor_steps == 0:
        return {"measured": False, "reason": "evaluation.predictor_steps is 0"}
    budget = Budget(settings.predictor_steps, settings.segmenter_batch_size, device, progress)
    return measure_conditions(
        synthetic, train, holdout, asked.scalars, asked.classes, budget=budget, seeds=_seeds(config)
    )


def structure_names(space: Space) -> list[str]:
    """Return the name of every class but the background, in order of class index."""
    return [space.label_names.get(value, f"label {value}") for value in space.label_values[1:]]


def _distance(
    synthetic: Cases, train: Cases, holdout: Cases, num_structures: int, encoder: Encoder | None, seed: int
) -> dict[str, Any]:
    sets = synthetic, train, holdout
    fewest = min(cases.num_patients for cases in sets)
    if fewest < 2:
        return {"measured": False, "reason": "a distance needs two patients in every set"}
    result: dict[str, Any] = {"measured": True}
    if encoder is not None:
        new = train.take(encoder.unseen)
        seen = [encoder.embed(cases.images) for cases in (synthetic, new, holdout)]
        result["encoder"] = {"n_lessons": encoder.num_lessons} | _in_space(seen, new, holdout, seed)
    convolved = [random_convolutions(cases.images) for cases in sets]
    described = [radiomics(cases.images, cases.labels, num_structures) for cases in sets]
    result["random_convolutions"] = _in_space(convolved, train, holdout, seed)
    result["radiomics"] = _in_space(described, train, holdout, seed)
    return result


def _in_space(features: list[Array], train: Cases, holdout: Cases, seed: int) -> dict[str, Any]:
    return distances(features[0], features[1], features[2], train.patients, holdout.patients, seed=seed)


def _scaled(figure: Mapping[str, float] | None, factor: float) -> dict[str, float] | None:
    return None if figure is None else {key: factor * value for key, value in figure.items()}


def denoising_losses(denoiser_dir: Path) -> dict[str, Any]:
    """Return the denoiser's last losses on held-out and on training latents, None where training kept none."""
    record: Mapping[str, Any] = read_json(denoiser_dir / "model.json")
    found = record.get("measurements", {})
    return {"holdout_loss": found.get("holdout_loss"), "train_loss": found.get("train_loss")}


def _sizes(synthetic: Cases, train: Cases, holdout: Cases) -> dict[str, int]:
    return {
        "synthetic": len(synthetic),
        "train": len(train),
        "holdout": len(holdout),
        "train_patients": train.num_patients,
        "holdout_patients": holdout.num_patients,
    }


def _seeds(config: Config) -> range:
    return range(config.seed, config.seed + config.evaluation.segmenter_seeds)


def _unit(space: Space) -> str:
    """Return what intensities are measured in."""
    known = {"CT": "HU", "PT": "SUV"} if space.normalisation == "window" else {}
    return known.get(space.modality, "arbitrary units")
