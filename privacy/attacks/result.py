"""What an attack returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Value = float | list[float]


@dataclass(frozen=True)
class AttackResult:
    """Measurements of one attack.

    Attributes
    ----------
    measurements : mapping of str to number or list of numbers
        What `policy.judge` and the report read; it names nobody.
    per_sample : mapping of str to ndarray, shape (n,)
        One value for each distinct sample.
    citations : tuple of str
        The sources of the method.
    """

    measurements: Mapping[str, Value]
    per_sample: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    citations: tuple[str, ...] = ()
