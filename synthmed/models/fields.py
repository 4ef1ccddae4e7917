"""Feature maps too large to be held: read box by box, each box with the values that the whole map has there.

A convolution's output in a box depends on the cells around it as far as its kernel reaches, so a box is computed from
a wider one, clipped at the map's own edge, and cropped: there is no seam to blend. A group norm depends on the whole
map: its mean and variance are gathered first, box by box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]
TILE: Shape = (128, 24, 8)
"""Cells along the sides of a box, at whatever resolution the map has: smaller ones hold less, see more cells twice.

Long and flat, because on a CPU PyTorch gives a convolution to oneDNN only where its channels times the first two sides
come to more than 20,480. A cube of as many cells stays below with 16 or 24 channels; its values are then copied 27-fold
for a matrix product, which takes ten times as long and more memory than all else.
"""
Box = tuple[slice, slice, slice]
Local = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Field:
    """A feature map that is computed where it is read.

    Attributes
    ----------
    shape : tuple of int
        Cells along the three axes.
    read : callable
        From a box of slices with both ends to a Tensor (B, C, i, j, k).
    values : Tensor, shape (B, C, *shape), or None
        The map where it is held.
    spare : Tensor, shape (B, C, *shape), or None
        Where to hold the map: values that only this field reads, for each cell those of the cell and its neighbours.
    """

    shape: Shape
    read: Callable[[Box], Tensor]
    values: Tensor | None = None
    spare: Tensor | None = None


def tiles(shape: Shape, edge: Shape = TILE) -> Iterator[Box]:
    """Yield boxes that cover a map once, at most `edge` cells a side and as equal as they can be."""
    return chain.from_iterable(_layers(shape, edge))


def _layers(shape: Shape, edge: Shape) -> Iterator[list[Box]]:
    """Yield the boxes that lie beside each other across the last axis."""
    sides = []
    for length, most in zip(shape, edge, strict=True):
        count = math.ceil(length / most)
        bounds = [length * index // count for index in range(count + 1)]
        sides.append([slice(low, high) for low, high in pairwise(bounds)])
    i, j, k = sides
    for last in k:
        yield [(*others, last) for others in product(i, j)]


def held(values: Tensor) -> Field:
    """Return a tensor (B, C, i, j, k) as a field."""
    return Field(_shape(values.shape[2:]), lambda box: values[(..., *box)], values)


def stored(source: Field, edge: Shape = TILE) -> Field:
    """Compute a field once, box by box, and hold it; in the place of what it is made from, where that is spare.

    A layer of boxes is written when the next one has been read, which is the last that looks at what lay there.
    """
    layers = _layers(source.shape, edge)
    waiting = _parts(source, next(layers))
    first = waiting[0][1]
    values = first.new_empty((*first.shape[:2], *source.shape)) if source.spare is None else source.spare
    for layer in layers:
        parts = _parts(source, layer)
        _write(waiting, values)
        waiting = parts
    _write(waiting, values)
    return held(values)


def _parts(source: Field, boxes: Iterable[Box]) -> list[tuple[Box, Tensor]]:
    return [(box, source.read(box)) for box in boxes]


def _write(parts: Iterable[tuple[Box, Tensor]], values: Tensor) -> None:
    for box, part in parts:
        values[(..., *box)] = part


def near(source: Field, function: Local, reach: int) -> Field:
    """Return a function whose value in a cell depends on cells at most `reach` away, padded with zeros at the edge."""

    def read(box: Box) -> Tensor:
        wide = _box(
            slice(max(0, side.start - reach), min(length, side.stop + reach))
            for side, length in zip(box, source.shape, strict=True)
        )
        return _cropped(function(source.read(wide)), box, wide)

    return Field(source.shape, read)


def finer(source: Field, function: Local, factor: int) -> Field:
    """Return a function that makes of each cell `factor` a side, without a look at its neighbours."""

    def read(box: Box) -> Tensor:
        coarse = _box(slice(side.start // factor, -(-side.stop // factor)) for side in box)
        whole = _box(slice(side.start * factor, side.stop * factor) for side in coarse)
        return _cropped(function(source.read(coarse)), box, whole)

    return Field(_shape(length * factor for length in source.shape), read)


def coarser(source: Field, function: Local, factor: int, beyond: int = 0) -> Field:
    """Return a function that makes one cell of `factor` a side, with a look at `beyond` more at the far end."""

    def read(box: Box) -> Tensor:
        fine = _box(
            slice(side.start * factor, min(length, side.stop * factor + beyond))
            for side, length in zip(box, source.shape, strict=True)
        )
        return function(source.read(fine))

    return Field(_shape(length // factor for length in source.shape), read)


def added(one: Field, other: Field, spare: Tensor | None = None) -> Field:
    """Return the sum of two fields of one shape; see `Field` for `spare`."""
    return Field(one.shape, lambda box: one.read(box) + other.read(box), spare=spare)


def normalised(source: Field, norm: nn.GroupNorm, *, silu: bool = False) -> Field:
    """Return a group norm with the statistics of the whole map, and the activation that may follow it."""
    scale, shift = _affine(source, norm)

    def read(box: Box) -> Tensor:
        values = (source.read(box) * scale).add_(shift)
        return functional.silu(values, inplace=True) if silu else values

    return Field(source.shape, read)


def _affine(source: Field, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return what multiplies and shifts each channel, shape (B, C, 1, 1, 1).

    The boxes' moments are joined as in Chan, Golub, LeVeque 1983 (doi 10.1080/00031305.1983.10483115, equation 2.1).
    """
    counts, variances, means = [], [], []
    for box in tiles(source.shape):
        groups = source.read(box).float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        variance, mean = torch.var_mean(groups, dim=2, correction=0)
        counts.append(groups.shape[2])
        variances.append(variance.double())
        means.append(mean.double())
    share = torch.tensor(counts, dtype=torch.float64, device=means[0].device).view(-1, 1, 1) / sum(counts)
    mean = (share * torch.stack(means)).sum(0)
    variance = (share * (torch.stack(variances) + (torch.stack(means) - mean).square())).sum(0)
    width = norm.num_channels // norm.num_groups
    scale = (variance + norm.eps).rsqrt().repeat_interleave(width, dim=1) * norm.weight.double()
    shift = norm.bias.double() - mean.repeat_interleave(width, dim=1) * scale
    return scale.float()[..., None, None, None], shift.float()[..., None, None, None]


def _cropped(values: Tensor, box: Box, wide: Box) -> Tensor:
    """Return the part of `values`, which fill `wide`, that lies in `box`."""
    return values[(..., *_box(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, wide, strict=True)))]


def voxels_of(box: Box) -> Box:
    """Return a box of Haar sub-bands in voxels, two a cell."""
    return _box(slice(2 * side.start, 2 * side.stop) for side in box)


def _box(sides: Iterable[slice]) -> Box:
    i, j, k = sides
    return i, j, k


def _shape(lengths: Iterable[int]) -> Shape:
    i, j, k = lengths
    return i, j, k
