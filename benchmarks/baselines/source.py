"""A finished run as the baselines see it: one cohort, one split, one number of volumes, one budget of seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from synthmed.errors import ConfigError
from synthmed.files import MANIFEST, read_json
from synthmed.pipeline import open_run
from synthmed.prepare.prepared import PreparedSplit, load_space, load_split
from synthmed.prepare.space import Space, from_network, label_from_network
from synthmed.sampling.generated import volume_name, write_pair
from synthmed.stages import Run
from synthmed.volume import Volume

STAGES = ("prepare", "autoencoder", "denoiser", "generate")
TRAINED = ("autoencoder", "denoiser")


@dataclass(frozen=True, eq=False)
class Source:
    """Everything that a method may use.

    Attributes
    ----------
    run : Run
    space : Space
    train, holdout : PreparedSplit
        Methods learn from `train` alone; `holdout` is for the judge.
    count : int
        Volumes that the run generated, and that every method makes.
    seconds : mapping of str to float
        Wall time of the run's stages.
    inputs : mapping of str to str
        Digests of what the stages wrote.
    """

    run: Run
    space: Space
    train: PreparedSplit
    holdout: PreparedSplit
    count: int
    seconds: Mapping[str, float]
    inputs: Mapping[str, str]

    @property
    def samples(self) -> Path:
        """The run's own volumes."""
        return self.run.stage("generate")


def open_source(directory: Path, stages: tuple[str, ...] = STAGES, overrides: Sequence[str] = ()) -> Source:
    """Read a run whose `stages` are finished.

    Parameters
    ----------
    overrides : sequence of str
        Changes of its configuration, ``KEY=VALUE``.

    Raises
    ------
    ConfigError
        If a stage that is needed has not been finished, or the cohort has no labels.
    """
    run = open_run(directory, overrides=overrides)
    missing = [name for name in stages if not (run.stage(name) / MANIFEST).is_file()]
    if missing:
        raise ConfigError(
            f"{directory} is not a finished run",
            found=f"no {', no '.join(missing)}",
            next_step=f"Finish it first: synthmed run {directory}",
        )
    space = load_space(run.stage("prepare"))
    if space.num_classes < 2:
        raise ConfigError(f"The cohort of {directory} has no labels", expected="a segmentation for every scan")
    records = {name: read_json(run.stage(name) / MANIFEST) for name in stages}
    return Source(
        run=run,
        space=space,
        train=load_split(run.stage("prepare"), "train"),
        holdout=load_split(run.stage("prepare"), "holdout"),
        count=len(list((run.stage("generate") / "images").glob("*.nii.gz"))),
        seconds={name: record["seconds"] for name, record in records.items()},
        inputs={name: record["digest"] for name, record in records.items()},
    )


def share_budget(seconds: Mapping[str, float], budget: float | None) -> dict[str, float]:
    """Return seconds a trained stage: the run's own, or `budget` divided in the same proportion.

    Parameters
    ----------
    seconds : mapping of str to float
        Wall time of the run's stages.
    budget : float, seconds, or None
    """
    own = {name: seconds[name] for name in TRAINED}
    scale = 1.0 if budget is None else budget / sum(own.values())
    return {name: scale * value for name, value in own.items()}


def write_case(out: Path, index: int, image: Tensor, label: Tensor, space: Space) -> None:
    """Write one volume and its label as `generate` does: on the run's grid, in its units, without a patient.

    Parameters
    ----------
    image : Tensor, shape (1, I, J, K), [-1, 1]; clipped to that
    label : Tensor, shape (1, I, J, K), class index
    """
    volume = Volume(from_network(image.float().numpy(), space), space.affine)
    classes = Volume(label_from_network(label.long().numpy(), space), space.affine)
    write_pair(out, volume_name(index), volume, classes, space)
