"""Fully sharded training (FSDP2): each process holds a part of every weight, gradient, optimiser state and average.

A layer's weights are whole only while it computes. What is written is whole, as one process writes it, so that any
number of processes, sharded or not, takes it up again.
"""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import Tensor, nn

from synthmed import processes
from synthmed.errors import ConfigError


def sharding(precision: str) -> ModelParallelStrategy:
    """Return the strategy that makes `Fabric.setup_module` shard a network over all processes.

    Raises
    ------
    ConfigError
        If the precision is 16-mixed, whose scaler Fabric does not have for this strategy.
    """
    if precision == "16-mixed":
        raise ConfigError(
            "A sharded network does not train in precision 16-mixed", next_step="Use auto, 32-true or bf16-mixed"
        )
    return ModelParallelStrategy(_shard, data_parallel_size=processes.world(), tensor_parallel_size=1)


def is_sharded(fabric: Fabric) -> bool:
    """Say whether the networks of this Fabric lie in parts over the processes."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def whole(state: Any) -> Any:
    """Return a nested state with its sharded tensors whole in the first process's memory; the others get empty ones."""
    if processes.world() == 1:
        return state
    import torch
    from torch.distributed.tensor import DTensor
    from torch.utils._pytree import tree_map_only

    def join(values: DTensor) -> Tensor:
        joined = values.full_tensor()  # all of them take part
        return torch.empty(0) if processes.rank() else joined.cpu()

    return tree_map_only(DTensor, join, state)


def split(fabric: Fabric, state: Any) -> Any:
    """Return a nested state with this process's part of its tensors where networks are sharded, else as it is."""
    if not is_sharded(fabric):
        return state
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.utils._pytree import tree_map_only

    mesh = fabric.strategy.device_mesh["data_parallel"]  # type: ignore[attr-defined]

    def part(values: Tensor) -> Tensor:
        # A copy, since the part is a view that would keep the whole. AdamW's count of steps has no dimension.
        return distribute_tensor(values, mesh, [Shard(0)]).clone() if values.ndim else values

    return tree_map_only(Tensor, part, state)


def _shard(network: nn.Module, mesh: Any) -> nn.Module:
    """Shard every layer of a list of layers, the innermost first, and then what lies outside of them."""
    from torch.distributed.fsdp import fully_shard

    layers = [layer for part in network.modules() if isinstance(part, nn.ModuleList) for layer in part]
    for layer in [*reversed(layers), network]:
        fully_shard(layer, mesh=mesh["data_parallel"], reshard_after_forward=True)
    return network
