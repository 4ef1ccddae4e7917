"""What this machine can hold and do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """Where training would run.

    Attributes
    ----------
    cores : int
    memory_gib : float
        The main memory, or the container's limit where that is lower.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"mps"``.
    device_memory_gib : float
        Memory that tensors of the device share; the main memory where it has none of its own.
    """

    cores: int
    memory_gib: float
    device: str = "cpu"
    device_memory_gib: float = 0.0

    @property
    def training_gib(self) -> float:
        """Memory that training can count on, GiB."""
        return self.device_memory_gib if self.device == "cuda" else self.memory_gib

    def __str__(self) -> str:
        device = (
            f", {self.device} with {self.device_memory_gib:.0f} GiB" if self.device == "cuda" else f", {self.device}"
        )
        return f"{self.cores} cores, {self.memory_gib:.0f} GiB{device}"


def describe_machine() -> Machine:
    """Look at cores, memory and accelerator; imports torch."""
    import torch

    memory = _memory() / GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return Machine(cores, memory, "cuda", torch.cuda.get_device_properties(0).total_memory / GIB)
    if torch.backends.mps.is_available():
        return Machine(cores, memory, "mps", memory)
    return Machine(cores, memory, "cpu", memory)


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Path(name).read_text(encoding="ascii").strip() for name in _CGROUP_LIMITS if Path(name).is_file()]
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])
