"""The stages of a run on phantoms, each by the product's own work, in a process of its own: seconds and peak memory."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from speed.searching import peak_memory

LEAST_MODELS = 24
"""Phantoms that the tiny models learn from."""
STEPS = 40
EVALUATIONS = 4
WRITES = {"prepare": "prepare", "sample": "generate", "audit": "audit", "export": "export"}
"""Stage of this benchmark -> the directory that the product's stage writes."""
NEEDS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "sample": (),
    "audit": ("prepare", "sample"),
    "export": ("sample",),
}


def overrides(size: int, side: int, seed: int) -> list[str]:
    """Return what `configs/phantom.yaml` is changed to: so many phantoms, models of a few thousand weights."""
    grid, shape = [side] * 3, [side] * 3
    return [
        f"seed={seed}",
        f"cohort.phantom={{num_subjects: {size}, shape: {shape}, seed: {seed}}}",
        f"preprocess.grid={grid}",
        "autoencoder={channels: [8, 16, 16], norm_num_groups: 4, latent_channels: 16}",
        "denoiser={width: 32, depth: 1, num_head_channels: 16}",
        *(f"{stage}_training.max_steps={STEPS}" for stage in ("autoencoder", "denoiser")),
        f"sampling={{num_samples: {size}, num_inference_steps: {EVALUATIONS}, batch_size: 16, redraws: 0}}",
    ]


def do_stage(stage: str, size: int, root: Path, side: int, seed: int) -> dict[str, Any]:
    """Do one stage on `size` volumes in this process.

    Parameters
    ----------
    stage : {"models", "prepare", "sample", "audit", "export"}
        ``models`` trains the tiny models that ``sample`` draws from.
    size : int
    root : Path
        The models' run and one run a size lie below it.
    side : int
        Voxels along each axis.
    seed : int

    Returns
    -------
    dict
        ``wall`` and ``process`` seconds; MiB: ``peak`` and ``before``, what the libraries take.
    """
    from synthmed.config import find_config, load_config
    from synthmed.pipeline import run_stages
    from synthmed.stages import Run

    run = Run(load_config(find_config("phantom"), overrides(size, side, seed)), _folder(root, stage, size))
    if stage == "models":
        return measured(lambda: run_stages(run, "denoiser", progress=False, say=lambda line: None))
    work = _work(stage, run, root)
    shutil.rmtree(run.stage(WRITES[stage]), ignore_errors=True)
    if stage == "export":
        _pass(run)
    return measured(work)


def measured(work: Callable[[], object]) -> dict[str, Any]:
    """Do it and return its seconds and the largest memory that this process has had."""
    before, began, worked = peak_memory(), time.perf_counter(), time.process_time()
    work()
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    return {"wall": seconds, "process": worked, "peak": peak_memory(), "before": before}


def is_there(stage: str, size: int, root: Path) -> bool:
    """Say whether a stage of this size was done before."""
    return (_folder(root, stage, size) / WRITES.get(stage, "denoiser")).is_dir()


def power(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the slope of log value over log size by least squares; None for fewer than two sizes."""
    pairs = [(size, value) for size, value in zip(sizes, values, strict=True) if size > 0 and value > 0]
    if len({size for size, _ in pairs}) < 2:
        return None
    x, y = np.log(np.array(pairs, dtype=np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def parts_at(sizes: Sequence[float], values: Sequence[float], size: float) -> tuple[float, float, float] | None:
    """Return what is fixed, linear and quadratic of the value at a size, by non-negative least squares.

    Errors count relative to the values; None for fewer than three sizes.
    """
    if len(set(sizes)) < 3:
        return None
    x, y = np.asarray(sizes, dtype=np.float64) / size, np.asarray(values, dtype=np.float64)
    (fixed, linear, quadratic), _ = nnls(np.stack([x**k for k in range(3)], 1) / y[:, None], np.ones(len(y)))
    return float(fixed), float(linear), float(quadratic)


def _folder(root: Path, stage: str, size: int) -> Path:
    return root / ("models" if stage == "models" else f"{size}")


def _work(stage: str, run: Any, root: Path) -> Callable[[], object]:
    """Return the work of the product's stage of a run, its libraries loaded."""
    import privacy.suite  # noqa: F401
    import synthmed.export
    import synthmed.prepare.preprocess
    import synthmed.sampling.generate  # noqa: F401
    from synthmed.pipeline import STAGES

    for name in ("autoencoder", "denoiser"):
        link = run.stage(name)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to((root / "models" / name).resolve())
    product = next(s for s in STAGES if s.name == WRITES[stage])
    return lambda: product.work(run, run.stage(WRITES[stage]), False)


def _pass(run: Any) -> None:
    """Put the report of a passing audit, as the tests make it, in the place of the run's: models so small may fail."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from releases import make_audit

    from synthmed.export.signing import signing_key

    shutil.rmtree(run.stage("audit"), ignore_errors=True)
    make_audit(run.stage("audit") / "release", run.stage("generate"), run.config.audit.policy)
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(dir=run.root)
    signing_key(None, lambda line: None)  # made anew, and goes with the run
