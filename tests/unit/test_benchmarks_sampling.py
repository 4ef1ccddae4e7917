"""`benchmarks/sampling.py`: what is counted, what is drawn alike, and the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pytest
import sampling
import torch
from small_models import SPACE, audited_run
from small_runs import blobs
from speed import drawing, judging

from synthmed.config import SamplingConfig
from synthmed.errors import ConfigError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited_run(tmp_path_factory.mktemp("run")).root


def clock() -> float:
    return 0.0


def test_evaluations_are_those_of_the_network(run: Path) -> None:
    models = drawing.open_models(str(run))
    expected = {
        "ddim": 5,
        "dpmpp_2m": 5,
        "ddpm": 5,
        "heun": 8,
    }  # one at either end
    for sampler, count in expected.items():
        settings = SamplingConfig(sampler=sampler, num_inference_steps=5)
        assert drawing.draw(models, settings, 2, 0, clock).evaluations == count, sampler
    guided = SamplingConfig(sampler="ddim", num_inference_steps=5, guidance_scale=2.0)
    assert drawing.draw(models, guided, 2, 0, clock).evaluations == 10


def test_volumes_do_not_depend_on_the_batch_and_are_decoded_on_the_grid(run: Path) -> None:
    models = drawing.open_models(str(run))
    whole = drawing.draw(models, models.sampling, 3, 0, clock)
    single = drawing.draw(models, models.sampling, 1, 2, clock)
    assert whole.seeds[2:] == single.seeds
    assert torch.allclose(whole.latents[2:], single.latents, atol=1e-4)
    images, seconds = drawing.decode(models, whole, clock)
    assert images.shape == (3, 1, *SPACE.grid)
    assert len(seconds) == 3
    assert images.abs().max() <= 1


def test_the_standards_are_evenly_spaced_and_keep_the_guidance() -> None:
    ways = drawing.contenders(SamplingConfig(guidance_scale=3.0, timestep_shift=4.0), [7])
    assert list(ways)[:2] == ["own: dpmpp_2m, 20 steps", "own: dpmpp_2m, 7 steps"]
    fewer = ways["own: dpmpp_2m, 7 steps"]
    assert (fewer.num_inference_steps, fewer.timestep_shift) == (7, 4)
    for name, steps in ((drawing.DDIM, 50), (drawing.DDPM, 1000)):
        assert (ways[name].num_inference_steps, ways[name].timestep_shift, ways[name].guidance_scale) == (steps, 1, 3)


def test_the_command_prints_ratios_to_both_standards(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standards = {name: dict(change, num_inference_steps=4) for name, change in drawing.STANDARD.items()}
    monkeypatch.setattr(drawing, "STANDARD", standards)
    out = tmp_path / "rows.json"
    assert sampling.main([str(run), "--quick", "--json", str(out)]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["DDPM-1000"]["x DDPM-1000"] == 1
    assert rows["DDIM-50"]["volumes"] == 2
    assert "no KID" in capsys.readouterr().out


def test_a_run_without_models_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("name: empty\n")
    with pytest.raises(ConfigError, match="no trained autoencoder"):
        drawing.open_models(str(tmp_path))
    assert sampling.main([str(tmp_path)]) == ConfigError.exit_code
    assert "no trained" in capsys.readouterr().err


def test_the_distance_of_real_scans_stands_beside_and_noise_is_further() -> None:
    train, holdout = blobs(12, 0), blobs(10, 1)
    sets = {"like": blobs(12, 2).images, "noise": torch.rand(12, 1, 16, 16, 16) * 2 - 1}
    found = judging.distances_to_holdout(sets, train, holdout, 0)
    assert set(found) == {"like", "noise", judging.REAL}
    assert found["noise"]["value"] > found["like"]["value"]
    assert judging.figure_text(None) == ""
