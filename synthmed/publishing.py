"""From a trained run to a pretrained model: its weights stored compactly, and what these draw measured and audited.

The models of a run are stored in fewer bytes, which changes them a little. So the samples, the evaluation and the
audit that stand in the card are made anew from the stored weights, by the run's own stages, under ``stored/`` of the
run. As stages they resume after a kill, and are not repeated while nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthmed.errors import ConfigError
from synthmed.files import read_json
from synthmed.models.checkpoint import RECORD, load_autoencoder, load_denoiser, store_autoencoder, store_denoiser
from synthmed.pipeline import STAGES, alone, stage_costs
from synthmed.stages import Run, Say, Stage, run_stage

Array = NDArray[Any]
STORED = "stored"
_COMPARED = 8


@dataclass(frozen=True)
class StoredRun(Run):
    """A run whose models are the stored ones; only the prepared cohort is shared with the run that trained them."""

    def stage(self, name: str) -> Path:
        """Return the directory of a stage, whether it has run or not."""
        return self.root / name if name == "prepare" else self.root / STORED / name


def publish(run: Run, name: str, out: Path, *, progress: bool = True, say: Say = print) -> Path:
    """Write a trained run's model as one of the library of pretrained models.

    Parameters
    ----------
    run : Run
        Its cohort prepared and its models trained.
    name : str
        Lower-case words joined by hyphens.
    out : Path
        The folder to write; must not exist.
    progress : bool
    say : callable
        Receives one line a stage.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ConfigError
        If the run has no trained models, the name does not fit, or `out` exists.
    ReleaseRefused, AuditInconclusive
        If the audit of what the stored weights draw does not pass; nothing is written.
    InputError
        If a file cannot be read or used.
    StorageError
        If the disk is full or read-only.
    """
    from synthmed.bundle.entry import check_name, write_entry

    check_name(name, out)
    _check_trained(run)
    stored = StoredRun(run.config, run.root)
    with alone(run.root):
        for stage in _stages(run):
            run_stage(stored, stage, progress, say)
        evaluation = read_json(stored.stage("evaluate") / "evaluation.json")
        seconds = {stage: cost[0] for stage, cost in stage_costs(run).items()}
        return write_entry(
            stored, name, out, evaluation=evaluation, change=change_by_storing(run, stored), seconds=seconds
        )


def change_by_storing(run: Run, stored: Run, number: int = _COMPARED) -> dict[str, float]:
    """Measure how far the first decoded volumes of the run's seed move when the weights are stored.

    Returns
    -------
    dict of str to float
        ``volumes``; ``largest`` and ``root_mean_square``, changes of a voxel as shares of the intensity range;
        ``labels``, share of voxels whose label changes.
    """
    before, after = (_first_volumes(each, number) for each in (run, stored))
    moved = np.stack([new[0] - old[0] for old, new in zip(before, after, strict=True)])
    differing = np.stack([new[1] != old[1] for old, new in zip(before, after, strict=True)])
    return {
        "volumes": number,
        "largest": float(np.abs(moved).max()),
        "root_mean_square": float(np.sqrt(np.square(moved).mean())),
        "labels": float(differing.mean()),
    }


def _first_volumes(run: Run, number: int) -> list[tuple[Array, Array]]:
    """Return the first decoded images, on a scale of 0 to 1, and their classes (a zero where there are none)."""
    from synthmed.sampling.generate import decode_latent, sample_latents, volume_seed

    autoencoder, denoiser = load_autoencoder(run.stage("autoencoder")), load_denoiser(run.stage("denoiser"))
    seeds = [volume_seed(run.config.seed, index) for index in range(number)]
    conditions = [denoiser.conditioning.draw(seed) for seed in seeds]
    latents = sample_latents(denoiser, seeds, conditions, run.config.sampling)
    # Not finished: the noise is drawn anew, and its seed does not change with the weights.
    plain = run.config.sampling.model_copy(update={"finish": False})
    drawn = [decode_latent(autoencoder, latent, seed, plain) for latent, seed in zip(latents, seeds, strict=True)]
    return [((each.image.clip(-1, 1) + 1) / 2, np.zeros(1) if each.classes is None else each.classes) for each in drawn]


def _check_trained(run: Run) -> None:
    if any(not (run.stage(name) / RECORD).is_file() for name in ("autoencoder", "denoiser")):
        raise ConfigError(f"{run.root} holds no trained model", next_step=f"Train first: synthmed train {run.root}")


def _stages(run: Run) -> list[Stage]:
    """Return the stages under ``stored/``; the first two read the models of the run itself."""

    def autoencoder(stored: Run, out: Path, progress: bool) -> None:
        store_autoencoder(run.stage("autoencoder"), out)

    def denoiser(stored: Run, out: Path, progress: bool) -> None:
        store_denoiser(run.stage("denoiser"), stored.stage("autoencoder"), out)

    def weights(name: str) -> str:
        return str(read_json(run.stage(name) / RECORD)["weights_sha256"])

    usual = {stage.name: stage for stage in STAGES}
    return [
        Stage("autoencoder", (), (), autoencoder, source=lambda _: weights("autoencoder")),
        Stage("denoiser", (), ("autoencoder",), denoiser, source=lambda _: weights("denoiser")),
        *(usual[name] for name in ("generate", "evaluate", "audit")),
    ]
