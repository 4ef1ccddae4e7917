"""Independent work on several threads, its results in order and the same to the last bit however many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work(item)`` of each item in their order, as many at a time as torch has threads.

    The steps of an audit are too small for torch to share one of them out: while this runs, every step has one thread,
    and so it adds in the same order on any machine. Work that calls this in turn does its own on the thread it has.

    Parameters
    ----------
    work : callable (Item) -> Result
    items : iterable of Item
        Drawn from in the caller's thread, no further ahead than there are threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(1)  # for this thread, and for those that are begun from now on
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
