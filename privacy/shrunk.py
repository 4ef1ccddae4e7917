"""Real scans as they are disguised: small, and read again when they are needed, so that memory need not hold all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from privacy.features import Array, Space, shrink
from privacy.records import Scan

KEPT = 1000
"""Scans that stay in memory: more than are disguised for the embedding and planted, so that few are read again."""

Voxels = tuple[Array, tuple[float, ...]]
"""An array and its spacing, mm."""


class Shrunk(Sequence[Voxels]):
    """Scans made small; the last `KEPT` that were asked for are not read again.

    Parameters
    ----------
    scans : sequence of Scan
    space : Space
    """

    def __init__(self, scans: Sequence[Scan], space: Space) -> None:
        self._count = len(scans)
        self._read = lru_cache(maxsize=KEPT)(lambda k: shrink(scans[k].array(), scans[k].spacing, space))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: Any) -> Any:
        """Return the array and the spacing of scan `k`, counted from 0."""
        if not 0 <= k < self._count:
            raise IndexError(k)
        return self._read(k)


class Chosen(Sequence[Voxels]):
    """Some scans of a sequence in an order of their own, none of them read before it is asked for.

    Parameters
    ----------
    scans : sequence of (array, spacing)
    numbers : sequence of int
    """

    def __init__(self, scans: Sequence[Voxels], numbers: Sequence[int]) -> None:
        self._scans, self._numbers = scans, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, k: Any) -> Any:
        """Return the array and the spacing of the scan at place `k`."""
        return self._scans[self._numbers[k]]
