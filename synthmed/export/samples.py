"""The generated set as it lies on disk: a table, one image a row and, where the model draws them, one label."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from synthmed.errors import InputError
from synthmed.prepare.space import Space

TABLE = "samples.csv"
SUFFIX = ".nii.gz"
WARNING = "SYNTHETIC - NOT FOR CLINICAL USE"
FACTS = {
    "autoencoder": "SHA-256 of the autoencoder",
    "denoiser": "SHA-256 of the denoiser",
    "sampler": "Sampler",
    "num_inference_steps": "Sampling steps",
    "guidance_scale": "Guidance scale",
    "seed": "Seed",
}
_COLUMNS = ("name", "seed", "condition", "image_sha256", "label_sha256")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Sample:
    """One generated case; the digests are those that its row of the table claims."""

    name: str
    seed: int
    condition: Mapping[str, Any]
    image_sha256: str
    label_sha256: str

    @property
    def has_label(self) -> bool:
        """Say whether a segmentation comes with the image."""
        return bool(self.label_sha256)


@dataclass(frozen=True)
class Description:
    """What the voxels mean and how they were drawn, from ``generation.json``.

    Attributes
    ----------
    space : Space
        Modality, units and label values.
    facts : mapping of str to str
        Lines for the data card: sampler, steps, digests of the model.
    """

    space: Space
    facts: Mapping[str, str]


def read_samples(folder: Path) -> tuple[Sample, ...]:
    """Read the table of a generated set, sorted by name, and check that the files beside it are the ones it lists.

    Raises
    ------
    InputError
        If the table cannot be read or used, or a file is missing or unlisted.
    """
    try:
        text = (folder / TABLE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read {folder / TABLE}",
            found=" ".join(str(error).split()),
            expected="the directory that `synthmed generate` wrote",
        ) from error
    samples = parse_samples(text, folder / TABLE)
    _check_files(folder / "images", [s.name for s in samples])
    _check_files(folder / "labels", [s.name for s in samples if s.has_label])
    return samples


def parse_samples(text: str, source: Path) -> tuple[Sample, ...]:
    """Parse the table's text, as `read_samples` does; `source` is named in errors."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [c for c in _COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{source} lacks columns", found=", ".join(reader.fieldnames or ()), expected=", ".join(_COLUMNS)
            )
        samples = sorted((_parse_row(row, source) for row in reader), key=lambda s: s.name)
    except csv.Error as error:
        raise InputError(f"{source} is not a CSV table", found=str(error)) from error
    if not samples:
        raise InputError(f"{source} lists no volume", expected="at least one", next_step="Generate a set first")
    repeated = [a.name for a, b in pairwise(samples) if a.name == b.name]
    if repeated:
        raise InputError(f"{source} lists {repeated[0]} twice")
    if len({s.has_label for s in samples}) > 1:
        bare = next(s.name for s in samples if not s.has_label)
        raise InputError(
            f"{source} gives labels to some volumes only", found=f"none for {bare}", expected="all or none"
        )
    return tuple(samples)


def _parse_row(row: Mapping[str, str | None], source: Path) -> Sample:
    name, digests = row["name"] or "", (row["image_sha256"] or "", row["label_sha256"] or "")
    if not _NAME.fullmatch(name):
        raise InputError(f"{source} has an unusable name", found=repr(name), expected="letters, digits, - and _ only")
    if not _DIGEST.fullmatch(digests[0]) or (digests[1] and not _DIGEST.fullmatch(digests[1])):
        raise InputError(
            f"{source}: {name} has no usable digest", found=", ".join(digests), expected="SHA-256 in hexadecimal"
        )
    try:
        seed, condition = int(row["seed"] or ""), json.loads(row["condition"] or "{}")
    except ValueError as error:
        raise InputError(f"{source}: the row of {name} cannot be read", found=str(error)) from error
    if not isinstance(condition, dict):
        raise InputError(f"{source}: the condition of {name} is not a JSON object", found=repr(condition))
    return Sample(name, seed, condition, *digests)


def _check_files(folder: Path, names: Iterable[str]) -> None:
    expected = {name + SUFFIX for name in names}
    found = {p.name for p in folder.iterdir() if not p.name.startswith(".")} if folder.is_dir() else set()
    if expected != found:
        missing, unlisted = sorted(expected - found), sorted(found - expected)
        raise InputError(
            f"{folder} does not hold what {TABLE} lists",
            found=f"{missing[0]} missing" if missing else f"{unlisted[0]} unlisted",
            next_step="Run `synthmed generate` again, then the audit",
        )


def parse_description(text: str, source: Path) -> Description:
    """Parse the text of ``generation.json``; raise `InputError` where it does not say what the voxels are."""
    try:
        content = json.loads(text)
        space = Space.from_json(content["space"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(
            f"{source} does not describe the volumes", found=str(error), expected="a record with `space`"
        ) from error
    return Description(space, {label: str(content[key]) for key, label in FACTS.items() if key in content})
