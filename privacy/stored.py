"""Features of many scans in temporary files: memory holds only those that are asked for."""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privacy.errors import UsageError
from privacy.features import Features, Numbers


class Rows:
    """Arrays of one shape and type, one after another in a temporary file.

    The file lies where ``TMPDIR`` says, without a name where the system can do without one, and goes with its last user
    or with the process, however that ends.

    Raises
    ------
    UsageError
        If there is no folder for it.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with the last of its users
        except OSError as error:
            raise _cannot_keep(error) from error
        self._shape: tuple[int, ...] = (0,)
        self._type = np.dtype(np.float32)
        self._numbers = np.arange(0)

    def __len__(self) -> int:
        return len(self._numbers)

    def append(self, rows: Tensor) -> None:
        """Write rows, shape (n, ...), after those that are there.

        Raises
        ------
        UsageError
            If they cannot be written.
        """
        array = np.ascontiguousarray(rows.numpy())
        self._shape, self._type = (len(self) + len(array), *array.shape[1:]), array.dtype
        self._numbers = np.arange(self._shape[0])
        try:
            self._file.write(array.data)
            self._file.flush()
        except OSError as error:
            raise _cannot_keep(error) from error

    def chosen(self, numbers: Sequence[int]) -> Rows:
        """Return some rows in an order of their own, none of them read."""
        rows = copy.copy(self)
        rows._numbers = self._numbers[np.asarray(numbers)]
        return rows

    def __getitem__(self, rows: Numbers) -> Tensor:
        """Read rows, shape (n, ...)."""
        numbers = self._numbers[rows if isinstance(rows, slice) else np.asarray(rows)]
        # Mapped for this one reading: pages that stay mapped count as the process's memory.
        return torch.from_numpy(np.asarray(np.memmap(self._file, self._type, "r", shape=self._shape)[numbers]))


@dataclass(frozen=True)
class StoredFeatures:
    """Features of which memory holds the coarse ones alone; see `features.Features`."""

    intensity: Rows
    fine: Rows
    coarse: Tensor
    centre: Tensor

    def __len__(self) -> int:
        return len(self.fine)

    def __getitem__(self, rows: Numbers) -> Features:
        """Read the features of some scans."""
        return Features(self.intensity[rows], self.fine[rows], self.coarse[rows], self.centre[rows])

    def chosen(self, numbers: list[int]) -> StoredFeatures:
        """Return those of some scans in an order of their own; only the coarse ones are copied."""
        fine, intensity = self.fine.chosen(numbers), self.intensity.chosen(numbers)
        return StoredFeatures(intensity, fine, self.coarse[numbers], self.centre[numbers])


Scans = Features | StoredFeatures
"""Features of several scans, wherever they lie."""


def store(scans: Iterable[Features]) -> StoredFeatures:
    """Keep the features of scans as they come."""
    # The small ones too, read back at once: kept one by one they would pin the memory that is freed around them.
    intensity, fine, coarse, centre = Rows(), Rows(), Rows(), Rows()
    for scan in scans:
        intensity.append(scan.intensity)
        fine.append(scan.fine)
        coarse.append(scan.coarse)
        centre.append(scan.centre)
    return StoredFeatures(intensity, fine, coarse[:], centre[:])


def _cannot_keep(error: OSError) -> UsageError:
    return UsageError(
        "Cannot keep what the audit compares in the temporary folder",
        found=error.strerror or str(error),
        next_step="Make room there, or let TMPDIR name another folder",
    )


def even_spans(count: int, most: int) -> list[slice]:
    """Cut so many rows into slices of about one size, `most` at most.

    Products of one row or column are added up in another order than those of several: where `most` is at least 3, none
    of several is left by itself.
    """
    parts = -(-count // most)
    bounds = [count * part // parts for part in range(parts + 1)] if parts else []
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
