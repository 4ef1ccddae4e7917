"""Utility: a small segmenter trained on synthetic pairs, on real ones, and on both, tested on held-out real patients.

Esteban et al. 2017, "Real-valued (medical) time series generation with recurrent conditional GANs",
arXiv:1706.02633, section 4.2: train on synthetic, test on real (TSTR), beside train on real, test on real (TRTR).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from synthmed.evaluation.cases import Cases, joined
from synthmed.evaluation.intervals import Array, Estimate, Figure, patient_weights
from synthmed.evaluation.learning import Budget
from synthmed.evaluation.segmenter import dice_on, train_segmenter

__all__ = ["dice_on", "measure_utility", "size_curve", "train_segmenter"]


def measure_utility(
    training_sets: Mapping[str, Cases],
    test: Cases,
    structures: Sequence[str],
    *,
    steps: int,
    batch_size: int,
    seeds: Sequence[int],
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Train one segmenter a set and seed, all with the same budget, and test each on the same patients.

    Parameters
    ----------
    training_sets : mapping of str to Cases
        Such as ``{"tstr": synthetic, "trtr": real, "both": joined(real, synthetic)}``.
    test : Cases
        Real patients that neither generator nor segmenters saw.
    structures : sequence of str
        Names of classes 1, 2, ...

    Returns
    -------
    dict
        For each set: mean Dice over structures, seeds and cases with its interval over patients and seeds, the same
        for each structure, and the mean of each seed; ``ratio`` of ``tstr`` and ``gain`` of ``both``, each to
        ``trtr``, where they are there.
    """
    budget = Budget(steps, batch_size, torch.device(device), progress)
    scores = {
        name: _scores(lambda seed, data=data: data, test, len(structures), seeds, budget, name)  # type: ignore[misc]
        for name, data in training_sets.items()
    }
    draw = _resample(test.patients, seeds)
    result: dict[str, Any] = {"measured": True, "steps": steps, "batch_size": batch_size, "seeds": list(seeds)}
    result["sets"] = {
        name: _summary(dice, structures, draw) | {"n_training": len(training_sets[name])}
        for name, dice in scores.items()
    }
    for key, name in (("ratio", "tstr"), ("gain", "both")):
        if {name, "trtr"} <= scores.keys():
            result[key] = draw(scores[name]).over(draw(scores["trtr"])).figure()
    return result


def size_curve(
    synthetic: Cases,
    train: Cases,
    test: Cases,
    num_structures: int,
    *,
    sizes: Sequence[int],
    budget: Budget,
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Return what real scans of a few patients teach, alone and with the synthetic set beside them.

    It is the receiver's question: with so many patients of one's own, does the release help? The synthetic set stays
    the same, made from all training patients. Every seed takes other patients; both sets take the same ones.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of training patients; those that the cohort does not have are left out.

    Returns
    -------
    list of dict
        ``patients``, Dice of ``trtr`` and ``both``, and their ratio ``gain``.
    """
    draw = _resample(test.patients, seeds)
    curve = []
    for size in sorted(n for n in set(sizes) if n < train.num_patients):

        def few(seed: int, size: int = size) -> Cases:
            return train.take_patients(size, seed)

        def more(seed: int, size: int = size) -> Cases:
            return joined(train.take_patients(size, seed), synthetic)

        alone = _scores(few, test, num_structures, seeds, budget, f"{size} patients")
        both = _scores(more, test, num_structures, seeds, budget, f"{size} patients + synthetic")
        row = {"trtr": _dice(alone, draw), "both": _dice(both, draw), "gain": draw(both).over(draw(alone)).figure()}
        curve.append({"patients": size, **row})
    return curve


Draw = Callable[[Array], Estimate]


def _scores(
    set_of: Callable[[int], Cases], test: Cases, num_structures: int, seeds: Sequence[int], budget: Budget, title: str
) -> Array:
    """Return Dice of shape (seeds, N, structures)."""
    scores = []
    for seed in seeds:
        data = set_of(seed)
        model = train_segmenter(
            data.images,
            data.segmentations,
            num_structures + 1,
            steps=budget.steps,
            batch_size=budget.batch_size,
            seed=seed,
            device=budget.device,
            progress=title if budget.progress else "",
            boundary=data.boundary,
        )
        scores.append(dice_on(model, test.images, test.segmentations, num_structures + 1))
    return np.stack(scores)


def _resample(patients: Sequence[str], seeds: Sequence[int]) -> Draw:
    """Return a function from Dice of shape (seeds, N, ...) to its mean, under one bootstrap of patients and seeds."""
    rng = np.random.default_rng(seeds[0])
    cases = patient_weights(patients, rng=rng)
    runs = patient_weights([str(seed) for seed in seeds], rng=rng)
    cases, runs = (w / w.sum(axis=1, keepdims=True) for w in (cases, runs))

    def draw(dice: Array) -> Estimate:
        flat = dice.reshape(*dice.shape[:2], -1).mean(axis=2)
        return Estimate(float(flat.mean()), np.einsum("rs,sn,rn->r", runs, flat, cases, optimize=True))

    return draw


def _summary(dice: Array, structures: Sequence[str], draw: Draw) -> dict[str, Any]:
    """Summarise Dice of shape (seeds, N, structures)."""
    return {
        "dice": _dice(dice, draw),
        "structures": {name: _dice(dice[..., index], draw) for index, name in enumerate(structures)},
        "dice_of_seeds": [float(mean) for mean in dice.mean(axis=(1, 2))],
    }


def _dice(dice: Array, draw: Draw) -> Figure:
    return (draw(dice).figure() or {}) | {"n": dice.shape[1]}
