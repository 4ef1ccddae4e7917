"""Covariates: vocabularies, scales, missing values, drawing and asking for conditions."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from synthmed.config import ConditioningConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import ConfigError

CONFIG = ConditioningConfig(classes=("sex",), scalars=("age",))
ROWS: list[dict[str, Any]] = [{"sex": "F", "age": "40"}, {"sex": "M", "age": "50"}, {"sex": "F", "age": "60"}]


def cohort(n: int = 200) -> list[dict[str, Any]]:
    """Men are older than women, and one woman in four is an exact multiple of a decade old."""
    rng = np.random.default_rng(0)
    return [{"sex": "FFFM"[i % 4], "age": float(rng.normal(70.0 if i % 4 == 3 else 40.0, 5.0))} for i in range(n)]


class TestFit:
    def test_learns_vocabulary_and_moments(self) -> None:
        conditioning = Conditioning.fit(ROWS, CONFIG)
        assert conditioning.classes[0].values == ("F", "M")
        assert conditioning.classes[0].frequencies == pytest.approx((2 / 3, 1 / 3))
        assert conditioning.scalars[0].mean == 50.0
        assert conditioning.scalars[0].std == pytest.approx(math.sqrt(200 / 3))

    def test_no_covariates_is_unconditional(self) -> None:
        conditioning = Conditioning.fit([{}, {}], ConditioningConfig())
        assert conditioning.dimension == 0
        assert conditioning.encode([{}]) is None
        assert conditioning.draw(0) == {}

    def test_absent_column_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"There is no covariate weight; expected one of sex, age"):
            Conditioning.fit(ROWS, ConditioningConfig(scalars=("weight",)))

    def test_text_under_scalars_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"sex is not a number; found 'F'. List it under classes"):
            Conditioning.fit(ROWS, ConditioningConfig(scalars=("sex",)))

    def test_infinite_scalar_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="age is not a number"):
            Conditioning.fit([{"age": "inf"}], ConditioningConfig(scalars=("age",)))

    def test_scalar_without_any_value_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="No training case has a value of the covariate age"):
            Conditioning.fit([{"age": ""}, {"age": None}], ConditioningConfig(scalars=("age",)))

    def test_no_cases_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no training case"):
            Conditioning.fit([], CONFIG)


class TestEncode:
    def test_one_hot_then_standardised_scalars(self) -> None:
        encoded = Conditioning.fit(ROWS, CONFIG).encode(ROWS)
        assert encoded is not None
        assert encoded.dtype == torch.float32
        z = 10 / math.sqrt(200 / 3)
        torch.testing.assert_close(encoded, torch.tensor([[1.0, 0.0, -z], [0.0, 1.0, 0.0], [1.0, 0.0, z]]))

    def test_constant_scalar_encodes_as_zero(self) -> None:
        encoded = Conditioning.fit([{"age": 7}] * 3, ConditioningConfig(scalars=("age",))).encode([{"age": 7}])
        assert encoded is not None
        assert encoded.tolist() == [[0.0]]

    def test_numbers_and_texts_name_the_same_class(self) -> None:
        conditioning = Conditioning.fit([{"site": 1}, {"site": 2}], ConditioningConfig(classes=("site",)))
        encoded = conditioning.encode([{"site": "2 "}])
        assert encoded is not None
        assert encoded.tolist() == [[0.0, 1.0]]

    def test_unknown_class_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"found 'X'; expected one of 'F', 'M'"):
            Conditioning.fit(ROWS, CONFIG).encode([{"sex": "X", "age": 40}])

    def test_missing_column_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="There is no covariate age"):
            Conditioning.fit(ROWS, CONFIG).encode([{"sex": "F"}])

    @pytest.mark.parametrize("empty", ["", "  ", None, math.nan])
    def test_missing_values_have_their_own_code_where_training_had_them(self, empty: object) -> None:
        rows = [{"sex": "F", "age": 40}, {"sex": empty, "age": empty}, {"sex": "F", "age": 60}]
        encoded = Conditioning.fit(rows, CONFIG).encode(rows)
        assert encoded is not None
        assert encoded.tolist() == [[0, 1, -1, 1], [1, 0, 0, 0], [0, 1, 1, 1]]

    @pytest.mark.parametrize("row", [{"sex": "", "age": 40}, {"sex": "F", "age": ""}])
    def test_missing_values_are_refused_where_training_had_none(self, row: dict[str, object]) -> None:
        with pytest.raises(ConfigError):
            Conditioning.fit(ROWS, CONFIG).encode([row])

    def test_a_held_out_patient_with_a_new_class_is_coded_as_zeros(self) -> None:
        encoded = Conditioning.fit(ROWS, CONFIG).encode([{"sex": "X", "age": ""}, ROWS[1]], strict=False)
        assert encoded is not None
        assert encoded.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    def test_a_row_without_the_column_misses_the_value(self) -> None:
        rows = [{"sex": "F", "age": 40}, {"sex": "F"}, {"sex": "F", "age": 60}]
        encoded = Conditioning.fit(rows, CONFIG).encode(rows)
        assert encoded is not None
        assert encoded.tolist() == [[1, -1, 1], [1, 0, 0], [1, 1, 1]]

    def test_not_even_a_held_out_patient_may_lack_the_column(self) -> None:
        with pytest.raises(ConfigError, match="There is no covariate age"):
            Conditioning.fit(ROWS, CONFIG).encode([{"sex": "F"}], strict=False)


class TestJson:
    def test_round_trip_through_text(self) -> None:
        rows = [*cohort(), {"sex": "ø", "age": ""}]
        conditioning = Conditioning.fit(rows, CONFIG)
        assert Conditioning.from_json(json.loads(json.dumps(conditioning.to_json()))) == conditioning

    def test_holds_no_patients_value(self) -> None:
        rows = cohort()
        stored = json.dumps(Conditioning.fit(rows, CONFIG).to_json())
        assert not [row["age"] for row in rows if repr(row["age"]) in stored]

    def test_a_damaged_record_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            Conditioning.from_json({"classes": []})


class TestDraw:
    def test_is_a_function_of_the_seed(self) -> None:
        conditioning = Conditioning.fit(cohort(), CONFIG)
        assert conditioning.draw(5) == conditioning.draw(5)
        assert conditioning.draw(5) != conditioning.draw(6)

    def test_follows_frequencies_and_moments_within_a_class(self) -> None:
        conditioning = Conditioning.fit(cohort(), CONFIG)
        drawn = [conditioning.draw(seed) for seed in range(1000)]
        men = [row["age"] for row in drawn if row["sex"] == "M"]
        women = [row["age"] for row in drawn if row["sex"] == "F"]
        assert len(men) / 1000 == pytest.approx(0.25, abs=0.05)
        assert np.mean(men) == pytest.approx(70.0, abs=2.0)
        assert np.mean(women) == pytest.approx(40.0, abs=2.0)

    def test_copies_no_row_and_stays_in_the_inner_range(self) -> None:
        rows = cohort()
        conditioning = Conditioning.fit(rows, CONFIG)
        ages, scalar = {row["age"] for row in rows}, conditioning.scalars[0]
        drawn = [conditioning.draw(seed)["age"] for seed in range(300)]
        assert not ages.intersection(drawn)
        assert all(scalar.low <= age <= scalar.high for age in drawn)

    def test_a_rare_combination_is_not_kept_together(self) -> None:
        common = [{"sex": "FM"[i % 2], "site": "A"} for i in range(98)]
        rare = [{"sex": "O", "site": "B"}] * 2
        config = ConditioningConfig(classes=("sex", "site"))
        conditioning = Conditioning.fit([*common, *rare], config)
        assert [s.values for s in conditioning.strata] == [("F", "A"), ("M", "A"), None]
        drawn = Counter((row["sex"], row["site"]) for row in map(conditioning.draw, range(2000)))
        assert drawn[("F", "A")] / 2000 == pytest.approx(0.5, abs=0.05)
        # Independent draws within the pool of 2 %: 0.02 x 0.02 x 0.02.
        assert drawn[("O", "B")] <= 1

    def test_drawn_conditions_can_be_encoded(self) -> None:
        rows = [*cohort(), {"sex": "", "age": ""}]
        conditioning = Conditioning.fit(rows, CONFIG)
        encoded = conditioning.encode([conditioning.draw(seed) for seed in range(50)])
        assert encoded is not None
        assert encoded.shape == (50, conditioning.dimension)
        assert torch.isfinite(encoded).all()

    def test_correlated_scalars_stay_correlated(self) -> None:
        rng = np.random.default_rng(1)
        ages = rng.uniform(20, 80, 300)
        rows = [{"age": a, "volume": 100 - a + rng.normal(0, 2)} for a in ages]
        conditioning = Conditioning.fit(rows, ConditioningConfig(scalars=("age", "volume")))
        drawn = np.array([list(conditioning.draw(seed).values()) for seed in range(400)])
        assert np.corrcoef(drawn.T)[0, 1] < -0.9


class TestCheckRequest:
    conditioning = Conditioning.fit(cohort(), CONFIG)

    def test_accepts_what_the_model_knows(self) -> None:
        self.conditioning.check_request([{"sex": "F", "age": 45}])

    def test_refuses_an_unknown_covariate(self) -> None:
        with pytest.raises(ConfigError, match="not conditioned on agee; expected sex, age"):
            self.conditioning.check_request([{"sex": "F", "agee": 45}])

    def test_refuses_any_covariate_of_an_unconditional_model(self) -> None:
        with pytest.raises(ConfigError, match="no covariates at all"):
            Conditioning().check_request([{"sex": "F"}])

    def test_refuses_far_extrapolation(self) -> None:
        with pytest.raises(ConfigError, match="far outside"):
            self.conditioning.check_request([{"sex": "F", "age": 400}])

    def test_refuses_less_than_none_of_what_is_never_negative(self) -> None:
        with pytest.raises(ConfigError, match="far outside"):
            self.conditioning.check_request([{"sex": "F", "age": -1}])
