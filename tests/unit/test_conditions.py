"""A predictor tells whether synthetic volumes have what they were asked for."""

import numpy as np
import pytest
import torch

from synthmed.evaluation.cases import Cases
from synthmed.evaluation.conditions import measure_conditions
from synthmed.evaluation.learning import Budget
from synthmed.evaluation.predictor import questions_of

GRID = (16, 16, 16)
BUDGET = Budget(60, 8, torch.device("cpu"))


def cubes(n, seed, true=True):
    """Return volumes with a cube as large as `age` says, and bright where `sex` is M; untrue ones say anything."""
    rng = np.random.default_rng(seed)
    images, rows = np.full((n, 1, *GRID), -0.8, np.float32), []
    for image in images:
        side, sex = int(rng.integers(4, 13)), str(rng.choice(["F", "M"]))
        low = (16 - side) // 2
        image[0, low : low + side, low : low + side, low : low + side] = 0.6 if sex == "M" else 0.0
        rows.append({"age": 20.0 + 5 * side, "sex": sex})
    images += 0.05 * rng.standard_normal(images.shape).astype(np.float32)
    told = rows if true else [rows[i] for i in rng.permutation(n)]
    return Cases(torch.from_numpy(images), None, tuple(f"p{seed}-{i}" for i in range(n)), tuple(told))


def measure(synthetic):
    train, holdout = cubes(40, 0), cubes(24, 1)
    found = measure_conditions(synthetic, train, holdout, ["age"], ["sex"], budget=BUDGET, seeds=[0])
    return found["covariates"]


@pytest.mark.slow
def test_true_conditions_are_as_good_as_real_ones():
    found = measure(cubes(40, 2))
    age, sex = found["age"], found["sex"]
    for role in ("holdout", "synthetic", "tstr"):
        assert age[role]["correlation"]["value"] > 0.8
        assert sex[role]["auc"]["value"] > 0.9
    assert age["synthetic"]["slope"]["value"] == pytest.approx(age["holdout"]["slope"]["value"], abs=0.3)
    assert age["ratio"]["value"] == pytest.approx(1.0, abs=0.2)
    assert sex["tstr_ratio"]["value"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
def test_conditions_that_are_not_followed_are_found_out():
    found = measure(cubes(40, 2, true=False))
    assert found["age"]["holdout"]["correlation"]["value"] > 0.8
    assert abs(found["age"]["synthetic"]["correlation"]["value"]) < 0.4
    assert found["age"]["ratio"]["high"] < 0.8
    assert found["sex"]["ratio"]["high"] < 0.8


def test_missing_values_teach_nothing_and_are_not_asked():
    train, holdout = cubes(12, 0), cubes(12, 1)
    gaps = tuple({} if i < 3 else {"age": row["age"], "sex": "" if i == 3 else row["sex"]} for i, row in
                 enumerate(holdout.covariates))  # fmt: skip
    held = Cases(holdout.images, None, holdout.patients, gaps)
    budget = Budget(1, 4, torch.device("cpu"))
    found = measure_conditions(held, train, held, ["age"], ["sex"], budget=budget, seeds=[0, 1])["covariates"]
    assert found["age"]["synthetic"]["n"] == 9
    assert found["sex"]["synthetic"]["n"] == 8


def test_what_does_not_vary_is_not_asked():
    cases = cubes(6, 0)
    same = Cases(cases.images, None, cases.patients, tuple({"age": 50, "sex": "F"} for _ in range(6)))
    assert questions_of(same, ["age"], ["sex"]).outputs == 0
    found = measure_conditions(same, same, same, ["age"], ["sex"], budget=BUDGET, seeds=[0])
    assert not found["measured"]


def test_too_few_answers_give_no_figure():
    train = cubes(10, 0)
    few = train.take(np.arange(3))
    budget = Budget(1, 4, torch.device("cpu"))
    found = measure_conditions(few, train, train, ["age"], ["sex"], budget=budget, seeds=[0])["covariates"]
    assert "synthetic" not in found["age"]
    assert found["age"]["ratio"] is None
