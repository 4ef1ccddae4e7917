"""Makes the helpers beside this file importable, and gives what several rooms' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from releases import Made, make_audit, make_samples


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Six labelled samples and a passing audit of them."""
    samples = make_samples(tmp_path / "generate")
    return Made(samples, make_audit(tmp_path / "audit", samples))
