"""Several cases at once, each in a process of its own: pydicom holds the interpreter's lock."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

from synthmed.errors import StorageError

Task = TypeVar("Task")
Result = TypeVar("Result")

WORTH_PROCESSES = 8.0
"""Seconds of work on one core; starting processes takes two to four."""
_MOST_WORKERS = 8
_GUARD = re.compile(r"""__name__\s*==\s*['"]__main__['"]""")


def worker_count(cases: int, seconds: float) -> int:
    """Return how many processes to use for `cases` pieces of work of about `seconds` in all; 1 means none but this."""
    if cases < 2 or seconds < WORTH_PROCESSES or not _main_is_guarded():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cases, _MOST_WORKERS)


def _main_is_guarded() -> bool:
    """Say whether a new process may import the program that runs here; a script without a guard would run again."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    try:
        return file is None or _GUARD.search(Path(file).read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False


def ordered_map(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Yield the results in the order of the tasks, of which only a few are in memory at a time.

    Parameters
    ----------
    function : callable
        At the top of a module, so that another process finds it.
    tasks : iterable
    workers : int
        With 1, everything happens here.

    Raises
    ------
    StorageError
        If a process is killed.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    # Spawned, since a fork of a process with threads (torch, BLAS) may never return.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)
    running: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(function, task))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise StorageError(
            "A process that works on DICOM files was ended from outside",
            found="most often a lack of memory",
            next_step="Free memory and try again",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
