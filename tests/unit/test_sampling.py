"""Generation: seeds, batches, resume after a kill, types on disk and refusals, on tiny real models."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from forked_run import Forked
from small_models import SPACE, save_models

import synthmed.sampling.generate
import synthmed.sampling.generated
from synthmed.config import SamplingConfig
from synthmed.errors import ConfigError, StorageError
from synthmed.export.samples import parse_description, read_samples
from synthmed.files import sha256_file
from synthmed.models.checkpoint import load_autoencoder, load_denoiser
from synthmed.prepare.space import Space
from synthmed.sampling.generate import generate, sample_latents, volume_seed

SAMPLING = SamplingConfig(num_samples=5, sampler="ddpm", num_inference_steps=3, batch_size=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_models(tmp_path_factory.mktemp("models"), SPACE)


@pytest.fixture(scope="module")
def whole(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set of five, never modified."""
    return generate(*models, tmp_path_factory.mktemp("whole") / "set", sampling=SAMPLING, seed=1, progress=False)


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished set, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "begun"))


def again(models: tuple[Path, Path], out: Path, **changes: Any) -> Path:
    options = {"sampling": SAMPLING, "seed": 1, "progress": False} | changes
    return generate(*models, out, **options)


def dying(models: tuple[Path, Path], out: Path) -> None:
    """Draw, in a process that dies as a file of the fourth volume takes its name."""
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if "synth_00004" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = die  # type: ignore[assignment]
    again(models, out)


def digests(out: Path) -> dict[str, str]:
    files = (file for file in out.rglob("*") if file.is_file())
    return {str(file.relative_to(out)): sha256_file(file) for file in files}


def table(out: Path) -> list[dict[str, str]]:
    with (out / "samples.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


class TestVolumeSeed:
    def test_differs_by_index_and_run_and_fits_63_bits(self) -> None:
        seeds = {volume_seed(run, index) for run in range(3) for index in range(50)}
        assert len(seeds) == 150
        assert all(0 <= seed < 2**63 for seed in seeds)

    def test_does_not_change_between_versions(self) -> None:
        expected = np.random.SeedSequence(0, spawn_key=(16,)).generate_state(1, np.uint64)[0] >> np.uint64(1)
        assert volume_seed(0, 16) == int(expected)


class TestSampleLatents:
    @pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m"])
    def test_same_latent_in_batches_of_one_three_and_eight(self, models: tuple[Path, Path], sampler: str) -> None:
        denoiser = load_denoiser(models[1])
        settings = SAMPLING.model_copy(update={"sampler": sampler})
        seeds = [volume_seed(0, index) for index in range(8)]
        conditions = [denoiser.conditioning.draw(seed) for seed in seeds]

        def draw(batch: int) -> torch.Tensor:
            starts = range(0, 8, batch)
            return torch.cat(
                [sample_latents(denoiser, seeds[i : i + batch], conditions[i : i + batch], settings) for i in starts]
            )

        torch.testing.assert_close(draw(1), draw(8), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(draw(3), draw(8), atol=1e-4, rtol=1e-4)

    def test_latents_carry_the_training_sets_mean_and_deviation(self, models: tuple[Path, Path]) -> None:
        denoiser = load_denoiser(models[1])
        # A velocity of x_t / sigma means x_0 = 0 on the rectified path, so the mean is all that is left.
        object.__setattr__(denoiser, "model", lambda x, t, c=None: x / t.reshape(-1, 1, 1, 1, 1))
        latents = sample_latents(denoiser, [1, 2], None, SAMPLING.model_copy(update={"sampler": "ddim"}))
        assert latents.shape == (2, 4, 2, 3, 2)
        torch.testing.assert_close(latents, torch.full_like(latents, 0.3), atol=1e-5, rtol=0)

    def test_the_condition_matters(self, models: tuple[Path, Path]) -> None:
        denoiser = load_denoiser(models[1])
        old, young = ([{"sex": "F", "age": age}] for age in (58, 41))
        assert not torch.allclose(
            sample_latents(denoiser, [3], old, SAMPLING), sample_latents(denoiser, [3], young, SAMPLING), atol=1e-3
        )


class TestOutput:
    def test_the_exporter_reads_it(self, whole: Path) -> None:
        samples = read_samples(whole)
        assert [s.name for s in samples] == [f"synth_{i:05d}" for i in range(1, 6)]
        assert samples[2].image_sha256 == sha256_file(whole / "images" / "synth_00003.nii.gz")
        assert samples[2].label_sha256 == sha256_file(whole / "labels" / "synth_00003.nii.gz")
        assert samples[2].seed == volume_seed(1, 2)
        assert set(samples[2].condition) == {"sex", "age"}
        description = parse_description((whole / "generation.json").read_text(), whole)
        assert description.space == SPACE
        assert description.facts["Sampler"] == "ddpm"

    def test_image_is_int16_in_release_units_on_the_canonical_affine(self, whole: Path) -> None:
        image = nib.load(whole / "images" / "synth_00001.nii.gz")
        voxels = np.asarray(image.dataobj)
        assert image.get_data_dtype() == np.int16
        assert voxels.shape == SPACE.grid
        assert -200 <= voxels.min() < voxels.max() <= 800
        np.testing.assert_allclose(image.affine, SPACE.affine)
        assert image.header["descrip"].item() == b"SYNTHETIC"

    def test_label_has_the_original_values(self, whole: Path) -> None:
        labels = [nib.load(whole / "labels" / f"synth_0000{i}.nii.gz") for i in range(1, 6)]
        assert {label.get_data_dtype() for label in labels} == {np.dtype(np.uint8)}
        assert set(np.unique([np.asarray(label.dataobj) for label in labels])) <= {0, 3, 7}

    def test_image_and_label_are_the_decoders(self, whole: Path, models: tuple[Path, Path]) -> None:
        """Against the models called by hand, with the arithmetic written out."""
        autoencoder, denoiser = load_autoencoder(models[0]), load_denoiser(models[1])
        conditions = [json.loads(row["condition"]) for row in table(whole)[2:4]]
        latents = sample_latents(denoiser, [volume_seed(1, 2), volume_seed(1, 3)], conditions, SAMPLING)
        with torch.inference_mode():
            image, logits = autoencoder.model.decode(latents[1:])
        expected = ((image[0, 0].double() + 1) / 2 * 1000 - 200).clamp(-200, 800)
        found = np.asarray(nib.load(whole / "images" / "synth_00004.nii.gz").dataobj)
        assert np.abs(found - expected.numpy()).max() <= 0.5 + 1e-2
        values = np.array([0, 3, 7])[logits[0].argmax(0).numpy()]
        assert (np.asarray(nib.load(whole / "labels" / "synth_00004.nii.gz").dataobj) == values).all()

    def test_volumes_differ(self, whole: Path) -> None:
        assert len({row["image_sha256"] for row in table(whole)}) == 5

    def test_without_labels_there_is_no_label_folder(self, tmp_path: Path) -> None:
        bare = Space(grid=(8, 8, 8), spacing=(1.0, 1.0, 1.0), intensity_range=(0.0, 12.5), modality="PT")
        models = save_models(tmp_path, bare, conditional=False)
        out = again(models, tmp_path / "out", num_samples=2)
        assert not (out / "labels").exists()
        assert [(row["label_sha256"], row["condition"]) for row in table(out)] == [("", "{}")] * 2
        assert nib.load(out / "images" / "synth_00001.nii.gz").get_data_dtype() == np.float32
        assert len(read_samples(out)) == 2


class TestSameVolume:
    def test_whatever_the_number_asked_for(self, whole: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
        few = digests(again(models, tmp_path / "few", num_samples=3))
        del few["samples.csv"]
        assert len(few) == 3 + 3 + 1
        assert few.items() <= digests(whole).items()

    def test_more_can_be_asked_for_later(self, whole: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
        out = again(models, tmp_path / "grown", num_samples=2)
        again(models, out, num_samples=5)
        assert digests(out) == digests(whole)

    @pytest.mark.parametrize("batch_size", [1, 3, 8])
    def test_whatever_the_batch_size(
        self, whole: Path, models: tuple[Path, Path], tmp_path: Path, batch_size: int
    ) -> None:
        sampling = SAMPLING.model_copy(update={"batch_size": batch_size})
        out = again(models, tmp_path / "set", sampling=sampling)
        assert [row["condition"] for row in table(out)] == [row["condition"] for row in table(whole)]
        for row in table(out):
            pair = [nib.load(folder / "images" / f"{row['name']}.nii.gz") for folder in (whole, out)]
            first, second = (np.asarray(image.dataobj).astype(int) for image in pair)
            assert np.abs(first - second).max() <= 1

    def test_another_seed_gives_another_set(self, whole: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
        other = again(models, tmp_path / "other", seed=2, num_samples=1)
        assert table(other)[0]["image_sha256"] != table(whole)[0]["image_sha256"]


class TestResume:
    def test_a_finished_set_is_left_alone(
        self, begun: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = digests(begun)
        monkeypatch.setattr(synthmed.sampling.generate, "sample_latents", lambda *_: pytest.fail("sampled again"))
        assert digests(again(models, begun)) == before

    @pytest.mark.parametrize("victim", ["images/synth_00002.nii.gz", "labels/synth_00005.nii.gz", "samples.csv"])
    def test_a_missing_file_is_drawn_again_to_the_same_bytes(
        self, begun: Path, whole: Path, models: tuple[Path, Path], victim: str
    ) -> None:
        (begun / victim).unlink()
        assert digests(again(models, begun)) == digests(whole)

    def test_an_altered_file_is_drawn_again(self, begun: Path, whole: Path, models: tuple[Path, Path]) -> None:
        (begun / "images" / "synth_00001.nii.gz").write_bytes(b"cut")
        assert digests(again(models, begun)) == digests(whole)

    def test_a_row_cut_by_a_kill_is_dropped(self, begun: Path, whole: Path, models: tuple[Path, Path]) -> None:
        content = (begun / "samples.csv").read_text(encoding="utf-8")
        (begun / "samples.csv").write_text(content[:-70], encoding="utf-8")
        (begun / "images" / ".part-xyz-synth_00009.nii.gz").write_bytes(b"half")
        assert digests(again(models, begun)) == digests(whole)

    @pytest.mark.parametrize("stop_after", [1, 2, 3])
    def test_stopped_anywhere_it_ends_with_the_same_bytes(
        self,
        whole: Path,
        models: tuple[Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        stop_after: int,
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(synthmed.sampling.generate, "append_row", interrupting(stop_after))
            with pytest.raises(KeyboardInterrupt):
                again(models, tmp_path / "set")
        assert len(table(tmp_path / "set")) == stop_after - 1
        assert digests(again(models, tmp_path / "set")) == digests(whole)

    @pytest.mark.slow
    def test_a_killed_process_is_resumed_from(self, whole: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
        out = tmp_path / "killed here"
        assert Forked(dying, models, out).end().returncode == -signal.SIGKILL
        assert list((out / "images").glob(".part-*"))
        assert len(table(out)) == 3
        assert digests(again(models, out)) == digests(whole)

    def test_a_full_disk_is_said_and_resumed_from(
        self, whole: Path, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", failing_for("synth_00003"))
            with pytest.raises(StorageError, match=r"synth_00003.*No space left"):
                again(models, tmp_path / "set")
        assert [row["name"] for row in table(tmp_path / "set")] == ["synth_00001", "synth_00002"]
        assert digests(again(models, tmp_path / "set")) == digests(whole)


def interrupting(call: int) -> Any:
    """Append rows, but be interrupted at the given call, when the files are there and the row is not."""
    calls: Iterator[int] = iter(range(1, 100))

    def append(out: Path, row: Any) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt
        synthmed.sampling.generated.append_row(out, row)

    return append


def failing_for(name: str) -> Any:
    replace = shutil.os.replace  # type: ignore[attr-defined]

    def fail(source: Path, target: Path) -> None:
        if name in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    return fail


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "key"),
        [
            ({"seed": 2}, "seed"),
            ({"sampling": SAMPLING.model_copy(update={"guidance_scale": 1.0})}, "guidance_scale"),
            ({"conditions": [{"sex": "F", "age": 50}], "num_samples": 5}, "conditions"),
        ],
    )
    def test_other_settings(self, begun: Path, models: tuple[Path, Path], change: dict[str, Any], key: str) -> None:
        before = digests(begun)
        with pytest.raises(ConfigError, match=f"begun with other settings: {key};"):
            again(models, begun, **change)
        assert digests(begun) == before

    def test_another_model(self, begun: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="other settings: autoencoder, denoiser"):
            again(save_models(tmp_path, SPACE, weights_seed=9), begun)

    def test_a_denoiser_of_another_autoencoder(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        other, _ = save_models(tmp_path, SPACE, weights_seed=9)
        with pytest.raises(ConfigError, match="latents of another autoencoder"):
            again((other, models[1]), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_fewer_than_there_are(self, begun: Path, models: tuple[Path, Path]) -> None:
        before = digests(begun)
        with pytest.raises(ConfigError, match="already holds more volumes"):
            again(models, begun, num_samples=3)
        assert digests(begun) == before

    def test_a_file_in_its_place(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "out").write_bytes(b"precious")
        with pytest.raises(ConfigError, match="out is a file"):
            again(models, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"precious"

    def test_a_folder_of_volumes_that_is_not_ours(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "patient.nii.gz").write_bytes(b"precious")
        with pytest.raises(ConfigError, match=r"holds volumes but no generation\.json"):
            again(models, tmp_path)
        assert (tmp_path / "images" / "patient.nii.gz").read_bytes() == b"precious"

    def test_none_at_all(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="found 0"):
            again(models, tmp_path / "out", num_samples=0)

    def test_an_unusable_device(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no such device; found gpu"):
            again(models, tmp_path / "out", device="gpu")

    @pytest.mark.parametrize("condition", [{"sex": "X", "age": 50}, {"sex": "F"}, {"sex": "F", "age": 50, "bmi": 20}])
    def test_a_condition_that_does_not_fit(
        self, models: tuple[Path, Path], tmp_path: Path, condition: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigError):
            again(models, tmp_path / "out", conditions=[condition])
        assert not (tmp_path / "out").exists()


def test_conditions_are_taken_in_turn(models: tuple[Path, Path], tmp_path: Path) -> None:
    asked = [{"sex": "F", "age": 50}, {"sex": "M", "age": 45}]
    out = again(models, tmp_path / "åsked for", conditions=asked, num_samples=3)
    assert [json.loads(row["condition"]) for row in table(out)] == [asked[0], asked[1], asked[0]]
    assert len(table(again(models, tmp_path / "two", conditions=asked))) == 2
