"""`benchmarks/volumes.py`: the plain loop does the same work as ours, and every row is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import numpy as np
import pytest
import volumes

from synthmed.io import read_volume
from synthmed.prepare.preprocess import prepare


def test_the_plain_loop_puts_the_scans_on_the_same_grid(tmp_path: Path) -> None:
    volumes.write_scans(tmp_path / "scans", 6, 24, 0)
    prepare(volumes.config_of(tmp_path / "scans", 16, 0), tmp_path / "ours", progress=False)
    volumes.plain_prepare(tmp_path / "scans", 16, tmp_path / "plain")
    files = sorted((tmp_path / "ours").glob("*/images/*.nii.gz"))
    assert len(files) == 6
    for file in files:
        ours, plain = read_volume(file), read_volume(tmp_path / "plain" / "images" / file.name)
        assert np.allclose(ours.affine, plain.affine, atol=1e-5)
        assert np.abs(ours.array - plain.array).mean() < 0.03 * volumes.TOP


def test_the_command_compares_both_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    wanted = ["--volumes", "6", "--side", "24", "--grid", "16", "--rounds", "1", "--json", str(out)]
    assert volumes.main(wanted) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["stage"] for row in rows] == ["prepare"] * 2 + ["export"] * 4
    assert all(row["volumes/s"] > 0 and row["times as fast"] > 0 for row in rows)
    assert "synthmed export" in capsys.readouterr().out
