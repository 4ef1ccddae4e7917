"""Independent work on several threads, its results in order and the same to the last bit however many there are."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this thread's steps have it alone: products are added up in an order that depends on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield ``work(item)`` of each item in their order, as many at a time as torch has threads.

    The steps of an audit are too small for torch to share one of them out: while this runs, every step has one thread,
    and so it adds in the same order however many work beside it. Work that calls this in turn does its own on the
    thread it has.

    Parameters
    ----------
    work : callable (Item) -> Result
    items : iterable of Item
        Drawn from in the caller's thread, no further ahead than there are threads.

    Notes
    -----
    Whoever hands the results on to others closes them, so that a failure there ends the threads too.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with one_thread():
        # Each is told: products ask OpenMP, which answers every thread for itself.
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class Room:
    """Memory that threads share: each waits until what it needs is free, or until it is alone.

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold so many bytes of it; more than all of it is held alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._size)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()
