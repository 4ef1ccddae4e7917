"""Once everything is prepared from them a run goes on without its scans, as long as nothing asks for them again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cohorts import write_folder

from synthmed.config import Config, parse_config
from synthmed.errors import InputError
from synthmed.pipeline import run_stages
from synthmed.stages import Run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    scans = write_folder(tmp_path / "scans", 16)
    cohort = {"path": str(scans), "images": "imagesTr", "labels": "labelsTr"}
    return parse_config({"cohort": cohort, "preprocess": {"grid": [16, 16, 16]}})


@pytest.fixture
def run(config: Config, tmp_path: Path) -> Run:
    """A run that is prepared, and whose scans were moved away then."""
    run = Run(config, tmp_path / "r")
    run_stages(run, "prepare", progress=False, say=lambda line: None)
    (tmp_path / "scans").rename(tmp_path / "archive")
    return run


def manifest(run: Run) -> Path:
    return run.stage("prepare") / "manifest.json"


def test_a_prepared_run_goes_on_without_its_scans(run: Run) -> None:
    before, said = manifest(run).read_bytes(), []
    run_stages(run, "prepare", progress=False, say=said.append)
    assert manifest(run).read_bytes() == before
    assert "No file or folder" in said[0]
    assert "what was prepared from it is whole, and is used" in said[0]
    assert said[1] == "prepare: done before, nothing has changed"


def test_scans_that_came_back_are_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archive").rename(tmp_path / "scans")
    said: list[str] = []
    run_stages(run, "prepare", progress=False, say=said.append)
    assert said == ["prepare: done before, nothing has changed"]
    next((tmp_path / "scans" / "imagesTr").iterdir()).touch()
    run_stages(run, "prepare", progress=False, say=said.append)
    assert "its source changed" in said[1]


@pytest.mark.parametrize("fault", ["setting", "file", "manifest"])
def test_what_has_to_be_prepared_anew_needs_its_scans_and_loses_nothing(run: Run, fault: str) -> None:
    images = sorted((run.stage("prepare") / "train" / "images").iterdir())
    if fault == "setting":
        changed = run.config.preprocess.model_copy(update={"grid": (16, 16, 8)})
        run = Run(run.config.model_copy(update={"preprocess": changed}), run.root)
    elif fault == "file":
        images[0].write_bytes(b"")
    else:
        manifest(run).unlink()
    before = {file: file.read_bytes() for file in run.root.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="No file or folder"):
        run_stages(run, "prepare", progress=False, say=lambda line: None)
    assert {file: file.read_bytes() for file in run.root.rglob("*") if file.is_file()} == before


def test_the_record_still_names_the_scans_by_their_digest(run: Run) -> None:
    recorded = json.loads(manifest(run).read_text())["recipe"]["source"]
    run_stages(run, "prepare", progress=False, say=lambda line: None)
    assert json.loads(manifest(run).read_text())["recipe"]["source"] == recorded != ""
