"""A configuration that fits the cohort and the machine, and a memory estimate held against what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cohorts import save, scan, write_decathlon, write_folder
from torch import Tensor, nn

from synthmed.config import CohortConfig, Config, load_config, parse_config
from synthmed.errors import InputError
from synthmed.models.autoencoder import build_autoencoder, one_hot
from synthmed.models.denoiser import build_denoiser
from synthmed.prepare.machine import Machine, describe_machine
from synthmed.prepare.planner import (
    autoencoder_bytes_per_voxel,
    denoiser_bytes_per_cell,
    estimate_memory,
    format_plan,
    networks,
    parameters,
    plan,
    plan_cohort,
)

LAPTOP = Machine(cores=2, memory_gib=8)
SERVER = Machine(cores=32, memory_gib=256, device="cuda", device_memory_gib=80)


def triples(*values: float) -> dict[str, list[float]]:
    return {key: list(values) for key in ("min", "median", "p95", "max")}


def content(**changes: Any) -> dict[str, Any]:
    found = {
        "cases": 100,
        "patients": 100,
        "modality": "MR",
        "spacing_mm": triples(1.0, 1.0, 1.0),
        "extent_mm": triples(38.0, 56.0, 41.0),
        "label_extent_mm": None,
        "labels": {},
        "intensities": {"99.9": {"min": 3.0, "median": 9.0, "max": 25.2}},
        "covariates": {},
    }
    return {**found, **changes}


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("modality", ["MR", "CT", "PT"])
def test_plans_are_configurations_within_half_of_the_memory(machine: Machine, modality: str) -> None:
    found = content(modality=modality)
    config = parse_config(plan(found, machine))
    assert config.preprocess.grid == (40, 56, 48)
    assert estimate_memory(config, found).peak <= machine.training_gib / 2
    text = format_plan(plan(found, machine), found, machine)
    assert text.startswith("# Proposed")


@pytest.mark.parametrize("recipe", ["hippocampus_mri", "brain_t1"])
def test_a_small_machine_gets_the_networks_of_the_shipped_recipes(recipe: str) -> None:
    shipped = load_config(recipe).model_dump()
    for section, proposed in networks(LAPTOP).items():
        assert {key: shipped[section][key] for key in proposed} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in proposed.items()
        }


@pytest.mark.parametrize("recipe", ["hippocampus_mri", "brain_t1"])
def test_a_plan_augments_as_the_recipes_of_small_scans(recipe: str) -> None:
    shipped = load_config(recipe).denoiser_training
    assert plan(content(), LAPTOP)["denoiser_training"]["augment"] == shipped.augment


def test_the_grid_holds_every_label() -> None:
    found = content(labels={"1": {}}, label_extent_mm=triples(20.0, 60.0, 20.0))
    assert plan(found, LAPTOP)["preprocess"]["grid"] == [40, 64, 48]


def test_anisotropic_spacing_is_kept() -> None:
    found = content(spacing_mm=triples(0.98, 0.98, 3.27), extent_mm=triples(98.0, 98.0, 100.0))
    settings = plan(found, LAPTOP)["preprocess"]
    assert settings["spacing"] == [0.98, 0.98, 3.27]
    assert settings["grid"] == [104, 104, 32]


def test_a_volume_too_large_for_the_machine_is_coarsened_evenly() -> None:
    found = content(extent_mm=triples(200.0, 200.0, 200.0))
    coarse = plan(found, Machine(2, 4.0))["preprocess"]
    assert coarse["spacing"][0] > 1.0
    assert len(set(coarse["spacing"])) == 1
    assert coarse["grid"][0] * coarse["spacing"][0] >= 200
    assert plan(found, SERVER)["preprocess"]["spacing"] == [1.0, 1.0, 1.0]


def test_a_machine_that_holds_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="No plan fits this machine"):
        plan(content(), Machine(1, 1.0))


@pytest.mark.parametrize(
    ("modality", "highest", "wanted"),
    [
        ("CT", 1500.0, ("window", (-1000.0, 1000.0))),
        ("PT", 25.2, ("window", (0.0, 26.0))),
        ("PT", 120.0, ("window", (0.0, 50.0))),
        ("PT", 30000.0, ("percentile", (0.0, 1000.0))),
        ("MR", 25.2, ("percentile", (0.0, 1000.0))),
    ],
)
def test_intensities_follow_the_modality(
    modality: str, highest: float, wanted: tuple[str, tuple[float, float]]
) -> None:
    found = content(modality=modality, intensities={"99.9": {"min": 0.0, "median": 1.0, "max": highest}})
    settings = parse_config(plan(found, LAPTOP)).preprocess
    assert (settings.normalisation, settings.intensity_range) == wanted


def test_conditions_are_covariates_that_enough_patients_have() -> None:
    covariates = {
        "sex": {"values": {"F": 60, "M": 40}, "missing": 0},
        "site": {"values": {"A": 97, "B": 3}, "missing": 0},
        "age": {"min": 20.0, "median": 50.0, "max": 90.0, "distinct": 70, "missing": 2},
        "code": {"min": 0.0, "median": 1.0, "max": 1.0, "distinct": 2, "missing": 0},
        "weight": {"min": 20.0, "median": 50.0, "max": 90.0, "distinct": 70, "missing": 40},
    }
    found = plan(content(covariates=covariates), LAPTOP)["conditioning"]
    assert found == {"classes": ["sex"], "scalars": ["age"]}


def test_few_cases_make_a_small_batch() -> None:
    assert plan(content(cases=10), LAPTOP)["autoencoder_training"]["batch_size"] == 2
    assert plan(content(cases=1000), SERVER)["autoencoder_training"]["batch_size"] == 32


def kept_bytes(run: Callable[[], Tensor]) -> int:
    """Return the bytes of distinct storages that autograd keeps for the backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(seen.values())


def weight_bytes(model: nn.Module) -> int:
    return sum(4 * p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("channels", "blocks", "classes"),
    [([32, 64, 128], 1, 0), ([16, 32, 64], 1, 3), ([16, 32], 1, 3), ([16, 32], 2, 0)],
)
def test_autoencoder_estimate_is_near_what_autograd_keeps(channels: list[int], blocks: int, classes: int) -> None:
    settings = {"channels": channels, "num_res_blocks": blocks, "latent_channels": 32}
    config = parse_config({"autoencoder": settings})
    model = build_autoencoder(config.autoencoder, max(classes, 1))
    labels = one_hot(torch.zeros(2, 1, 32, 32, 32, dtype=torch.uint8), max(classes, 1))
    noise = torch.zeros(2, 32, *[32 // config.autoencoder.downsampling] * 3)
    kept = kept_bytes(lambda: model(torch.rand(2, 1, 32, 32, 32), labels, noise)[0])
    measured = (kept - weight_bytes(model)) / (2 * 32**3)
    assert autoencoder_bytes_per_voxel(config, classes) == pytest.approx(measured, rel=0.25)
    assert parameters(config)[0] == pytest.approx(weight_bytes(model) / 4, rel=0.6)


@pytest.mark.parametrize(
    "settings",
    [{"kind": "transformer", "width": 128, "depth": 3}, {"kind": "unet", "channels": [64, 128], "num_res_blocks": 2}],
)
def test_denoiser_estimate_is_near_what_autograd_keeps(settings: dict[str, Any]) -> None:
    config = parse_config({"denoiser": settings})
    model = build_denoiser(config.denoiser, (64, 8, 8, 8), 0)
    kept = kept_bytes(lambda: model(torch.rand(2, 64, 8, 8, 8), torch.rand(2)))
    measured = (kept - weight_bytes(model)) / (2 * 8**3)
    assert denoiser_bytes_per_cell(config) == pytest.approx(measured, rel=0.25)
    assert parameters(config)[1] == pytest.approx(weight_bytes(model) / 4, rel=0.3)


def written(tmp_path: Path, cohort: CohortConfig) -> tuple[Config, Config, str]:
    config, text = plan_cohort(cohort)
    file = tmp_path / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return config, load_config(file), text


def test_the_text_says_the_same_as_the_configuration(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "my scans é")
    config, again, text = written(tmp_path, CohortConfig(path=str(root)))
    assert again == config
    assert config.name == "my_scans_é"
    assert config.preprocess.spacing == (1.5, 2.0, 1.0)
    assert config.preprocess.grid == (16, 16, 16)
    assert "8 MR cases of 4 patients" in text


def test_a_plan_takes_names_and_modality_from_the_files(tmp_path: Path) -> None:
    config, again, _ = written(tmp_path, CohortConfig(path=str(write_decathlon(tmp_path / "in"))))
    assert again == config
    assert config.cohort.modality == "CT"
    assert config.cohort.label_names == {1: "box", 2: "corner"}
    assert config.preprocess.normalisation == "window"


def test_a_cohort_with_unreadable_scans_is_not_planned(tmp_path: Path) -> None:
    for n in range(3):
        save(tmp_path / f"{n}.nii", scan(n))
    (tmp_path / "1.nii").write_bytes(b"x" * 10)
    with pytest.raises(InputError, match="1 of 3 cases cannot be used: 1; found first"):
        plan_cohort(CohortConfig(path=str(tmp_path)))


def test_this_machine_has_memory_and_cores() -> None:
    machine = describe_machine()
    assert machine.cores >= 1
    assert 0.2 < machine.memory_gib < 1e5
    assert machine.training_gib > 0
    assert f"{machine.cores} cores" in str(machine)
