"""The baselines of `benchmarks/utility.py`: each set, the tutorial's networks, the judge, the table and the plot."""

from __future__ import annotations

import csv
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import numpy as np
import pytest
import torch
import utility
from baselines import generative, judging, plotting, simple, source, tables, tutorial
from PIL import Image
from small_runs import GRID, SPACE, blobs, small_config

from privacy.policy import load_policy
from synthmed.config import dump_config
from synthmed.errors import ConfigError
from synthmed.evaluation.cases import real_cases, synthetic_cases
from synthmed.evaluation.utility import measure_utility
from synthmed.files import read_json, sha256_file, write_json
from synthmed.io import read_label, read_volume

COUNT = 5
SECONDS = {"prepare": 1.0, "autoencoder": 6.0, "denoiser": 2.0, "generate": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a run as its stages leave it: four training scans, three held out, five generated volumes."""
    root = tmp_path_factory.mktemp("run")
    rows = ["case,subject,split,covariates,source,sha256"]
    for split, count, seed in (("train", 4, 0), ("holdout", 3, 1)):
        data = blobs(count, seed)
        for index in range(count):
            source.write_case(root / "prepare" / split, index, data.images[index], data.labels[index], SPACE)
            rows.append(f"synth_{index + 1:05d},{split}{index},{split},{{}},{index},0")
    (root / "prepare" / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write_json(root / "prepare" / "space.json", SPACE.to_json())
    made = blobs(COUNT, 2)
    for index in range(COUNT):
        source.write_case(root / "generate", index, made.images[index], made.labels[index], SPACE)
    for name, seconds in SECONDS.items():
        write_json(root / name / "manifest.json", {"seconds": seconds, "digest": name})
    config = small_config(evaluation={"segmenter_steps": 2, "segmenter_batch_size": 2, "segmenter_seeds": 2})
    (root / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def opened(run: Path) -> source.Source:
    return source.open_source(run)


def make(opened: source.Source, method: str, out: Path, seed: int = 3) -> None:
    extra = {}
    if method == "tutorial":
        settings = generative.TutorialSettings({"autoencoder": 0.0, "denoiser": 0.0}, steps=2)
        extra = {"settings": settings, "progress": False}
    utility.METHODS[method](opened, out, seed, **extra)


@pytest.fixture(scope="module")
def sets(opened: source.Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make every method's set once."""
    folder = tmp_path_factory.mktemp("sets")
    for method in utility.METHODS:
        make(opened, method, folder / method)
    return folder


@pytest.mark.parametrize("method", list(utility.METHODS))
def test_every_set_lies_on_the_runs_grid_in_its_units_with_its_labels_and_repeats_by_seed(
    opened, sets, tmp_path, method
):
    make(opened, method, tmp_path)
    cases = synthetic_cases(tmp_path, SPACE)  # refuses another grid and unknown labels
    assert len(cases) == COUNT
    assert cases.images.min() >= -1
    assert cases.images.max() <= 1
    for kind, read in (("images", read_volume), ("labels", read_label)):
        files = sorted((tmp_path / kind).iterdir())
        names = [f"synth_{index + 1:05d}.nii.gz" for index in range(COUNT)]
        assert [file.name for file in files] == names
        np.testing.assert_allclose(read(files[0]).affine, SPACE.affine)
        digests = [[sha256_file(folder / kind / n) for n in names] for folder in (tmp_path, sets / method)]
        assert digests[0] == digests[1]


def test_another_seed_makes_another_set(opened, sets, tmp_path):
    for method in ("augmentation", "noise"):
        make(opened, method, tmp_path / method, seed=4)
        first, other = (synthetic_cases(folder / method, SPACE).images for folder in (sets, tmp_path))
        assert not torch.equal(first, other)


def test_copies_are_training_scans_voxel_for_voxel_and_all_are_taken_before_one_repeats(opened, tmp_path):
    make(opened, "copies", tmp_path)
    copies = synthetic_cases(tmp_path, SPACE)
    found = []
    for image, label in zip(copies.images, copies.segmentations, strict=True):
        same = [k for k, scan in enumerate(opened.train.images) if torch.equal(image, scan)]
        found += same
        assert torch.equal(label, opened.train.labels[same[0]])
    assert len(found) == COUNT
    assert set(found[:4]) == {0, 1, 2, 3}


def test_augmentation_moves_labels_with_their_images(opened):
    """Labels of the blobs are where the image is above 0: it must stay so after pose and elastic deformation."""
    transform = simple.augmentation(GRID)
    transform.transforms = transform.transforms[:1]  # the spatial one; the others change what the threshold means
    changed = 0
    for index in range(4):
        image, label = opened.train.images[index], opened.train.labels[index]
        moved, classes = simple.augment_case(transform, image, label, seed=index)
        changed += int((classes != label).sum())
        wrong = ((moved > 0) != (classes > 0)).float().mean()
        misplaced = ((image > 0) != (classes > 0)).float().mean()
        assert wrong < 0.03
        assert wrong < 0.5 * misplaced
    assert changed > 100


def test_noise_has_the_histogram_and_the_label_frequencies_of_the_cohort():
    rng = np.random.default_rng(0)
    quantiles = np.quantile(rng.exponential(size=2000), np.linspace(0, 1, 512))
    atlas = np.zeros((3, *GRID))
    atlas[0], atlas[1], atlas[2] = 0.5, 0.3, 0.2
    images = np.stack([simple.histogram_noise(quantiles, GRID, rng) for _ in range(60)])
    labels = np.stack([simple.label_noise(atlas, rng) for _ in range(60)])
    assert np.quantile(images, 0.5) == pytest.approx(np.quantile(quantiles, 0.5), rel=0.1)
    assert [float((labels == index).mean()) for index in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    neighbours = np.corrcoef(images[:, 1:].ravel(), images[:, :-1].ravel())[0, 1]
    assert neighbours > 0.7


def test_label_noise_never_draws_a_class_where_it_was_never_seen():
    atlas = np.zeros((2, *GRID))
    atlas[0], atlas[0, :8], atlas[1, :8] = 1.0, 0.0, 1.0
    drawn = simple.label_noise(atlas, np.random.default_rng(1))
    assert (drawn[:8] == 1).all()
    assert (drawn[8:] == 0).all()


def test_networks_are_the_tutorials():
    """Counted on MONAI 1.6.1 from the notebook's own arguments, for one channel as there."""
    assert tutorial.count_parameters(tutorial.build_autoencoder(1)) == 2_299_208
    assert tutorial.count_parameters(tutorial.build_discriminator(1)) == 2_771_873
    assert tutorial.count_parameters(tutorial.build_unet()) == 2_974_051


def test_schedulers_step_as_far_as_their_times_lie_apart_and_do_not_clip():
    for steps in (1000, 50, 8):
        scheduler = tutorial.build_scheduler(steps)
        assert len(scheduler.timesteps) == steps
        assert scheduler.timesteps.diff().unique().tolist() == [-1000 // steps]
        assert not scheduler.clip_sample
    with pytest.raises(ConfigError, match="divisor of 1000"):
        tutorial.build_scheduler(30)


def test_ddim_reaches_the_latent_whose_noise_it_is_told():
    """With the exact noise of one point, deterministic DDIM ends on that point whatever the number of steps."""
    scheduler = tutorial.build_scheduler(50)
    target, x = torch.full((1, 3, 2, 2, 2), 1.7), torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[t]
        x, _ = scheduler.step((x - alpha.sqrt() * target) / (1 - alpha).sqrt(), t, x)
    torch.testing.assert_close(x, target, atol=1e-3, rtol=0)


def test_kl_of_a_standard_normal_is_zero_and_of_a_shifted_one_half_its_square():
    assert tutorial.kl_loss(torch.zeros(2, 3), torch.ones(2, 3)) == 0
    assert tutorial.kl_loss(torch.full((2, 3), 2.0), torch.ones(2, 3)) == pytest.approx(3 * 2.0)


def test_tutorial_learns_and_repeats_by_seed_and_steps(opened):
    data = generative.stack(opened)
    assert data.shape == (4, 3, *GRID)
    assert torch.equal(data[:, 1:].argmax(1, keepdim=True), opened.train.labels.long())
    budget = tutorial.Budget(math.inf, 3)
    runs = [tutorial.train_autoencoder(data, budget, 0, progress=False) for _ in range(2)]
    (model, trained), (again, _) = runs
    assert (trained.steps, trained.epochs) == (3, 1.5)
    assert trained.losses[-1] < trained.losses[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_tutorials_adversary_joins_after_its_warm_up(monkeypatch):
    data = torch.rand(2, 3, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    budget = tutorial.Budget(math.inf, 3)
    alone, _ = tutorial.train_autoencoder(data, budget, 0, progress=False)
    monkeypatch.setattr(tutorial, "WARM_UP_EPOCHS", 2)
    judged_too, trained = tutorial.train_autoencoder(data, budget, 0, progress=False)
    assert trained.epochs == 3
    pairs = list(zip(alone.parameters(), judged_too.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_tutorial_says_what_it_cannot_take():
    generative.check_tutorial((24, 32, 40), 50)
    for grid, steps in (((24, 32, 42), 50), ((16, 32, 32), 50), ((32, 32, 32), 30)):
        with pytest.raises(ConfigError):
            generative.check_tutorial(grid, steps)


def test_latents_are_padded_until_the_denoiser_can_halve_them():
    assert tutorial.unet_grid((40, 56, 40)) == (12, 16, 12)
    assert tutorial.unet_grid((32, 32, 32)) == (8, 8, 8)


def test_tutorial_goes_on_behind_a_stage_that_is_trained(opened, sets, tmp_path):
    shutil.copytree(sets / "tutorial", tmp_path, dirs_exist_ok=True)
    before = {name: sha256_file(tmp_path / f"{name}.pt") for name in ("autoencoder", "denoiser")}
    (tmp_path / "images" / "synth_00001.nii.gz").unlink()
    make(opened, "tutorial", tmp_path, seed=99)  # another seed would train other weights
    assert {name: sha256_file(tmp_path / f"{name}.pt") for name in before} == before
    assert (tmp_path / "images" / "synth_00001.nii.gz").is_file()


def test_budget_is_the_runs_own_or_shared_as_the_run_shares():
    assert source.share_budget(SECONDS, None) == {"autoencoder": 6.0, "denoiser": 2.0}
    assert source.share_budget(SECONDS, 4.0) == {"autoencoder": 3.0, "denoiser": 1.0}


def test_utility_is_what_the_evaluation_measures(opened):
    evaluation = opened.run.config.evaluation
    seeds = range(2)
    train, holdout = real_cases(opened.train), real_cases(opened.holdout)
    synthetic = synthetic_cases(opened.samples, SPACE)
    scores, real = (judging.segmenter_scores(opened, cases, seeds, 2, progress="") for cases in (synthetic, train))
    found = judging.utility_of(scores, real, holdout.patients, 0)
    theirs = measure_utility(
        {"tstr": synthetic, "trtr": train},
        holdout,
        ["label 1"],
        steps=2,
        batch_size=evaluation.segmenter_batch_size,
        seeds=seeds,
    )
    assert found["dice"]["value"] == pytest.approx(theirs["sets"]["tstr"]["dice"]["value"])
    assert found["dice_of_seeds"] == pytest.approx(theirs["sets"]["tstr"]["dice_of_seeds"])
    assert found["ratio"]["value"] == pytest.approx(theirs["ratio"]["value"])


def test_ratio_of_a_set_to_itself_is_one_without_an_interval():
    scores = [[[0.5], [0.7], [0.9]]]
    ratio = judging.utility_of(scores, scores, ("a", "b", "c"), 0)["ratio"]
    assert ratio == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert judging.utility_of(scores, [[[0.0]] * 3], ("a", "b", "c"), 0)["ratio"] is None


def test_interval_of_utility_covers_patients_and_seeds():
    """Two seeds of 0.4 and 0.8 that do not differ between patients: only the seeds can widen the interval."""
    scores, real = [[[0.4]] * 3, [[0.8]] * 3], [[[0.8]] * 3] * 2
    found = judging.utility_of(scores, real, ("a", "b", "c"), 0)
    assert found["dice"] == pytest.approx({"value": 0.6, "low": 0.4, "high": 0.8})
    assert found["ratio"] == pytest.approx({"value": 0.75, "low": 0.5, "high": 1.0})


MEASURED = {
    "identity_matches": 0,
    "copy_rate": 0.0,
    "copy_rate_lower": 0.0,
    "copy_rate_upper": 0.45,
    "largest_score": 0.3,
    "largest_null_score": 0.4,
    "membership_p": 0.5,
    "recall": 1.0,
}


def test_own_audit_is_taken_only_where_it_judged_these_volumes(run, opened, tmp_path, monkeypatch):
    digests = sorted(sha256_file(file) for file in (run / "generate" / "images").iterdir())
    report = {
        "verdict": "PASS",
        "reasons": [],
        "policy": {"name": "default", "sha256": load_policy("default").sha256},
        "seed": 0,
        "synthetic": {"sha256": digests},
        "measurements": MEASURED,
    }
    write_json(run / "audit" / "release" / "report.json", report)
    asked = []

    def audit(**arguments):
        asked.append(arguments["synthetic"])
        raise ConfigError("asked")

    monkeypatch.setattr(judging.privacy, "audit", audit, raising=False)
    found = judging.privacy_of(opened, run / "generate", tmp_path, 0, progress=False)
    assert found["verdict"] == "PASS"
    assert found["copy_rate_upper"] == 0.45
    with pytest.raises(ConfigError, match="asked"):
        judging.privacy_of(opened, run / "prepare" / "train", tmp_path, 0, progress=False)
    with pytest.raises(ConfigError, match="asked"):
        judging.privacy_of(opened, run / "generate", tmp_path, 1, progress=False)
    assert asked == [run / "prepare" / "train" / "images", run / "generate" / "images"]


def judged(verdict: str, share: float, ratio: float | None) -> dict:
    kid = {"synthetic": {"value": 2}, "floor": {"value": 1}}
    interval = None if ratio is None else {"value": ratio, "low": ratio - 0.05, "high": ratio + 0.05}
    return {
        "utility": {"dice": {"value": 0.8, "low": 0.7, "high": 0.9}, "ratio": interval},
        "fidelity": {"distance": {"measured": True, "shape": {"kid": kid}}},
        "privacy": MEASURED
        | {"verdict": verdict, "copy_rate": share, "copy_rate_lower": max(share - 0.1, 0), "copy_rate_upper": 1.0},
    }


def rows_to_show() -> list[dict]:
    made = {"count": COUNT, "seconds": 9.0, "training_seconds": {"autoencoder": 5.0, "denoiser": 2.0}}
    sets = {
        "synthmed": judged("PASS", 0.0, 0.9),
        "copies": judged("FAIL", 1.0, 1.0),
        "noise": judged("PASS", 0.0, None),
    }
    return [tables.method_row(name, made, measured) for name, measured in sets.items()]


def test_table_tells_every_method_and_the_real_scans(tmp_path):
    rows = rows_to_show()
    text = tables.table_text(rows, {"value": 0.85})
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["synthmed", "copies", "noise"]
    assert "0.90 (0.85 to 0.95)" in lines[1]
    assert "7 + 2" in lines[1]
    assert "KID shape (real)" in lines[0]
    assert "n/a" in lines[3]
    assert lines[4].split()[-2:] == ["0.850", "1"]
    tables.write_csv(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    assert [row["verdict"] for row in read] == ["PASS", "FAIL", "PASS"]
    assert float(read[1]["match_share_low"]) == 0.9


def test_plot_is_written_and_shows_a_method_in_its_colour(tmp_path):
    plotting.draw(rows_to_show(), tmp_path / "deep" / "plot.png", "title")
    pixels = np.asarray(Image.open(tmp_path / "deep" / "plot.png").convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 200_000
    for method, shown in (("synthmed", True), ("copies", True), ("noise", False)):
        colour = [int(plotting.COLOURS[method][k : k + 2], 16) for k in (1, 3, 5)]
        assert bool((pixels == colour).all(axis=1).sum() > 50) is shown


def test_output_of_other_settings_is_refused_and_finished_work_is_not_done_again(opened, tmp_path):
    settings = utility.Settings(0, {"autoencoder": 1.0, "denoiser": 1.0}, 50, 2, 1)
    for _ in range(2):
        utility.claim(tmp_path, opened, settings)
    with pytest.raises(ConfigError, match="begun with another seed"):
        utility.claim(tmp_path, opened, utility.Settings(1, settings.seconds, 50, 2, 1))
    assert utility.once(tmp_path / "a.json", lambda: {"x": 1}) == {"x": 1}
    assert utility.once(tmp_path / "a.json", lambda: {"x": 2}) == {"x": 1}


def test_command_makes_judges_and_draws_and_a_second_call_only_reads(run, tmp_path, monkeypatch, capsys):
    audited = []

    def audit(**arguments):
        audited.append(arguments["synthetic"].parent.name)
        verdict = "FAIL" if audited[-1] == "copies" else "PASS"
        release = {"verdict": verdict, "reasons": [], "policy": {"name": "default"}, "measurements": MEASURED}
        return SimpleNamespace(release=release)

    monkeypatch.setattr(judging.privacy, "audit", audit, raising=False)
    monkeypatch.setattr(utility, "fidelity_of", lambda *_: {"distance": {}})  # measured in the test of variants
    arguments = [str(run), "--methods", "copies", "noise", "--no-progress", "--out", str(tmp_path)]
    for _ in range(2):
        assert utility.main(arguments) == 0
    assert audited == ["copies", "noise"]
    shown = capsys.readouterr().out.split("written to")[-2]
    assert [line.split()[0] for line in shown.splitlines() if "FAIL" in line or "PASS" in line][-2:] == [
        "copies",
        "noise",
    ]
    written = read_json(tmp_path / "utility.json")
    assert [row["method"] for row in written["methods"]] == ["copies", "noise"]
    assert written["settings"]["seconds"] == {"autoencoder": 6.0, "denoiser": 2.0}
    assert (tmp_path / "utility.png").stat().st_size > 10_000


def test_unfinished_run_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(dump_config(small_config()), encoding="utf-8")
    assert utility.main([str(tmp_path)]) == ConfigError.exit_code
    assert "is not a finished run" in capsys.readouterr().err
