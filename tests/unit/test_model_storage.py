"""Weights in fewer bytes: what is stored, and that models of it load and belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import SPACE, save_models

from synthmed.errors import ConfigError, InputError
from synthmed.files import read_json, sha256_file
from synthmed.models.checkpoint import load_autoencoder, load_denoiser, store_autoencoder, store_denoiser
from synthmed.models.storage import SCALE, halve, quantise, restore

NAMES = "autoencoder", "denoiser"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_models(folder, SPACE)
    return folder


@pytest.fixture(scope="module")
def stored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    store_autoencoder(trained / "autoencoder", folder / "autoencoder")
    store_denoiser(trained / "denoiser", folder / "autoencoder", folder / "denoiser")
    return folder


def matrix(rows: int = 64, columns: int = 80) -> torch.Tensor:
    scales = torch.logspace(-6, 2, rows)[:, None]
    return scales * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_eight_bits_by_hand() -> None:
    weight = torch.zeros(2, 4096)
    weight[0, :3] = torch.tensor([254.0, -254.0, 3.1])
    stored = quantise({"w": weight})
    assert stored["w"].dtype == torch.int8
    assert stored["w"][0, :3].tolist() == [127, -127, 2]  # a scale of 2, and 3.1 / 2 rounds to 2
    assert stored[f"w{SCALE}"].shape == (2, 1)
    expected = weight.clone()
    expected[0, 2] = 4.0
    assert torch.equal(restore(stored)["w"], expected), "a row of zeros stays one"


def test_an_error_is_at_most_half_a_level_of_its_row() -> None:
    weight = matrix()
    found = restore(quantise({"w": weight}))["w"]
    level = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((found - weight).abs() <= 0.5001 * level).all()
    assert ((found - weight).abs() > 0.4 * level).any()


@pytest.mark.parametrize(
    "small", [torch.randn(7), torch.randn(9000), torch.randn(4, 5)], ids=["few", "vector", "small"]
)
def test_small_tensors_and_vectors_keep_half_precision(small: torch.Tensor) -> None:
    stored = quantise({"v": small})
    assert stored.keys() == {"v"}
    assert torch.equal(restore(stored)["v"], small.half().float())
    assert restore(stored)["v"].dtype == torch.float32


def test_storing_what_was_stored_changes_nothing() -> None:
    weights = {"w": matrix(), "v": torch.randn(9)}
    for store in (halve, quantise):
        once = restore(store(weights))
        torch.testing.assert_close(restore(store(once)), once, rtol=1e-6, atol=0)


def test_counters_are_left_as_they_are() -> None:
    count = {"n": torch.tensor(3)}
    assert restore(quantise(count))["n"].dtype == torch.int64


def test_too_large_for_half_precision() -> None:
    with pytest.raises(InputError, match=r"weights w cannot be stored.*1e\+05.*65504"):
        halve({"w": torch.tensor([1e5])})


def test_models_load_and_belong_together(trained: Path, stored: Path) -> None:
    autoencoder, denoiser = load_autoencoder(stored / "autoencoder"), load_denoiser(stored / "denoiser")
    assert denoiser.autoencoder_digest == autoencoder.digest == sha256_file(stored / "autoencoder/model.safetensors")
    assert denoiser.digest == sha256_file(stored / "denoiser/model.safetensors")
    before = load_denoiser(trained / "denoiser")
    assert torch.equal(denoiser.latent_std, before.latent_std), "what scales latents is not rounded"
    assert denoiser.conditioning == before.conditioning
    for name, value in load_autoencoder(trained / "autoencoder").model.state_dict().items():
        assert torch.equal(autoencoder.model.state_dict()[name], value.half().float())


@pytest.mark.parametrize("name", NAMES)
def test_the_record_tells_what_it_was_made_from(trained: Path, stored: Path, name: str) -> None:
    before, after = (read_json(folder / name / "model.json") for folder in (trained, stored))
    assert after["made_from_sha256"] == before["weights_sha256"] != after["weights_sha256"]
    assert after["architecture"] == before["architecture"]
    size = [(folder / name / "model.safetensors").stat().st_size for folder in (trained, stored)]
    assert size[1] < 0.7 * size[0]


def test_a_denoiser_of_another_autoencoder_is_refused(trained: Path, tmp_path: Path) -> None:
    save_models(tmp_path / "other", SPACE, weights_seed=5)
    store_autoencoder(tmp_path / "other" / "autoencoder", tmp_path / "autoencoder")
    with pytest.raises(ConfigError, match="latents of another autoencoder"):
        store_denoiser(trained / "denoiser", tmp_path / "autoencoder", tmp_path / "denoiser")
    with pytest.raises(ConfigError, match="latents of another autoencoder"):  # the right one, but not stored
        store_denoiser(trained / "denoiser", trained / "autoencoder", tmp_path / "denoiser")
    assert not (tmp_path / "denoiser").exists()
