"""`privacy.shrunk`: scans are read when they are asked for, and again once others took their place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from privacy import shrunk
from privacy.features import Space

SPACE = Space(1.0, (8, 8, 8), (5, 5, 5), 0.01)


def test_few_scans_stay_in_memory_and_all_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrunk, "KEPT", 2)
    read: list[int] = []

    def scan(number: int) -> SimpleNamespace:
        def array() -> np.ndarray:
            read.append(number)
            return np.full((8, 8, 8), number, np.float32)

        return SimpleNamespace(array=array, shape=(8, 8, 8), spacing=(1.0, 1.0, 1.0))

    scans = shrunk.Shrunk([scan(number) for number in range(4)], SPACE)
    assert read == []
    assert [int(array[0, 0, 0]) for array, _ in scans] == [0, 1, 2, 3]
    assert scans[3][0] is scans[3][0]
    chosen = shrunk.Chosen(scans, [3, 0])
    assert [int(array[0, 0, 0]) for array, _ in chosen] == [3, 0]
    assert (len(scans), len(chosen), read) == (4, 2, [0, 1, 2, 3, 0])
    with pytest.raises(IndexError):
        scans[4]
