"""Weights in fewer bytes: half precision, or eight bits a weight with one scale a row.

What is stored is a set of weights of its own, not an approximation that depends on who reads it: `restore` gives the
same float32 values on every machine. So digests, samples and audits can be of the stored weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from synthmed.errors import InputError

SCALE = "@scale"
"""Ending of the name of a tensor's scales."""
_LEVELS = 127
_LEAST = 1e-30
_SMALL = 4096
"""Tensors of fewer values, and all vectors, stay in half precision: they weigh little and matter much."""


def halve(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return floating-point weights in half precision.

    Raises
    ------
    InputError
        If a weight is beyond what half precision holds.
    """
    return {name: _half(name, value) if value.is_floating_point() else value for name, value in weights.items()}


def quantise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in eight bits where they are large matrices or kernels, else as `halve`.

    Parameters
    ----------
    weights : mapping of str to Tensor

    Returns
    -------
    dict of str to Tensor
        ``name`` as int8 and ``name@scale`` as float32, shape (rows, 1, ...): a weight is their product. The scale puts
        a row's largest magnitude at 127.

    References
    ----------
    Jacob et al. 2018, section 2.1 with a zero-point of 0, doi 10.1109/CVPR.2018.00286.
    """
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not value.is_floating_point() or value.ndim < 2 or value.numel() < _SMALL:
            stored |= halve({name: value})
            continue
        largest = value.detach().float().flatten(1).abs().amax(dim=1).clamp_min(_LEAST)
        scale = (largest / _LEVELS).view(-1, *[1] * (value.ndim - 1))
        stored[name] = (value.detach().float() / scale).round().to(torch.int8)
        stored[name + SCALE] = scale
    return stored


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 weights from what `halve` or `quantise` made; other tensors as they are."""
    plain = {name: value for name, value in tensors.items() if not name.endswith(SCALE)}
    return {
        name: value.float() * tensors[name + SCALE]
        if name + SCALE in tensors
        else value.float()
        if value.dtype == torch.float16
        else value
        for name, value in plain.items()
    }


def _half(name: str, value: Tensor) -> Tensor:
    half = value.detach().half()
    if not torch.isfinite(half).all():
        raise InputError(
            f"The weights {name} cannot be stored in half precision",
            found=f"magnitudes up to {float(value.abs().max()):.3g}",
            expected=f"at most {torch.finfo(torch.float16).max:.0f}",
        )
    return half
