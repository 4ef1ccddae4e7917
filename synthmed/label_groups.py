"""Many label values to few structures: what `cohort.label_groups` says, and the labels that follow from it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthmed.errors import InputError
from synthmed.volume import Volume

MAX_VALUE = 32767
"""Labels are written as int16."""
_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
Sources = Mapping[int, tuple[int, ...]]
"""New value -> the values of the label files that it stands for."""


class LabelGroup(BaseModel):
    """A structure of the prepared labels, and the values of the label files that make it up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    values: tuple[int | str, ...] = Field(min_length=1, description='values, and ranges such as "49-52"')

    @field_validator("values")
    @classmethod
    def _readable(cls, values: tuple[int | str, ...]) -> tuple[int | str, ...]:
        for value in values:
            low, high = _ends(value)
            if not 1 <= low <= high <= MAX_VALUE:
                raise ValueError(
                    f'{value!r} is neither a label value from 1 to {MAX_VALUE} nor a range such as "49-52"'
                )
        return values

    @property
    def sources(self) -> tuple[int, ...]:
        """Every value, with the ranges written out."""
        ends = (_ends(value) for value in self.values)
        return tuple(value for low, high in ends for value in range(low, high + 1))


def check_groups(groups: Mapping[int, LabelGroup]) -> None:
    """Refuse groups that claim one value or one name twice, or whose own value no label file can hold.

    Raises
    ------
    ValueError
        In the words that `synthmed.config` shows.
    """
    owners: dict[int, list[int]] = defaultdict(list)
    for new, group in groups.items():
        if not 1 <= new <= MAX_VALUE:
            raise ValueError(f"label_groups: a group's own value must be from 1 to {MAX_VALUE}, found {new}")
        for source in group.sources:
            owners[source].append(new)
    names = [group.name for group in groups.values()]
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"label_groups: two groups are called {repeated!r}")
    twice = next(((source, new) for source, new in owners.items() if len(new) > 1), None)
    if twice is not None:
        where = f"groups {twice[1][0]} and {twice[1][1]}" if twice[1][0] != twice[1][1] else f"group {twice[1][0]}"
        raise ValueError(f"label_groups: value {twice[0]} is listed twice, in {where}")


def group_labels(label: Volume, groups: Sources) -> Volume:
    """Replace every value by that of its group; values in no group become background.

    Parameters
    ----------
    label : Volume, shape (1, I, J, K), whole numbers
    groups : mapping of new value to source values; empty: the label itself is returned

    Raises
    ------
    InputError
        If the label holds something other than whole numbers from 0 to 32767.
    """
    if not groups:
        return label
    values = label.array
    whole = np.isfinite(values).all() and bool((values == np.rint(values)).all())
    if not whole or values.min() < 0 or values.max() > MAX_VALUE:
        raise InputError("The label is not a segmentation", expected=f"whole numbers from 0 to {MAX_VALUE}")
    table = np.zeros(MAX_VALUE + 1, dtype=np.float32)
    for new, sources in groups.items():
        table[list(sources)] = new
    return Volume(table[values.astype(np.int32)], label.affine)


def left_out(label: Volume, grouped: Volume) -> tuple[int, ...]:
    """Return the values of a label file that its groups turned into background, ascending."""
    return tuple(int(value) for value in np.unique(label.array[(label.array != 0) & (grouped.array == 0)]))


def _ends(value: int | str) -> tuple[int, int]:
    """Return the first and last value that an entry stands for; (0, 0) where it stands for none."""
    if isinstance(value, int):
        return value, value
    match = _RANGE.fullmatch(value.strip())
    return (int(match[1]), int(match[2])) if match else (0, 0)
