"""`benchmarks/ablations.py`: what is trained, what is shared, and the table."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ablations
import pytest
from baselines import source, variants
from small_runs import SPACE, blobs, small_config

from synthmed.config import apply_overrides, dump_config, load_config
from synthmed.errors import ConfigError
from synthmed.files import read_json, sha256_file, write_json
from synthmed.training.fit import train_autoencoder

TRIAL = variants.Trial(seconds=0.05, samples=3, segmenter_steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a run with a prepared cohort and a trained autoencoder."""
    root = tmp_path_factory.mktemp("run")
    sides = {"train": blobs(4, 0), "holdout": blobs(3, 1)}
    rows = ["case,subject,split,covariates,source,sha256"]
    for side, data in sides.items():
        for index in range(len(data.images)):
            source.write_case(root / "prepare" / side, index, data.images[index], data.labels[index], SPACE)
            rows.append(f'synth_{index + 1:05d},{side}{index},{side},"{{""age"": {40 + index}}}",{index},0')
    (root / "prepare" / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_json(root / "prepare" / "space.json", SPACE.to_json())
    config = small_config(
        autoencoder_training={"max_steps": 2},
        sampling={"num_inference_steps": 2, "batch_size": 2, "redraws": 0},
        evaluation={"segmenter_steps": 2, "segmenter_batch_size": 2},
    )
    train_autoencoder(config, sides["train"], sides["holdout"], SPACE, root / "autoencoder", progress=False)
    for name in ("prepare", "autoencoder"):
        write_json(root / name / "manifest.json", {"seconds": 1.0, "digest": name})
    (root / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return root


@pytest.mark.parametrize("recipe", ["hippocampus_mri", "brain_t1"])
def test_every_variant_changes_a_shipped_recipe_to_a_valid_one(recipe):
    base = load_config(recipe)
    for name, overrides in variants.VARIANTS.items():
        changed = apply_overrides(base, overrides)
        assert (changed == base) is (name == "base"), name


def test_variants_are_chosen_by_name_and_tried_ones_added():
    assert ablations.choose_variants(["shift_1"], []) == {"shift_1": ("sampling.timestep_shift=1",)}
    tried = [["mine", "denoiser.depth=2", "seed=5"]]
    assert ablations.choose_variants(["base", "mine"], tried) == {"base": (), "mine": ("denoiser.depth=2", "seed=5")}
    assert "mine" in ablations.choose_variants(None, tried)
    with pytest.raises(ConfigError, match="no such variant"):
        ablations.choose_variants(["shift_2"], [])


@pytest.mark.slow
def test_sampling_variants_share_a_denoiser_and_others_train_their_own_and_nothing_is_done_twice(run, tmp_path, capsys):
    opened = source.open_source(run, ("prepare", "autoencoder"))
    chosen = ablations.choose_variants(
        ["base", "shift_1", "depth", "no_latent_noise", "wide"],
        [
            ["depth", "denoiser.depth=2"],
            ["wide", "denoiser.width=33"],
        ],
    )
    results = ablations.run_variants(opened, chosen, [0], TRIAL, tmp_path, progress=False)
    assert list(results) == ["base", "shift_1", "depth", "no_latent_noise"]
    assert "wide: left out, denoiser.width does not divide" in capsys.readouterr().out
    assert results["base"][0]["loss"] == results["shift_1"][0]["loss"]
    assert results["base"][0]["loss"] != results["depth"][0]["loss"]
    assert results["base"][0]["fidelity"] != results["shift_1"][0]["fidelity"]
    counts = {kind: len(list((tmp_path / kind).iterdir())) for kind in ("autoencoders", "denoisers", "sets")}
    assert counts == {"autoencoders": 1, "denoisers": 3, "sets": 4}
    files = [
        file for kind in ("*/*/model.safetensors", "sets/*/images/*", "measured/*") for file in tmp_path.glob(kind)
    ]
    before = {file: (sha256_file(file), file.stat().st_mtime_ns) for file in files}
    again = ablations.run_variants(opened, {"base": (), "depth": chosen["depth"]}, [0], TRIAL, tmp_path, progress=False)
    assert {file: (sha256_file(file), file.stat().st_mtime_ns) for file in files} == before
    assert again["base"][0]["fidelity"] == results["base"][0]["fidelity"]
    text = ablations.markdown(chosen, results, TRIAL, [0])
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert list(rows)[2:] == ["base", "shift_1", "depth", "no_latent_noise", "real scans"]
    assert "`denoiser.depth=2`" in rows["depth"]
    assert f"{results['depth'][0]['loss']:.4f} (" in rows["depth"]
    assert f"{results['no_latent_noise'][0]['loss']:.4f}* (" in rows["no_latent_noise"]
    assert read_json(tmp_path / "results" / "depth.json")["seeds"] == [0]


def test_a_budget_is_divided_by_the_time_of_a_step(run, tmp_path):
    opened = source.open_source(run, ("prepare", "autoencoder"))
    config = opened.run.config
    folder = opened.run.stage("autoencoder")
    few = variants.steps_of(opened, config, folder, 0.05, tmp_path)
    more = variants.steps_of(opened, config, folder, 0.5, tmp_path)
    assert few >= 1
    assert more == pytest.approx(10 * few, abs=6)


def test_a_trained_run_lends_its_own_denoiser_to_variants_that_only_sample(run):
    opened = source.open_source(run, ("prepare", "autoencoder"))
    sampled = apply_overrides(opened.run.config, ["sampling.num_inference_steps=3", "seed=1"])
    assert variants.own_denoiser(opened, sampled) == run / "denoiser"
    with pytest.raises(ConfigError, match="changes what is trained"):
        variants.own_denoiser(opened, apply_overrides(opened.run.config, ["denoiser.depth=2"]))


def test_a_table_says_how_conditions_are_followed_beside_the_real_scans():
    told = {"holdout": {"correlation": {"value": 0.81}}, "synthetic": {"correlation": {"value": 0.72}}}
    measured = {"loss": 1.0, "training_loss": 1.0, "psnr": None, "steps": 3, "fidelity": {}} | {
        "conditions": {"age": told}
    }
    head, _, row, floor, _, budget = ablations.markdown(
        {"base": ()}, {"base": [measured]}, variants.Trial(None, 9, 0), [0]
    ).splitlines()
    assert head.endswith("| age correlation |")
    assert row.endswith("| 0.72 |")
    assert floor.endswith("| 0.81 |")
    assert budget.startswith("The run's own denoiser, 9 volumes")


def test_spread_over_seeds_is_told_with_its_ends():
    assert ablations._spread([0.5], 2) == "0.50"
    assert ablations._spread([0.5, 0.7], 2) == "0.60 (0.50 to 0.70)"
