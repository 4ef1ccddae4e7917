"""The whole run through the command line, to a verified release that names nobody."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_run import synthmed, write_config

from privacy.policy import load_policy
from synthmed.export import verify
from synthmed.pipeline import STAGES

pytestmark = pytest.mark.slow

# The tiny models and cohort are too weak for the shipped policies; what is tested here is the way, not the verdict.
LENIENT = {
    "max_identity_matches": 3,
    "max_copy_rate_upper": 0.1,
    "max_match_excess_upper": 0.1,
    "min_recall_lower": 0.5,
    "min_disguise_recall": 0.0,
    "confidence": 0.8,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run everything once."""
    folder = tmp_path_factory.mktemp("whole run ü")
    policy = yaml.safe_load(_bundled())
    for key, value in LENIENT.items():
        policy["thresholds"][key]["value"] = value
    (folder / "lenient.yaml").write_text(yaml.safe_dump(policy | {"name": "lenient"}), encoding="utf-8")
    config = write_config(
        folder,
        cohort={"phantom": {"num_subjects": 40, "shape": [16, 16, 16]}},
        sampling={"num_samples": 24},
        audit={"policy": str(folder / "lenient.yaml")},
    )
    result = synthmed("run", config, "--run-dir", folder / "r")
    assert result.returncode == 0, result.stderr
    return folder, result


def _bundled():
    from importlib.resources import files

    assert load_policy("research").name == "research"
    return (files("privacy") / "policies" / "research.yaml").read_text(encoding="utf-8")


def test_the_end_says_what_was_made_and_where(finished):
    folder, result = finished
    for words in (
        "24 synthetic volumes",
        "PASS",
        "trained on synthetic (TSTR)",
        str(folder / "r" / "export" / "release"),
    ):
        assert words in result.stdout


def test_the_release_verifies_and_a_changed_byte_is_named(finished, tmp_path):
    folder, _ = finished
    assert synthmed("verify", folder / "r" / "export" / "release").returncode == 0
    release = shutil.copytree(folder / "r" / "export" / "release", tmp_path / "release")
    victim = sorted(release.rglob("*_0000.nii.gz"))[3]
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    broken = synthmed("verify", release)
    assert broken.returncode == 8
    assert victim.name in broken.stdout


def test_no_file_of_the_release_names_a_patient_a_case_or_a_path(finished):
    folder, _ = finished
    with (folder / "r" / "prepare" / "cases.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = {row["case"] for row in rows} | {row["subject"] for row in rows} | {str(folder), folder.name}
    for file in (folder / "r" / "export" / "release").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        found = [name for name in names if name.encode() in content or name in str(file.relative_to(folder))]
        assert found == [], file


@pytest.mark.parametrize(
    ("verb", "holds"),
    [
        ("generate", {"volumes": 24}),
        ("evaluate", {"schema": "synthmed-evaluation/2"}),
        ("audit", {"verdict": "PASS"}),
        ("export", {"formats": ["nifti"]}),
        ("run", {"volumes": 24, "verdict": "PASS", "policy": "lenient"}),
    ],
)
def test_a_verb_answers_a_program_too(finished, verb, holds):
    folder, _ = finished
    done = synthmed(verb, folder / "r", "--json", "--quiet")
    answer = json.loads(done.stdout)
    assert (answer["verb"], answer["exit_code"], answer["error"], done.returncode) == (verb, 0, None, 0)
    assert holds.items() <= answer["result"].items()
    assert done.stderr == ""
    if verb == "run":
        assert set(answer["result"]["stages"]) == {stage.name for stage in STAGES}
        assert verify(Path(answer["result"]["release"])) == []


def test_a_second_run_does_nothing_again(finished):
    folder, _ = finished
    again = synthmed("run", folder / "r")
    assert again.returncode == 0
    assert again.stderr.count("done before") == 7


def test_an_edited_report_or_sample_never_reaches_a_release(finished, tmp_path):
    """What was changed after its stage ended is made again, so the release holds the honest bytes."""
    folder, _ = finished
    run = shutil.copytree(folder / "r", tmp_path / "r")
    shutil.rmtree(run / "export")
    report, image = run / "audit" / "release" / "report.json", run / "generate" / "images" / "synth_00001.nii.gz"
    honest = report.read_bytes(), image.read_bytes()
    report.write_bytes(honest[0].replace(b'"identity_matches": 0', b'"identity_matches": 0.0'))
    shutil.copy(sorted((run / "prepare" / "train" / "images").iterdir())[0], image)
    assert report.read_bytes() != honest[0]
    again = synthmed("export", run)
    assert again.returncode == 0, again.stderr
    assert (report.read_bytes(), image.read_bytes()) == honest
    released = run / "export" / "release" / "nifti" / "imagesTr" / "synth_00001_0000.nii.gz"
    assert released.read_bytes() == honest[1]
