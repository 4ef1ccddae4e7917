"""Volumes from a pretrained model, without a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from synthmed.config import Config, SamplingConfig, apply_overrides
from synthmed.errors import ConfigError
from synthmed.models.library import Entry, audited_digests, find_model, parse_condition, read_entry

DEFAULT_NUMBER = 16


@dataclass(frozen=True)
class DrawnSet:
    """What was drawn.

    Attributes
    ----------
    folder : Path
        ``images/``, ``labels/`` (where the model has labels), ``samples.csv`` and ``generation.json``.
    volumes : int
    audited : int
        How many of them are, byte for byte, among those that the model's audit looked at.
    entry : Entry
    """

    folder: Path
    volumes: int
    audited: int
    entry: Entry


def draw(
    model: str | Path,
    out: Path,
    number: int = DEFAULT_NUMBER,
    *,
    seed: int | None = None,
    condition: Mapping[str, str] | None = None,
    overrides: Iterable[str] = (),
    device: str = "auto",
    progress: bool = True,
) -> DrawnSet:
    """Draw labelled volumes from a pretrained model; a second call goes on where the first was stopped.

    By default these are the first of the volumes that the model's audit looked at.

    Parameters
    ----------
    model : str or Path
        A name of the library, or a folder that `synthmed publish` wrote.
    out : Path
    number : int
    seed : int, optional
        Default: that of the audited volumes.
    condition : mapping of covariate to text, optional
        Asked of every volume; by default drawn as in training.
    overrides : iterable of str
        Such as ``"sampling.guidance_scale=2"``.
    device : {"auto", "cpu", "cuda", "mps"}
    progress : bool

    Raises
    ------
    ConfigError
        If there is no such model, or it cannot follow what was asked, or `out` was begun differently.
    InputError
        If a file of the model is missing or damaged.
    StorageError
        If the disk is full; a second call resumes.
    """
    folder = find_model(model)
    entry = read_entry(folder)
    asked, sampling = parse_condition(entry, condition or {}), _sampling(entry, overrides)

    from synthmed.sampling.generate import generate  # it loads torch, which a wrong name need not wait for

    generate(
        folder / "autoencoder",
        folder / "denoiser",
        out,
        sampling=sampling,
        seed=entry.seed if seed is None else seed,
        num_samples=number,
        conditions=[asked] if asked else None,
        device=device,
        progress=progress,
    )
    known = audited_digests(folder)
    with (out / "samples.csv").open(encoding="utf-8", newline="") as stream:
        found = [row["image_sha256"] in known for row in csv.DictReader(stream)]
    return DrawnSet(out, len(found), sum(found), entry)


def _sampling(entry: Entry, overrides: Iterable[str]) -> SamplingConfig:
    changes = list(overrides)
    if wrong := [text for text in changes if not text.strip().startswith("sampling.")]:
        raise ConfigError(
            f"--set {wrong[0]} does not change how a pretrained model draws",
            expected="a key of sampling, such as sampling.guidance_scale=2",
        )
    return apply_overrides(Config(sampling=entry.sampling), changes).sampling
