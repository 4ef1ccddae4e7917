"""The data card and the licence: what they must say, and that the hub's front matter is YAML."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from releases import Made, make_audit, make_samples

from synthmed.export.card import _size_category


def card_of(release: Path) -> tuple[dict, str]:  # type: ignore[type-arg]
    _, front, text = (release / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_front_matter_is_what_the_hub_reads(made: Made, tmp_path: Path) -> None:
    front, _ = card_of(made.release(tmp_path / "release", title='A "cohort": hippocampi', license="CC-BY-4.0"))
    assert front == {
        "pretty_name": 'A "cohort": hippocampi',
        "license": "cc-by-4.0",
        "tags": ["synthetic", "medical", "3d", "mr"],
        "size_categories": ["n<1K"],
        "task_categories": ["image-segmentation"],
    }


def test_an_own_licence_is_other_with_its_name(made: Made, tmp_path: Path) -> None:
    release = made.release(tmp_path / "release", license="Hospital agreement 7")
    front, _ = card_of(release)
    assert (front["license"], front["license_name"]) == ("other", "Hospital agreement 7")
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
        "| training patients | 60 |",
        "| held-out patients | 40 |",
        "| copy rate upper | 0.015 |",
        "| min recall lower | 0.9 |",
        "- Wilson 1927, doi:10.1080/01621459.1927.10502953",
        "This is evidence, not proof",
        "## Intended use and limits",
    ):
        assert line in text


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


@pytest.mark.parametrize(("n", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K")])
def test_size_categories(n: int, name: str) -> None:
    assert _size_category(n) == name


def test_cases_have_seed_condition_spacing_and_digests(made: Made, tmp_path: Path) -> None:
    from releases import digest

    release = made.release(tmp_path / "release")
    with (release / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [f"synthetic_{i:04d}" for i in range(6)]
    row = rows[3]
    assert (row["seed"], row["spacing"], json.loads(row["condition"])) == ("1003", "1 1.5 2.5", {"age": 53})
    assert digest(release / row["image"]) == row["image_sha256"]
    assert digest(release / row["label"]) == row["label_sha256"]
