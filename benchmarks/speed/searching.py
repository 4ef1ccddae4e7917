"""The audit's two searches for neighbours, and the loops that anybody would write, on vectors with exact products.

The vectors are whole numbers, so that sums of their products are exact in float32 in whatever order they are added: two
searches that are right find the very same neighbours.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Found = NDArray[np.int64]

LARGEST = 127
EXACT = 2**24
"""Up to here float32 holds every whole number."""
HYPOTHESES = 2
"""Poses of a query over the atlas, as `privacy.atlas` keeps them."""


@dataclass(frozen=True)
class Cell:
    """One search.

    Attributes
    ----------
    search : {"nearest", "candidates"}
        ``nearest``: the sample nearest to each half of a scan, as linkability and inference look for it
        (`privacy.attacks.halves.nearest`). ``candidates``: the gallery scans that the embedding proposes for
        registration, some a patient (`privacy.similarity.few_a_patient`).
    way : {"audit", "naive"}
    queries, gallery, dimension : int
    asked : int
        How many of the queries are searched: the naive loop's seconds are scaled from a part of them.
    seed : int
    """

    search: str
    way: str
    queries: int
    gallery: int
    dimension: int
    asked: int
    seed: int


def draw_vectors(count: int, dimension: int, seed: int, largest: int = LARGEST) -> Vectors:
    """Return whole numbers in [-largest, largest] as float32, shape (count, dimension).

    Raises
    ------
    ValueError
        If products of two such vectors are not exact.
    """
    if dimension * largest**2 >= EXACT:
        raise ValueError(f"Products in {dimension} dimensions are not exact: at most {EXACT // largest**2}")
    rng = np.random.default_rng(seed)
    return rng.integers(-largest, largest, (count, dimension), dtype=np.int8, endpoint=True).astype(np.float32)


def owners_of(count: int) -> NDArray[np.int64]:
    """Return the patient of each gallery scan: two or three scans in a row are of one patient."""
    return np.arange(count, dtype=np.int64) * 2 // 5


def search(cell: Cell, queries: Vectors, gallery: Vectors) -> Found:
    """Return the neighbours of each query that is asked, -1 where there is none."""
    ways: dict[tuple[str, str], Callable[[Vectors, Vectors], Found]] = {
        ("nearest", "audit"): audit_nearest,
        ("nearest", "naive"): naive_nearest,
        ("candidates", "audit"): audit_candidates,
        ("candidates", "naive"): naive_candidates,
    }
    return ways[cell.search, cell.way](queries, gallery)


def audit_nearest(queries: Vectors, gallery: Vectors) -> Found:
    """Search as linkability and inference do."""
    from privacy.attacks.halves import nearest

    return nearest(queries, gallery, 1)


def naive_nearest(queries: Vectors, gallery: Vectors) -> Found:
    """Search row by row."""
    return np.array([[int(np.argmax(gallery @ query))] for query in queries], dtype=np.int64)


def audit_candidates(queries: Vectors, gallery: Vectors) -> Found:
    """Search as `privacy.similarity.match` does before it registers, in its batches."""
    import torch

    from privacy.similarity import BATCH, BY_CODE, few_a_patient, likeness

    codes, scans, owners = torch.from_numpy(_posed(queries)), torch.from_numpy(gallery), owners_of(len(gallery))
    # In one array from the start: small ones between the batches' large ones would keep memory from being used again.
    found = np.full((len(codes), BY_CODE), -1, dtype=np.int64)
    for start in range(0, len(codes), BATCH):
        marked = few_a_patient(likeness(codes[start : start + BATCH], scans), owners, BY_CODE)
        for row, members in enumerate(marked.numpy(), start):
            found[row] = _padded(np.flatnonzero(members), BY_CODE)
    return found


def naive_candidates(queries: Vectors, gallery: Vectors) -> Found:
    """Search row by row, sorting the whole gallery each time."""
    from privacy.similarity import BY_CODE, NONE, PER_PATIENT

    owners, found = owners_of(len(gallery)), []
    for poses in _posed(queries):
        score = np.max([gallery @ pose for pose in poses], axis=0)
        kept: list[int] = []
        seen: dict[int, int] = {}
        for member in np.argsort(-score, kind="stable"):
            owner = int(owners[member])
            if seen.get(owner, 0) < PER_PATIENT and score[member] > NONE:
                seen[owner] = seen.get(owner, 0) + 1
                kept.append(int(member))
            if len(kept) == BY_CODE:
                break
        found.append(_padded(np.sort(kept), BY_CODE))
    return np.array(found)


def run_cell(cell: Cell, out: Path) -> dict[str, Any]:
    """Search in this process, keep the neighbours in a file and return seconds and peak memory (MiB)."""
    if cell.way == "audit":
        import torch

        torch.set_grad_enabled(False)
    gallery = draw_vectors(cell.gallery, cell.dimension, cell.seed)
    queries = draw_vectors(cell.queries, cell.dimension, cell.seed + 1)[: cell.asked]
    search(cell, queries[:2], gallery[:64])  # imports and first calls are not searching
    before, began, worked = peak_memory(), time.perf_counter(), time.process_time()
    found = search(cell, queries, gallery)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    np.save(out, found)
    return asdict(cell) | {"wall": seconds, "process": worked, "peak": peak_memory(), "before": before}


def peak_memory() -> int:
    """Return the most memory that this process has held, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # What the system counts for a process begins with what its parent held; this does not.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _posed(queries: Vectors) -> Vectors:
    """Return the codes of each query in two poses, shape (n, H, D): itself, and its numbers turned round."""
    return np.ascontiguousarray(np.stack([queries, queries[:, ::-1]][:HYPOTHESES], 1))


def _padded(members: Found, count: int) -> Found:
    out = np.full(count, -1, dtype=np.int64)
    out[: len(members)] = members
    return out
