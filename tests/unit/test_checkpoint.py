"""Models on disk: a round trip, and one line for every way a file can be wrong."""

import json

import pytest
import torch

from synthmed.config import AutoencoderConfig, ConditioningConfig, DenoiserConfig, DiffusionConfig
from synthmed.diffusion.conditioning import Conditioning
from synthmed.errors import ConfigError, InputError, SynthmedError
from synthmed.files import sha256_file
from synthmed.models.autoencoder import build_autoencoder
from synthmed.models.checkpoint import RECORD, WEIGHTS, load_autoencoder, load_denoiser, save_model
from synthmed.models.denoiser import build_denoiser
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen
from synthmed.prepare.space import Space

ARCHITECTURE = AutoencoderConfig(channels=(16, 16), latent_channels=8)
SPACE = Space((8, 8, 8), (1.0, 1.0, 2.0), label_values=(0, 3))
CONDITIONING = Conditioning.fit([{"age": 40.0}, {"age": 60.0}], ConditioningConfig(scalars=("age",)))


@pytest.fixture
def autoencoder_dir(tmp_path):
    model = build_autoencoder(ARCHITECTURE, 2)
    record = {"architecture": ARCHITECTURE.model_dump(mode="json"), "num_classes": 2, "space": SPACE.to_json()}
    record |= {"finish": Finish().to_json(), "screen": Screen().to_json()}
    save_model(tmp_path, "autoencoder", model.state_dict(), record)
    return tmp_path


def _denoiser(directory):
    config = DenoiserConfig(width=32, depth=1, num_head_channels=16)
    model = build_denoiser(config, (8, 2, 2, 2), 1)
    record = {
        "architecture": config.model_dump(mode="json"),
        "latent_shape": [8, 2, 2, 2],
        "conditioning": CONDITIONING.to_json(),
        "diffusion": DiffusionConfig(path="cosine").model_dump(mode="json"),
        "autoencoder_sha256": "a" * 64,
    }
    statistics = {"latent_mean": torch.arange(8.0).view(8, 1, 1, 1), "latent_std": torch.ones(8, 1, 1, 1)}
    save_model(directory, "denoiser", model.state_dict(), record, **statistics)
    return model


def test_an_autoencoder_comes_back_as_it_was(autoencoder_dir):
    loaded = load_autoencoder(autoencoder_dir)
    again = load_autoencoder(autoencoder_dir)
    assert loaded.space == SPACE
    assert loaded.digest == sha256_file(autoencoder_dir / WEIGHTS)
    assert not loaded.model.training
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_a_denoiser_comes_back_as_it_was(tmp_path):
    model = _denoiser(tmp_path)
    loaded = load_denoiser(tmp_path)
    assert loaded.latent_shape == (8, 2, 2, 2)
    assert loaded.latent_mean.flatten().tolist() == list(range(8))
    assert loaded.latent_std.shape == (8, 1, 1, 1)
    assert loaded.conditioning == CONDITIONING
    assert loaded.diffusion == DiffusionConfig(path="cosine")
    assert loaded.autoencoder_digest == "a" * 64
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])


def test_the_record_tells_versions(autoencoder_dir):
    versions = json.loads((autoencoder_dir / RECORD).read_text())["versions"]
    assert versions["torch"] == torch.__version__
    assert set(versions) == {"synthmed", "torch", "monai"}


def _truncate(directory):
    file = directory / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _flip_a_byte(directory):
    content = bytearray((directory / WEIGHTS).read_bytes())
    content[-10] ^= 1
    (directory / WEIGHTS).write_bytes(content)


def _change(directory, **entries):
    record = json.loads((directory / RECORD).read_text())
    (directory / RECORD).write_text(json.dumps({k: v for k, v in (record | entries).items() if v is not None}))


DAMAGES = {
    "no weights": (lambda d: (d / WEIGHTS).unlink(), InputError, "Cannot read"),
    "empty weights": (lambda d: (d / WEIGHTS).write_bytes(b""), InputError, "Cannot read"),
    "truncated weights": (_truncate, InputError, "Cannot read"),
    "text for weights": (lambda d: (d / WEIGHTS).write_text("hello" * 100), InputError, "Cannot read"),
    "one bit flipped": (_flip_a_byte, InputError, "is not the file that model.json describes"),
    "no record": (lambda d: (d / RECORD).unlink(), InputError, "Cannot read"),
    "record not JSON": (lambda d: (d / RECORD).write_text("{"), InputError, "Cannot read"),
    "record a list": (lambda d: (d / RECORD).write_text("[]"), InputError, "does not describe a model"),
    "another kind": (lambda d: _change(d, kind="denoiser"), InputError, "found denoiser; expected autoencoder"),
    "another format": (lambda d: _change(d, format=99), InputError, "does not describe a model"),
    "no space": (lambda d: _change(d, space=None), InputError, "lacks space"),
    "architecture with a stranger": (
        lambda d: _change(d, architecture={"colour": "red"}),
        InputError,
        "architecture in .* cannot be followed",
    ),
    "another architecture": (
        lambda d: _change(d, architecture=ARCHITECTURE.model_copy(update={"channels": (32, 16)}).model_dump()),
        ConfigError,
        "belong to another architecture.*found .* expected",
    ),
    "more levels": (
        lambda d: _change(d, architecture=ARCHITECTURE.model_copy(update={"channels": (16,)}).model_dump()),
        ConfigError,
        "belong to another architecture",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line(autoencoder_dir, name):
    damage, error, message = DAMAGES[name]
    damage(autoencoder_dir)
    with pytest.raises(error, match=message) as caught:
        load_autoencoder(autoencoder_dir)
    assert isinstance(caught.value, SynthmedError)
    assert "\n" not in str(caught.value)


def test_a_denoiser_without_its_statistics_is_refused(tmp_path):
    config = DenoiserConfig(width=32, depth=1, num_head_channels=16)
    record = {
        "architecture": config.model_dump(mode="json"),
        "latent_shape": [8, 2, 2, 2],
        "conditioning": Conditioning().to_json(),
        "diffusion": {},
        "autoencoder_sha256": "a",
    }
    save_model(tmp_path, "denoiser", build_denoiser(config, (8, 2, 2, 2), 0).state_dict(), record)
    with pytest.raises(InputError, match="lacks latent_mean"):
        load_denoiser(tmp_path)
