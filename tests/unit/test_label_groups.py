"""Many label values to few structures: what may be asked for, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synthmed.config import dump_config, load_config, parse_config
from synthmed.errors import ConfigError, InputError
from synthmed.label_groups import LabelGroup, group_labels, left_out
from synthmed.volume import Volume


def label(*values: float) -> Volume:
    return Volume(np.array(values, dtype=np.float32).reshape(1, -1, 1, 1), np.eye(4))


def asked(**groups: Any) -> dict[str, Any]:
    return {"cohort": {"label_groups": {int(key[1:]): value for key, value in groups.items()}}}


def test_ranges_are_written_out() -> None:
    assert LabelGroup(name="ventricles", values=(4, 11, "49-52", " 7 - 7 ")).sources == (4, 11, 49, 50, 51, 52, 7)


def test_every_value_becomes_its_group_and_the_rest_background() -> None:
    filed = label(0, 4, 11, 49, 46, 35)
    grouped = group_labels(filed, {1: (4, 11, 49, 50), 3: (35,)})
    assert grouped.array.ravel().tolist() == [0, 1, 1, 1, 0, 3]
    assert left_out(filed, grouped) == (46,)
    assert group_labels(filed, {}) is filed


@pytest.mark.parametrize("values", [(0.5, 1), (-1, 2), (np.nan, 1), (40000, 1)])
def test_only_whole_numbers_are_grouped(values: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="not a segmentation"):
        group_labels(label(*values), {1: (1,)})


def test_groups_survive_the_resolved_configuration(tmp_path: Any) -> None:
    config = parse_config(asked(_1={"name": "a", "values": [1, "3-5"]}))
    (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config
    assert "label_groups" not in dump_config(parse_config({}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            asked(_1={"name": "a", "values": [1, "3-5"]}, _2={"name": "b", "values": [4]}),
            "value 4 is listed twice, in groups 1 and 2",
        ),
        (asked(_1={"name": "a", "values": [2, 2]}), "value 2 is listed twice, in group 1"),
        (asked(_1={"name": "a", "values": [1]}, _2={"name": "a", "values": [2]}), "two groups are called 'a'"),
        (asked(_0={"name": "a", "values": [1]}), "from 1 to 32767, found 0"),
        (asked(_1={"name": "a", "values": ["5-3"]}), "'5-3' is neither"),
        (asked(_1={"name": "a", "values": [0]}), "0 is neither"),
        (asked(_1={"name": "a", "values": []}), "at least 1 item"),
        (asked(_1={"nam": "a", "name": "a", "values": [1]}), "Did you mean cohort.label_groups.1.name"),
        (
            {"cohort": {"label_names": {1: "x"}, "label_groups": {1: {"name": "a", "values": [1]}}}},
            "give one of the two",
        ),
        ({"preprocess": {"mask": "labels"}}, "preprocess.mask"),
        ({"preprocess": {"centre": "brain"}}, "preprocess.centre"),
    ],
)
def test_wrong_groups_and_regions_are_refused_in_one_line(content: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
