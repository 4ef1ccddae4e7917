"""Is a condition true? What a predictor tells from synthetic volumes, against what they were asked for.

The predictor learns from real training scans and is tested on held-out ones, so that what it cannot tell is not held
against the generator. Another learns from synthetic volumes and what they were asked for (TSTR).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthmed.evaluation.cases import Cases
from synthmed.evaluation.intervals import Estimate, Figure
from synthmed.evaluation.learning import Budget
from synthmed.evaluation.predictor import Answers, Questions, ask, class_indices, questions_of, train_predictor
from synthmed.evaluation.regression import accuracy, class_auc, correlation, mean_absolute_error, slope
from synthmed.evaluation.sample import Sample, sample_of

FEWEST = 5


def measure_conditions(
    synthetic: Cases,
    train: Cases,
    holdout: Cases,
    scalars: Sequence[str],
    classes: Sequence[str],
    *,
    budget: Budget,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Measure each covariate that conditions the model.

    Parameters
    ----------
    scalars, classes : sequence of str
        Names; cases without a value are left out.

    Returns
    -------
    dict
        For each covariate its ``kind`` and, under each of ``holdout`` (a predictor of real scans on held-out ones),
        ``synthetic`` (the same on synthetic volumes against what was asked) and ``tstr`` (a predictor of synthetic
        volumes on held-out scans), the figures: correlation, slope and mean absolute error of a scalar, area under the
        curve and balanced accuracy of a class. ``ratio`` is the synthetic skill over the held-out skill, and
        ``tstr_ratio`` likewise; skill is the correlation, or twice the area less 1.
    """
    questions = questions_of(train, scalars, classes)
    if not questions.outputs:
        return {"measured": False, "reason": "no covariate of the training cases varies"}
    sets = {"holdout": holdout, "synthetic": synthetic, "tstr": holdout}
    said: dict[str, list[Answers]] = {role: [] for role in sets}
    for seed in seeds:
        real = train_predictor(train, questions, budget=budget, seed=seed, title="of real scans")
        made = train_predictor(synthetic, questions, budget=budget, seed=seed, title="of synthetic volumes")
        for role, cases in sets.items():
            said[role].append(ask(made if role == "tstr" else real, cases, questions))
    measured = covariate_figures(questions, sets, said, seeds[0])
    return {"measured": True, "steps": budget.steps, "seeds": list(seeds), "covariates": measured}


def covariate_figures(
    questions: Questions, sets: Mapping[str, Cases], said: Mapping[str, list[Answers]], seed: int
) -> dict[str, Any]:
    """Return the figures of each covariate, as `measure_conditions` does.

    Parameters
    ----------
    sets, said : mapping
        Under each role, of which ``holdout`` is what others are divided by, the cases and what one predictor a seed
        said of them.
    seed : int
        Of the intervals.
    """
    measured = {name: _scalar(name, sets, said, seed) for name, _, _ in questions.scalars}
    return measured | {name: _class(name, values, sets, said, seed) for name, values in questions.classes}


def _scalar(name: str, sets: Mapping[str, Cases], said: Mapping[str, list[Answers]], seed: int) -> dict[str, Any]:
    """Return a scalar's figures; predictions are averaged over seeds by averaging their figures."""
    skills: dict[str, Estimate] = {}
    result: dict[str, Any] = {"kind": "scalar"}
    for role, cases in sets.items():
        asked = cases.scalar(name)
        kept = np.isfinite(asked)
        if kept.sum() < FEWEST:
            continue
        sample, told = _sample(cases, kept, seed), [answers.scalars[name][kept] for answers in said[role]]
        measures = {"correlation": correlation, "slope": slope, "mae": mean_absolute_error}
        found = {key: _mean([of(asked[kept], one, sample) for one in told]) for key, of in measures.items()}
        skills[role] = found["correlation"]
        result[role] = _figures(found, int(kept.sum()))
    return result | _ratios(skills)


def _class(
    name: str, values: tuple[str, ...], sets: Mapping[str, Cases], said: Mapping[str, list[Answers]], seed: int
) -> dict[str, Any]:
    skills: dict[str, Estimate] = {}
    result: dict[str, Any] = {"kind": "class", "values": len(values)}
    for role, cases in sets.items():
        asked = class_indices(cases, name, values)
        kept = asked >= 0
        if kept.sum() < FEWEST or len(np.unique(asked[kept])) < 2:
            continue
        sample, told = _sample(cases, kept, seed), [answers.classes[name][kept] for answers in said[role]]
        measures = {"auc": class_auc, "accuracy": accuracy}
        found = {key: _mean([of(asked[kept], one, sample) for one in told]) for key, of in measures.items()}
        skills[role] = Estimate(2 * found["auc"].value - 1, 2 * found["auc"].draws - 1)
        result[role] = _figures(found, int(kept.sum()))
    return result | _ratios(skills)


def _sample(cases: Cases, kept: NDArray[np.bool_], seed: int) -> Sample:
    """Return the kept cases with weights that are the same for every role of the same cases."""
    owners = [owner for owner, keep in zip(cases.patients, kept, strict=True) if keep]
    return sample_of(np.zeros((len(owners), 1)), owners, rng=np.random.default_rng([seed, len(cases)]))


def _mean(parts: list[Estimate]) -> Estimate:
    return Estimate(float(np.mean([p.value for p in parts])), np.mean([p.draws for p in parts], axis=0))


def _figures(found: dict[str, Estimate], n: int) -> dict[str, Figure | int | None]:
    return {name: part.figure() for name, part in found.items()} | {"n": n}


def _ratios(skills: dict[str, Estimate]) -> dict[str, Figure | None]:
    real = skills.get("holdout")
    return {
        key: None if real is None or role not in skills else skills[role].over(real).figure()
        for key, role in (("ratio", "synthetic"), ("tstr_ratio", "tstr"))
    }
