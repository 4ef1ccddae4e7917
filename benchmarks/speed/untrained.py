"""Networks that have learned nothing, for what does not depend on it: memory, time and rounding."""

from __future__ import annotations

import torch
from torch import nn

SPREAD = 0.02


def without_zeros(model: nn.Module) -> nn.Module:
    """Move all weights of an untrained network a little, so that no layer begins at zero; return it."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.add_(SPREAD * torch.randn(parameter.shape))
    return model
