"""The stage machinery, on stages that only write a line: skip, resume, supersede, extend, lock."""

import fcntl
import shutil

import pytest

from synthmed import pipeline
from synthmed.config import parse_config
from synthmed.errors import ConfigError
from synthmed.pipeline import open_run, run_stages
from synthmed.stages import Run, Stage, is_done


@pytest.fixture
def calls(monkeypatch):
    """Replace the stages by three that record their runs."""
    made = []

    def work(name):
        def _work(run, out, progress):
            made.append((name, sorted(p.name for p in out.iterdir())))
            (out / "result.txt").write_text(f"{run.config.seed} {run.config.sampling.num_samples}")

        return _work

    stages = (
        Stage("one", ("cohort",), (), work("one")),
        Stage("two", ("sampling",), ("one",), work("two"), extends=("sampling.num_samples",)),
        Stage("three", ("audit",), ("two",), work("three")),
    )
    monkeypatch.setattr(pipeline, "STAGES", stages)
    return made


def _run(tmp_path, **content):
    return Run(parse_config(content), tmp_path / "r")


def _quiet(run, last="three", **options):
    run_stages(run, last, progress=False, say=lambda line: None, **options)


def test_finished_stages_are_skipped(tmp_path, calls):
    _quiet(_run(tmp_path))
    _quiet(_run(tmp_path))
    assert [name for name, _ in calls] == ["one", "two", "three"]
    assert is_done(_run(tmp_path), pipeline.STAGES[2])


def test_a_changed_setting_reruns_from_there_and_keeps_the_old_output(tmp_path, calls):
    _quiet(_run(tmp_path))
    said = []
    run_stages(_run(tmp_path, sampling={"guidance_scale": 2.0}), "three", progress=False, say=said.append)
    assert [name for name, _ in calls[3:]] == ["two"], "an equal result upstream does not rerun what follows"
    assert any("sampling.guidance_scale changed from 1.0 to 2.0" in line for line in said)
    assert [p.name.split("-")[0] for p in (tmp_path / "r" / "superseded").iterdir()] == ["two"]


def test_a_changed_result_reruns_what_reads_it(tmp_path, calls):
    _quiet(_run(tmp_path))
    _quiet(_run(tmp_path, seed=5))
    assert [name for name, _ in calls[3:]] == ["one", "two", "three"]


def test_growing_a_set_works_in_place(tmp_path, calls):
    _quiet(_run(tmp_path), "two")
    _quiet(_run(tmp_path, sampling={"num_samples": 99}), "two")
    assert "result.txt" in calls[-1][1]
    assert not (tmp_path / "r" / "superseded").exists()


def test_a_smaller_set_is_made_anew_and_the_larger_one_kept(tmp_path, calls):
    _quiet(_run(tmp_path, sampling={"num_samples": 99}), "two")
    _quiet(_run(tmp_path, sampling={"num_samples": 9}), "two")
    assert (tmp_path / "r" / "two" / "result.txt").read_text() == "0 9"
    assert len(list((tmp_path / "r" / "superseded").iterdir())) == 1


def test_a_changed_output_is_made_again(tmp_path, calls):
    _quiet(_run(tmp_path))
    (tmp_path / "r" / "two" / "result.txt").write_text("forged")
    _quiet(_run(tmp_path))
    assert (tmp_path / "r" / "two" / "result.txt").read_text() == "0 64"


def test_sharding_a_network_makes_nothing_again(tmp_path, calls, monkeypatch):
    monkeypatch.setattr(pipeline, "STAGES", (Stage("one", ("denoiser_training",), (), pipeline.STAGES[0].work),))
    for sharded in (False, True):
        _quiet(_run(tmp_path, denoiser_training={"sharded": sharded}), "one")
    assert len(calls) == 1


def test_a_superseded_output_is_never_replaced(tmp_path, calls):
    for seed in (0, 1, 0, 1):
        _quiet(_run(tmp_path, seed=seed), "one")
        (tmp_path / "r" / "one" / "sent.jsonl").write_text(f"sent with seed {seed}")
    kept = sorted((tmp_path / "r" / "superseded").iterdir())
    assert len(kept) == 3
    assert sorted((p / "sent.jsonl").read_text()[-1] for p in kept) == ["0", "0", "1"]


def test_failures_leave_the_finished_output_where_the_line_says(tmp_path, calls, monkeypatch):
    def fails(run, out, progress):
        raise ConfigError("no")

    _quiet(_run(tmp_path), "one")
    one = pipeline.STAGES[0]
    monkeypatch.setattr(pipeline, "STAGES", (Stage("one", one.sections, (), fails),))
    said = []
    for seed in (1, 0, 1, 2):
        with pytest.raises(ConfigError):
            run_stages(_run(tmp_path, seed=seed), "one", progress=False, say=said.append)
    [kept] = (tmp_path / "r" / "superseded").iterdir()
    assert (kept / "manifest.json").is_file()
    assert (kept / "result.txt").read_text() == "0 64"
    [line] = [line for line in said if "goes to" in line]
    assert line.endswith(f"its former output goes to {kept}")


def test_output_that_nothing_vouches_for_is_kept(tmp_path, calls):
    said = []
    for _ in range(2):
        (tmp_path / "r" / "one").mkdir(parents=True)
        (tmp_path / "r" / "one" / "mine.txt").write_text("x")
        run_stages(_run(tmp_path), "one", progress=False, say=said.append)
        shutil.rmtree(tmp_path / "r" / "one")
    kept = tmp_path / "r" / "superseded"
    assert sorted(p.name for p in kept.rglob("*")) == ["mine.txt", "mine.txt", "one-unknown", "one-unknown-2"]
    assert any(line.endswith(f"goes to {kept / 'one-unknown-2'}") for line in said)


def test_a_killed_stage_resumes_in_its_directory(tmp_path, calls, monkeypatch):
    def dies(run, out, progress):
        (out / "half").write_text("x")
        raise KeyboardInterrupt

    one, two, three = pipeline.STAGES
    monkeypatch.setattr(pipeline, "STAGES", (one, Stage("two", two.sections, two.inputs, dies), three))
    with pytest.raises(KeyboardInterrupt):
        _quiet(_run(tmp_path))
    monkeypatch.setattr(pipeline, "STAGES", (one, two, three))
    _quiet(_run(tmp_path))
    assert [name for name, _ in calls] == ["one", "two", "three"]
    assert "half" in calls[1][1]


def test_a_lost_output_is_made_again(tmp_path, calls):
    _quiet(_run(tmp_path))
    (tmp_path / "r" / "two" / "result.txt").unlink()
    _quiet(_run(tmp_path))
    assert [name for name, _ in calls[3:]] == ["two"]


def test_two_processes_do_not_share_a_run(tmp_path, calls):
    (tmp_path / "r").mkdir()
    with (tmp_path / "r" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="Another process"):
            _quiet(_run(tmp_path))


def test_a_directory_that_is_no_run_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="synthmed run CONFIG"):
        open_run(tmp_path)


def test_a_run_opens_by_its_directory(tmp_path, calls):
    _quiet(_run(tmp_path, seed=3), "one")
    assert open_run(tmp_path / "r").config.seed == 3
