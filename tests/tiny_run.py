"""A run small enough for a test, and the command line as its user starts it."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import yaml
from forked_run import Forked

TINY = {
    "name": "tiny",
    "cohort": {"format": "phantom", "phantom": {"num_subjects": 24, "shape": [16, 16, 16]}},
    "preprocess": {"grid": [16, 16, 16]},
    "conditioning": {"classes": ["sex"], "scalars": ["age"]},
    "autoencoder": {"channels": [8, 16, 16], "latent_channels": 8, "norm_num_groups": 4},
    "autoencoder_training": {"max_steps": 12, "batch_size": 4, "validate_every": 5, "checkpoint_every": 5},
    "denoiser": {"width": 32, "depth": 2, "num_head_channels": 16},
    "denoiser_training": {"max_steps": 12, "batch_size": 8, "validate_every": 5, "checkpoint_every": 5},
    "sampling": {"num_samples": 12, "num_inference_steps": 4, "batch_size": 4, "redraws": 0},
    "evaluation": {"segmenter_steps": 2, "encoder_steps": 2, "predictor_steps": 2},
}
PROGRAM = "from synthmed.cli import main; main()"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def write_config(folder: Path, **sections) -> Path:
    """Write the tiny configuration, with sections merged over it."""
    content = {key: TINY[key] for key in TINY}
    for key, value in sections.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of `synthmed`, for a process that loads everything as its user's does."""
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def start(*arguments: str | Path, quick: bool = False, before: Callable | None = None) -> Forked:
    """Start `synthmed`, in its process after `before`; a quick one's audit learns and plants too little to pass."""
    return Forked(_main, list(map(str, arguments)), quick, before, environment=ENVIRONMENT)


def _main(words: list[str], quick: bool, before: Callable | None) -> None:
    from privacy_audits import quick as quickly

    from synthmed.cli import main

    sys.argv = ["synthmed", *words]
    if before is not None:
        before()
    with quickly() if quick else nullcontext():
        main()


def synthmed(
    *arguments: str | Path, quick: bool = False, before: Callable | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `synthmed` to its end and return what it printed."""
    return start(*arguments, quick=quick, before=before).end()
