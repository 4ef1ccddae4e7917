"""``--json``, ``--quiet`` and completion: what another program meets."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohorts import write_folder
from tiny_run import synthmed, write_config

from synthmed import cli, pipeline
from synthmed.cli import EXIT_CODES, app
from synthmed.cli.answer import FLAG, SCHEMA
from synthmed.errors import ConfigError
from synthmed.files import write_json

NO_WORK = {"verify", "keygen", "bundle", "doctor", "report", "models"}
"""Verbs that show no progress, so that there is nothing for ``--quiet`` to leave out."""
Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in this process; return its exit code and what it wrote."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["synthmed", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err  # type: ignore[arg-type]

    return run


def document(out: str) -> dict[str, Any]:
    """Return the only thing on stdout, which has the documented shape."""
    content = json.loads(out)
    assert list(content) == ["schema", "verb", "exit_code", "result", "error"]
    assert content["schema"] == SCHEMA
    assert (content["result"] is None) != (content["error"] is None)
    assert isinstance(content["error"] or content["result"], dict)
    return content


def parameters(command: Any) -> set[str]:
    return set(inspect.signature(command.callback).parameters)


def test_every_verb_answers_as_json_and_those_that_work_can_be_quiet() -> None:
    commands = {command.name or command.callback.__name__: command for command in app.registered_commands}
    assert [name for name, command in commands.items() if "json" not in parameters(command)] == []
    assert {name for name, command in commands.items() if "quiet" not in parameters(command)} == NO_WORK


def test_keygen_says_where_the_keys_are_and_nothing_of_the_secret(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke("keygen", tmp_path / "key.pem", "--json")
    assert (code, err) == (0, "")
    made = document(out)["result"]
    assert made["private_key"] == str(tmp_path / "key.pem")
    assert Path(made["public_key"]).is_file()
    secret = (tmp_path / "key.pem").read_text().splitlines()[1]
    assert secret not in out


def test_keygen_says_which_folder_it_made(invoke: Invoke, tmp_path: Path) -> None:
    made = f"The folder {tmp_path / 'new'} was not there and was made"
    assert [made in invoke("keygen", tmp_path / "new" / name)[1] for name in ("a.pem", "b.pem")] == [True, False]


def test_plan_and_prepare(invoke: Invoke, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "scäns", 16)
    options = ["--images", "imagesTr", "--labels", "labelsTr"]
    code, out, err = invoke("plan", folder, *options, "-o", tmp_path / "mine.yaml", "--json", "--quiet")
    assert (code, err) == (0, "")
    planned = document(out)["result"]
    assert planned["file"] == str(tmp_path / "mine.yaml")
    assert planned["config"]["cohort"]["images"] == "imagesTr"
    code, out, err = invoke("prepare", planned["file"], "--run-dir", tmp_path / "r", "--json")
    assert code == 0
    assert document(out)["result"]["fingerprint"]["cases"] == 16
    assert "prepare: finished" in err, "progress is on stderr"
    assert invoke("prepare", tmp_path / "r", "--json", "--quiet")[2] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["run", "no_such_config"], 2, "no_such_config"),
        (["evaluate"], 2, "target"),
        (["train", "phantom", "--jsno"], 2, "No such option: --jsno"),
        (["report", "phantom"], 5, "There is no run"),
        (["prepare", "no/scans.csv"], 5, "no/scans.csv"),
        (["export", "phantom", "--format", "dicm"], 2, "no format dicm"),
    ],
)
def test_an_error_is_a_document_too(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, out, err = invoke(*arguments, "--json")
    found = document(out)
    assert (ended, found["exit_code"], found["verb"]) == (code, code, arguments[0])
    assert what in found["error"]["what"]
    assert found["error"]["what"] in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("verdict", "code"), [("PASS", 0), ("FAIL", 3), ("INCONCLUSIVE", 4)])
def test_a_verdict_is_a_result_whatever_it_is(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    def audit(run: Any, out: Path, progress: bool) -> None:
        print("a library that talks")
        (out / "release").mkdir()
        write_json(out / "release" / "report.json", {"verdict": verdict, "n": 3})
        (out / "release" / "report.md").write_text(f"# {verdict}\n")

    stages = {stage.name: stage for stage in pipeline.STAGES}
    monkeypatch.setattr(pipeline, "STAGES", (replace(stages["audit"], inputs=(), work=audit),))
    monkeypatch.chdir(tmp_path)
    ended, out, err = invoke("audit", "phantom", "--json")
    assert (ended, document(out)["exit_code"]) == (code, code)
    assert document(out)["result"] == {"verdict": verdict, "n": 3}
    assert "a library that talks" in err
    ended, out, err = invoke("audit", "phantom", "--quiet")
    assert (ended, out, err) == (code, f"# {verdict}\n\n", "")


def test_ctrl_c_and_a_bug_are_documents(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for raised, code, word in ((KeyboardInterrupt(), 130, "Interrupted"), (ValueError("odd"), 1, "odd")):

        def fail(*given: object, error: BaseException = raised) -> None:
            raise error

        monkeypatch.setattr(pipeline, "open_run", fail)
        ended, out, _ = invoke("evaluate", "phantom", "--json")
        assert (ended, document(out)["exit_code"]) == (code, code)
        assert word in document(out)["error"]["what"]


def test_doctor_answers_in_both_ways(invoke: Invoke, tmp_path: Path) -> None:
    code, out, _ = invoke("doctor", "--json", "--run-dir", tmp_path)
    assert code == 0
    assert document(out)["result"]["schema"] == "synthmed-doctor/1"
    code, out, _ = invoke("doctor", "--run-dir", tmp_path)
    assert code == 0
    assert "Validators" in out


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    from synthmed.cli.answer import Answer

    assert json.loads(str(Answer("x", {"a": 1.5}, "", as_json=True)))["result"] == {"a": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        str(Answer("x", {"a": float(np.nan)}, "", as_json=True))


def test_every_exit_code_is_in_the_table_of_the_help() -> None:
    codes = {c.exit_code for c in _subclasses(ConfigError.__mro__[1])} | {0, 1, 130}
    listed = {int(part.split()[0]) for part in EXIT_CODES.replace("\n", " ").partition(": ")[2].split("· ")}
    assert codes == listed


def _subclasses(kind: type) -> set[Any]:
    return {kind}.union(*(_subclasses(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("synthmed ver", 1, "verify"),
        ("synthmed audit --js", 2, "--json"),
        ("synthmed run hippo", 2, "hippocampus_mri"),
        ("synthmed run phantom --set sampling.num_s", 4, "sampling.num_samples="),
    ],
)
def test_a_shell_completes(words: str, at: int, expected: str) -> None:
    asked = {"_SYNTHMED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    done = subprocess.run(
        [Path(sys.executable).with_name("synthmed")], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert expected in done.stdout.split()


@pytest.mark.slow
def test_stdout_of_a_whole_run_is_one_document(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for verb in ("train", "generate", "evaluate", "audit", "report"):
        done = synthmed(verb, config, "--run-dir", tmp_path / "r", FLAG, quick=True)
        found = document(done.stdout)
        assert found["verb"] == verb
        assert found["exit_code"] == done.returncode
        assert done.returncode in ((0,) if verb != "audit" else (0, 3, 4)), done.stderr
        assert verb == "report" or "finished in" in done.stderr


@pytest.mark.slow
def test_bars_show_rate_and_time_left_on_stderr_and_quiet_hides_them(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = synthmed("generate", config, "--run-dir", tmp_path / "r")
    for stage, unit in (("prepare", "case"), ("autoencoder", "step"), ("denoiser", "step"), ("generate", "volume")):
        bars = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith(f"{stage}:")]
        assert any(f"{unit}/s" in bar or f"s/{unit}" in bar for bar in bars), f"{stage} has no rate"
        assert any("<" in bar and "%" in bar for bar in bars), f"{stage} has no time left"
    assert "%" not in done.stdout
    quiet = synthmed("generate", config, "--run-dir", tmp_path / "q", "--quiet")
    assert quiet.stderr == ""
