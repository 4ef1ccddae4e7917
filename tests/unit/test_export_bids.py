"""The BIDS layout, judged by the BIDS validator itself and read back with SimpleITK."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from releases import (
    Made,
    digest,
    make_audit,
    make_samples,
    oblique_affine,
    phantom_image,
    phantom_label,
    read_table,
    write_table,
)

from synthmed.config import ExportConfig
from synthmed.errors import ConfigError, InputError, ReleaseRefused
from synthmed.export.approval import approve
from synthmed.export.bids import subject_labels, write_bids
from synthmed.export.cohort import open_approved

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


def bids_of(made: Made, release: Path, **config: Any) -> tuple[Path, dict[str, dict[str, str]]]:
    release.mkdir()
    cohort = open_approved(made.samples, approve(made.samples, made.report, "default"))
    columns = write_bids(cohort, release, ExportConfig(**config))
    return release / "bids", columns


def of_conditions(folder: Path, conditions: list[dict[str, Any]]) -> Made:
    samples = make_samples(folder / "samples", len(conditions))
    rows = [row | {"condition": json.dumps(c)} for row, c in zip(read_table(samples), conditions, strict=True)]
    write_table(samples, rows)
    return Made(samples, make_audit(folder / "audit", samples))


def issues(bids: Path) -> list[dict[str, Any]]:
    """Return what the validator says of a dataset and of the derivatives in it."""
    done = subprocess.run([VALIDATOR, bids, "--recursive", "--format", "json"], capture_output=True, text=True)
    said = json.loads(done.stdout)
    parts = [said, *said.get("derivativesSummary", {}).values()]
    return [issue for part in parts for issue in part["issues"]["issues"]]


def errors(bids: Path) -> list[dict[str, Any]]:
    return [issue for issue in issues(bids) if issue["severity"] == "error"]


def test_the_validator_finds_no_error(made: Made, tmp_path: Path) -> None:
    bids, _ = bids_of(made, tmp_path / "release")
    found = issues(bids)
    assert [i for i in found if i["severity"] == "error"] == []
    # What remains is what only a scanner, an author or a hospital could state.
    assert {i["code"] for i in found} == {
        "SIDECAR_KEY_RECOMMENDED", "JSON_KEY_RECOMMENDED", "NO_AUTHORS", "TOO_FEW_AUTHORS"
    }  # fmt: skip


def test_the_validator_sees_a_fault(made: Made, tmp_path: Path) -> None:
    bids, _ = bids_of(made, tmp_path / "release")
    (bids / "sub-synthetic0001" / "anat" / "sub-synthetic0002_T1w.json").write_text("{}")
    assert errors(bids)


def test_images_and_labels_are_the_approved_bytes_and_read_as_such(made: Made, tmp_path: Path) -> None:
    bids, columns = bids_of(made, tmp_path / "release")
    assert list(columns) == [f"synthetic_{i:04d}" for i in range(6)]
    cells = columns["synthetic_0004"]
    assert cells == {
        "bids_image": "bids/sub-synthetic0004/anat/sub-synthetic0004_T1w.nii.gz",
        "bids_label": "bids/derivatives/labels/sub-synthetic0004/anat/sub-synthetic0004_dseg.nii.gz",
    }
    image, label = bids.parent / cells["bids_image"], bids.parent / cells["bids_label"]
    assert digest(image) == digest(made.samples / "images" / "synthetic_0004.nii.gz")
    assert digest(label) == digest(made.samples / "labels" / "synthetic_0004.nii.gz")
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(image))).transpose(2, 1, 0)
    np.testing.assert_array_equal(array, phantom_image(4))
    np.testing.assert_array_equal(np.asarray(nib.load(label).dataobj), phantom_label((1, 2)))
    np.testing.assert_allclose(nib.load(image).affine, oblique_affine(), atol=1e-5)


def test_everything_says_that_it_is_synthetic(made: Made, tmp_path: Path) -> None:
    bids, _ = bids_of(made, tmp_path / "release", title="Hips", license="CC0-1.0", source_statement="One clinic.")
    for file in bids.rglob("*.json"):
        if file.name != "participants.json":
            assert json.loads(file.read_text())["SyntheticData"] is True
    sidecar = json.loads((bids / "sub-synthetic0000/anat/sub-synthetic0000_T1w.json").read_text())
    assert sidecar["ImageComments"] == "SYNTHETIC - NOT FOR CLINICAL USE"
    assert sidecar["Weighting"].startswith("Not recorded")
    description = json.loads((bids / "dataset_description.json").read_text())
    assert (description["Name"], description["License"]) == ("Hips", "CC0-1.0")
    assert "One clinic." in (bids / "README.md").read_text()


def test_label_values_are_named(made: Made, tmp_path: Path) -> None:
    bids, _ = bids_of(made, tmp_path / "release")
    names = (bids / "derivatives/labels/dseg.tsv").read_text()
    assert names == "index\tname\n0\tbackground\n1\tleft\n2\tlabel_2\n"


def test_conditions_of_any_kind_make_participants_that_validate(tmp_path: Path) -> None:
    strange = {
        "age": 92.5,
        "sex": "weiblich",
        "handedness": 1.5,
        "participant_id": "me",
        "a b": "c\td\n",
        "strain": "x",
    }
    bids, _ = bids_of(of_conditions(tmp_path, [strange, {"age": None}]), tmp_path / "release")
    assert errors(bids) == []
    with (bids / "participants.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert rows[0] == {
        "participant_id": "sub-synthetic0000", "a b": "c d", "age": "92.5", "handedness": "1.5",
        "condition_participant_id": "me", "sex": "weiblich", "strain": "x",
    }  # fmt: skip
    assert set(rows[1].values()) == {"sub-synthetic0001", "n/a"}
    described = json.loads((bids / "participants.json").read_text())
    assert set(described) == set(rows[0]) - {"participant_id"}
    assert described["age"]["Units"] == "year"
    assert list(described["sex"]["Levels"]) == ["weiblich"]


def test_without_labels_there_is_no_derivative(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", labels=())
    bids, columns = bids_of(Made(samples, make_audit(tmp_path / "audit", samples)), tmp_path / "release")
    assert not (bids / "derivatives").exists()
    assert columns["synthetic_0000"]["bids_label"] == ""
    assert errors(bids) == []


@pytest.mark.parametrize(("modality", "message"), [("CT", "BIDS has no CT"), ("PT", "MR only, not PT")])
def test_other_modalities_are_refused(tmp_path: Path, modality: str, message: str) -> None:
    samples = make_samples(tmp_path / "samples", 1, modality=modality)
    with pytest.raises(ConfigError, match=message):
        bids_of(Made(samples, make_audit(tmp_path / "audit", samples)), tmp_path / "release")
    assert list((tmp_path / "release").iterdir()) == []


def test_undeclared_label_values_are_refused(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "samples", 2)
    record = json.loads((samples / "generation.json").read_text())
    record["space"]["label_values"] = [0, 1]
    (samples / "generation.json").write_text(json.dumps(record))
    with pytest.raises(ReleaseRefused, match="never learned; found 2"):
        bids_of(Made(samples, make_audit(tmp_path / "audit", samples)), tmp_path / "release")


def test_two_cases_are_never_one_subject() -> None:
    assert subject_labels(["a_1", "a2", "b-3"]) == {"a_1": "a1", "a2": "a2", "b-3": "b3"}
    with pytest.raises(InputError, match="a_1 and A1"):
        subject_labels(["a_1", "A1"])
