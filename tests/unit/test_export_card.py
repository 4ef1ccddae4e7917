"""The data card: what it must say, that the hub's front matter is YAML, and that every command in it works."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from releases import Made, digest, make_audit, make_samples

from synthmed.export.documents.card import _size_category


def card_of(release: Path) -> tuple[dict, str]:  # type: ignore[type-arg]
    _, front, text = (release / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_front_matter_is_what_the_hub_reads(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release", title='A "cohort": hippocampi', license="CC-BY-4.0")
    front, _ = card_of(release)
    assert front == {
        "pretty_name": 'A "cohort": hippocampi',
        "license": "cc-by-4.0",
        "tags": ["synthetic", "medical", "3d", "mr"],
        "size_categories": ["n<1K"],
        "task_categories": ["image-segmentation"],
        "annotations_creators": ["machine-generated"],
        "configs": [{"config_name": "cases", "data_files": "cases.csv", "default": True}],
    }
    assert (release / front["configs"][0]["data_files"]).is_file()


def test_an_own_licence_is_other_with_its_name(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release", license="Hospital agreement 7")
    front, _ = card_of(release)
    assert [front[key] for key in ("license", "license_name", "license_link")] == [
        "other", "Hospital agreement 7", "LICENSE"
    ]  # fmt: skip
    assert "Hospital agreement 7" in (release / "LICENSE").read_text()


def test_card_states_what_it_is_how_it_was_made_and_what_was_measured(made: Made, tmp_path: Path) -> None:
    _, text = card_of(made.release(tmp_path / "release", source_statement="Scans of one clinic."))
    for line in (
        "Not for clinical use",
        "| Cases | 6 |",
        "| Modality | magnetic resonance (MR) |",
        "| Intensities | arbitrary units, 0 to 1000 |",
        "| Spacing, mm | 1 1.5 2.5 (6 cases) |",
        "| Labels | left, label_2 (values: `nifti/dataset.json`) |",
        "| Conditions | age |",
        "Source: Scans of one clinic.",
        "| Sampler | dpmpp_2m |",
        "Verdict: **PASS** by the policy `default`",
        "| Training patients | 60 | at least 20 |",
        "| Held-out patients | 40 | at least 20 |",
        "| Share of such samples, upper bound | 0.015 | at most 0.05 |",
        "| Planted copies that the audit found, lower bound | 0.95 | at least 0.9 |",
        "| Risk that two parts of a training patient's scan can be linked, lower bound | 0 | at most 0 |",
        "| Membership of the training set, smallest p after Holm's correction | 0.6 | at least 0.01 |",
        "bounds hold at a confidence of 0.95",
        "This is evidence, not proof",
        "## Intended use and limits",
    ):
        assert line in text


def test_every_limit_of_the_policy_is_shown_in_words(made: Made, tmp_path: Path) -> None:
    _, text = card_of(made.release(tmp_path / "release"))
    limits = json.loads((made.audit / "report.json").read_text())["policy"]["thresholds"]
    shown = re.findall(r"^\| .* \| .* \| at (?:most|least) .* \|$", text, re.MULTILINE)
    assert len(shown) == sum(name.startswith(("max_", "min_")) for name in limits)
    assert not any("_" in row for row in shown)


@pytest.mark.parametrize("formats", [("nifti",), ("bids",), ("nifti", "bids"), ("dicom",)])
def test_only_formats_in_the_release_are_spoken_of(made: Made, tmp_path: Path, formats: tuple[str, ...]) -> None:
    release = made.release(tmp_path / "release", formats=formats)
    documents = [(release / name).read_text() for name in ("README.md", "DATASHEET.md", "MODEL_CARD.md")]
    for name, words in {
        "nifti": ("nifti/", "nnU-Net"),
        "dicom": ("dicom/", "DICOM"),
        "bids": ("bids/", "BIDS"),
    }.items():
        for word in words:
            assert any(word in text for text in documents) == (name in formats), word


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [{"formats": ("nifti", "dicom", "bids")}, {"formats": ("dicom",), "enhanced": True}],
    ids=["all", "enhanced"],
)
def test_every_snippet_runs_in_the_release(made: Made, tmp_path: Path, config: dict) -> None:  # type: ignore[type-arg]
    release = made.release(tmp_path / "release", **config)
    _, text = card_of(release)
    snippets = blocks(text, "python")
    assert len(snippets) == (4 if len(config["formats"]) == 3 else 2)
    show = "\nfor name in ('image', 'segmentation'):\n    print(type(globals().get(name)))"
    code = "\n".join([*snippets, "assert len(list(cases)) == 6", show])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=release, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NoneType" not in done.stdout


def test_every_command_that_checks_it_passes_and_each_sees_a_change(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release")
    (commands,) = blocks(card_of(release)[1], "sh")
    sums, openssl, synthmed = commands.splitlines()

    def code(command: str) -> int:
        return subprocess.run(command.split(), cwd=release, capture_output=True).returncode

    assert synthmed == "synthmed verify ."
    assert (code(sums), code(openssl)) == (0, 0)
    (release / "LICENSE").write_text("Do as you like")
    assert code(sums) != 0
    (release / "SHA256SUMS").write_text((release / "SHA256SUMS").read_text() + "\n")
    assert code(openssl) != 0


def test_ct_windows_are_hounsfield_units(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate", modality="CT", labels=())
    record = json.loads((samples / "generation.json").read_text())
    record["space"] |= {"normalisation": "window", "intensity_range": [-1000, 400]}
    (samples / "generation.json").write_text(json.dumps(record))
    release = Made(samples, make_audit(tmp_path / "audit", samples)).release(tmp_path / "release")
    front, text = card_of(release)
    assert "| Intensities | Hounsfield units, -1000 to 400 |" in text
    assert "| Labels | none |" in text
    assert "task_categories" not in front
    assert "`imagesTs`" in text


def test_a_title_over_several_lines_is_one_heading(made: Made, tmp_path: Path) -> None:
    front, text = card_of(made.release(tmp_path / "release", title="Hips\n---\n| of | people"))
    assert front["pretty_name"] == "Hips --- | of | people"
    assert "\n# Hips --- | of | people\n" in text


@pytest.mark.parametrize(("n", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K")])
def test_size_categories(n: int, name: str) -> None:
    assert _size_category(n) == name


def test_cases_have_seed_condition_spacing_and_digests(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release")
    with (release / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [f"synthetic_{i:04d}" for i in range(6)]
    row = rows[3]
    assert (row["seed"], row["spacing"], json.loads(row["condition"])) == ("1003", "1 1.5 2.5", {"age": 53})
    assert digest(release / row["image"]) == row["image_sha256"]
    assert digest(release / row["label"]) == row["label_sha256"]
