"""The run: prepare -> autoencoder -> denoiser -> generate -> evaluate -> audit -> export."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from synthmed import __version__, processes
from synthmed.config import dump_config, load_config
from synthmed.errors import ConfigError, InputError
from synthmed.files import MANIFEST, read_json, storage_errors, write_text
from synthmed.stages import Run, Say, Stage, follow_stage, run_stage, settled_source


def open_run(target: str | Path, root: Path | None = None, overrides: Iterable[str] = ()) -> Run:
    """Open a run by its directory, or by a configuration file or name (then under ``runs/<name>``).

    Raises
    ------
    ConfigError
        If `target` is neither, or its configuration is wrong.
    """
    directory = Path(target)
    if directory.is_dir():
        if not (directory / "config.yaml").is_file():
            full = any(directory.iterdir())
            raise ConfigError(
                f"{directory} is not a run",
                found="no config.yaml" if full else "an empty folder",
                expected="what `synthmed run` writes",
                next_step=f"If these are scans: synthmed plan {directory}" if full else "Make one: synthmed run CONFIG",
            )
        return Run(load_config(directory / "config.yaml", overrides), root or directory)
    config = load_config(target, overrides)
    return Run(config, root or Path("runs") / config.name)


def run_stages(run: Run, last: str = "export", *, progress: bool = True, say: Say = print) -> None:
    """Run the stages up to `last`, in order, skipping those that are done.

    Of many processes the first holds the run and does it all, but for the distributed stages, in which the others take
    part; they return together.

    Parameters
    ----------
    say : callable
        Receives one line a stage.
    """
    if processes.rank():
        for stage in _until(last):
            follow_stage(run, stage)
    else:
        _lead(run, _until(last), progress, say)
    processes.gather(None)


def _lead(run: Run, stages: tuple[Stage, ...], progress: bool, say: Say) -> None:
    for stage in stages:
        stage.source(run)  # a missing cohort or policy is said before anything is written
    if stages[0].source is _scans and (gone := _missing_scans(run)):
        say(f"prepare: {gone.what}; what was prepared from it is whole, and is used")
    with alone(run.root):
        write_text(run.root / "config.yaml", dump_config(run.config))
        for stage in stages:
            run_stage(run, stage, progress, say)


def stage_costs(run: Run) -> dict[str, tuple[float, int]]:
    """Return wall time (seconds) and peak memory of the process so far (MiB) of each finished stage."""
    records = {s.name: run.stage(s.name) / MANIFEST for s in STAGES}
    done = {name: read_json(file) for name, file in records.items() if file.is_file()}
    return {name: (record["seconds"], record["peak_memory_mib"]) for name, record in done.items()}


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the run's lock, which the system frees however the process ends."""
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another process is working on {root}",
                next_step="Wait for it, or give --run-dir another directory",
            ) from error
        yield


def _until(last: str) -> tuple[Stage, ...]:
    names = [s.name for s in STAGES]
    return STAGES[: names.index(last) + 1]


def _scans(run: Run) -> str:
    """Name the cohort's files; once all is prepared they may be gone, and the manifest says what they were."""
    from synthmed.cohort.read import list_source

    gone = _missing_scans(run)
    if gone is None:
        return list_source(run.config.cohort)
    source = settled_source(run, STAGES[0])
    if source is None:
        raise gone
    return source


def _missing_scans(run: Run) -> InputError | None:
    from synthmed.cohort.read import resolve_path

    try:
        resolve_path(run.config.cohort)
    except InputError as error:
        return error
    return None


def _policy(run: Run) -> str:
    from privacy.policy import load_policy

    return f"{load_policy(run.config.audit.policy).sha256}, synthmed {__version__}"


def _release(run: Run) -> str:
    """Refuse formats and keys that cannot be used before hours are spent; name the key that signs.

    The default key is made by the first export. Where there is none, a release keeps the signer that it has.
    """
    from synthmed.export import check_formats, signed_by
    from synthmed.export.signing import at_home, default_key, fingerprint, load_private_key

    config = run.config.export
    check_formats(config, run.config.cohort.modality)
    file = at_home(config.key) if config.key else default_key()
    if config.key or file.exists():
        return fingerprint(load_private_key(file).public_key())
    try:
        return signed_by(run.stage("export") / "release")
    except (OSError, ValueError):
        return ""


def _prepare(run: Run, out: Path, progress: bool) -> None:
    from synthmed.prepare.preprocess import prepare

    prepare(run.config, out, progress=progress)


def _autoencoder(run: Run, out: Path, progress: bool) -> None:
    from synthmed.training.fit import fit_autoencoder

    fit_autoencoder(run.config, run.stage("prepare"), out, progress=progress)


def _denoiser(run: Run, out: Path, progress: bool) -> None:
    from synthmed.training.fit import fit_denoiser

    fit_denoiser(run.config, run.stage("prepare"), run.stage("autoencoder"), out, progress=progress)


def _generate(run: Run, out: Path, progress: bool) -> None:
    from synthmed.sampling.generate import generate

    models = run.stage("autoencoder"), run.stage("denoiser")
    generate(*models, out, sampling=run.config.sampling, seed=run.config.seed, progress=progress)


def _evaluate(run: Run, out: Path, progress: bool) -> None:
    from synthmed.evaluation import evaluate

    prepared, autoencoder, denoiser = (run.stage(name) for name in ("prepare", "autoencoder", "denoiser"))
    evaluate(run.config, prepared, autoencoder, denoiser, run.stage("generate"), out, progress=progress)


def _audit(run: Run, out: Path, progress: bool) -> None:
    import privacy

    prepared = run.stage("prepare")
    privacy.audit(
        train=prepared / "train",
        holdout=prepared / "holdout",
        synthetic=run.stage("generate") / "images",
        policy=run.config.audit.policy,
        seed=run.config.seed,
        out=out,
        progress=progress,
    )


def _export(run: Run, out: Path, progress: bool) -> None:
    from synthmed.export import approve, export
    from synthmed.training.journal import read_log

    # A kill between the release's rename and the manifest leaves a release that no manifest vouches for.
    shutil.rmtree(out / "release", ignore_errors=True)
    samples, audit = run.stage("generate"), run.stage("audit") / "release"
    approval = approve(samples, audit / "report.json", run.config.audit.policy)
    measured = run.stage("evaluate") / "evaluation.json"
    export(
        samples,
        approval,
        out / "release",
        config=run.config.export,
        audit_dir=audit,
        run=run.config,
        evaluation=read_json(measured) if measured.is_file() else None,
        training={name: read_log(run.stage(name)) for name in ("autoencoder", "denoiser")},
    )


STAGES: tuple[Stage, ...] = (
    Stage("prepare", ("cohort", "preprocess"), (), _prepare, source=_scans),
    Stage("autoencoder", ("autoencoder", "autoencoder_training"), ("prepare",), _autoencoder, distributed=True),
    Stage(
        "denoiser",
        ("denoiser", "diffusion", "conditioning", "denoiser_training"),
        ("prepare", "autoencoder"),
        _denoiser,
        distributed=True,
    ),
    Stage(
        "generate",
        ("sampling",),
        ("autoencoder", "denoiser"),
        _generate,
        extends=("sampling.num_samples",),
        distributed=True,
    ),
    Stage("evaluate", ("evaluation",), ("prepare", "autoencoder", "denoiser", "generate"), _evaluate),
    Stage("audit", ("audit",), ("prepare", "generate"), _audit, source=_policy),
    Stage("export", ("export",), ("generate", "evaluate", "audit"), _export, source=_release),
)
