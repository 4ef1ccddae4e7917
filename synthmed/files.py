"""Files that are whole or absent: atomic writes, digests, JSON and the manifest that ends a stage."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthmed.errors import ConfigError, InputError, StorageError

MANIFEST, STARTED = "manifest.json", "started.json"
"""What a stage of a run keeps in its directory: the record of what it made, and until then that it has begun."""

GENERATION = "generation.json"
"""What lies beside drawn volumes and says how they were drawn."""

_RECIPE, _DRAWN_BY = {"stage", "seed", "settings", "inputs"}, {"autoencoder", "denoiser", "sampler", "seed"}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden write into a `StorageError` naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise StorageError(
            f"Cannot write {path}",
            found=error.strerror or str(error),
            next_step="Free space or choose another folder; a second run resumes where this one stopped",
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it on success and vanishes on any failure.

    The temporary name ends like `path`, so writers that choose a format by the ending work.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", suffix=f"-{path.name}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(out: Path) -> Iterator[Path]:
    """Yield a new hidden sibling of `out` that takes its name on success and vanishes on any failure.

    What a killed writer of the same `out` left is removed first.

    Raises
    ------
    ConfigError
        If `out` exists.
    StorageError
        If the disk is full or the folder is not writable.
    """
    if out.exists() or out.is_symlink():
        raise _exists(out)
    prefix = f".{out.name}.partial-"
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in out.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(stale)
        part = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        try:
            yield part
            part.chmod(0o755)
            _take_name(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _take_name(part: Path, out: Path) -> None:
    try:
        part.rename(out)
    except OSError as error:
        if out.exists():
            raise _exists(out) from error
        raise


def _exists(out: Path) -> ConfigError:
    return ConfigError(f"{out} exists already", next_step="Remove it or name another directory")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, keys in their given order, never NaN."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raise `InputError` where the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Cannot read {path}", found=" ".join(str(error).split()), expected="a JSON file") from error


def is_output(folder: Path) -> bool:
    """Say whether a stage of a run, finished or not, or `synthmed generate` writes to this directory."""
    recipes = [_mapping(folder / record).get("recipe") for record in (MANIFEST, STARTED)]
    # All that such a record says: other tools write a manifest.json too.
    if any(isinstance(recipe, dict) and set(recipe) >= _RECIPE for recipe in recipes):
        return True
    return set(_mapping(folder / GENERATION)) >= _DRAWN_BY


def _mapping(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none, or where it cannot be read."""
    try:
        content = read_json(file) if file.is_file() else None
    except (OSError, InputError):
        return {}
    return content if isinstance(content, dict) else {}


def files_below(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files below a folder, without hidden ones and without what synthmed has written there.

    A cohort whose folder also holds a run would otherwise count its own prepared and synthetic volumes as scans.

    Parameters
    ----------
    folder : Path
        Read even if it is such a directory itself.
    unreadable : callable (OSError), optional
        Told of each folder that cannot be listed.
    """
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in _shown(folders) if not is_output(Path(place, name))]
        yield from (Path(place, name) for name in _shown(names))


def _shown(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
