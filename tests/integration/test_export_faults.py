"""A killed, interrupted or starved export leaves no release, and the next one starts clean."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from releases import Made

from synthmed.errors import ConfigError, StorageError
from synthmed.export import cohort, verify

# Each slows one step of a real export down, so that the signal arrives in the middle of it.
STEPS = {
    "copying": "synthmed.export.cohort.ApprovedCohort.label = pause",
    "checksums": "synthmed.export.digest_files = pause",
    "signing": "synthmed.export.seal.__globals__['statement'] = pause",
    "verifying": "synthmed.export.verify.__globals__['_check_gate'] = pause",
    "renaming": "pathlib.Path.rename = pause",
}


def start_export(made: Made, out: Path, step: str) -> subprocess.Popen[str]:
    """Start an export in another process that stops at `step`; return once it is there."""
    code = f"""
        import pathlib, sys, time
        import synthmed.export
        from synthmed.config import ExportConfig
        def pause(*args, **kwargs):
            print("here", flush=True)
            time.sleep(60)
        samples, audit, out = map(pathlib.Path, sys.argv[1:])
        approval = synthmed.export.approve(samples, audit / "report.json", "default")
        {STEPS[step]}
        synthmed.export.export(samples, approval, out, config=ExportConfig(), audit_dir=audit)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), made.samples, made.audit, out]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line == "here\n", child.communicate()[1]
    return child


@pytest.mark.parametrize("step", STEPS)
def test_sigkill_leaves_no_release_and_the_next_export_cleans_up(made: Made, tmp_path: Path, step: str) -> None:
    out = tmp_path / "out" / "release"
    child = start_export(made, out, step)
    child.kill()
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    left = [p.name for p in out.parent.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".release.partial-")
    if step in ("copying", "checksums", "signing"):
        assert "SHA256SUMS.sig: is missing: the release is not signed" in map(str, verify(out.parent / left[0]))
    assert verify(made.release(out)) == []
    assert [p.name for p in out.parent.iterdir()] == ["release"]


@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_leaves_nothing(made: Made, tmp_path: Path, step: str) -> None:
    out = tmp_path / "out" / "release"
    child = start_export(made, out, step)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_failing_disk_half_way_leaves_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    written = []
    write_bytes: Callable[[Path, bytes], int] = Path.write_bytes

    def fail_after_four(path: Path, content: bytes) -> int:
        if len(written) == 4:
            raise OSError(code, os.strerror(code), str(path))
        written.append(path)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_after_four)
    out = tmp_path / "out" / "release"
    with pytest.raises(StorageError, match="Cannot write") as caught:
        made.release(out)
    assert caught.value.exit_code == 7
    assert len(written) == 4
    assert list(out.parent.iterdir()) == []


def test_a_disk_that_is_really_full(made: Made, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    code = """
        import pathlib, sys
        from synthmed.config import ExportConfig
        from synthmed.errors import StorageError
        from synthmed.export import approve, export
        samples, audit, disk = map(pathlib.Path, sys.argv[1:])
        approval = approve(samples, audit / "report.json", "default")
        try:
            export(samples, approval, disk / "release", config=ExportConfig(), audit_dir=audit)
        except StorageError as error:
            print(error, [p.name for p in disk.iterdir()])
    """
    # A file system of 40 KiB in a mount namespace of its own, which ends with the process.
    mount = 'mount -t tmpfs -o size=40k tmpfs "$4" && exec "$0" -c "$1" "$2" "$3" "$4"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable]
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", disk]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this system does not let a process mount a file system of its own")
    done = subprocess.run(
        [*command, textwrap.dedent(code), made.samples, made.audit, disk], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Cannot write" in done.stdout
    assert "No space left" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_two_exports_at_once_give_one_whole_release(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out" / "release"
    child = start_export(made, out, "renaming")
    assert verify(made.release(out)) == []
    child.kill()
    child.communicate(timeout=120)
    assert verify(out) == []


def test_a_release_that_appears_meanwhile_is_kept(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "release"
    label = cohort.ApprovedCohort.label

    def somebody_writes(self: cohort.ApprovedCohort, sample: object) -> bytes:
        out.mkdir(exist_ok=True)
        (out / "theirs.txt").write_text("theirs")
        return label(self, sample)  # type: ignore[arg-type]

    monkeypatch.setattr(cohort.ApprovedCohort, "label", somebody_writes)
    with pytest.raises(ConfigError, match="exists already"):
        made.release(out)
    assert [p.name for p in out.parent.iterdir()] == ["release"]
    assert [p.name for p in out.iterdir()] == ["theirs.txt"]
