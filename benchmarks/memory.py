"""Peak memory and time of encoding and decoding, whole and in tiles: ``python benchmarks/memory.py``.

Every measurement is a process of its own: the largest resident set while it codes, less what it was before, with
torch, the network, the input and a small warm-up in memory. Networks are untrained: drawn at random, the layers that
begin at zero included, because memory, time and rounding do not depend on what was learned.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from speed.measuring import CLOCKS, clock_of

if TYPE_CHECKING:
    from torch import Tensor

    from synthmed.models.autoencoder import LabelledAutoencoder

NETWORKS = {"shipped": 3, "default": 1}
"""Classes of the label: `configs/hippocampus_mri.yaml` as it is; the defaults of a configuration."""
MODES = ("whole", "tiled")
_RANGE = 2.0
_LARGE = 256
_UNIT = 2**20 if sys.platform == "darwin" else 2**10
"""What `ru_maxrss` counts, in parts of a MiB."""


def network(name: str) -> LabelledAutoencoder:
    """Return an autoencoder of random weights, none of them zero, in evaluation mode."""
    import torch
    from speed.untrained import without_zeros

    from synthmed.config import AutoencoderConfig, load_config
    from synthmed.models.autoencoder import build_autoencoder

    torch.manual_seed(0)
    config = load_config("hippocampus_mri").autoencoder if name == "shipped" else AutoencoderConfig()
    return without_zeros(build_autoencoder(config, NETWORKS[name]).eval())


def prepared(task: str, model: LabelledAutoencoder, side: int, budget: int) -> Callable[[], Tensor | np.ndarray]:
    """Return what codes a cube of `side` voxels, its input drawn: a latent, or a scan with its label map."""
    import torch

    from synthmed.models.tiling import decode_pieces, encode_scans

    if task == "encode":
        image = torch.rand(1, 1, side, side, side) * 2 - 1
        image[:, :, : side // 4] = -1
        labels = (image > 0).to(torch.uint8) if model.num_classes > 1 else None
        return lambda: encode_scans(model, image, labels, whole_voxels=budget)
    latent = torch.randn(1, model.latent_channels, *[side // model.downsampling] * 3)

    def decode() -> np.ndarray:
        volume, classes = np.empty([side] * 3, np.float32), np.empty([side] * 3, np.uint8)
        for box, part, logits in decode_pieces(model, latent, whole_voxels=budget):
            volume[box] = part[0, 0].numpy()
            if logits is not None:
                classes[box] = logits[0].argmax(0).numpy()
        return volume

    return decode


def measure_here(task: str, name: str, side: int, mode: str, out: Path, clock_kind: str) -> dict[str, float]:
    """Code one volume in this process and write the result to `out`; MiB and seconds."""
    import torch

    model, clock = network(name), clock_of(clock_kind)
    budget = side**3 if mode == "whole" else 1
    with torch.inference_mode():
        prepared(task, model, 2 * model.downsampling, budget)()
        code = prepared(task, model, side, budget)
        before, start = _peak_mib(), clock()
        result = np.asarray(code())
        found = {"mib": _peak_mib() - before, "seconds": clock() - start}
    np.save(out, result)
    return found


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT


def measure(task: str, name: str, side: int, clock: str) -> dict[str, Any]:
    """Code the same volume whole and in tiles, each in its own process.

    Returns
    -------
    dict
        MiB and seconds of each mode; ``error``, the largest difference as a share of the range from -1 to 1, of a
        latent in units of its own scale over 2.
    """
    row: dict[str, Any] = {"task": task, "network": name, "side": side}
    with tempfile.TemporaryDirectory() as folder:
        files = {mode: Path(folder) / f"{mode}.npy" for mode in MODES}
        for mode, file in files.items():
            words = [sys.executable, __file__, "--clock", clock, "--one", task, name, str(side), mode, str(file)]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            row |= {f"{mode}_{key}": value for key, value in found.items()}
        one, other = (np.load(file, mmap_mode="r") for file in files.values())
        row["error"] = max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)) / _RANGE
    return row


def lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield the table's lines as they are measured."""
    yield "| task | network | grid | whole, MiB | tiled, MiB | ratio | whole, s | tiled, s | largest error |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        ratio = row["tiled_mib"] / row["whole_mib"]
        memory = f"{row['whole_mib']:.0f} | {row['tiled_mib']:.0f} | {ratio:.2f}"
        seconds = f"{row['whole_seconds']:.0f} | {row['tiled_seconds']:.0f}"
        yield f"| {row['task']} | {row['network']} | {row['side']}^3 | {memory} | {seconds} | {row['error']:.1e} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=("decode", "encode"), default=["decode", "encode"])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", type=int, default=[128, 192], help="voxels a side; multiples of 8")
    parser.add_argument("--large", action="store_true", help=f"also {_LARGE} a side")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the processor's seconds over threads")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        task, name, side, mode, out = chosen.one
        print(json.dumps(measure_here(task, name, int(side), mode, Path(out), chosen.clock)))
        return
    sides = [*chosen.sides, *([_LARGE] if chosen.large else [])]
    wanted = product(chosen.tasks, chosen.networks, sides)
    rows = (measure(task, name, side, chosen.clock) for task, name, side in wanted)
    for line in lines(rows):
        print(line, flush=True)


if __name__ == "__main__":
    main()
