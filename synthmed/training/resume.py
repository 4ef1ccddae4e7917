"""``last.ckpt``: the whole state of a training run, so that a resumed run is the run that was not interrupted."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthmed import processes
from synthmed.errors import ConfigError, InputError, StorageError
from synthmed.files import atomic_path
from synthmed.models.sharding import whole

CHECKPOINT = "last.ckpt"
_FIELDS = ("step", "best_loss", "best_weights", "best", "stale", "last")


@dataclass
class TrainingState:
    """What a run remembers beside its networks.

    Attributes
    ----------
    identity : mapping
        The configuration and data that the run belongs to.
    step : int
        Optimiser steps done.
    best_loss : float
        Lowest held-out loss.
    best_weights : dict of str to Tensor, optional
        Averaged weights at the lowest held-out loss.
    best, last : dict of str to float
        Measurements of the best and of the latest validation.
    stale : int
        Validations since the best.
    """

    identity: Mapping[str, Any]
    step: int = 0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    stale: int = 0


def save_state(directory: Path, state: TrainingState, parts: Mapping[str, Any]) -> None:
    """Write ``last.ckpt`` atomically; all processes call this, and the first writes.

    Parameters
    ----------
    directory : Path
    state : TrainingState
    parts : mapping of str to objects with `state_dict`

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    content = {name: getattr(state, name) for name in _FIELDS}
    content |= {"identity": dict(state.identity), "parts": {name: part.state_dict() for name, part in parts.items()}}
    content = whole(content)
    processes.from_first(lambda: _write(Path(directory) / CHECKPOINT, content))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(file) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a failed write
            raise StorageError(
                f"Cannot write {file}", found=str(error), next_step="Free space and run again"
            ) from error


def load_state(
    directory: Path,
    state: TrainingState,
    parts: Mapping[str, Any],
    device: torch.device | str = "cpu",
    take: Callable[[dict[str, Any]], dict[str, Any]] = lambda content: content,
) -> None:
    """Restore `state` and `parts` from ``last.ckpt``, or from what `take` makes of it; without one leave them alone.

    Raises
    ------
    ConfigError
        If the checkpoint is of another configuration or other data; names the first difference.
    InputError
        If the file is damaged.
    """
    file = Path(directory) / CHECKPOINT
    if not file.is_file():
        return
    content = _read(file, device)
    identity = {key: value for key, value in content["identity"].items() if key != "processes"}  # said by 0.1's first
    difference = first_difference(identity, dict(state.identity))
    if difference:
        key, found, expected = difference
        raise ConfigError(
            f"{file} is of another run: {key} differs",
            found=found,
            expected=expected,
            next_step="Choose another output folder, or delete this one to start afresh",
        )
    content = take(content)
    for name in _FIELDS:
        setattr(state, name, content[name])
    for name, part in parts.items():
        part.load_state_dict(content["parts"][name])


def first_difference(found: Any, expected: Any, key: str = "") -> tuple[str, str, str] | None:
    """Return (dotted key, value found, value expected) of the first difference of two nested mappings, or None."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name in [*expected, *(n for n in found if n not in expected)]:
            dotted = f"{key}.{name}" if key else str(name)
            inner = first_difference(found.get(name, "nothing"), expected.get(name, "nothing"), dotted)
            if inner:
                return inner
        return None
    return None if found == expected else (key, str(found), str(expected))


def _read(file: Path, device: torch.device | str) -> dict[str, Any]:
    problem = InputError(f"{file} is damaged", next_step="Delete it to train the stage from its start")
    try:
        content = torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise problem from error
    if not isinstance(content, dict) or not {"identity", "parts", *_FIELDS} <= content.keys():
        raise problem
    return content
