"""Fixtures that several tests share. pytest puts this folder on the path, so the helpers beside it import by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from releases import Made, make_audit, make_samples


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Return the folder of real volumes, or skip where it is absent."""
    root = Path(os.environ.get("SYNTHMED_DATA", "../shared/data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}: set SYNTHMED_DATA")
    return root


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Write six labelled samples and a passing audit of them."""
    samples = make_samples(tmp_path / "generate")
    return Made(samples, make_audit(tmp_path / "audit", samples))
