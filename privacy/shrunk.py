"""Scans that are read or made when they are needed, so that memory need not hold all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from privacy.features import Array, Space, shrink
from privacy.records import Scan

KEPT = 1000
"""Scans that stay in memory: more than are disguised for the embedding and planted, so that few are read again."""

Voxels = tuple[Array, tuple[float, ...]]
"""An array and its spacing, mm."""


class Read(Sequence[Voxels]):
    """Scans each of which is read, or made, whenever it is asked for.

    Parameters
    ----------
    count : int
    read : callable (int) -> (array, spacing)
        Several threads may call it at once.
    """

    def __init__(self, count: int, read: Callable[[int], Voxels]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: Any) -> Any:
        """Return the array and the spacing of scan `k`, counted from 0."""
        if not 0 <= k < self._count:
            raise IndexError(k)
        return self._read(k)


class Shrunk(Read):
    """Real scans as they are disguised, made small; the last `KEPT` that were asked for are not read again.

    Parameters
    ----------
    scans : sequence of Scan
    space : Space
    """

    def __init__(self, scans: Sequence[Scan], space: Space) -> None:
        read = lru_cache(maxsize=KEPT)(lambda k: shrink(scans[k].array(), scans[k].spacing, space))
        super().__init__(len(scans), read)


class Chosen(Read):
    """Some scans of a sequence in an order of their own.

    Parameters
    ----------
    scans : sequence of (array, spacing)
    numbers : sequence of int
    """

    def __init__(self, scans: Sequence[Voxels], numbers: Sequence[int]) -> None:
        super().__init__(len(numbers), lambda k: scans[numbers[k]])
