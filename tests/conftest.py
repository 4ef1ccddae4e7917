"""Fixtures that several tests share. pytest puts this folder on the path, so the helpers beside it import by name."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Before torch is imported: the workers share the cores, and waiting threads that spin take them from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Workers ignore Ctrl-C; the tests of interruptions must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from releases import Made, make_audit, make_samples

# The key that signs releases is made anew for the tests; their workers, and the processes that they start, share it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="synthmed-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CONFIG_HOME"], ignore_errors=True)


LONGEST = (
    "test_notebooks.py",
    "test_privacy_hippocampus.py",
    "test_privacy_sets.py",
    "test_privacy_cohorts.py",
    "test_torchrun.py",
    "test_release_names_nobody.py",
    "test_interruptions.py",
    "test_privacy_cli.py",
    "test_baselines_run.py",
    "test_run.py",
    "test_cli_answers.py",
    "test_resume.py",
    "test_privacy_cleaning.py",
    "test_privacy_embedding.py",
    "test_prepare.py",
    "test_export_faults.py",
)
"""Files that take long, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long: a long file that begins last leaves one process working and the others idle."""
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real volumes, or skip where it is absent."""
    root = Path(os.environ.get("SYNTHMED_DATA", "../shared/data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set SYNTHMED_DATA")
    return root


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six labelled samples and a passing audit of them, once."""
    folder = tmp_path_factory.mktemp("pristine")
    make_audit(folder / "audit", make_samples(folder / "generate"))
    return folder


@pytest.fixture
def made(pristine: Path, tmp_path: Path) -> Made:
    """Copy the samples and their audit, for a test to do with as it likes."""
    for name in ("generate", "audit"):
        shutil.copytree(pristine / name, tmp_path / name)
    return Made(tmp_path / "generate", tmp_path / "audit")
