"""Arithmetic: how much of it a piece of work does, and how much a device does at best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

from speed.measuring import Clock, clock_of

LARGE = {"cpu": (2048, 64, 48)}
LARGER = (8192, 128, 96)
"""Side of the matrices, channels of the convolution and side of its volume: by device, and on a GPU."""
TRIES = 3
Shape = Sequence[int]


def clock_on(device: str, kind: str) -> Clock:
    """Return a clock that first waits until the device has done what it was given; see `speed.measuring.clock_of`."""
    clock = clock_of(kind)
    waits = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}
    if device not in waits:
        return clock

    def synchronised() -> float:
        waits[device]()
        return clock()

    return synchronised


def count_flops(work: Callable[[], object]) -> int:
    """Do it and return its multiplications and additions by matrix products, convolutions and attention.

    They are counted without compilation, whose fused kernels the counter does not see.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with torch.compiler.set_stance("force_eager"), counter:
        work()
    return counter.get_total_flops()


def roof(device: str, dtype: torch.dtype, clock: Clock) -> float:
    """Return FLOP/s of the faster of a large matrix product and a large convolution, the best of `TRIES`.

    On CUDA both may round their float32 inputs to TF32, as PyTorch lets convolutions do unless it is told otherwise.
    """
    matrix, channels, side = LARGE.get(device, LARGER)
    before = torch.get_float32_matmul_precision()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        with torch.inference_mode():
            a = torch.rand(matrix, matrix, device=device, dtype=dtype)
            product = 2 * matrix**3 / _least(lambda: a @ a, clock)
            x = torch.rand(1, channels, side, side, side, device=device, dtype=dtype)
            weight = torch.rand(channels, channels, 3, 3, 3, device=device, dtype=dtype)
            seconds = _least(lambda: functional.conv3d(x, weight, padding=1), clock)
            return max(product, 2 * 27 * channels**2 * side**3 / seconds)
    finally:
        torch.set_float32_matmul_precision(before)


def _least(work: Callable[[], object], clock: Clock) -> float:
    work()
    seconds = []
    for _ in range(TRIES):
        began = clock()
        work()
        seconds.append(clock() - began)
    return max(min(seconds), 1e-9)


def _formulas() -> dict[object, Callable[..., int]]:
    """Return what PyTorch's counter lacks (attention on the CPU and on MPS) or gets wrong (gradients of groups)."""
    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradients,
        aten._scaled_dot_product_attention_math_for_mps: _attention,
        aten.convolution_backward: _convolution_gradients,
    }


def _attention(query: Shape, key: Shape, value: Shape, *rest: object, **shapes: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_gradients(grad: Shape, query: Shape, key: Shape, value: Shape, *rest: object, **shapes: object) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def _convolution_gradients(grad: Shape, x: Shape, weight: Shape, *rest: Any, **shapes: object) -> int:
    """Return the FLOPs of a convolution's gradients: of input and of weight, each as many as the convolution itself."""
    _, _, _, _, transposed, _, _, wanted = rest[:8]
    once = conv_flop_count(list(x), list(weight), list(grad), transposed=transposed)
    return once * (wanted[0] + wanted[1])
