"""Scans that occur twice: the same bytes, the same voxels, or nearly so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthmed.cohort.case import Case, Cohort
from synthmed.cohort.matching import summary
from synthmed.errors import InputError
from synthmed.io import read_volume
from synthmed.prepare.staging import Entry, Staging
from synthmed.words import counted

NEAR = 0.995
"""Correlation of thumbnails from which two scans count as near-duplicates.

The two likest people reach 0.988 among 140 whole heads (IXI, 2 mm), 0.961 among 216 hippocampus crops.
"""
THUMBNAIL = 24
"""Longest side of a thumbnail, voxels."""
_BLOCK = 512
"""Thumbnails that are compared with as many others at a time."""
_SLACK = 1e-3
"""More than float32 loses in a correlation of `THUMBNAIL` cubed voxels; what is this near is computed in float64."""


def drop_exact(cohort: Cohort, entries: Mapping[str, Entry]) -> tuple[Cohort, list[tuple[str, str]]]:
    """Leave out scans that repeat another of the same patient, in bytes or in prepared voxels.

    Returns
    -------
    kept : Cohort
    dropped : list of (case, case that it repeats)

    Raises
    ------
    InputError
        If two patients have the same scan: whose it is cannot be told.
    """
    first: dict[str, Case] = {}
    kept, dropped, clashes = [], [], []
    for case in cohort.cases:
        entry = entries[case.case_id]
        keys = (entry.source_sha256, entry.voxels_sha256)
        original = next((first[key] for key in keys if key in first), None)
        if original is None:
            kept.append(case)
            first.update(dict.fromkeys(keys, case))
        elif original.subject_id == case.subject_id:
            dropped.append((case.case_id, original.case_id))
        else:
            clashes.append(f"{original.case_id} ({original.subject_id}) = {case.case_id} ({case.subject_id})")
    if clashes:
        raise InputError(
            f"{counted(len(clashes), 'scan occurs', 'scans occur')} under two patients",
            found=summary(clashes),
            expected="one patient a scan",
            next_step="Give both the same patient id, or remove one",
        )
    return replace(cohort, cases=tuple(kept)), dropped


def near_duplicates(cohort: Cohort, staging: Staging) -> list[tuple[str, str, float]]:
    """Return pairs of cases whose thumbnails correlate at `NEAR` or above, highest first.

    A cheap look that catches re-exports, other compressions and small edits; the audit's own search is finer. All pairs
    are looked at, two blocks of thumbnails in memory at a time; the others wait in a file without a name.
    """
    names = [case.case_id for case in cohort.cases]
    pairs = []
    with tempfile.TemporaryFile(dir=staging.root) as stream:
        for name in names:
            thumbnail = _thumbnail(staging, name)
            stream.write(thumbnail.tobytes())
        for start, rows in _blocks(stream, 0, thumbnail.size):
            for other, columns in _blocks(stream, start, thumbnail.size):
                for row, column in np.argwhere(rows @ columns.T >= NEAR - _SLACK):
                    first, second = start + row, other + column
                    likeness = float(np.dot(rows[row].astype(np.float64), columns[column].astype(np.float64)))
                    if first < second and likeness >= NEAR:
                        pairs.append((names[first], names[second], round(likeness, 5)))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _blocks(stream: IO[bytes], start: int, width: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield rows of `width` numbers from row `start` on, `_BLOCK` at a time, each block with its first row's number."""
    size = width * np.dtype(np.float32).itemsize
    while True:
        stream.seek(start * size)
        rows = np.frombuffer(stream.read(_BLOCK * size), np.float32).reshape(-1, width)
        if not len(rows):
            return
        yield start, rows
        start += len(rows)


def _thumbnail(staging: Staging, name: str) -> NDArray[np.float32]:
    """Return a small copy of a prepared image with mean 0 and norm 1."""
    file = staging.find(name, "images")
    if file is None:
        raise InputError(f"The prepared image of {name} vanished", next_step="Run it again")
    image = read_volume(file).array[0]
    factor = min(1.0, THUMBNAIL / max(image.shape))
    small = ndimage.zoom(ndimage.gaussian_filter(image, 0.5 / factor), factor, order=1).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-12), dtype=np.float32)
