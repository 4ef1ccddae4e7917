"""Work on several threads: in order, the same to the last bit, and nothing left behind when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from privacy_scans import SPACE, SPACING, features, records, scans
from torch import Tensor

from privacy.embedding import Embedding, learn
from privacy.errors import UsageError
from privacy.gallery import Gallery, build_gallery
from privacy.rounds import Rounds
from privacy.similarity import Matches
from privacy.stored import Rows
from privacy.suite import Found, audit, search
from privacy.threads import Room, in_order

PEOPLE = 12


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    with threads(count):
        assert list(in_order(lambda n: n * n, range(20))) == [n * n for n in range(20)]
        assert list(in_order(str, [])) == []


def test_as_many_are_under_way_as_torch_has_threads() -> None:
    together = threading.Barrier(3, timeout=60)
    with threads(3):
        assert len(list(in_order(lambda _: together.wait(), range(6)))) == 6


def test_items_are_drawn_no_further_ahead_than_there_are_threads() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for n in range(20):
            drawn.append(n)
            yield n

    with threads(2):
        results = in_order(lambda n: n, items())
        for n in range(10):
            assert next(results) == n
            assert len(drawn) <= n + 3
        results.close()


def test_work_within_work_stays_on_its_own_thread() -> None:
    def outer(n: int) -> set[tuple[str, int]]:
        here = (threading.current_thread().name, torch.get_num_threads())
        return {here} | set(in_order(lambda _: (threading.current_thread().name, torch.get_num_threads()), range(4)))

    with threads(2):
        for places in in_order(outer, range(6)):
            assert len(places) == 1
            assert places.pop()[1] == 1


def test_products_within_work_have_one_thread_too() -> None:
    """Products ask OpenMP, which every new thread asks in turn, and not torch, before torch itself has told it."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    if not (used := {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line}):
        pytest.skip("torch's OpenMP is not to be found")
    # A process of its own, for the tests' workers have one thread anyway.
    code = """
import ctypes, sys, torch
from privacy.threads import in_order
openmp = ctypes.CDLL(sys.argv[1])
print(openmp.omp_get_max_threads())
print(*set(in_order(lambda n: openmp.omp_get_max_threads(), range(6))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, used.pop()],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    before, within = done.stdout.splitlines()
    assert within == "1"
    if before == "1":
        pytest.skip("one core: there is nothing to share")


def test_a_failure_is_that_of_the_first_item_and_the_threads_are_torchs_again() -> None:
    def work(n: int) -> int:
        if n >= 4:
            raise ValueError(f"item {n}")
        return n

    with threads(3):
        results = in_order(work, range(100))
        with pytest.raises(ValueError, match="item 4"):
            list(results)
        assert torch.get_num_threads() == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_a_failure_where_results_are_used_gives_torch_its_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(rows: Rows, values: Tensor) -> None:
        raise UsageError("Cannot keep what the audit compares in the temporary folder")

    monkeypatch.setattr("privacy.stored.Rows.append", full)
    people = records(scans(range(8)))
    with threads(3):
        with pytest.raises(UsageError, match="temporary folder") as held:
            audit([one.values for one in people[:4]], [one.values for one in people[4:]], [people[0].values])
        assert torch.get_num_threads() == 3
    assert held.value.__traceback__ is not None  # a notebook keeps it, and all that it refers to


def test_threads_share_a_room_and_what_is_larger_has_it_alone() -> None:
    room, lock, held, most = Room(10), threading.Lock(), [0], [0]

    def work(size: int) -> None:
        with room.take(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
                assert held[0] <= max(10, size)
            time.sleep(0.002)
            with lock:
                held[0] -= size

    with threads(4):
        list(in_order(work, [4, 5, 2, 30, 4, 4, 10, 1] * 8))
    assert most[0] == 30


def test_a_failure_leaves_its_part_of_the_room() -> None:
    room = Room(10)
    with pytest.raises(ValueError, match="no"), room.take(10):
        raise ValueError("no")
    with room.take(10):
        pass


def _searched(count: int) -> tuple[Embedding, list[Matches], Found]:
    people = scans(range(PEOPLE))
    seen = features(people)
    samples = [features([volume]) for volume in (*people[:3], *scans(range(60, 64)))]
    with threads(count), pytest.MonkeyPatch.context() as patch:
        for name in ("rounds", "similarity", "suite", "atlas"):
            patch.setattr(f"privacy.{name}.BATCH", 3)
        patch.setattr("privacy.embedding.CHUNK", 5)
        patch.setattr("privacy.embedding.LESSONS", 24)
        embedding = learn(seen, [(volume, SPACING) for volume in people], SPACE, 0)
        real: Gallery = build_gallery(seen, np.arange(PEOPLE), SPACE, embedding)
        is_train = np.arange(PEOPLE) < 8
        return embedding, Rounds().match(real, is_train), search(samples, real, (is_train, ~is_train))


def test_learning_and_searching_give_the_same_to_the_last_bit_on_any_number_of_threads() -> None:
    (embedding, rounds, found), (other, again, other_found) = _searched(1), _searched(3)
    for name in ("mean", "nuisance", "gain"):
        assert torch.equal(getattr(embedding, name), getattr(other, name))
    for one, two in zip([*rounds, *found.sides], [*again, *other_found.sides], strict=True):
        for name in ("index", "views", "mirror", "pose"):
            assert np.array_equal(getattr(one, name), getattr(two, name))
    for (codes, pictures), (other_codes, other_pictures) in zip(found.vectors, other_found.vectors, strict=True):
        assert np.array_equal(codes, other_codes)
        assert np.array_equal(pictures, other_pictures)
