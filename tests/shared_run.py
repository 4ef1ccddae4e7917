"""Train both stages and both kinds of denoiser, with everything that is drawn in a step; by one process or by many.

``python shared_run.py OUT``, or the same under ``torchrun``; run by tests/integration/test_torchrun.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

from small_runs import SPACE, blobs, small_config

from synthmed.models.checkpoint import load_autoencoder
from synthmed.training.fit import train_autoencoder, train_denoiser

SETTINGS = {"precision": "32-true", "max_steps": 6, "batch_size": 4, "validate_every": 2, "learning_rate": 1e-3}
DENOISERS = {
    "transformer": {"dropout": 0.1},
    "unet": {"kind": "unet", "channels": [32, 32], "num_head_channels": 16, "num_res_blocks": 1},
}


def main(out: Path) -> None:
    """Write ``autoencoder``, ``transformer`` and ``unet`` to `out`."""
    train, holdout = blobs(6, seed=1), blobs(3, seed=2)
    config = small_config(
        autoencoder={"adversarial_weight": 0.1, "adversarial_start": 0.4}, autoencoder_training=SETTINGS
    )
    train_autoencoder(config, train, holdout, SPACE, out / "autoencoder", device="cpu", progress=False)
    for name, denoiser in DENOISERS.items():
        config = small_config(denoiser=denoiser, denoiser_training=SETTINGS)
        autoencoder = load_autoencoder(out / "autoencoder")
        train_denoiser(config, train, holdout, autoencoder, out / name, device="cpu", progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
