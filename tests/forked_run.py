"""Work in processes of their own, forked from one that has loaded the libraries, which takes a fresh one seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "synthmed.cli",
        "synthmed.prepare.preprocess",
        "synthmed.training.fit",
        "synthmed.sampling.generate",
        "synthmed.evaluation",
        "synthmed.run_report",
        "synthmed.export",
        "privacy.suite",
    ]
)


class Forked:
    """A function of a module at work in a process of its own, whose streams go to files."""

    def __init__(self, work: Callable, *arguments: Any, environment: Mapping[str, str] = os.environ) -> None:
        self._what, self._folder = (work.__name__, *arguments), tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._streams:
            file.touch()
        self._process = FORKS.Process(target=_do, args=(self._streams, dict(environment), work, *arguments))
        self._process.start()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Return once it has said `text` on stderr, or has ended."""
        end = time.monotonic() + seconds
        while text not in self._streams[1].read_text(encoding="utf-8") and self._process.is_alive():
            assert time.monotonic() < end, f"{self._what} did not say {text}"
            time.sleep(0.005)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self._process.pid, number)  # type: ignore[arg-type]

    def end(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for its end and return what it printed."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            raise subprocess.TimeoutExpired(self._what, seconds)
        out, err = (file.read_text(encoding="utf-8") for file in self._streams)
        self._folder.cleanup()
        return subprocess.CompletedProcess(self._what, self._process.exitcode or 0, out, err)


def _do(streams: list[Path], environment: dict[str, str], work: Callable, *arguments: Any) -> None:
    """Give the process what a fresh one has, streams and an environment of its own, and begin."""
    for number, file in enumerate(streams, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    work(*arguments)
