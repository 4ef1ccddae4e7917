"""`benchmarks/scale.py`: the stages run in processes of their own, and the slopes are those of the figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
import scale
from speed import scaling


def test_the_exponent_is_the_slope_of_the_logarithms() -> None:
    sizes = [10, 100, 1000]
    assert scaling.power(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert scaling.power([10, 10], [1.0, 2.0]) is None
    assert scaling.power([10], [1.0]) is None


def test_the_parts_are_those_of_the_polynomial() -> None:
    sizes = [30, 100, 300, 900]
    parts = scaling.parts_at(sizes, [20 + 0.5 * n + 0.001 * n**2 for n in sizes], 10_000)
    assert parts == pytest.approx((20, 5_000, 100_000))
    assert scaling.parts_at(sizes[:2], [1.0, 2.0], 10_000) is None


def test_the_goal_is_reached_by_the_last_slope() -> None:
    found = [{"process": seconds, "peak": peak, "before": 50} for seconds, peak in ((1.0, 60), (2.0, 70), (8.0, 170))]
    rows = [scale.row_of("audit", size, one, "process") for size, one in zip((100, 200, 400), found, strict=True)]
    fit = scale.fitted(rows)
    assert fit is not None
    assert fit["last exponent"] == pytest.approx(2)
    assert fit["seconds at the goal"] == pytest.approx(8 * 25**2)
    assert fit["more KiB a volume"] == pytest.approx(1024 * 100 / 200)
    assert "10000 would take 1.4 hours" in scale.fit_text(fit)
    assert scale.fitted(rows[:1]) is None


@pytest.mark.slow
def test_the_command_measures_stages_in_processes_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[str] = []

    def run_apart(stage: str, size: int, root: Path, options: argparse.Namespace) -> dict[str, float]:
        """Let the last stage have a process of its own, which takes as long as all of them here."""
        if stage == "export":
            apart.append(stage)
            return in_a_process(stage, size, root, options)
        return scaling.do_stage(stage, size, root, options.side, options.seed)

    in_a_process = scale.run_apart
    monkeypatch.setattr(scale, "run_apart", run_apart)
    monkeypatch.setattr(scaling, "STEPS", 2)
    out = tmp_path / "rows.json"
    wanted = ["--sizes", "8", "--stages", "sample", "export", "--side", "16"]
    assert scale.main([*wanted, "--folder", str(tmp_path / "runs"), "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert [(row["name"], row["volumes"]) for row in content["rows"]] == [("sample", 8), ("export", 8)]
    assert all(row["peak MiB"] >= row["of it before"] > 10 for row in content["rows"])
    assert apart == ["export"]
    assert "export" in capsys.readouterr().out
    assert len(list((tmp_path / "runs" / "8" / "generate" / "images").iterdir())) == 8
    assert (tmp_path / "runs" / "8" / "export" / "release" / "SHA256SUMS").is_file()
