"""A run small enough for a test, and the command line as its user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

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
QUICK = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r})\nfrom privacy_audits import quick\nwith quick():\n"
)
QUICK += f"    {PROGRAM}"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def write_config(folder: Path, **sections) -> Path:
    """Write the tiny configuration, with sections merged over it."""
    content = {key: TINY[key] for key in TINY}
    for key, value in sections.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def command(*arguments: str | Path, quick: bool = False) -> list[str]:
    """Return the command line of `synthmed`; a quick one's audit learns and plants too little to let a set pass."""
    return [sys.executable, "-c", QUICK if quick else PROGRAM, *map(str, arguments)]


def synthmed(
    *arguments: str | Path, cwd: Path | None = None, quick: bool = False, **options
) -> subprocess.CompletedProcess:
    """Run `synthmed` to its end and return what it printed."""
    return subprocess.run(
        command(*arguments, quick=quick),
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
