"""The page of a run: what is done is shown, what is not is said; real scans only where they are asked for by name."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from commands import invoke
from releases import Made
from report_pages import AUDIT, EVALUATION, LOG, Page, embedded

from synthmed.config import Config, dump_config
from synthmed.errors import ConfigError, InputError
from synthmed.run_report import write_run_report
from synthmed.stages import Run

PATIENT, SCAN = "Mustermann-0431", b"\x89PNG a scan of Mustermann-0431, drawn beside a sample"
SECRET = {"path": "/data/ward7/scans", "format": "folder", "subjects": "names-of-ward7.csv"}


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Run:
    """A run whose audit named and drew a patient; training, sampling, evaluation and audit are done."""
    run = Run(Config.model_validate({"name": "ward7", "cohort": SECRET, "export": {"title": "Hips"}}), tmp_path / "run")
    shutil.copytree(made.samples, run.stage("generate"))
    (run.stage("generate") / "manifest.json").write_text("{}")
    shutil.copytree(made.audit, run.stage("audit") / "release")
    record = run.stage("audit") / "release" / "report.json"
    content = json.loads(record.read_text())
    measured = {"measurements": content["measurements"] | {"largest_score": 0.51}}
    record.write_text(json.dumps(content | measured | {"scores": AUDIT["scores"]}))
    steward = run.stage("audit") / "steward"
    (steward / "pairs").mkdir(parents=True)
    (steward / "pairs" / "001.png").write_bytes(SCAN)
    rows = [f"synthetic_000{k}.nii.gz,0.{k}1,0.2,,{PATIENT},scan-{PATIENT}.nii.gz,0.{k}2" for k in range(6)]
    head = "file,score,p_value,flag,nearest_patient,nearest_scan,holdout_score"
    (steward / "samples.csv").write_text("\n".join([head, *rows]) + "\n")
    run.stage("evaluate").mkdir()
    (run.stage("evaluate") / "evaluation.json").write_text(json.dumps(EVALUATION))
    run.stage("denoiser").mkdir()
    lines = [",".join(LOG[0]), *(",".join(row.values()) for row in LOG)]
    (run.stage("denoiser") / "log.csv").write_text("\n".join(lines) + "\n")
    (run.root / "config.yaml").write_text(dump_config(run.config))
    return run


def holds(html: str, content: bytes) -> bool:
    return base64.b64encode(content).decode() in html


def test_everything_that_is_done_is_on_it(run: Run) -> None:
    page = Page(write_run_report(run).read_text())
    assert page.text("h1") == "Hips"
    assert "PASS" in page.text("section", id="verdict")
    assert len(embedded(page)) == 6
    assert "memorisation gap" in page.text("section", id="training")
    assert "synthetic alone" in page.text("section", id="quality")
    assert "How near each set comes to training patients" in [a.get("aria-label") for _, a, _ in page.of("svg")]


def test_no_real_scan_patient_or_path_is_on_it(run: Run) -> None:
    html = write_run_report(run).read_text()
    assert not holds(html, SCAN)
    for word in (PATIENT, "ward7", "names-of-ward7", str(run.root), "0431"):
        assert word not in html


def test_the_steward_s_page_shows_the_pairs_where_they_are_asked_for_by_name(run: Run) -> None:
    file = write_run_report(run, real_pairs=True)
    assert file == run.root / "steward-report.html"
    assert holds(file.read_text(), SCAN)
    assert "real patients" in Page(file.read_text()).text("header")


def test_a_release_has_no_pairs_whatever_the_steward_drew(made: Made, tmp_path: Path) -> None:
    pairs = tmp_path / "steward" / "pairs"
    pairs.mkdir(parents=True)
    (pairs / "001.png").write_bytes(SCAN)
    html = (made.release(tmp_path / "release") / "audit" / "report.html").read_text()
    assert not holds(html, SCAN)
    page = Page(html)
    assert len(page.of("img")) == 1
    assert {attributes["id"] for _, attributes, _ in page.of("section")} == {
        "verdict", "volumes", "audit", "quality", "training", "source",
    }  # fmt: skip
    assert [name for name, _, _ in embedded(page)] == [f"synthetic_000{k}" for k in range(6)]


def test_the_same_run_gives_the_same_page(run: Run, tmp_path: Path) -> None:
    pages = [write_run_report(run, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_a_release_twice_is_one_page(made: Made, tmp_path: Path) -> None:
    pages = [(made.release(tmp_path / name) / "audit" / "report.html").read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("stage", ["audit", "generate", "evaluate", "denoiser"])
def test_a_stage_that_is_not_done_is_left_out(run: Run, stage: str) -> None:
    shutil.rmtree(run.stage(stage))
    said = Page(write_run_report(run).read_text()).text("main")
    words = {
        "audit": "not audited yet",
        "generate": "There is no volume",
        "evaluate": "Neither was measured",
        "denoiser": "No training log",
    }
    assert words[stage] in said


def test_samples_that_are_still_being_drawn_are_not_shown(run: Run) -> None:
    (run.stage("generate") / "manifest.json").unlink()
    assert embedded(Page(write_run_report(run).read_text())) == []


def test_pairs_that_nobody_drew_are_an_error(run: Run) -> None:
    shutil.rmtree(run.stage("audit") / "steward" / "pairs")
    with pytest.raises(InputError, match="No pairs are drawn"):
        write_run_report(run, real_pairs=True)


def test_a_page_is_not_written_into_a_release(run: Run, made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release")
    with pytest.raises(ConfigError, match="lies in a release"):
        write_run_report(run, release / "audit" / "steward.html", real_pairs=True)
    assert not (release / "audit" / "steward.html").exists()


def test_a_run_that_is_not_there_is_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no run"):
        write_run_report(Run(run.config, tmp_path / "nowhere"))


def test_a_run_that_has_nothing_to_show_yet_says_how_to_go_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "begun" / "prepare").mkdir(parents=True)
    with pytest.raises(InputError, match=r"nothing to show yet.*synthmed run .*begun"):
        write_run_report(Run(run.config, tmp_path / "begun"))
    assert not (tmp_path / "begun" / "report.html").exists()


def test_a_record_that_cannot_be_read_is_named(run: Run) -> None:
    (run.stage("evaluate") / "evaluation.json").write_text("[1]")
    with pytest.raises(InputError, match=r"evaluation\.json"):
        write_run_report(run)


def test_the_verb_writes_and_says_where(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert str(invoke("report", run.root, "-o", out)) == f"Report: {out}"
    assert out.is_file()
    assert "stays with the data steward" in str(invoke("report", run.root, "--with-real-pairs"))
