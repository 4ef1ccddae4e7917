"""Covariates as vectors for the denoiser, and conditions for synthetic cases.

A class becomes a one-hot vector; a scalar is standardised by the training patients' mean and deviation. A value is
missing when it is None, NaN or an empty text. A missing class is a class of its own, ``""``, and a missing scalar is
coded as the mean with a 0 in a second column, but only where training had such a case: elsewhere it is refused.

What is stored describes groups, never a patient: frequencies, means, covariances and inner percentiles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthmed.config import ConditioningConfig
from synthmed.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, Any]

# A combination of classes that fewer patients share could point at one of them.
SMALLEST_STRATUM = 5
_MAX_REDRAWS = 100


@dataclass(frozen=True)
class ClassCovariate:
    """A categorical covariate: its values in training, sorted, and their frequencies."""

    name: str
    values: tuple[str, ...]
    frequencies: tuple[float, ...]


@dataclass(frozen=True)
class ScalarCovariate:
    """A numeric covariate: moments, 2.5 % and 97.5 % percentiles, and whether training had cases without it."""

    name: str
    mean: float
    std: float
    low: float
    high: float
    optional: bool


@dataclass(frozen=True)
class Stratum:
    """A combination of classes with its share of the cases and a normal fitted to its standardised scalars.

    `values` is None for the pool of rare combinations, whose classes are drawn independently of one another.
    """

    values: tuple[str, ...] | None
    share: float
    mean: tuple[float, ...]
    cholesky: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told of a case, learnt from the training patients."""

    classes: tuple[ClassCovariate, ...] = ()
    scalars: tuple[ScalarCovariate, ...] = ()
    strata: tuple[Stratum, ...] = ()

    @property
    def dimension(self) -> int:
        """Length D of an encoded condition; 0 means unconditional."""
        return sum(len(c.values) for c in self.classes) + sum(1 + s.optional for s in self.scalars)

    @classmethod
    def fit(cls, covariates: Sequence[Row], config: ConditioningConfig) -> Conditioning:
        """Learn vocabularies, scales and the distribution of conditions.

        Parameters
        ----------
        covariates : sequence of mappings
            One a case, of **training** patients only.
        config : ConditioningConfig

        Raises
        ------
        ConfigError
            If a named covariate is absent, a scalar is not a number, or a scalar has no value at all.
        """
        if not config.classes and not config.scalars:
            return cls()
        if not covariates:
            raise ConfigError("There is no training case to learn the conditioning from")
        _require_columns(covariates, [*config.classes, *config.scalars])
        classes = tuple(_fit_class(name, covariates) for name in config.classes)
        scalars = tuple(_fit_scalar(name, covariates) for name in config.scalars)
        return cls(classes, scalars, _fit_strata(covariates, classes, scalars))

    def encode(self, rows: Sequence[Row], *, strict: bool = True) -> Tensor | None:
        """Return conditions as float32, shape (N, D), or None where D is 0.

        Parameters
        ----------
        rows : sequence of mappings
        strict : bool
            False codes a class or a gap that training never saw as zeros, for held-out patients who happen to have one.

        Raises
        ------
        ConfigError
            If a row lacks a column or a scalar is not a number; if `strict`, also if a row names an unknown class or
            misses a value that training never missed.
        """
        if not self.dimension:
            return None
        import torch

        if rows:
            _require_columns(rows, [c.name for c in self.classes] + [s.name for s in self.scalars])
        encoded = [
            [x for c in self.classes for x in _one_hot(c, row, strict)]
            + [x for s in self.scalars for x in _standardise(s, row, strict)]
            for row in rows
        ]
        return torch.tensor(encoded, dtype=torch.float32).reshape(len(rows), self.dimension)

    def check_request(self, rows: Sequence[Row]) -> None:
        """Refuse conditions that the model cannot follow; `rows` are what a user asks for.

        Raises
        ------
        ConfigError
            As `encode`, and if a row names a covariate that the model does not know, or a scalar lies further outside
            the training cases' inner range than that range is wide.
        """
        known = [c.name for c in self.classes] + [s.name for s in self.scalars]
        for row in rows:
            unknown = [name for name in row if name not in known]
            if unknown:
                raise ConfigError(
                    f"The model is not conditioned on {unknown[0]}", expected=", ".join(known) or "no covariates at all"
                )
            for scalar in self.scalars:
                _check_reach(scalar, row)
        self.encode(rows)

    def draw(self, seed: int | np.random.SeedSequence) -> dict[str, Any]:
        """Return a condition for one synthetic case.

        A combination of classes is drawn with its frequency in training; one that fewer than 5 cases share is
        replaced by classes drawn independently of one another. Scalars come from a normal fitted to the cases of that
        combination (to all cases for rare ones) within the 2.5 % to 97.5 % range. So no patient's row is copied.
        """
        if not self.dimension:
            return {}
        rng = np.random.default_rng(seed)
        stratum = self.strata[_choose([s.share for s in self.strata], rng)]
        values = stratum.values or tuple(c.values[_choose(c.frequencies, rng)] for c in self.classes)
        row: dict[str, Any] = {c.name: value for c, value in zip(self.classes, values, strict=True)}
        return row | dict(zip([s.name for s in self.scalars], self._draw_scalars(stratum, rng), strict=True))

    def _draw_scalars(self, stratum: Stratum, rng: np.random.Generator) -> list[float]:
        if not self.scalars:
            return []
        scale = np.array([(s.mean, s.std, s.low, s.high) for s in self.scalars]).T
        for _ in range(_MAX_REDRAWS):
            z = np.array(stratum.mean) + np.array(stratum.cholesky) @ rng.standard_normal(len(self.scalars))
            drawn = scale[0] + scale[1] * z
            if (drawn >= scale[2]).all() and (drawn <= scale[3]).all():
                break
        return [round(float(x), 6) for x in drawn.clip(scale[2], scale[3])]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value that `from_json` reads back to an equal `Conditioning`."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Conditioning:
        """Rebuild from `to_json`; raise `ConfigError` where a part is missing or unknown."""
        try:
            return cls(
                tuple(ClassCovariate(**_tuples(c)) for c in content["classes"]),
                tuple(ScalarCovariate(**c) for c in content["scalars"]),
                tuple(Stratum(**_tuples(c)) for c in content["strata"]),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError("A stored conditioning cannot be read", found=str(error)) from error


def _fit_class(name: str, rows: Sequence[Row]) -> ClassCovariate:
    counts = Counter(_text(_cell(row, name)) for row in rows)
    values = tuple(sorted(counts))
    return ClassCovariate(name, values, tuple(counts[v] / len(rows) for v in values))


def _fit_scalar(name: str, rows: Sequence[Row]) -> ScalarCovariate:
    numbers = np.array([_number(row, name) for row in rows])
    present = numbers[~np.isnan(numbers)]
    if not present.size:
        raise ConfigError(f"No training case has a value of the covariate {name}", next_step="Leave it out of scalars")
    std = float(present.std())
    low, high = (float(x) for x in np.percentile(present, (2.5, 97.5)))
    optional = bool(np.isnan(numbers).any())
    return ScalarCovariate(name, float(present.mean()), std if std > 1e-8 else 1.0, low, high, optional)


def _fit_strata(
    rows: Sequence[Row], classes: Sequence[ClassCovariate], scalars: Sequence[ScalarCovariate]
) -> tuple[Stratum, ...]:
    keys = [tuple(_text(_cell(row, c.name)) for c in classes) for row in rows]
    z = np.array([[(_number(row, s.name) - s.mean) / s.std for s in scalars] for row in rows])
    z = np.nan_to_num(z.reshape(len(rows), len(scalars)), nan=0.0)
    counts = Counter(keys)
    common = sorted(key for key, n in counts.items() if n >= SMALLEST_STRATUM)
    strata = [_stratum(key, counts[key] / len(rows), z[[k == key for k in keys]]) for key in common]
    rare = 1.0 - sum(s.share for s in strata)
    return (*strata, _stratum(None, rare, z)) if rare > 1e-9 else tuple(strata)


def _stratum(values: tuple[str, ...] | None, share: float, z: np.ndarray) -> Stratum:
    covariance = np.cov(z, rowvar=False).reshape(z.shape[1], z.shape[1]) if len(z) > 1 else np.eye(z.shape[1])
    # The ridge keeps a degenerate group factorisable, and its draws off the training values.
    cholesky = np.linalg.cholesky(covariance + 1e-2 * np.eye(z.shape[1]))
    mean = tuple(float(x) for x in z.mean(0))
    return Stratum(values, share, mean, tuple(tuple(float(x) for x in row) for row in cholesky))


def _one_hot(covariate: ClassCovariate, row: Row, strict: bool) -> list[float]:
    value = _text(_cell(row, covariate.name))
    if strict and value not in covariate.values:
        raise ConfigError(
            f"The covariate {covariate.name} has a class that no training case has",
            found=repr(value),
            expected=f"one of {', '.join(map(repr, covariate.values))}",
        )
    return [float(value == known) for known in covariate.values]


def _standardise(covariate: ScalarCovariate, row: Row, strict: bool) -> list[float]:
    number = _number(row, covariate.name)
    missing = math.isnan(number)
    if strict and missing and not covariate.optional:
        raise ConfigError(
            f"A case lacks the covariate {covariate.name}", expected="a number, as every training case has one"
        )
    z = 0.0 if missing else (number - covariate.mean) / covariate.std
    return [z, float(not missing)] if covariate.optional else [z]


def _check_reach(covariate: ScalarCovariate, row: Row) -> None:
    number, reach = _number(row, covariate.name), max(covariate.high - covariate.low, covariate.std)
    lowest = covariate.low - reach
    if covariate.low >= 0:  # an age, a weight: nothing is less than none of it
        lowest = max(lowest, 0.0)
    if number < lowest or number > covariate.high + reach:
        raise ConfigError(
            f"The covariate {covariate.name} is far outside what the model was trained on",
            found=f"{number:g}",
            expected=f"about {covariate.low:g} to {covariate.high:g}",
        )


def _require_columns(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Refuse a covariate that no row has; a row without it, where others have it, misses a value."""
    known = {name for row in rows for name in row}
    for name in names:
        if name not in known:
            listed = ", ".join(n for row in rows[:1] for n in row) or "none: no covariates were read"
            raise ConfigError(f"There is no covariate {name}", expected=f"one of {listed}")


def _cell(row: Row, name: str) -> Any:
    return row.get(name)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _number(row: Row, name: str) -> float:
    text = _text(_cell(row, name))
    try:
        number = float(text) if text else math.nan
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ConfigError(f"The covariate {name} is not a number", found=repr(text), next_step="List it under classes")
    return number


def _choose(shares: Sequence[float], rng: np.random.Generator) -> int:
    weights = np.asarray(shares)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    def freeze(value: Any) -> Any:
        return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value

    return {key: freeze(value) for key, value in content.items()}
