"""The doctor reports what is there, and says what is missing or would not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from synthmed import doctor
from synthmed.config import parse_config
from synthmed.doctor import COHORT, advise, examine, format_diagnosis, training_limits
from synthmed.export.validation.validators import VALIDATORS
from synthmed.prepare.machine import Machine
from synthmed.prepare.planner import SHARE_OF_MEMORY, estimate_memory, networks

LAPTOP, SERVER = Machine(2, 4.0), Machine(32, 256.0, "cuda", 80.0)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return examine(tmp_path_factory.mktemp("runs") / "not" / "there yet")


def peak(machine: Machine, side: int) -> float:
    one = {"batch_size": 1}
    sections = {"autoencoder_training": one, "denoiser_training": one, "sampling": one}
    config = parse_config({**networks(machine), **sections, "preprocess": {"grid": [side] * 3}})
    return estimate_memory(config, COHORT).peak


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
def test_the_largest_grid_fits_and_the_next_does_not(machine: Machine) -> None:
    limits = training_limits(machine)
    side = limits["largest_grid"][0]
    assert limits["largest_grid"] == [side] * 3
    assert peak(machine, side) <= SHARE_OF_MEMORY * machine.training_gib < peak(machine, side + 8)
    assert [row["fits"] for row in limits["grids"]] == [row["side"] <= side for row in limits["grids"]]


def test_more_memory_holds_larger_grids_and_none_fits_a_watch() -> None:
    sides = [training_limits(Machine(2, gib))["largest_grid"][0] for gib in (1.0, 4.0, 24.0)]
    assert sides[0] == 0 < sides[1] < sides[2]


def test_it_looks_at_this_machine(here: dict[str, Any], tmp_path: Path) -> None:
    import torch

    assert here["versions"]["torch"] == torch.__version__
    assert here["machine"]["device"] in {"cpu", "cuda", "mps"}
    assert here["machine"]["memory_gib"] >= (here["machine"]["free_memory_gib"] or 0)
    assert here["disk"]["writable"]
    assert here["disk"]["free_gib"] > 0
    assert here["dicom"]["reads"]["RLELossless"], "pydicom itself decodes RLE"
    assert here["dicom"]["writes"]["none"]
    assert not (tmp_path / "not").exists(), "nothing is written"


def test_every_validator_is_looked_for(here: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(here["validators"]) == len(VALIDATORS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    tools = {"dciodvfy", "dcentvfy", "dcm2niix", "bids-validator", "mlcroissant"}
    found = doctor._validators()
    assert {name for name, there in found.items() if not there} == tools
    assert found.keys() == here["validators"].keys()


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("validators", {"dciodvfy": False}, ["dciodvfy", "extra `validate`"]),
        ("dicom", {"reads": {"HTJ2K": False, "JPEG2000": True}}, ["cannot be read: HTJ2K"]),
        ("disk", {"writable": False, "directory": "d"}, ["Nothing can be written to d", "--run-dir"]),
        ("disk", {"free_gib": 0.5}, ["0.5 GiB of disk"]),
        ("versions", {"monai": ""}, ["monai is not installed"]),
        ("machine", {"device": "cpu", "built_for_cuda": "13.0"}, ["CUDA 13.0", "no GPU"]),
        ("training", training_limits(LAPTOP), ["256", "would not fit", "the largest cube is"]),
    ],
)
def test_what_is_missing_is_said(here: dict[str, Any], section: str, change: dict[str, Any], words: list[str]) -> None:
    sound = here | {"training": training_limits(SERVER), "machine": here["machine"] | {"built_for_cuda": ""}}
    sound["validators"] = dict.fromkeys(here["validators"], True)
    before = list(advise(sound))
    new = [line for line in advise(sound | {section: sound[section] | change}) if line not in before]
    assert len(new) == 1
    assert all(word in new[0] for word in words), new


def test_a_person_reads_all_of_it(here: dict[str, Any]) -> None:
    text = format_diagnosis(here | {"validators": {"dciodvfy": False, "mlcroissant": True}})
    assert "dciodvfy (missing), mlcroissant\n" in text
    for row in here["training"]["grids"]:
        assert f"{row['side']} x {row['side']} x {row['side']}" in text
    assert max(map(len, text.splitlines()[:4])) < 100
