"""The processes of one command: those that ``torchrun`` or ``srun`` started together, or the single one.

The first decides, keeps the files of a run and speaks to the user. The others wait for it and take their share of the
work that is distributed. Everything here is called by all of them alike, and by a single process costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from synthmed.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_WAIT = timedelta(days=30)
"""The others wait for as long as the first prepares; that a process is gone, the closed connection tells."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its command, and among those of them on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place() -> Place:
    """Return what ``torchrun`` (or whatever sets its variables) or the step of ``srun`` says of this process."""
    said = os.environ
    if "RANK" in said and "WORLD_SIZE" in said:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Place(*(int(said.get(name, default)) for name, default in zip(names, (0, 1, 0, 1), strict=True)))
    tasks, nodes = (int(said.get(f"SLURM_STEP_NUM_{name}", "1")) for name in ("TASKS", "NODES"))
    if tasks > 1:  # a batch script itself is no step, however many tasks its job has
        return Place(int(said["SLURM_PROCID"]), tasks, int(said["SLURM_LOCALID"]), tasks // nodes)
    return Place()


def rank() -> int:
    """Return this process's number; the first is 0."""
    return place().rank


def world() -> int:
    """Return the number of processes."""
    return place().world


def share() -> slice:
    """Return which elements of a common sequence or batch are this process's: every `world`-th."""
    here = place()
    return slice(here.rank, None, here.world)


def join() -> None:
    """Meet the other processes, unless that was done; a single process has none to meet.

    Raises
    ------
    ConfigError
        If this torch cannot do that, or there are more processes on the machine than GPUs.
    """
    if world() > 1:
        _meeting()


def leave() -> None:
    """Part from the other processes, when all is done."""
    if _met():
        from torch import distributed

        distributed.destroy_process_group()
        _meeting.cache_clear()


def from_first(make: Callable[[], T]) -> T:
    """Return what the first process makes; the others wait for it and make nothing."""
    if world() == 1:
        return make()
    from torch import device, distributed

    _, group = _meeting()
    made: list[Any] = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(made, src=0, group=group, device=device("cpu"))
    value: T = made[0]
    return value


def gather(value: T) -> list[T]:
    """Return the values of all processes in order of their rank, once all have come to this point."""
    if world() == 1:
        return [value]
    from torch import distributed

    _, group = _meeting()
    values: list[Any] = [None] * world()
    distributed.all_gather_object(values, value, group=group)
    return values


def total(values: Tensor) -> Tensor:
    """Return the sum of the processes' tensors, for a loss that all of them then compute alike.

    Its gradient counts `world` times, since the gradients of the processes are averaged afterwards.
    """
    if world() == 1:
        return values
    from torch import distributed

    summed = values.detach().clone()
    distributed.all_reduce(summed)
    return summed + world() * (values - values.detach())


def average(values: Tensor) -> None:
    """Replace a tensor by its mean over the processes."""
    if world() > 1:
        from torch import distributed

        distributed.all_reduce(values)
        values /= world()


def is_lost(error: BaseException) -> bool:
    """Say whether an error is how this process learns that another one is gone."""
    if not _met():
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def speaks() -> bool:
    """Say whether this process is to tell the user how the command ended: the first of all that asks."""
    if not _met():
        return rank() == 0
    try:
        return bool(_meeting()[0].add("spoken", 1) == 1)
    except RuntimeError:  # the process that kept the count is gone
        return True


def _met() -> bool:
    return bool(_meeting.cache_info().currsize)


@cache
def _meeting() -> tuple[Any, Any]:
    """Connect the processes; return the store that they share and the group by which they wait for each other."""
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_gloo_available()):
        raise ConfigError("This torch cannot work in many processes", expected="one built with gloo")
    here = place()
    gpus = torch.cuda.device_count()
    if gpus:
        _check_gpus(here, gpus)
        torch.cuda.set_device(here.local_rank)
    _say_place(here)
    store, _, _ = next(distributed.rendezvous("env://", here.rank, here.world))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, store=store, rank=here.rank, world_size=here.world)
    return store, distributed.new_group(backend="gloo", timeout=_WAIT)


def _check_gpus(here: Place, gpus: int) -> None:
    if gpus < here.local_world:
        raise ConfigError(
            "There are more processes on this machine than GPUs that each of them sees",
            found=str(here.local_world),
            expected=f"at most {gpus}",
            next_step="Start fewer, or let every process see all GPUs of its machine",
        )


def _say_place(here: Place) -> None:
    """Say in ``torchrun``'s variables what ``srun`` says in its own, for torch and Fabric."""
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
        os.environ.setdefault("MASTER_ADDR", SLURMEnvironment.resolve_root_node_address(nodes))
        os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])))
    names = {"RANK": here.rank, "WORLD_SIZE": here.world, "LOCAL_RANK": here.local_rank}
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ["LOCAL_WORLD_SIZE"] = str(here.local_world)
