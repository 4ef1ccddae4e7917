"""A model of the library of pretrained models, written whole or not at all, and only after the bundle's gate."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthmed.bundle.card import render_license
from synthmed.bundle.entry_card import render_entry_card
from synthmed.bundle.source import ApprovedModel, open_model
from synthmed.errors import ConfigError
from synthmed.files import atomic_directory, write_json, write_text
from synthmed.io import read_volume
from synthmed.models.checkpoint import RECORD, WEIGHTS
from synthmed.models.library import AUDIT, CARD, ENTRY, NAME, PICTURE, Entry
from synthmed.pictures import montage
from synthmed.sampling.generated import volume_name
from synthmed.stages import Run

_SHOWN = 8


def check_name(name: str, out: Path) -> None:
    """Raise `ConfigError` where a model cannot be called `name`, or `out` exists."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            "A pretrained model cannot be called so",
            found=repr(name),
            expected="lower-case words and digits joined by hyphens, such as hippocampus-mri",
        )
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists already", next_step="Remove it or name another directory")


def write_entry(
    run: Run,
    name: str,
    out: Path,
    *,
    evaluation: Mapping[str, Any],
    change: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Path:
    """Write the folder of a pretrained model.

    Parameters
    ----------
    run : Run
        Its models, and an audit of the samples that these very models drew.
    name : str
    out : Path
        Must not exist.
    evaluation : mapping
        ``evaluation.json`` of the same samples.
    change : mapping
        What storing the weights changed, as `synthmed.publishing.change_by_storing` measures it.
    seconds : mapping
        What the stages of training took.

    Raises
    ------
    ReleaseRefused, AuditInconclusive, InputError
        As `open_model`.
    ConfigError
        If `out` exists.
    StorageError
        If the disk is full or read-only.
    """
    with atomic_directory(out) as part:
        model = open_model(run)
        for kind in ("autoencoder", "denoiser"):
            (part / kind).mkdir()
            for file in (WEIGHTS, RECORD):
                shutil.copyfile(run.stage(kind) / file, part / kind / file)
        (part / AUDIT).mkdir()
        for file, content in model.audit.items():
            (part / AUDIT / file).write_bytes(content)
        entry = _entry(model, name)
        _picture(run, entry).save(part / PICTURE)
        write_json(part / ENTRY, entry.model_dump(mode="json", by_alias=True))
        write_text(part / CARD, render_entry_card(model, entry, run.config, evaluation, change, seconds))
        write_text(part / "LICENSE", render_license(model))
    return out


def _entry(model: ApprovedModel, name: str) -> Entry:
    space, conditioning = model.autoencoder.space, model.denoiser.conditioning
    classes = {covariate.name: covariate.values for covariate in conditioning.classes}
    scalars = {covariate.name: (covariate.low, covariate.high) for covariate in conditioning.scalars}
    return Entry(
        schema="synthmed-model/1",
        name=name,
        title=model.config.title,
        license=model.config.license,
        modality=space.modality,
        grid=space.grid,
        spacing=space.spacing,
        intensity_range=space.intensity_range,
        labels={value: space.structure(value) for value in space.label_values if value},
        conditions={**classes, **scalars},
        sampling=model.sampling.model_copy(update={"num_samples": model.audited}),
        seed=model.seed,
        samples=model.audited,
        policy=str(model.approval.policy["name"]),
        digests={"autoencoder": model.autoencoder.digest, "denoiser": model.denoiser.digest},
    )


def _picture(run: Run, entry: Entry) -> Any:
    """Draw the first of the audited samples, which are synthetic."""
    names = [f"{volume_name(index)}.nii.gz" for index in range(min(_SHOWN, entry.samples))]
    folder = run.stage("generate")
    images = [read_volume(folder / "images" / name) for name in names]
    labels = [read_volume(folder / "labels" / name) for name in names] if entry.labels else None
    return montage(images, labels, columns=2, most=_SHOWN)
