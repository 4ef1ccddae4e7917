"""Scans that are read or made when they are needed, so that memory need not hold all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from privacy.features import Array, Space, shrink
from privacy.records import Scan
from privacy.threads import Room

KEPT = 1000
"""Scans that stay in memory: more than are disguised for the embedding and planted, so that few are read again."""

COPIES = 8
"""What looking at a whole scan takes, in copies of it."""

WHOLE = Room(4 << 30)

Voxels = tuple[Array, tuple[float, ...]]
"""An array and its spacing, mm."""

Item = TypeVar("Item")


def on_whole(look: Callable[[Array, tuple[float, ...]], Item], scan: Scan) -> Item:
    """Read a scan and return what `look` sees in its voxels and spacing, once there is room for both."""
    with WHOLE.take(COPIES * np.dtype(np.float32).itemsize * math.prod(scan.shape)):
        return look(scan.array(), scan.spacing)


class Read(Sequence[Item]):
    """Items each of which is read, or made, whenever it is asked for.

    Parameters
    ----------
    count : int
    read : callable (int) -> Item
        Several threads may call it at once.
    """

    def __init__(self, count: int, read: Callable[[int], Item]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: Any) -> Any:
        """Return item `k`, counted from 0."""
        if not 0 <= k < self._count:
            raise IndexError(k)
        return self._read(k)


class Shrunk(Read[Voxels]):
    """Real scans as they are disguised, made small; the last `KEPT` that were asked for are not read again.

    Parameters
    ----------
    scans : sequence of Scan
    space : Space
    """

    def __init__(self, scans: Sequence[Scan], space: Space) -> None:
        read = lru_cache(maxsize=KEPT)(lambda k: on_whole(partial(shrink, space=space), scans[k]))
        super().__init__(len(scans), read)


class Chosen(Read[Voxels]):
    """Some scans of a sequence in an order of their own.

    Parameters
    ----------
    scans : sequence of (array, spacing)
    numbers : sequence of int
    """

    def __init__(self, scans: Sequence[Voxels], numbers: Sequence[int]) -> None:
        super().__init__(len(numbers), lambda k: scans[numbers[k]])
