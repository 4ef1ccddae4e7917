"""Train both stages in both precisions; a real SIGKILL ends the process where the last argument says."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from small_runs import SPACE, blobs, small_config

from synthmed.models.checkpoint import WEIGHTS, load_autoencoder
from synthmed.training import loop
from synthmed.training.fit import train_autoencoder, train_denoiser


def die(*_: object) -> None:
    """Leave at once, as a machine that loses power does."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_step(step: int) -> None:
    """Die when the order of the cases of `step` is asked for, before anything of that step is done."""
    order = loop.batch_indices
    loop.batch_indices = lambda count, size, seed, now: die() if now == step else order(count, size, seed, now)


def kill_in_second_checkpoint() -> None:
    """Die half-way through writing the second checkpoint."""
    save, calls = torch.save, []

    def half(content: object, file: Path) -> None:
        calls.append(file)
        save(content, file)
        if len(calls) == 2:
            os.truncate(file, file.stat().st_size // 2)
            die()

    torch.save = half


def main(out: Path, stage: str = "", where: str = "") -> None:
    """Run the stages that are not finished, dying in `stage` at a step or in a ``checkpoint``."""
    torch.set_num_threads(2)
    train, holdout = blobs(6, seed=1), blobs(3, seed=2)
    for precision in ("32-true", "bf16-mixed"):
        settings = {"precision": precision, "max_steps": 9, "patience": 5}
        config = small_config(
            autoencoder={"adversarial_weight": 0.1, "adversarial_start": 0.3},
            autoencoder_training=settings,
            denoiser={"dropout": 0.1},
            denoiser_training=settings,
        )
        folders = {name: out / f"{name}-{precision}" for name in ("autoencoder", "denoiser")}
        for name, folder in folders.items():
            if (folder / WEIGHTS).exists():
                continue
            if folder.name == stage:
                kill_in_second_checkpoint() if where == "checkpoint" else kill_at_step(int(where))
            if name == "autoencoder":
                train_autoencoder(config, train, holdout, SPACE, folder, device="cpu", progress=False)
            else:
                autoencoder = load_autoencoder(folders["autoencoder"])
                train_denoiser(config, train, holdout, autoencoder, folder, device="cpu", progress=False)
