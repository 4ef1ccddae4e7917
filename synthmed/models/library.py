"""The library of pretrained models: a folder a model, its weights compact and audited, its card beside them.

A folder holds ``autoencoder/`` and ``denoiser/``, ``model.json`` (an `Entry`), ``MODEL_CARD.md``, ``LICENSE``,
``samples.png`` and the audit's ``report.json`` and ``report.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthmed.config import SamplingConfig
from synthmed.errors import ConfigError, InputError
from synthmed.files import read_json

LIBRARY = Path(__file__).parents[1] / "weights"
ENTRY, CARD, PICTURE, AUDIT = "model.json", "MODEL_CARD.md", "samples.png", "audit"
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class Entry(BaseModel):
    """What a model of the library says of itself in ``model.json``.

    Attributes
    ----------
    grid, spacing
        Voxels, and mm, of the volumes that it draws.
    intensity_range
        Of its images, in the modality's units.
    labels
        Label value -> structure, without the background.
    conditions
        What can be asked of it: the classes of a covariate, or the inner 95 % of a number's range in training.
    sampling, seed
        Those of the audited samples; the default of `generate`.
    samples
        How many were audited.
    digests
        SHA-256 of the weights files by folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["synthmed-model/1"] = Field("synthmed-model/1", alias="schema")
    name: str = Field(pattern=NAME)
    title: str
    license: str
    modality: str
    grid: tuple[int, int, int]
    spacing: tuple[float, float, float]
    intensity_range: tuple[float, float]
    labels: dict[int, str]
    conditions: dict[str, tuple[str, ...] | tuple[float, float]]
    sampling: SamplingConfig
    seed: int
    samples: int
    policy: str
    digests: dict[Literal["autoencoder", "denoiser"], str]


def shipped_models(library: Path = LIBRARY) -> dict[str, Path]:
    """Return the folders of the models that come with the package, by name."""
    return {file.parent.name: file.parent for file in sorted(library.glob(f"*/{ENTRY}"))}


def find_model(name: str | Path, library: Path = LIBRARY) -> Path:
    """Return the folder that `name` means: a model of the library, or a folder as `synthmed publish` writes.

    Raises
    ------
    ConfigError
        If there is neither; names the closest model.
    """
    shipped = shipped_models(library)
    if str(name) in shipped:
        return shipped[str(name)]
    if (Path(name) / ENTRY).is_file():
        return Path(name)
    close = difflib.get_close_matches(str(name).lower().replace("_", "-"), shipped, n=1)
    raise ConfigError(
        f"There is no pretrained model {name}",
        expected=f"one of {', '.join(shipped)}, or a folder that `synthmed publish` wrote" if shipped else "",
        next_step=f"Did you mean {close[0]}?" if close else "List them: synthmed models",
    )


def read_entry(folder: Path) -> Entry:
    """Read a model's ``model.json``; raise `InputError` where it is missing or wrong."""
    content = read_json(folder / ENTRY)
    try:
        return Entry.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{folder / ENTRY} does not describe a model", found=f"{where}: {first['msg']}") from error


def size_of(folder: Path) -> int:
    """Return the bytes of all files of a model."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def audited_digests(folder: Path) -> frozenset[str]:
    """Return the SHA-256 of each image that the model's audit looked at."""
    return frozenset(read_json(folder / AUDIT / "report.json")["synthetic"]["sha256"])


def parse_condition(entry: Entry, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return a condition as the model takes it, numbers as numbers.

    Parameters
    ----------
    entry : Entry
    asked : mapping of covariate to text
        All covariates of the model, or none.

    Raises
    ------
    ConfigError
        If a covariate is unknown or missing, or a number is none.
    """
    if unknown := [name for name in asked if name not in entry.conditions]:
        raise ConfigError(
            f"The model {entry.name} is not conditioned on {unknown[0]}",
            expected=", ".join(entry.conditions) or "no conditions at all",
        )
    missing = [name for name in entry.conditions if name not in asked]
    if asked and missing:
        example = entry.conditions[missing[0]][0]
        shown = f"{example:g}" if isinstance(example, float) else example
        raise ConfigError(
            f"The model {entry.name} is also conditioned on {', '.join(missing)}",
            next_step=f"Ask for all of them, such as --condition {missing[0]}={shown}, or for none",
        )
    return {name: _value(entry, name, text) for name, text in asked.items()}


def _value(entry: Entry, name: str, text: str) -> str | float:
    if not isinstance(entry.conditions[name][0], float):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"The condition {name} is a number", found=repr(text)) from error
