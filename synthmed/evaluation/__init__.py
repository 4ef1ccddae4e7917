"""What a synthetic set is worth: fidelity, diversity and utility, beside what real scans score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synthmed.config import Config, EvaluationConfig
from synthmed.evaluation.cases import Cases, real_cases, synthetic_cases
from synthmed.evaluation.diversity import compare_volumes, diversity, label_volumes
from synthmed.evaluation.features import radiomics, random_convolutions
from synthmed.evaluation.fidelity import distances, reconstruction
from synthmed.evaluation.table import format_evaluation
from synthmed.evaluation.utility import measure_utility
from synthmed.files import read_json, write_json
from synthmed.models.checkpoint import load_autoencoder
from synthmed.models.devices import resolve_device
from synthmed.pictures import montage
from synthmed.prepare.prepared import load_space, load_split
from synthmed.prepare.space import Space

SCHEMA = "synthmed-evaluation/1"

__all__ = ["SCHEMA", "evaluate", "format_evaluation"]


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
    result = {
        "schema": SCHEMA,
        "seed": config.seed,
        "n": _sizes(synthetic, train, holdout),
        "structures": structures,
        "autoencoder": reconstruction(
            model, holdout.images, holdout.labels, structures, holdout.patients, seed=config.seed
        ),
        "denoiser": denoising_losses(denoiser_dir),
        **compare(synthetic, train, holdout, structures, _voxel_volume(space), seed=config.seed),
        "utility": judge_utility(
            config.evaluation, synthetic, train, holdout, structures, config.seed, chosen, progress=progress
        ),
    }
    picture = out / "montage.png"
    montage(synthetic.images, synthetic.labels, spacing=space.spacing, title="Synthetic volumes").save(picture)
    write_json(out / "evaluation.json", result)
    return result


def compare(
    synthetic: Cases, train: Cases, holdout: Cases, structures: list[str], voxel_volume: float, *, seed: int
) -> dict[str, Any]:
    """Return distances, diversity and label volumes of three sets; nothing here needs a model.

    Parameters
    ----------
    structures : list of str
        Names of classes 1, 2, ...
    voxel_volume : float, mm^3
    """
    return {
        "distance": _distance(synthetic, train, holdout, len(structures), seed),
        "diversity": {
            "measure": "MS-SSIM of random pairs of patients",
            "synthetic": diversity(synthetic.images, synthetic.patients, seed=seed),
            "real": diversity(holdout.images, holdout.patients, seed=seed),
        },
        "labels": _labels(synthetic, train, holdout, structures, voxel_volume) if structures else {},
    }


def judge_utility(
    settings: EvaluationConfig,
    synthetic: Cases,
    train: Cases,
    holdout: Cases,
    structures: list[str],
    seed: int,
    device: torch.device,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Measure what a segmenter learns from the synthetic and from the real pairs, or say why it was left out."""
    if not structures:
        return {"measured": False, "reason": "the cohort has no labels"}
    if settings.segmenter_steps == 0:
        return {"measured": False, "reason": "evaluation.segmenter_steps is 0"}
    return measure_utility(
        {"tstr": synthetic, "trtr": train},
        holdout,
        structures,
        steps=settings.segmenter_steps,
        batch_size=settings.segmenter_batch_size,
        seeds=range(seed, seed + settings.segmenter_seeds),
        device=device,
        progress=progress,
    )


def structure_names(space: Space) -> list[str]:
    """Return the name of every class but the background, in order of class index."""
    return [space.label_names.get(value, f"label {value}") for value in space.label_values[1:]]


def _distance(synthetic: Cases, train: Cases, holdout: Cases, num_structures: int, seed: int) -> dict[str, Any]:
    sets = synthetic, train, holdout
    fewest = min(cases.num_patients for cases in sets)
    if fewest < 2:
        return {"measured": False, "reason": "a distance needs two patients in every set"}
    groups = train.patients, holdout.patients
    convolved = [random_convolutions(cases.images) for cases in sets]
    described = [radiomics(cases.images, cases.labels, num_structures) for cases in sets]
    return {
        "measured": True,
        "random_convolutions": distances(convolved[0], convolved[1], convolved[2], *groups, seed=seed),
        "radiomics": distances(described[0], described[1], described[2], *groups, seed=seed),
    }


def _labels(
    synthetic: Cases, train: Cases, holdout: Cases, structures: list[str], voxel_volume: float
) -> dict[str, Any]:
    sets = synthetic.segmentations, train.segmentations, holdout.segmentations
    volumes = [label_volumes(labels, len(structures), voxel_volume) for labels in sets]
    return {name: compare_volumes(*(v[:, index] for v in volumes)) for index, name in enumerate(structures)}


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


def _voxel_volume(space: Space) -> float:
    i, j, k = space.spacing
    return i * j * k
