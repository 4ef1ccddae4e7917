"""`benchmarks/utility.py` on a small run from its command line to its plot."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
import utility
from privacy_audits import clean_once, quick
from tiny_run import TINY

from synthmed.config import parse_config
from synthmed.pipeline import run_stages
from synthmed.stages import Run

SECTIONS = {
    "cohort": {"format": "phantom", "phantom": {"num_subjects": 64, "shape": [24, 24, 24]}},
    "preprocess": {"grid": [24, 24, 24]},
    "sampling": TINY["sampling"] | {"redraws": 0},
    "evaluation": {"segmenter_steps": 8, "segmenter_batch_size": 4, "encoder_steps": 4},
}


@pytest.mark.slow
def test_copies_are_as_good_as_real_scans_and_refused_and_a_second_call_does_nothing_again(tmp_path, capsys):
    run_stages(Run(parse_config(TINY | SECTIONS), tmp_path / "run"), "generate", progress=False, say=lambda line: None)
    arguments = [str(tmp_path / "run"), "--methods", "tutorial", "copies", "--budget", "1", "--tutorial-steps", "2"]
    arguments += ["--no-progress", "--out", str(tmp_path / "out")]
    with quick(), clean_once():
        assert utility.main(arguments) == 0
    with (tmp_path / "out" / "utility.csv").open(newline="", encoding="utf-8") as stream:
        tutorial, copies = csv.DictReader(stream)
    assert copies["verdict"] == "FAIL"
    assert int(copies["matches"]) == int(copies["volumes"]) == 12
    assert tutorial["matches"] == "0"
    assert float(tutorial["ratio"]) < float(copies["ratio"])
    assert (tmp_path / "out" / "utility.png").stat().st_size > 10_000
    assert "real scans" in capsys.readouterr().out
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*/*.json")}
    assert utility.main(arguments) == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert utility.main([*arguments, "--seed", "5"]) == 2
    assert "was begun with another seed" in capsys.readouterr().err
