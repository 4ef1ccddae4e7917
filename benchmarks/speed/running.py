"""One task on one device, in this process: seconds, peak memory, arithmetic and the share of what the device can do."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from speed.measuring import Clock, Row, differences, spread
from speed.roofline import clock_on, count_flops, roof
from speed.searching import peak_memory
from speed.steps import (
    WARMING_UP,
    Training,
    autoencoder_training,
    denoiser_training,
    made_up_latents,
    run_steps,
    time_steps,
)
from speed.untrained import without_zeros
from synthmed.config import Config, parse_config
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import SynthmedError
from synthmed.models.autoencoder import build_autoencoder
from synthmed.models.checkpoint import LoadedAutoencoder, LoadedDenoiser
from synthmed.models.denoiser import build_denoiser
from synthmed.models.devices import make_fabric, resolve_device
from synthmed.models.finish import BINS, Finish
from synthmed.models.screen import Screen
from synthmed.prepare.machine import Machine, describe_machine
from synthmed.prepare.planner import networks
from synthmed.prepare.prepared import PreparedSplit
from synthmed.prepare.space import Space
from synthmed.sampling.generate import decode_latent, sample_latents
from synthmed.training.schedule import seeded

TASKS = ("autoencoder", "denoiser", "sampling", "whole")
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}
MODES = ("eager", "compile")
NETWORKS = {"small": Machine(1, 1.0), "large": Machine(1, 1.0, "cuda", 16.0)}
"""Machines for which `synthmed plan` proposes its two sets of networks."""
CLASSES = 3
SPACING = (1.0, 1.0, 1.0)
FINISH = Finish(noise=(0.05,) * BINS, spread=0.1, pieces=(50,) * CLASSES)
TERA = 1e12


@dataclass(frozen=True)
class Cell:
    """What is measured.

    Attributes
    ----------
    task : {"autoencoder", "denoiser", "sampling", "whole"}
        A step of either training; a volume from noise to its finish, decoded as the product does or in one piece.
    side : int
        Voxels along each axis.
    precision : {"32-true", "bf16-mixed"}
    mode : {"eager", "compile"}
    device : {"auto", "cpu", "cuda", "mps"}
    networks : {"planned", "small", "large"}
        Those that `synthmed plan` proposes for this device, or either set.
    batch : int
        Cases of a training step.
    repeats, seed : int
    clock : {"wall", "process"}
    """

    task: str
    side: int
    precision: str = "32-true"
    mode: str = "eager"
    device: str = "auto"
    networks: str = "planned"
    batch: int = 1
    repeats: int = 5
    clock: str = "wall"
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """Seconds of every repeat and of compilation, the same work once more to be counted, and what is worth saying."""

    seconds: list[float]
    compiling: float
    again: Callable[[], object]
    note: str = ""


def run_cell(cell: Cell) -> Row:
    """Return a row of figures, or one that says in its note why there are none."""
    cell = replace(cell, device=resolve_device(cell.device))
    row = asdict(cell) | {"device name": device_name(cell.device), "note": ""}
    try:
        return row | figures(cell)
    except Exception as error:  # whatever a device cannot do is a finding
        return row | {"note": reason(error)}


def figures(cell: Cell) -> Row:
    """Measure: first seconds and memory, then, where they disturb neither, the arithmetic and the roof."""
    clock, config = clock_on(cell.device, cell.clock), configuration(cell)
    before = start_memory(cell.device)
    found = train(cell, config, clock) if cell.task in TASKS[:2] else sample(cell, config, clock)
    peak = memory_mib(cell.device) - before
    seconds = spread(found.seconds)
    batch = cell.batch if cell.task in TASKS[:2] else 1
    row = {
        "s": seconds["median"],
        "low": seconds["low"],
        "high": seconds["high"],
        "samples/s": batch / seconds["median"],
        "peak MiB": round(peak),
        "compile s": found.compiling if cell.mode == "compile" else None,
        "note": found.note,
    }
    try:
        flops, most = count_flops(found.again), roof(cell.device, PRECISIONS[cell.precision], clock)
    except Exception as error:  # what was measured stands
        return row | {"note": f"arithmetic not counted, {reason(error)}"}
    rate = flops / seconds["median"]
    return row | {"TFLOP": flops / TERA, "TFLOP/s": rate / TERA, "roof TFLOP/s": most / TERA, "share": rate / most}


def configuration(cell: Cell) -> Config:
    """Return the settings of a cell: the plan's networks on its grid."""
    machine = NETWORKS.get(cell.networks) or replace(describe_machine(), device=cell.device)
    training = {"precision": cell.precision, "batch_size": cell.batch}
    return parse_config(
        {
            **networks(machine),
            "seed": cell.seed,
            "preprocess": {"grid": [cell.side] * 3},
            "autoencoder_training": training,
            "denoiser_training": training,
        }
    )


def train(cell: Cell, config: Config, clock: Clock) -> Measured:
    """Take the product's own steps on noise."""
    training = _training(cell, config)
    if cell.mode == "compile":
        training.model.compile()
    seconds = time_steps(training, WARMING_UP + cell.repeats, clock)
    first, others = seconds[:WARMING_UP], seconds[WARMING_UP:]
    compiling = sum(first) - len(first) * statistics.median(others)
    return Measured(others, max(0.0, compiling), lambda: run_steps(training, 1))


def sample(cell: Cell, config: Config, clock: Clock) -> Measured:
    """Draw volumes as the product does, without screening and writing; in bf16 under autocast, which it does not do."""
    fabric = make_fabric(cell.device, cell.precision)
    autoencoder, denoiser = untrained(cell, config)
    if cell.mode == "compile":
        denoiser.model.compile()
        autoencoder.model.decode = torch.compile(autoencoder.model.decode)  # type: ignore[method-assign]
    whole = {"whole_voxels": cell.side**3} if cell.task == "whole" else {}
    settings = config.sampling.model_copy(update={"finish": False, **whole})

    def draw(steps: int) -> list[float]:
        few, moments = settings.model_copy(update={"num_inference_steps": steps}), [clock()]
        with fabric.autocast():
            latent = sample_latents(denoiser, [cell.seed], None, few)[0]
            moments.append(clock())
            drawn = decode_latent(autoencoder, latent, cell.seed, few)
        moments.append(clock())
        FINISH.image(drawn.image, np.random.default_rng(cell.seed))
        if drawn.classes is not None:
            FINISH.labels(drawn.classes)
        return differences([*moments, clock()], 0)

    first, second = draw(1), draw(1)
    drawn = [draw(settings.num_inference_steps) for _ in range(cell.repeats)]
    parts = (statistics.median(values) for values in zip(*drawn, strict=True))
    told = zip(("denoising", "decoding", "finish"), parts, strict=True)
    note = f"{settings.num_inference_steps} steps: " + ", ".join(f"{name} {value:.3g} s" for name, value in told)
    compiling = max(0.0, sum(first) - sum(second))
    return Measured([sum(values) for values in drawn], compiling, lambda: draw(settings.num_inference_steps), note)


def untrained(cell: Cell, config: Config) -> tuple[LoadedAutoencoder, LoadedDenoiser]:
    """Return networks of random weights, the layers that begin at zero included, on the cell's device."""
    shape = _latent_shape(cell, config)
    with seeded(cell.seed):
        models = build_autoencoder(config.autoencoder, CLASSES), build_denoiser(config.denoiser, shape, 0)
        coder, network = (without_zeros(model).to(cell.device).eval() for model in models)
    scale = torch.zeros(shape[0], 1, 1, 1, device=cell.device)
    space = Space((cell.side,) * 3, SPACING, label_values=tuple(range(CLASSES)))
    denoiser = LoadedDenoiser(network, scale, scale + 1, shape, Conditioning(), config.diffusion, "", "")
    return LoadedAutoencoder(coder, space, "", FINISH, Screen()), denoiser


def start_memory(device: str) -> float:
    """Begin to measure the peak and return what is to be taken from it, MiB."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return memory_mib(device) if device == "cpu" else 0.0


def memory_mib(device: str) -> float:
    """Return the peak of what tensors took on CUDA, of the resident set on the CPU; on MPS what its driver holds."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    if device == "mps":
        return torch.mps.driver_allocated_memory() / 2**20
    return float(peak_memory())


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def reason(error: BaseException) -> str:
    """Return why there are no figures, in a line."""
    if isinstance(error, SynthmedError):
        return str(error)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
        return f"out of memory: {first}"
    return f"{type(error).__name__}: {first}"


def _training(cell: Cell, config: Config) -> Training:
    if cell.task == "denoiser":
        latents = made_up_latents(cell.batch, _latent_shape(cell, config), cell.seed)
        return denoiser_training(config, latents, device=cell.device)
    generator = torch.Generator().manual_seed(cell.seed)
    images = 2 * torch.rand(cell.batch, 1, *[cell.side] * 3, generator=generator) - 1
    labels = (images > 0).to(torch.uint8) + (images > 0.5).to(torch.uint8)
    names = tuple(f"case {k}" for k in range(cell.batch))
    split = PreparedSplit(names, names, images, labels, ({},) * cell.batch, CLASSES)
    return autoencoder_training(config, split, device=cell.device)


def _latent_shape(cell: Cell, config: Config) -> tuple[int, int, int, int]:
    cells = cell.side // config.autoencoder.downsampling
    return config.autoencoder.latent_channels, cells, cells, cells
