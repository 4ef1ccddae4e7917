"""What this machine can do for a run, and what would not fit it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from synthmed import __version__
from synthmed.errors import ConfigError
from synthmed.prepare.machine import GIB, Machine, describe_machine

SCHEMA = "synthmed-doctor/1"
COHORT = {"cases": 100, "labels": {"1": 1.0, "2": 1.0}}
"""The cohort whose training is weighed: its cases, and label values."""
SIDES = (32, 64, 96, 128, 160, 192, 256)
_STEP = 8
_LARGEST_SIDE = 512
_PACKAGES = ("torch", "monai", "numpy", "nibabel", "pydicom", "highdicom", "pynetdicom", "cryptography")
_READABLE = (
    "RLELossless",
    "JPEGBaseline8Bit",
    "JPEGExtended12Bit",
    "JPEGLossless",
    "JPEGLosslessSV1",
    "JPEGLSLossless",
    "JPEG2000Lossless",
    "JPEG2000",
    "HTJ2KLossless",
    "HTJ2K",
)
_LITTLE_DISK_GIB = 5


def examine(directory: Path) -> dict[str, Any]:
    """Look at the machine, the packages and the tools; imports torch.

    Parameters
    ----------
    directory : Path
        Where runs would be kept; it need not exist.

    Returns
    -------
    dict
        Schema ``synthmed-doctor/1``: machine, versions, disk, validators, dicom, training and advice.
    """
    machine = describe_machine()
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": _machine(machine),
        "versions": _versions(),
        "disk": _disk(directory),
        "validators": _validators(),
        "dicom": {"reads": _decoders(), "writes": _encoders()},
        "training": training_limits(machine),
    }
    return content | {"advice": list(advise(content))}


def training_limits(machine: Machine) -> dict[str, Any]:
    """Estimate which cubic grids the proposed networks could be trained on, one case a batch.

    Returns
    -------
    dict
        ``limit_gib``, the share of memory that `synthmed plan` takes; ``largest_grid``, voxels, 0 where none fits;
        ``grids``, a row for each of `SIDES` with the estimated peak in GiB and whether it fits.
    """
    from synthmed.prepare.planner import SHARE_OF_MEMORY

    limit = SHARE_OF_MEMORY * machine.training_gib
    fitting = [side for side in range(_STEP, _LARGEST_SIDE + 1, _STEP) if _peak_gib(machine, side) <= limit]
    rows = [{"side": side, "peak_gib": round(_peak_gib(machine, side), 1)} for side in SIDES]
    return {
        "cases": COHORT["cases"],
        "limit_gib": round(limit, 1),
        "largest_grid": [max(fitting, default=0)] * 3,
        "grids": [row | {"fits": row["side"] <= max(fitting, default=0)} for row in rows],
    }


def _peak_gib(machine: Machine, side: int) -> float:
    from synthmed.config import parse_config
    from synthmed.prepare.planner import estimate_memory, networks

    one = {"batch_size": 1}
    sections = {"autoencoder_training": one, "denoiser_training": one, "sampling": one}
    config = parse_config({**networks(machine), **sections, "preprocess": {"grid": [side] * 3}})
    return estimate_memory(config, COHORT).peak


def _machine(machine: Machine) -> dict[str, Any]:
    import torch

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": machine.cores,
        "threads": torch.get_num_threads(),
        "memory_gib": round(machine.memory_gib, 1),
        "free_memory_gib": _free_memory_gib(),
        "device": machine.device,
        "device_name": torch.cuda.get_device_name(0) if machine.device == "cuda" else "",
        "device_memory_gib": round(machine.device_memory_gib, 1),
        "built_for_cuda": torch.version.cuda or "",
    }


def _free_memory_gib(file: Path = Path("/proc/meminfo")) -> float | None:
    """Return what the system says it could give now; None where it does not say."""
    if not file.is_file():
        return None
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next((round(int(words[1]) * 1024 / GIB, 1) for words in lines if words[0] == "MemAvailable:"), None)


def _versions() -> dict[str, str]:
    found = {"synthmed": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _disk(directory: Path) -> dict[str, Any]:
    there = next(folder for folder in (directory.absolute(), *directory.absolute().parents) if folder.is_dir())
    return {
        "directory": str(directory),
        "free_gib": round(shutil.disk_usage(there).free / GIB, 1),
        "writable": os.access(there, os.W_OK | os.X_OK),
    }


def _validators() -> dict[str, bool]:
    """Ask each validator to look at an empty release: it says whether it is installed."""
    from synthmed.export.validation.validators import VALIDATORS
    from synthmed.export.validation.verdicts import ABSENT

    with tempfile.TemporaryDirectory(prefix="synthmed-") as empty:
        verdicts = [validator(Path(empty)) for validator in VALIDATORS]
    return {verdict.tool: verdict.status != ABSENT for verdict in verdicts}


def _decoders() -> dict[str, bool]:
    from pydicom import uid
    from pydicom.pixels import get_decoder

    return {name: bool(get_decoder(getattr(uid, name)).is_available) for name in _READABLE}


def _encoders() -> dict[str, bool]:
    from synthmed.export.dicom.encode import SYNTAXES, check_encoder

    def writes(compression: str) -> bool:
        try:
            check_encoder(compression)
        except ConfigError:
            return False
        return True

    return {name: writes(name) for name in SYNTAXES}


def advise(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing that is missing, or that would not fit."""
    machine, disk = content["machine"], content["disk"]
    for name, version in content["versions"].items():
        if not version:
            yield f"{name} is not installed: install synthmed again"
    if machine["device"] != "cuda" and machine["built_for_cuda"]:
        yield f"torch is built for CUDA {machine['built_for_cuda']} and sees no GPU: training runs on the CPU"
    if not disk["writable"]:
        yield f"Nothing can be written to {disk['directory']}: choose another --run-dir"
    if disk["free_gib"] < _LITTLE_DISK_GIB:
        yield f"{disk['free_gib']} GiB of disk are free; a run of some hundred volumes can need {_LITTLE_DISK_GIB}"
    too_large = [str(row["side"]) for row in content["training"]["grids"] if not row["fits"]]
    if too_large:
        most = " x ".join(map(str, content["training"]["largest_grid"]))
        yield (
            f"Grids of {', '.join(too_large)} voxels a side would not fit; the largest cube is {most}. "
            "synthmed plan coarsens the voxels until a cohort fits"
        )
    absent = [name for name, there in content["validators"].items() if not there]
    if absent:
        yield f"Not installed, so --validate leaves them out: {', '.join(absent)}. They are synthmed's extra `validate`"
    unread = [name for name, there in content["dicom"]["reads"].items() if not there]
    if unread:
        yield f"DICOM that cannot be read: {', '.join(unread)}"


def format_diagnosis(content: Mapping[str, Any]) -> str:
    """Return what `examine` found, for a terminal."""
    machine, disk, training = content["machine"], content["disk"], content["training"]
    device = machine["device"]
    if device == "cuda":
        device = f"{machine['device_name']}, {machine['device_memory_gib']:g} GiB"
    free = "" if machine["free_memory_gib"] is None else f" ({machine['free_memory_gib']:g} free now)"
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in content["versions"].items())
    lines = [
        f"System       {machine['system']}",
        f"Cores        {machine['cores']}, torch uses {machine['threads']}",
        f"Memory       {machine['memory_gib']:g} GiB{free}",
        f"Device       {device}",
        f"Versions     {versions}",
        f"Disk         {disk['free_gib']:g} GiB free for {disk['directory']}",
        f"Validators   {_marked(content['validators'])}",
        f"DICOM reads  {_marked(content['dicom']['reads'])}",
        f"DICOM writes {_marked(content['dicom']['writes'])}",
        "",
        f"Memory to train on {training['cases']} labelled cases, one a batch; up to {training['limit_gib']:g} GiB:",
        *(
            f"  {' x '.join([str(row['side'])] * 3):16} {row['peak_gib']:5.1f} GiB  {'fits' if row['fits'] else 'no'}"
            for row in training["grids"]
        ),
    ]
    return "\n".join([*lines, "", *(f"* {sentence}." for sentence in content["advice"])]).rstrip()


def _marked(found: Mapping[str, bool]) -> str:
    return ", ".join(name if there else f"{name} (missing)" for name, there in found.items())
