"""What was sent, noted beside the release, so that a second run sends only the rest.

One JSON line a file, appended when the server has confirmed it. A line that was torn by a crash is ignored: its file
is sent again, which no server minds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType

from synthmed.errors import ConfigError, StorageError
from synthmed.files import storage_errors
from synthmed.send.instances import Instance
from synthmed.send.targets import Target


def journal_path(release: Path, target: Target) -> Path:
    """Return ``<release>.sent-<target>.jsonl`` beside the release, where `target` is twelve digits of a hash."""
    whole = release.resolve()
    return whole.parent / f"{whole.name}.sent-{hashlib.sha256(str(target).encode()).hexdigest()[:12]}.jsonl"


class Journal:
    """The files that one server has confirmed; a context manager.

    Parameters
    ----------
    path : Path
        Made when the first file is confirmed; never inside a release.

    Raises
    ------
    StorageError
        On entry where it could not be written, so that nothing is sent whose confirmation would be lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sent: dict[str, str] = {}
        self._stream: TextIOWrapper | None = None
        self._torn = False

    def __enter__(self) -> Journal:
        with _journal_errors(self.path):
            text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
            _check_writable(self.path)
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            self._note(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            with _journal_errors(self.path):
                self._stream.close()

    def __contains__(self, instance: Instance) -> bool:
        return self._sent.get(instance.uid) == instance.sha256

    def add(self, instances: Iterable[Instance]) -> None:
        """Note that the server has confirmed these."""
        self._append({"uid": i.uid, "sha256": i.sha256, "file": i.file} for i in instances)

    def forget(self, instances: Iterable[Instance]) -> None:
        """Note that the server does not hold these, whatever it confirmed: the next run sends them again."""
        self._append({"uid": i.uid, "sha256": "", "file": i.file} for i in instances)

    def _append(self, records: Iterable[dict[str, str]]) -> None:
        with _journal_errors(self.path):
            stream = self._open()
            for line in (json.dumps(record) for record in records):
                stream.write(line + "\n")
                self._note(line)
            stream.flush()

    def _open(self) -> TextIOWrapper:
        if self._stream is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a", encoding="utf-8")
            if self._torn:
                self._stream.write("\n")
        return self._stream

    def _note(self, line: str) -> None:
        try:
            record = json.loads(line)
            self._sent[str(record["uid"])] = str(record["sha256"])
        except (ValueError, KeyError, TypeError):
            return


@contextmanager
def _journal_errors(path: Path) -> Iterator[None]:
    """Do as `storage_errors`, with the advice that helps where the release lies on read-only media."""
    try:
        with storage_errors(path):
            yield
    except StorageError as error:
        advice = "Free space, or name another file with --journal; a second run resumes where this one stopped"
        raise StorageError(error.what, found=error.found, next_step=advice) from error


def _check_writable(path: Path) -> None:
    """Raise `OSError` where `path` cannot be written, or made where it is absent."""
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    if os.access(place, os.W_OK):
        return
    code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    raise OSError(code, os.strerror(code))


def check_outside(journal: Path, release: Path) -> None:
    """Raise `ConfigError` where the journal would lie inside the release, which must not change."""
    inside = Path(os.path.realpath(release))
    if inside == Path(os.path.realpath(journal)) or inside in Path(os.path.realpath(journal)).parents:
        raise ConfigError(f"The journal {journal} would lie inside the release", expected="a file outside it")
