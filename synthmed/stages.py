"""The machinery of a run: a stage owns one directory and ends it with a ``manifest.json``.

The manifest says what went in, what came out and with which settings. A finished stage whose inputs have not changed
is skipped; one that was killed resumes; one whose inputs have changed runs again, its former directory moved to
``superseded/``, where nothing is ever replaced.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, count
from pathlib import Path
from typing import Any

from synthmed import __version__, processes
from synthmed.config import UNRECORDED, Config
from synthmed.files import MANIFEST, STARTED, read_json, sha256_file, sha256_json, write_json

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A configuration and the directory that its stages write to."""

    config: Config
    root: Path

    def stage(self, name: str) -> Path:
        """Return the directory of a stage, whether it has run or not."""
        return self.root / name


@dataclass(frozen=True)
class Stage:
    """One step of the run.

    Attributes
    ----------
    name : str
        Also its directory.
    sections : tuple of str
        Configuration sections that decide what it writes.
    inputs : tuple of str
        Stages whose output it reads.
    work : callable (Run, Path, bool) -> None
        Does it, into the given directory; the flag turns progress bars on.
    extends : tuple of str
        Dotted keys that may grow without making what was already written wrong.
    source : callable (Run) -> str
        Names whatever else it reads from outside the run, by digest or listing; empty while its work has yet to make
        that.
    distributed : bool
        Whether all processes take part in the work; else the first does it.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    work: Callable[[Run, Path, bool], None]
    extends: tuple[str, ...] = ()
    source: Callable[[Run], str] = lambda run: ""
    distributed: bool = False


def is_done(run: Run, stage: Stage) -> bool:
    """Say whether a stage is finished, its files unchanged, and still matches its inputs and settings."""
    folder = run.stage(stage.name)
    manifest = folder / MANIFEST
    if not manifest.is_file() or any(not (run.stage(i) / MANIFEST).is_file() for i in stage.inputs):
        return False
    record = read_json(manifest)
    return _kept(folder, record) and record["key"] == sha256_json(_recipe(run, stage))


def settled_source(run: Run, stage: Stage) -> str | None:
    """Return what a finished stage read from outside the run, by its manifest.

    None where it is not finished, its files have changed, or the run's settings are no longer those that made them:
    then the stage has to look at its source again.
    """
    folder = run.stage(stage.name)
    if not (folder / MANIFEST).is_file():
        return None
    record = read_json(folder / MANIFEST)
    source = str(record["recipe"]["source"])
    same = record["recipe"] == _settings(run, stage) | {"source": source}
    return source if same and _kept(folder, record) else None


def _kept(folder: Path, record: dict[str, Any]) -> bool:
    outputs = record["outputs"].items()
    return all((folder / file).is_file() and sha256_file(folder / file) == digest for file, digest in outputs)


def run_stage(run: Run, stage: Stage, progress: bool, say: Say) -> None:
    """Run one stage, unless it is done; what it needs must be there. Only the first process does this."""
    folder = run.stage(stage.name)
    if is_done(run, stage):
        _call(stage, False)
        say(f"{stage.name}: done before, nothing has changed")
        return
    recipe = _recipe(run, stage)
    if _make_room(run, stage, recipe, say):
        recipe = _recipe(run, stage)  # the source may have been named by what is aside now
    before = _seconds_so_far(folder)
    write_json(folder / STARTED, {"recipe": recipe, "seconds": before})
    (folder / MANIFEST).unlink(missing_ok=True)
    say(f"{stage.name}: running")
    start = time.monotonic()
    _call(stage, True)
    try:
        stage.work(run, folder, progress)
    finally:
        elapsed = before + time.monotonic() - start
        if folder.is_dir():
            write_json(folder / STARTED, {"recipe": recipe, "seconds": round(elapsed, 3)})
    recipe["source"] = recipe["source"] or stage.source(run)
    write_json(folder / MANIFEST, _manifest(run, stage, recipe, elapsed))
    (folder / STARTED).unlink()
    say(f"{stage.name}: finished in {_clock(elapsed)}")


def follow_stage(run: Run, stage: Stage) -> None:
    """Wait until the first process runs a stage, and take part in it, or until it finds it done."""
    if _call(stage):
        stage.work(run, run.stage(stage.name), False)


def _call(stage: Stage, runs: bool = False) -> bool:
    """Return whether a distributed stage runs now, as the first process says."""
    return stage.distributed and processes.from_first(lambda: runs)


def _recipe(run: Run, stage: Stage) -> dict[str, Any]:
    """Return everything that decides what a stage writes."""
    return _settings(run, stage) | {"source": stage.source(run)}


def _settings(run: Run, stage: Stage) -> dict[str, Any]:
    """Return of it what the run itself holds."""
    content = run.config.model_dump(mode="json", exclude=UNRECORDED)
    return {
        "stage": stage.name,
        "seed": run.config.seed,
        "settings": {section: content[section] for section in stage.sections},
        "inputs": {name: read_json(run.stage(name) / MANIFEST)["digest"] for name in stage.inputs},
    }


def _make_room(run: Run, stage: Stage, recipe: dict[str, Any], say: Say) -> bool:
    """Move what a stage wrote from other inputs aside and say so; keep what it can resume from."""
    folder = run.stage(stage.name)
    record = next((f for f in (folder / STARTED, folder / MANIFEST) if f.is_file()), None)
    if record is None:
        if folder.is_dir() and any(folder.iterdir()):
            target = _free_name(run, folder, "unknown")
            say(f"{stage.name}: nothing says what made its former output, which goes to {target}")
            _move(folder, target)
        folder.mkdir(parents=True, exist_ok=True)
        return False
    former = read_json(record)["recipe"]
    if _identity(former, stage) == _identity(recipe, stage) and not _shrinks(former, recipe, stage):
        return False
    reason = _difference(former, recipe)
    if all(file.name == STARTED for file in folder.iterdir()):
        say(f"{stage.name}: {reason}; a former attempt had left no output")
        return False
    target = _free_name(run, folder, sha256_json(former)[:8])
    say(f"{stage.name}: {reason}; its former output goes to {target}")
    _move(folder, target)
    folder.mkdir(parents=True)
    return True


def _free_name(run: Run, folder: Path, tag: str) -> Path:
    """Return a place in ``superseded/`` that nothing holds yet: what lies there may be a release that was sent."""
    first = run.root / "superseded" / f"{folder.name}-{tag}"
    others = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(place for place in chain([first], others) if not place.exists())


def _move(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


def _identity(recipe: dict[str, Any], stage: Stage) -> str:
    flat = _flatten(recipe)
    return sha256_json({k: v for k, v in flat.items() if k.removeprefix("settings.") not in stage.extends})


def _shrinks(former: dict[str, Any], recipe: dict[str, Any], stage: Stage) -> bool:
    old, new = _flatten(former), _flatten(recipe)
    return any(new[f"settings.{key}"] < old[f"settings.{key}"] for key in stage.extends)


def _difference(former: dict[str, Any], recipe: dict[str, Any]) -> str:
    old, new = _flatten(former), _flatten(recipe)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            if key.startswith(("inputs", "source")):
                return f"its {key.replace('.', ' ')} changed"
            return f"{key.removeprefix('settings.')} changed from {old.get(key)} to {new.get(key)}"
    return "its inputs changed"


def _flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _seconds_so_far(folder: Path) -> float:
    started = folder / STARTED
    return float(read_json(started)["seconds"]) if started.is_file() else 0.0


def _manifest(run: Run, stage: Stage, recipe: dict[str, Any], seconds: float) -> dict[str, Any]:
    folder = run.stage(stage.name)
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _is_bookkeeping(p, folder)]
    outputs = {p.relative_to(folder).as_posix(): sha256_file(p) for p in files}
    return {
        "stage": stage.name,
        "key": sha256_json(recipe),
        "digest": sha256_json(outputs),
        "seconds": round(seconds, 3),
        "peak_memory_mib": _peak_memory_mib(),
        "versions": _versions(),
        "recipe": recipe,
        "outputs": outputs,
    }


def _is_bookkeeping(path: Path, folder: Path) -> bool:
    """Say whether a file tells how a stage went rather than what it made."""
    bookkeeping = {MANIFEST, STARTED, "log.csv", "last.ckpt"}
    return path.relative_to(folder).parts[0] in {"tensorboard", *bookkeeping} or path.name.startswith(".")


def _peak_memory_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak / (2**20 if sys.platform == "darwin" else 2**10))


def _versions() -> dict[str, str]:
    names = ("torch", "monai", "numpy", "nibabel", "pydicom")
    return {
        "synthmed": __version__,
        "python": platform.python_version(),
        **{n: metadata.version(n) for n in names},
    }


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
