"""Pretrained models: publishing one of a run, finding it, and drawing from it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import invoke
from releases import digest, make_audit
from small_models import audited_run

from privacy.policy import judge, load_policy
from synthmed import pipeline, publishing
from synthmed.config import SamplingConfig
from synthmed.errors import AuditInconclusive, ConfigError, InputError, ReleaseRefused
from synthmed.files import read_json, write_json
from synthmed.models import library
from synthmed.models.library import find_model, read_entry, shipped_models
from synthmed.pretrained import draw
from synthmed.publishing import StoredRun, publish
from synthmed.stages import Run

FILES = {
    "LICENSE",
    "MODEL_CARD.md",
    "audit/report.json",
    "audit/report.md",
    "autoencoder/model.json",
    "autoencoder/model.safetensors",
    "denoiser/model.json",
    "denoiser/model.safetensors",
    "model.json",
    "samples.png",
}
EVALUATION = {"autoencoder": {"psnr_db": {"value": 31.25, "low": 30.5, "high": 32.0}}}
EXPORT = {"title": "Knees", "license": "CC-BY-4.0", "source_statement": "Scans of forty knees."}


def fake_stages(monkeypatch: pytest.MonkeyPatch, **measured: Any) -> None:
    """Let the evaluation and the audit write what a test says; everything else is the real thing."""

    def evaluate(run: Run, out: Path, progress: bool) -> None:
        write_json(out / "evaluation.json", EVALUATION)

    def audit(run: Run, out: Path, progress: bool) -> None:
        make_audit(out / "release", run.stage("generate"), **measured)

    works = {"evaluate": evaluate, "audit": audit}
    stages = tuple(replace(s, work=works.get(s.name, s.work)) for s in pipeline.STAGES)
    monkeypatch.setattr(publishing, "STAGES", stages)


def trained_run(folder: Path) -> Run:
    run = audited_run(folder, export=EXPORT)
    shutil.rmtree(run.stage("generate"))
    shutil.rmtree(run.stage("audit"))
    write_json(run.stage("prepare") / "manifest.json", {"digest": "d", "seconds": 1.0, "peak_memory_mib": 1})
    return run


def quietly(run: Run, name: str, out: Path) -> Path:
    return publish(run, name, out, progress=False, say=lambda line: None)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run, its samples and audits not yet made; never modified."""
    return trained_run(tmp_path_factory.mktemp("private-ward"))


@pytest.fixture(scope="module")
def published(ward: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A copy of it, and the model that it was published as; never modified."""
    run = Run(ward.config, shutil.copytree(ward.root, tmp_path_factory.mktemp("copy") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        fake_stages(patch)
        return run, quietly(run, "knees", tmp_path_factory.mktemp("made") / "knees")


@pytest.fixture
def shelf(published: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that holds it, in place of the package's."""
    shutil.copytree(published[1], tmp_path / "weights" / "knees")
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "weights")
    for function in (shipped_models, find_model):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "weights",))
    return tmp_path / "weights"


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): digest(p) for p in folder.rglob("*") if p.is_file()}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


# Publishing.


def test_layout_and_digests(published: tuple[Run, Path]) -> None:
    run, folder = published
    assert contents(folder).keys() == FILES
    entry = read_entry(folder)
    assert (entry.name, entry.title, entry.license) == ("knees", "Knees", "CC-BY-4.0")
    assert entry.labels == {3: "nucleus", 7: "ventricle"}
    assert entry.conditions["sex"] == ("F", "M")
    assert entry.conditions["age"] == pytest.approx((40.475, 58.525))
    for kind in ("autoencoder", "denoiser"):
        file = folder / kind / "model.safetensors"
        assert entry.digests[kind] == digest(file) == digest(StoredRun(run.config, run.root).stage(kind) / file.name)
    assert read_json(folder / "denoiser/model.json")["autoencoder_sha256"] == entry.digests["autoencoder"]


def test_what_was_audited_is_what_the_stored_weights_draw(published: tuple[Run, Path], tmp_path: Path) -> None:
    run, folder = published
    drawn = draw(folder, tmp_path / "out", 4, progress=False)
    assert (drawn.volumes, drawn.audited) == (4, 4)
    assert contents(tmp_path / "out") == {
        name: value
        for name, value in contents(StoredRun(run.config, run.root).stage("generate")).items()
        if name != "manifest.json"
    }


def test_the_card(published: tuple[Run, Path], ward: Run) -> None:
    card = (published[1] / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (
        "# knees: Knees",
        "Scans of forty knees.",
        "CC-BY-4.0",
        "70 scans of 60 training patients",
        "31.250 (30.500 to 32.000)",
        "verdict **PASS** by the policy `default`",
        "**The weights themselves were not audited.**",
        "sex (one of F, M), age (40.5 to 58.5 in the inner 95 % of training)",
        "synthmed generate --model knees -n 4",
    ):
        assert words in card, words
    change = float(re.search(r"Largest change of a voxel.*\| ([\d.]+)% \|", card)[1])
    assert 0 < change <= 100
    everything = b"".join(file.read_bytes() for file in published[1].rglob("*") if file.is_file())
    assert ward.root.name.encode() not in everything
    assert b"/tmp" not in everything


def test_the_run_is_left_as_it_was_but_for_one_folder(published: tuple[Run, Path], ward: Run) -> None:
    after = {k: v for k, v in contents(published[0].root).items() if not k.startswith(("stored/", ".lock"))}
    assert after == contents(ward.root)


def test_a_second_time_nothing_is_drawn_again(
    published: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = published
    fake_stages(monkeypatch)
    said: list[str] = []
    copy = Run(run.config, shutil.copytree(run.root, tmp_path / "run"))
    publish(copy, "knees", tmp_path / "again", progress=False, say=said.append)
    assert [line.partition(":")[2] for line in said] == [" done before, nothing has changed"] * 5
    assert contents(tmp_path / "again") == contents(folder)


@pytest.mark.parametrize(
    ("measured", "error", "words"),
    [
        ({"verdict": "FAIL", "identity_matches": 3}, ReleaseRefused, "audit says FAIL"),
        ({"verdict": "INCONCLUSIVE", "recall_lower": 0.1}, AuditInconclusive, "INCONCLUSIVE"),
    ],
)
def test_only_after_a_pass(
    ward: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any], error: Any, words: str
) -> None:
    fake_stages(monkeypatch, **measured)
    run = Run(ward.config, shutil.copytree(ward.root, tmp_path / "run"))
    with pytest.raises(error, match=words):
        quietly(run, "knees", tmp_path / "knees")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("name", ["Knees", "two words", "../knees", "", "-knees"])
def test_names_that_do_not_fit(ward: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called so"):
        quietly(ward, name, tmp_path / "x")


def test_without_models_or_where_something_lies(ward: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trained model.*synthmed train"):
        quietly(Run(ward.config, tmp_path), "knees", tmp_path / "x")
    with pytest.raises(ConfigError, match="exists already"):
        quietly(ward, "knees", tmp_path)
    assert not (ward.root / "stored").exists()


# Finding one.


def test_a_wrong_name_is_met_with_the_near_one(shelf: Path) -> None:
    assert shipped_models() == {"knees": shelf / "knees"}
    with pytest.raises(ConfigError, match=r"no pretrained model kness; expected one of knees, .*Did you mean knees\?"):
        find_model("kness")
    with pytest.raises(ConfigError, match="List them: synthmed models"):
        find_model("something else")
    assert find_model(str(shelf / "knees")) == shelf / "knees"


@pytest.mark.parametrize(("key", "value"), [("grid", [8, 8]), ("schema", "other/1"), ("extra", 1), ("name", "A B")])
def test_an_entry_that_is_wrong(shelf: Path, key: str, value: Any) -> None:
    file = shelf / "knees" / "model.json"
    write_json(file, read_json(file) | {key: value})
    with pytest.raises(InputError, match=f"does not describe a model; found {key}"):
        read_entry(shelf / "knees")


def test_every_shipped_model_is_whole() -> None:
    for name, folder in shipped_models().items():
        entry = read_entry(folder)
        assert entry.name == name
        assert contents(folder).keys() == FILES
        assert library.size_of(folder) < 20_000_000
        found = {kind: digest(folder / kind / "model.safetensors") for kind in ("autoencoder", "denoiser")}
        assert found == entry.digests
        assert read_json(folder / "denoiser/model.json")["autoencoder_sha256"] == entry.digests["autoencoder"]
        report = read_json(folder / "audit" / "report.json")
        assert len(report["synthetic"]["sha256"]) == entry.samples
        policy = load_policy(report["policy"]["name"])
        verdict, reasons = judge(report["measurements"], policy)
        assert (verdict, policy.sha256) == (report["verdict"], report["policy"]["sha256"])
        assert verdict == "PASS"
        assert " ".join(reasons) in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


# Drawing from one.


def test_another_seed_and_other_settings_are_not_audited(shelf: Path, tmp_path: Path) -> None:
    drawn = draw("knees", tmp_path / "a", 2, seed=7, progress=False)
    assert (drawn.volumes, drawn.audited) == (2, 0)
    drawn = draw("knees", tmp_path / "b", 2, overrides=["sampling.num_inference_steps=2"], progress=False)
    assert (drawn.volumes, drawn.audited) == (2, 0)
    assert read_json(tmp_path / "b" / "generation.json")["num_inference_steps"] == 2


def test_a_condition_is_asked_of_every_volume(shelf: Path, tmp_path: Path) -> None:
    draw("knees", tmp_path / "a", 3, condition={"age": "50", "sex": "F"}, progress=False)
    assert [json.loads(row["condition"]) for row in table(tmp_path / "a")] == [{"age": 50.0, "sex": "F"}] * 3


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"weight": "3"}, "knees is not conditioned on weight; expected sex, age"),
        ({"age": "50"}, "also conditioned on sex. Ask for all of them, such as --condition sex=F"),
        ({"sex": "F"}, r"--condition age=40\.475"),
        ({"age": "old", "sex": "F"}, "condition age is a number; found 'old'"),
        ({"age": "50", "sex": "X"}, "class that no training case has"),
        ({"age": "500", "sex": "F"}, "far outside"),
    ],
)
def test_conditions_that_cannot_be_followed(shelf: Path, tmp_path: Path, condition: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        draw("knees", tmp_path / "a", 3, condition=condition, progress=False)
    assert not (tmp_path / "a").exists()


def test_settings_that_are_not_of_sampling(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not change how a pretrained model draws"):
        draw("knees", tmp_path / "a", 3, overrides=["denoiser.depth=2"], progress=False)
    assert read_entry(shelf / "knees").sampling == SamplingConfig(num_samples=4, num_inference_steps=3, batch_size=2)


def test_damaged_weights_are_not_drawn_from(shelf: Path, tmp_path: Path) -> None:
    file = shelf / "knees" / "denoiser" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(InputError, match="is not the file that"):
        draw("knees", tmp_path / "a", 3, progress=False)


# The command line.


def test_models_lists_and_shows(shelf: Path) -> None:
    answer = invoke("models")
    assert re.search(r"^knees +MR +8x12x8 of 1x1\.5x2 mm +nucleus, ventricle +sex \(F/M\), age", str(answer), re.M)
    assert answer.result["models"][0]["name"] == "knees"
    card = (shelf / "knees" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert str(invoke("models", "knees")) == card.rstrip()
    shown = json.loads(str(invoke("models", "knees", "--json")))["result"]
    assert (shown["card"], shown["schema"]) == (card, "synthmed-model/1")
    shutil.rmtree(shelf)
    assert "No pretrained model comes with this installation" in str(invoke("models"))


def test_generate_draws_without_a_run(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = invoke("generate", "--model", "knees", "-n", "2", "--quiet")
    assert (answer.result["audited"], answer.result["directory"]) == (2, "knees-samples")
    assert "The model's audit looked at every one of them" in str(answer)
    answer = invoke("generate", "--model", "knees", "-n", "5", "-q")
    assert "Not audited: 1 of them. Audit them" in str(answer)
    options = ["--seed", "0", "--condition", "sex=M", "--condition", "age=45", "-o", "b"]
    answer = invoke("generate", "--model", "knees", "-n", "1", "-q", *options)
    assert json.loads(table(tmp_path / "b")[0]["condition"]) == {"age": 45.0, "sex": "M"}
    assert "None of them was audited" in str(answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to draw from; expected a run, or --model NAME"),
        (["phantom", "--model", "knees"], "draws without a run; found phantom beside it"),
        (["--run-dir", "x", "--model", "knees"], "draws without a run"),
        (["phantom", "--seed", "0"], "--seed goes with --model only. For a run: --set seed=N"),
        (["phantom", "-o", "x"], "--output goes with --model only"),
        (["phantom", "--condition", "age=3"], "--condition goes with --model only"),
        (["--model", "knees", "--condition", "age"], "--condition age cannot be read; expected KEY=VALUE"),
        (["--model", "knees", "-n", "0"], "Too few volumes"),
    ],
)
def test_generate_refuses(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(words)):
        invoke("generate", *arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["weights"]


def test_publish_answers(ward: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_stages(monkeypatch)
    root = shutil.copytree(ward.root, tmp_path / "run")
    answer = invoke("publish", root, "--name", "knees", "-o", tmp_path / "knees", "-q")
    assert answer.result["name"] == "knees"
    assert "the weights were not" in str(answer)
    assert contents(tmp_path / "knees").keys() == FILES
