"""`benchmarks/neighbours.py`: both searches find what the naive loops find, and the row says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import neighbours
import numpy as np
import pytest
from speed import searching
from speed.searching import Cell


@pytest.mark.parametrize("largest", [2, 127])
@pytest.mark.parametrize("name", neighbours.SEARCHES)
def test_the_audits_neighbours_are_the_naive_loops_ties_included(name: str, largest: int) -> None:
    queries = searching.draw_vectors(40, 24, 1, largest)
    gallery = searching.draw_vectors(300, 24, 0, largest)
    ours, naive = (
        searching.search(Cell(name, way, 40, 300, 24, 40, 0), queries, gallery) for way in ("audit", "naive")
    )
    assert np.array_equal(ours, naive)
    assert (ours >= 0).all()


def test_vectors_are_exact_or_refused() -> None:
    vectors = searching.draw_vectors(50, 64, 3)
    assert vectors.dtype == np.float32
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.array_equal(vectors @ vectors.T, exact)
    with pytest.raises(ValueError, match="not exact"):
        searching.draw_vectors(1, 2000, 0)


def test_the_row_scales_the_naive_loop_and_sees_a_difference() -> None:
    audit = {"search": "nearest", "queries": 10, "gallery": 9, "asked": 10, "wall": 2.0, "peak": 70, "before": 60}
    naive = audit | {"asked": 5, "wall": 4.0, "peak": 90, "found": np.arange(5)[:, None]}
    same = [audit | {"found": np.arange(10)[:, None]}]
    row = neighbours.row_of(same, [naive], "wall")
    assert (row["seconds"], row["naive s"], row["times as fast"], row["identical"]) == (2.0, 8.0, 4.0, True)
    assert not neighbours.row_of([audit | {"found": np.ones((10, 1))}], [naive], "wall")["identical"]
    target = row | {"queries": 10_000, "gallery": 100_000}
    assert neighbours.verdict([row]) == "the target's size was not measured"
    assert neighbours.verdict([target]).endswith("is met")
    assert neighbours.verdict([target | {"peak MiB": 5000}]).endswith("is missed")


def test_the_command_searches_in_processes_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    wanted = ["--sizes", "6x80", "--searches", "nearest", "--dimension", "16", "--naive", "3", "--json", str(out)]
    assert neighbours.main(wanted) == 0
    row = json.loads(out.read_text())["rows"][0]
    assert row["identical"]
    assert 10 < row["peak MiB"] < 4000
    assert "nearest" in capsys.readouterr().out
