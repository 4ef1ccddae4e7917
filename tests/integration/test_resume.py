"""A training run that was killed ends with the weights of one that was not, bit for bit on the CPU."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import resumed_run
from forked_run import Forked

from synthmed.files import read_json
from synthmed.models.checkpoint import RECORD, WEIGHTS
from synthmed.training.journal import read_log
from synthmed.training.resume import CHECKPOINT

DEATHS = {
    "autoencoder-32-true": "5",
    "denoiser-32-true": "checkpoint",
    "autoencoder-bf16-mixed": "checkpoint",
    "denoiser-bf16-mixed": "7",
}


def _run(out: Path, *death: str) -> int:
    return Forked(resumed_run.main, out, *death).end().returncode


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    assert _run(tmp_path / "whole") == 0
    for stage, where in DEATHS.items():
        assert _run(tmp_path / "killed", stage, where) == -signal.SIGKILL
        assert (tmp_path / "killed" / stage / CHECKPOINT).exists()
        assert not (tmp_path / "killed" / stage / WEIGHTS).exists()
    assert _run(tmp_path / "killed") == 0
    for stage in DEATHS:
        whole, resumed = tmp_path / "whole" / stage, tmp_path / "killed" / stage
        assert (whole / WEIGHTS).read_bytes() == (resumed / WEIGHTS).read_bytes()
        assert read_json(whole / RECORD) == read_json(resumed / RECORD)
        assert _without_time(whole) == _without_time(resumed)
        assert [row["step"] for row in read_log(resumed)] == ["3", "6", "9"]
        leftovers = {file.name for file in resumed.iterdir()} - {path.name for path in whole.iterdir()}
        assert all(name.startswith(".part-") for name in leftovers)


def _without_time(directory: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_log(directory)]
