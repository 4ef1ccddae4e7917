"""The configuration: round trip, overrides, and errors that name the key that was probably meant."""

import pytest

from synthmed.config import Config, apply_overrides, dump_config, find_config, load_config, parse_config
from synthmed.errors import ConfigError


def test_resolved_config_reads_back_equal(tmp_path):
    config = parse_config({"name": "x", "sampling": {"sampler": "heun"}, "cohort": {"label_names": {1: "left"}}})
    (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config


def test_what_nobody_asked_to_be_sharded_is_written_as_before_there_was_the_option(tmp_path):
    assert "sharded" not in dump_config(Config())
    config = parse_config({"denoiser_training": {"sharded": True}})
    (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"sampling": {"num_sample": 3}}, ["sampling.num_sample", "Did you mean sampling.num_samples?"]),
        ({"sampler": {}}, ["Unknown configuration key sampler", "sampling"]),
        ({"sampling": {"num_samples": 0}}, ["sampling.num_samples", "0", "greater than or equal to 1"]),
        ({"preprocess": {"grid": [30, 32, 32]}}, ["divisible", "8"]),
        ({"preprocess": {"percentiles": [99, 1]}}, ["percentiles", "below"]),
        ({"preprocess": {"spacing": [0, 1, 1]}}, ["spacing"]),
        ({"cohort": {"modality": "XR"}}, ["cohort.modality", "XR", "MR"]),
        ({"cohort": {"holdout_fraction": 1.5}}, ["holdout_fraction", "1.5"]),
        ({"seed": -1}, ["seed"]),
        ({"autoencoder_training": {"sharded": True}}, ["Unknown", "autoencoder_training.sharded"]),
    ],
)
def test_wrong_content_is_refused_with_its_key(content, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(content)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_take_yaml_values_and_are_validated():
    config = apply_overrides(Config(), ["sampling.num_inference_steps=7", "preprocess.grid=[16, 24, 32]"])
    assert config.sampling.num_inference_steps == 7
    assert config.preprocess.grid == (16, 24, 32)
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        apply_overrides(Config(), ["sampling.num_inference_steps"])
    with pytest.raises(ConfigError, match="num_inference_steps"):
        apply_overrides(Config(), ["sampling.num_inference_step=7"])
    with pytest.raises(ConfigError, match="is a value"):
        apply_overrides(Config(), ["seed.x=7"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\x00"])
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path, text):
    file = tmp_path / "ünten config.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="config"):
        load_config(file)


def test_missing_file_names_the_shipped_ones():
    with pytest.raises(ConfigError, match="phantom"):
        load_config("no_such_config")


@pytest.mark.parametrize("name", ["phantom", "hippocampus_mri", "brain_t1", "body_pet"])
def test_shipped_configurations_load(name):
    assert load_config(name).name == name


def test_yaml_tags_are_not_executed(tmp_path):
    (tmp_path / "c.yaml").write_text("name: !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml")


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"no configuration or run phantm.*Did you mean phantom\?"):
        find_config("phantm")
