"""A configuration from a cohort's fingerprint and the machine that will train on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from synthmed.cohort.fingerprint import Facts, fingerprint, measure
from synthmed.cohort.matching import summary
from synthmed.cohort.read import Cohort, read_cohort
from synthmed.config import CohortConfig, Config, parse_config
from synthmed.errors import InputError
from synthmed.prepare.machine import GIB, Machine, describe_machine
from synthmed.words import counted

SHARE_OF_MEMORY = 0.5
"""Largest share of the machine's memory that a plan may take."""
SMALLEST_STRATUM = 5
"""Fewest patients of a class that is proposed as a condition."""
MAX_SUV = 50.0
_BASE_GIB = 0.8
_CT_WINDOW = (-1000.0, 1000.0)


class _Dumper(yaml.SafeDumper):
    """Plain YAML with lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, rows: dumper.represent_sequence("tag:yaml.org,2002:seq", rows, flow_style=True)
)


@dataclass(frozen=True)
class Memory:
    """Estimated peaks, GiB, with the process itself and the prepared cohort."""

    autoencoder: float
    denoiser: float
    sampling: float

    @property
    def peak(self) -> float:
        """The largest of them."""
        return max(self.autoencoder, self.denoiser, self.sampling)


def plan_cohort(cohort_config: CohortConfig, *, progress: bool = True) -> tuple[Config, str]:
    """Look at every scan of a cohort and propose a configuration for this machine.

    Parameters
    ----------
    cohort_config : CohortConfig
    progress : bool
        Whether to show progress on stderr.

    Returns
    -------
    config : Config
    text : str
        The same as YAML, with the reason beside each choice.

    Raises
    ------
    InputError
        If there is no cohort, or a scan cannot be read.
    """
    cohort = read_cohort(cohort_config)
    content, machine = fingerprint(cohort, _measure_all(cohort, progress)), describe_machine()
    proposed = plan(content, machine)
    proposed["cohort"] = {**cohort_config.model_dump(mode="json", exclude_defaults=True), "modality": cohort.modality}
    if cohort.label_names and not cohort_config.label_groups:
        proposed["cohort"]["label_names"] = dict(cohort.label_names)
    proposed["name"] = _name(cohort_config)
    config = parse_config(proposed)
    notes = "".join(f"# Note: {note}\n" for note in cohort.notes)
    return config, notes + format_plan(proposed, content, machine)


def plan(content: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """Propose a configuration, as `synthmed.config.parse_config` takes it.

    The grid holds the 95th percentile of the scans' extents and every label, at the median spacing; the spacing is
    coarsened evenly where half of the machine's memory would not hold a batch of one.

    Parameters
    ----------
    content : mapping
        What `synthmed.cohort.fingerprint.fingerprint` returns.
    machine : Machine

    Raises
    ------
    InputError
        If the cohort fits the machine at no sensible spacing.
    """
    proposed: dict[str, Any] = {
        **networks(machine),
        "preprocess": {"orientation": "RAS", **_normalisation(content)},
    }
    spacing = [max(round(s, 2), 0.01) for s in content["spacing_mm"]["median"]]
    for _ in range(40):
        proposed["preprocess"] |= {"spacing": spacing, "grid": _grid(content, spacing, 8)}
        one = _with_training(proposed, content, machine, 1)
        if estimate_memory(parse_config(one), content).peak <= SHARE_OF_MEMORY * machine.training_gib:
            break
        spacing = [round(s * 1.1, 2) for s in spacing]
    else:
        raise InputError("No plan fits this machine", found=str(machine), next_step="Use a machine with more memory")
    return _largest_batch(proposed, content, machine)


def networks(machine: Machine) -> dict[str, Any]:
    """Return the sections of the two networks that suit a machine; the small ones are those of the shipped recipes."""
    if machine.device == "cuda" and machine.training_gib >= 16:
        return {
            "autoencoder": {"channels": [64, 128, 256], "latent_channels": 160, "latent_noise": 0.15},
            "denoiser": {"kind": "transformer", "width": 512, "depth": 12},
        }
    return {
        "autoencoder": {"channels": [16, 64, 128], "latent_channels": 160, "latent_noise": 0.15},
        "denoiser": {"kind": "transformer", "width": 256, "depth": 3},
    }


def estimate_memory(config: Config, content: Mapping[str, Any]) -> Memory:
    """Estimate peak memory in GiB, float32.

    With V voxels of the grid, V / f^3 latent cells, B the batch, r residual blocks, c_l the channels of level l and K
    classes:

    - autoencoder, bytes kept for the backward pass: ``B V (37 (1 + r) sum_l c_l / 8^(l + 1) + 10 K)``
    - transformer: ``B cells 98 width depth``; UNet: ``B cells 145 r c_0``
    - times 1.5 for gradients and workspace
    - weights, gradients, two moments, EMA: 20 bytes a parameter
    - the cohort: 5 bytes a voxel; the process: 0.8 GiB
    - sampling: three of the decoder's largest tensors, ``12 B c_0 V / 8``, beside 4 bytes a parameter

    The constants were fitted to the tensors that autograd saves; `tests/unit/test_planner.py` compares them.
    """
    voxels = math.prod(config.preprocess.grid)
    cells = voxels / config.autoencoder.downsampling**3
    classes = 1 + len(content["labels"]) if content["labels"] else 0
    base = _BASE_GIB * GIB + 5.0 * voxels * content["cases"]
    first, last = parameters(config)
    coding = voxels * autoencoder_bytes_per_voxel(config, classes)
    denoising = cells * denoiser_bytes_per_cell(config)
    decoding = 12 * config.autoencoder.channels[0] * voxels / 8
    return Memory(
        (base + 20 * first + 1.5 * coding * config.autoencoder_training.batch_size) / GIB,
        (base + 20 * last + 1.5 * denoising * config.denoiser_training.batch_size) / GIB,
        (base + 4 * (first + last) + decoding * config.sampling.batch_size) / GIB,
    )


def autoencoder_bytes_per_voxel(config: Config, classes: int) -> float:
    """Return bytes that autograd keeps a voxel of the grid; see `estimate_memory`."""
    settings = config.autoencoder
    levels = sum(c / 8 ** (level + 1) for level, c in enumerate(settings.channels))
    return 37 * (1 + settings.num_res_blocks) * levels + 10 * classes


def denoiser_bytes_per_cell(config: Config) -> float:
    """Return bytes that autograd keeps a latent cell; see `estimate_memory`."""
    settings = config.denoiser
    if settings.kind == "transformer":
        return 98.0 * settings.width * settings.depth
    return 145.0 * settings.num_res_blocks * settings.channels[0]


def parameters(config: Config) -> tuple[float, float]:
    """Return approximate counts of the autoencoder's and the denoiser's parameters."""
    autoencoder = 75.0 * (1 + config.autoencoder.num_res_blocks) * sum(c * c for c in config.autoencoder.channels)
    settings = config.denoiser
    if settings.kind == "transformer":
        return autoencoder, 18.0 * settings.depth * settings.width**2
    return autoencoder, 256.0 * settings.num_res_blocks * sum(c * c for c in settings.channels)


def format_plan(proposed: Mapping[str, Any], content: Mapping[str, Any], machine: Machine) -> str:
    """Return a plan as YAML with the reason above each section; `load_config` reads it back."""
    memory = estimate_memory(parse_config(proposed), content)
    extent, spacing = (" x ".join(f"{v:g}" for v in content[key]["p95"]) for key in ("extent_mm", "spacing_mm"))
    reasons = {
        "cohort": f"{counted(content['cases'], content['modality'] + ' case')} of "
        f"{counted(content['patients'], 'patient')}.",
        "preprocess": f"95 % of the scans are at most {extent} mm (R A S), with voxels of at most {spacing} mm.\n"
        "The grid holds that and every label. " + _why_normalised(content["modality"], proposed["preprocess"]),
        "conditioning": "Covariates that enough patients have; remove those that a sample should not be asked for.",
        "autoencoder": f"Estimated peak while training: {memory.autoencoder:.1f} GiB of {machine.training_gib:.0f}.",
        "denoiser": f"Estimated peak while training: {memory.denoiser:.1f} GiB.",
        "sampling": f"Estimated peak: {memory.sampling:.1f} GiB.",
    }
    order = ["name", "cohort", "preprocess", "conditioning", "autoencoder", "autoencoder_training"]
    order += ["denoiser", "denoiser_training", "sampling"]
    parts = [f"# Proposed for this cohort on this machine: {machine}."]
    for section in (name for name in order if name in proposed):
        comment = "".join(f"# {line}\n" for line in reasons.get(section, "").splitlines())
        body = yaml.dump({section: proposed[section]}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        parts.append(comment + body)
    return "\n".join(parts)


def _why_normalised(modality: str, settings: Mapping[str, Any]) -> str:
    if settings["normalisation"] == "percentile":
        return "Every volume is scaled by its own percentiles."
    return f"Intensities keep their meaning and are clipped to {settings['intensity_range']}."


def _measure_all(cohort: Cohort, progress: bool) -> list[Facts]:
    facts, bad = [], {}
    for case in tqdm(cohort.cases, desc="look", unit="case", disable=not progress):
        try:
            facts.append(measure(*case.read()))
        except InputError as error:
            bad[case.case_id] = error
    if bad:
        first = next(iter(bad.values()))
        raise InputError(
            f"{len(bad)} of {len(cohort.cases)} cases cannot be used: {summary(list(bad))}", found=f"first: {first}"
        ) from first
    return facts


def _normalisation(content: Mapping[str, Any]) -> dict[str, Any]:
    """MR by each volume's percentiles; CT in a HU window; PET in SUV, unless its values are too high to be SUV."""
    if content["modality"] == "CT":
        return {"normalisation": "window", "intensity_range": list(_CT_WINDOW)}
    highest = content["intensities"]["99.9"]["max"]
    if content["modality"] == "PT" and highest <= 4 * MAX_SUV:
        top = min(float(math.ceil(highest)), MAX_SUV)
        return {"normalisation": "window", "intensity_range": [0.0, max(top, 1.0)]}
    return {"normalisation": "percentile", "percentiles": [0.5, 99.9], "intensity_range": [0.0, 1000.0]}


def _grid(content: Mapping[str, Any], spacing: list[float], step: int) -> list[int]:
    labels = (content["label_extent_mm"] or {"max": [0.0, 0.0, 0.0]})["max"]
    need = [max(p95, label) for p95, label in zip(content["extent_mm"]["p95"], labels, strict=True)]
    return [max(2, math.ceil(n / s / step - 1e-6)) * step for n, s in zip(need, spacing, strict=True)]


def _largest_batch(proposed: dict[str, Any], content: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """Take the largest batch, up to 32 (8 without CUDA) and a quarter of the cases, that half of the memory holds."""
    most = max(1, min(32 if machine.device == "cuda" else 8, content["cases"] // 4))
    for size in (32, 16, 8, 4, 2):
        tried = _with_training(proposed, content, machine, size)
        fits = estimate_memory(parse_config(tried), content).peak <= SHARE_OF_MEMORY * machine.training_gib
        if size <= most and fits:
            return tried
    return _with_training(proposed, content, machine, 1)


def _with_training(
    proposed: Mapping[str, Any], content: Mapping[str, Any], machine: Machine, batch: int
) -> dict[str, Any]:
    """Add batch and steps: some 60 passes for the autoencoder and 250 for the denoiser, within bounds by device.

    The denoiser sees a quarter of the scans as they are, and its best held-out loss decides which weights are kept.
    """
    passes = content["cases"] / batch
    longest = 10 if machine.device == "cuda" else 1
    coding = round(min(max(60 * passes, 400), 1500 * longest), -2)
    denoising = round(min(max(250 * passes, 1500), 6000 * longest), -2)
    return {
        **proposed,
        "conditioning": _conditioning(content),
        "autoencoder_training": {"max_steps": int(coding), "batch_size": batch, "ema_decay": 0.99},
        "denoiser_training": {
            "max_steps": int(denoising),
            "batch_size": batch,
            "ema_decay": 0.99,
            "validate_every": int(denoising) // 15,
            "patience": 4,
            "augment": 0.75,
        },
        "sampling": {"num_samples": max(64, content["cases"]), "batch_size": batch},
    }


def _conditioning(content: Mapping[str, Any]) -> dict[str, list[str]]:
    classes, scalars = [], []
    for name, found in content["covariates"].items():
        if found["missing"] > content["cases"] // 10:
            continue
        if "values" not in found:
            scalars += [name] if found["distinct"] > SMALLEST_STRATUM else []
        elif 2 <= len(found["values"]) <= 8 and min(found["values"].values()) >= SMALLEST_STRATUM:
            classes.append(name)
    return {"classes": classes, "scalars": scalars}


def _name(config: CohortConfig) -> str:
    stem = Path(config.path or config.format).name.split(".")[0]
    return re.sub(r"[^\w.-]+", "_", stem) or "run"
