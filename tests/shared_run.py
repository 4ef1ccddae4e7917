"""Train both stages and both kinds of denoiser, with everything that is drawn in a step; by one process or by many.

``python shared_run.py OUT``, or the same under ``torchrun``; ``torchrun shared_run.py OUT ONE`` takes the autoencoder
that one process wrote to ONE, trains the denoisers in parts, and resumes what that one began. Run by test_torchrun.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from small_runs import SPACE, blobs, small_config

from synthmed import processes
from synthmed.models.checkpoint import load_autoencoder
from synthmed.training import loop
from synthmed.training.fit import train_autoencoder, train_denoiser

SETTINGS = {"precision": "32-true", "max_steps": 6, "batch_size": 4, "validate_every": 2, "learning_rate": 1e-3}
DENOISERS = {
    "transformer": {"dropout": 0.1},
    "unet": {"kind": "unet", "channels": [32, 32], "num_head_channels": 16, "num_res_blocks": 1},
}
BEGUN = 4
COHORT = blobs(6, seed=1), blobs(3, seed=2)


def train(autoencoder: Path, out: Path, name: str = "transformer", **training) -> None:
    config = small_config(denoiser=DENOISERS[name], denoiser_training=SETTINGS | training)
    train_denoiser(config, *COHORT, load_autoencoder(autoencoder), out, device="cpu", progress=False)


def begin(autoencoder: Path, out: Path, **training) -> None:
    """Leave a run of the transformer as an interruption does."""
    step = loop._Runner.step

    def stopping(self):
        if self.state.step == BEGUN:
            raise KeyboardInterrupt
        return step(self)

    loop._Runner.step = stopping
    try:
        train(autoencoder, out, patience=9, **training)
    except KeyboardInterrupt:
        loop._Runner.step = step


def main(out: Path) -> None:
    """Write ``autoencoder``, ``transformer``, ``unet`` and ``bf16`` to `out`, and begin ``begun``."""
    config = small_config(
        autoencoder={"adversarial_weight": 0.1, "adversarial_start": 0.4}, autoencoder_training=SETTINGS
    )
    autoencoder = out / "autoencoder"
    train_autoencoder(config, *COHORT, SPACE, autoencoder, device="cpu", progress=False)
    _denoisers(autoencoder, out)
    begin(autoencoder, out / "begun")


def in_parts(out: Path, one: Path) -> None:
    """Write what `main` does but the autoencoder, resume what it began, and note the bytes that this process held."""
    clip, held = loop._Runner._clip, {}

    def size(tensors):
        storages = [t.to_local().untyped_storage() for t in tensors]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values()), sum(t.nbytes for t in tensors)

    def noting(self):
        parameters = list(self.bare.parameters())
        moments = [value for state in self.optimizer.state.values() for value in state.values() if value.ndim]
        held[self.out.name] = {
            "weights": size(parameters),
            "gradients": size([parameter.grad for parameter in parameters]),
            "average": size(list(self.average.parameters())),
            "moments": size(moments),
        }
        return clip(self)

    loop._Runner._clip = noting
    _denoisers(one / "autoencoder", out, sharded=True)
    train(one / "autoencoder", one / "begun", patience=9, sharded=True)
    (out / f"held-{processes.rank()}.json").write_text(json.dumps(held), encoding="utf-8")
    begin(one / "autoencoder", out / "begun", sharded=True)


def _denoisers(autoencoder: Path, out: Path, **training) -> None:
    for name in DENOISERS:
        train(autoencoder, out / name, name, **training)
    train(autoencoder, out / "bf16", **training | {"precision": "bf16-mixed"})


if __name__ == "__main__":
    folders = [Path(word) for word in sys.argv[1:]]
    in_parts(*folders) if folders[1:] else main(*folders)
