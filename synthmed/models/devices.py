"""Where training runs and in which precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment

from synthmed import processes
from synthmed.errors import ConfigError
from synthmed.models.sharding import sharding


def make_fabric(
    device: str, precision: str, shapes: Iterable[tuple[int, ...]] = (), *, sharded: bool = False
) -> Fabric:
    """Return a launched Fabric: one process, or those of `synthmed.processes`, each on its own device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "32-true", "bf16-mixed", "16-mixed"}
    shapes : iterable of tuple of int
        Spatial shapes that 3x3x3 convolutions of the network see.
    sharded : bool
        Whether many processes hold a part of the network each; else each holds a copy.

    Raises
    ------
    ConfigError
        If the device is absent, or the precision gives wrong gradients there or does not go with sharding.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = resolve_device(device)
    processes.join()
    here = processes.place()
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of a dimension of length 1
    fabric = Fabric(
        accelerator=kind,
        strategy=sharding(precision) if sharded and here.world > 1 else "auto",
        devices=here.local_world,
        num_nodes=here.world // here.local_world,
        plugins=[TorchElasticEnvironment()] if here.world > 1 else None,
        precision=resolve_precision(precision, kind, list(shapes)),  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def resolve_device(device: str) -> str:
    """Return ``"cpu"``, ``"cuda"`` or ``"mps"``; ``"auto"`` is CUDA where there is one, else the CPU."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return "cuda" if present["cuda"] else "cpu"
    if not present.get(device, False):
        names = ", ".join(["auto", *(name for name, here in present.items() if here)])
        raise ConfigError("There is no such device", found=device, expected=f"one of {names}")
    return device


def resolve_precision(precision: str, device: str, shapes: Iterable[tuple[int, ...]]) -> str:
    """Return the precision to train in.

    ``"auto"`` is bf16 where the hardware multiplies it faster and its gradients are right. On the CPU the weight
    gradient of a bf16 ``Conv3d`` is wrong or NaN where a side is 2 (torch 2.13), so such networks train in float32.
    """
    unsound = device == "cpu" and any(2 in shape for shape in shapes)
    if precision == "bf16-mixed" and unsound:
        raise ConfigError(
            "precision bf16-mixed gives wrong gradients on the CPU where a level of the network is 2 voxels wide",
            next_step="Use auto or 32-true, or change preprocess.grid",
        )
    if precision == "16-mixed" and device != "cuda":
        raise ConfigError("precision 16-mixed needs a CUDA device", found=device, next_step="Use auto")
    if precision != "auto":
        return precision
    return "bf16-mixed" if not unsound and _multiplies_bf16(device) else "32-true"


def _multiplies_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
