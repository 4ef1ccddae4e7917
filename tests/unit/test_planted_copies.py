"""The planted-copy benchmark: disguises, splits, judges on analytic cases, and tables against hand-computed values."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import planted_copies
from copies import baselines, contrastive, datasets, generators, sets, steps, tables, transforms
from copies.datasets import Cohort, Volume
from copies.judging import Problem, by_threshold
from copies.transforms import BLEND, CHANGES_GRID, PARTIAL, TRANSFORMS, Material, cells

SHAPE, SPACING = (20, 23, 18), (1.0, 1.2, 2.0)


def scan(seed: int, shape: tuple[int, int, int] = SHAPE, spacing: datasets.Spacing = SPACING) -> Volume:
    """Draw a smooth random volume of positive values."""
    noise = np.random.default_rng([seed, 1]).standard_normal(shape)
    array = ndimage.gaussian_filter(noise, 1.5)
    return Volume((100 + 50 * array / array.std()).astype(np.float32), spacing)


@pytest.fixture(scope="module")
def material() -> Material:
    round_trip = generators.fit_round_trip([scan(k) for k in range(8)], 0)
    return Material(scan(0), scan(101, (18, 24, 18)), scan(1), scan(102), round_trip)


def correlate(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: f"{cell[0]}-{transforms.STRENGTHS[cell[1]]}")
def test_disguise_keeps_the_grid_changes_the_scan_and_repeats_by_seed(cell, material):
    name, strength = cell
    first, again = (TRANSFORMS[name](material, strength, np.random.default_rng(5)) for _ in range(2))
    assert first.array.dtype == np.float32
    assert np.isfinite(first.array).all()
    np.testing.assert_array_equal(first.array, again.array)
    if name == "identity":
        np.testing.assert_array_equal(first.array, material.source.array)
    elif name not in CHANGES_GRID:
        assert first.array.shape == SHAPE
        assert first.spacing == SPACING
        spread = float(material.source.array.std())
        assert np.abs(first.array - material.source.array).mean() > 0.01 * spread


@pytest.mark.parametrize(
    "name",
    [n for n in TRANSFORMS if n not in (*transforms.ONE_STRENGTH, "flip", "regrid", "mixture_zoom", "contrast")],
)
def test_stronger_means_less_alike(name, material):
    original = material.source.array
    alike = [
        np.mean([correlate(TRANSFORMS[name](material, k, np.random.default_rng(s)).array, original) for s in range(6)])
        for k in range(3)
    ]
    assert alike[0] > alike[1] > alike[2]


def test_random_disguises_differ_between_seeds(material):
    for name in ("rotation", "shift_between", "bias", "noise", "elastic", "partial", "mixture_pose"):
        first, second = (TRANSFORMS[name](material, 1, np.random.default_rng(seed)).array for seed in (1, 2))
        assert not np.array_equal(first, second), name


def test_flip_mirrors_one_axis_a_strength(material):
    for axis in range(3):
        flipped = TRANSFORMS["flip"](material, axis, np.random.default_rng(0)).array
        np.testing.assert_array_equal(flipped, np.flip(material.source.array, axis))


@pytest.mark.parametrize("seed", range(4))
def test_rotation_keeps_distances_in_millimetres(seed):
    shape, spacing, strength = (33, 33, 21), (1.0, 1.5, 3.0), 2
    centre = (np.array(shape) - 1) / 2 * spacing
    at = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), -1)
    place = centre + np.array([6.0, -7.0, 9.0])
    blob = Volume(np.exp(-((at - place) ** 2).sum(-1) / (2 * 4.0**2)).astype(np.float32), spacing)
    moved = steps.rotation(blob, strength, np.random.default_rng(seed)).array
    found = (moved[..., None] * at).sum((0, 1, 2)) / moved.sum()
    radius = np.linalg.norm(place - centre)
    assert np.linalg.norm(found - centre) == pytest.approx(radius, abs=0.3)
    assert np.linalg.norm(found - place) <= radius * math.radians(steps.DEGREES[strength]) + 0.3


def test_whole_shift_moves_content_by_whole_voxels():
    moved = steps.shift_whole(scan(0), 2, np.random.default_rng(3)).array
    original = scan(0).array
    inner = moved[5:-5, 5:-5, 5:-5]
    offsets = [
        (i, j, k)
        for i in range(-4, 5)
        for j in range(-4, 5)
        for k in range(-4, 5)
        if np.array_equal(inner, original[5 + i : 15 + i, 5 + j : 18 + j, 5 + k : 13 + k])
    ]
    assert len(offsets) == 1
    assert max(map(abs, offsets[0])) == 4


def test_regrid_keeps_the_field_of_view():
    for strength in range(3):
        out = steps.regrid(scan(0), strength, np.random.default_rng(0))
        np.testing.assert_allclose(np.array(out.array.shape) * out.spacing, np.array(SHAPE) * SPACING, rtol=1e-9)
        assert out.array.shape != SHAPE


def test_elastic_field_is_smooth_and_of_the_stated_size():
    ramp = Volume(np.indices((30, 30, 30))[0].astype(np.float32), (1.0, 1.0, 1.0))
    moved = steps.elastic(ramp, 1, np.random.default_rng(0)).array
    displacement = (moved - ramp.array)[6:-6, 6:-6, 6:-6]
    # One of three components of a field of 2 voxels root mean square.
    assert 0.5 < np.sqrt((displacement**2).mean()) < 2.0
    assert np.abs(np.diff(displacement, axis=0)).max() < 1.0


def test_partial_copy_keeps_the_stated_share(material):
    for strength, share in enumerate(PARTIAL):
        out = TRANSFORMS["partial"](material, strength, np.random.default_rng(strength)).array
        assert (out == material.source.array).mean() == pytest.approx(share, abs=0.5 / min(SHAPE))


def test_blend_is_the_weighted_sum(material):
    partner = steps.resample(material.stranger, material.source)
    for strength, share in enumerate(BLEND):
        out = TRANSFORMS["blend_stranger"](material, strength, np.random.default_rng(0)).array
        np.testing.assert_allclose(out, share * material.source.array + (1 - share) * partner, rtol=1e-5)


def test_unknown_disguise_is_named():
    with pytest.raises(ValueError, match="teleport"):
        cells(["teleport"])


def test_round_trip_loses_more_with_strength(material):
    round_trip = material.round_trip
    assert isinstance(round_trip, generators.RoundTrip)
    assert list(round_trip.psnr) == sorted(round_trip.psnr, reverse=True)
    assert round_trip.latents[0] > round_trip.latents[2]


def test_generator_spreads_by_its_scale(monkeypatch):
    monkeypatch.setattr(generators, "LATENTS", (4, 48))
    train = [scan(k) for k in range(10)]
    round_trip = generators.fit_round_trip(train, 0)
    generator = generators.fit_generator(train, round_trip.models[0])
    spread = []
    for scale in (0.5, 1.0, 1.5):
        drawn = generator.draw(12, scale, np.random.default_rng(0))
        assert drawn[0].array.shape == SHAPE
        spread.append(np.stack([volume.array for volume in drawn]).std(0).mean())
    assert spread[0] < spread[1] < spread[2]
    assert spread[0] / spread[1] == pytest.approx(0.5, abs=0.1)


def cohort(scans_a_patient: list[int]) -> Cohort:
    owners = [f"P{k}" for k, count in enumerate(scans_a_patient) for _ in range(count)]
    array = np.zeros((8, 8, 8), np.float32)
    return Cohort("made", [array] * len(owners), [(1.0, 1.0, 1.0)] * len(owners), owners, owners)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=6, max_size=30), st.integers(0, 1000))
def test_no_patient_has_two_roles(scans_a_patient, seed):
    made = cohort(scans_a_patient)
    parts = datasets.split(made, (5, 2, 3), seed)
    owners = [set(made.owners(rows)) for rows in (parts.train, parts.holdout, parts.others)]
    assert all(owners)
    assert len(set().union(*owners)) == sum(map(len, owners))
    assert set(made.owners(parts.kept_back)) <= owners[0]
    assert not set(parts.kept_back) & set(parts.train)
    again = datasets.split(made, (5, 2, 3), seed)
    np.testing.assert_array_equal(parts.train, again.train)


def test_threshold_lets_the_stated_share_pass():
    negatives = np.arange(200.0)
    level = tables.threshold_at(negatives, 0.01)
    assert level == 197.0
    assert (negatives > level).sum() == 2
    assert tables.threshold_at(negatives, 0.001) is None
    assert tables.threshold_at(np.ones(1000), 0.001) == 1.0


def test_interval_of_no_miss_is_the_closed_form():
    low, high = tables.Rate(59, 59).interval
    assert low == pytest.approx(0.025 ** (1 / 59))
    assert high == 1.0
    assert tables.Rate(0, 20).interval[1] == pytest.approx(1 - 0.025 ** (1 / 20))


def pooled() -> tables.Pooled:
    """100 negatives scoring 0 to 99, and four copies scoring 98, 98.5, 150, 200 of which the last is named wrong."""
    cell = ("rotation", 2)
    return tables.Pooled(
        np.array(["others"] * 60 + ["generated"] * 40 + ["plant"] * 4),
        [None] * 100 + [cell] * 4,
        np.array([*range(100), 98, 98.5, 150, 200], dtype=np.float64),
        np.array([*range(100), 98, 98.5, 150, 200]) >= 90,
        np.array([False] * 100 + [True, True, True, False]),
    )


def test_recall_table_equals_hand_computed():
    (row,) = tables.recall_rows("made", "judge", pooled())
    assert (row["cell"], row["strength"]) == ("rotation", "strong")
    # One of 100 negatives may pass, so the level is 98; 98 itself does not pass it.
    assert (row["fpr_1pct_hits"], row["fpr_1pct_trials"]) == (3, 4)
    assert row["fpr_0.1pct"] is None
    assert (row["own"], row["named"]) == (1.0, 0.75)


def test_false_positive_table_equals_hand_computed():
    rows = {row["kind"]: row for row in tables.fpr_rows("made", "judge", pooled())}
    assert (rows["others"]["own_hits"], rows["others"]["own_trials"]) == (0, 60)
    assert (rows["generated"]["own_hits"], rows["generated"]["own_trials"]) == (10, 40)
    assert (rows["pooled"]["own"], rows["pooled"]["fpr_1pct"]) == (0.1, 0.01)


def test_smallest_rate_needs_power_from_there_on_and_silence_without_copies():
    def rows(*alarms: float) -> list[dict[str, float]]:
        return [{"rate": rate, "alarm": alarm} for rate, alarm in zip((0, 0.01, 0.02, 0.05), alarms, strict=True)]

    assert tables.smallest_rate(rows(0.0, 0.5, 0.96, 1.0)) == 0.02
    assert tables.smallest_rate(rows(0.0, 0.99, 0.5, 1.0)) == 0.05
    assert tables.smallest_rate(rows(0.5, 1.0, 1.0, 1.0)) is None
    assert tables.smallest_rate(rows(0.0, 0.0, 0.0, 0.5)) is None


def test_sets_hold_the_planted_number_of_copies():
    dummy = scan(0)
    queries = [sets.Query(dummy, "others")] * 30 + [sets.Query(dummy, "plant", ("gamma", 0), ("P",))] * 5
    queries += [sets.Query(dummy, "plant", ("elastic", 0), ("P",))] * 5
    seen: dict[int, int] = {}

    def alarm(rows: np.ndarray) -> bool:
        copies = int((rows >= 30).sum())
        assert len(rows) == 200
        assert not (rows >= 35).any()
        seen[copies] = seen.get(copies, 0) + 1
        return copies >= 4

    scores = by_threshold(np.zeros(40), np.array(["P"] * 40), 1.0)
    scores = type(scores)(scores.score, scores.patient, 1.0, alarm)
    results = sets.draw_sets(queries, scores, 200, 7, 0)
    assert seen == {0: 7, 1: 7, 2: 7, 4: 7, 10: 7, 20: 7}
    assert [(r.rate, r.alarms) for r in results] == [(0, 0), (0.005, 0), (0.01, 0), (0.02, 7), (0.05, 7), (0.1, 7)]
    assert {r.pool for r in results} == {30}


def problem(queries: list[Volume], seed: int) -> Problem:
    """Thirty training and twenty held-out volumes of pure noise, all patients different."""
    return Problem(
        noise(30, seed), [f"T{k}" for k in range(30)], noise(20, seed + 1), [f"H{k}" for k in range(20)], queries, 50, 0
    )


def noise(count: int, seed: int) -> list[Volume]:
    rng = np.random.default_rng([seed, 9])
    return [Volume(rng.standard_normal((8, 8, 8), dtype=np.float32), (1.0, 1.0, 1.0)) for _ in range(count)]


SET_LEVEL = ("auth_pct", "c_t", "dcr_share")


def test_every_baseline_names_exact_copies():
    copies = problem(noise(30, 0), 0)
    for name in ("correlation", *SET_LEVEL):
        scores = baselines.BASELINES[name](copies)
        assert list(scores.patient) == list(copies.train_patient), name
        assert scores.alarm is not None
        assert scores.alarm(np.arange(30)), name
        if scores.threshold is not None:
            assert (scores.score >= scores.threshold).all(), name


def test_set_level_baselines_keep_their_level_on_independent_sets():
    alarms = dict.fromkeys(SET_LEVEL, 0)
    for seed in range(0, 120, 3):
        independent = problem(noise(30, seed + 2), seed)
        for name in SET_LEVEL:
            scores = baselines.BASELINES[name](independent)
            assert scores.alarm is not None
            alarms[name] += scores.alarm(np.arange(30))
    # 40 sets at 5 %: more than 7 has a probability under 0.2 %.
    assert max(alarms.values()) <= 7


def test_authenticity_of_points_on_a_line():
    train, queries = np.array([0.0, 3.0, 10.0]), np.array([1.0, 4.0, 30.0])
    ratio, nearest = baselines.authenticity(np.abs(queries[:, None] - train), np.abs(train[:, None] - train))
    np.testing.assert_allclose(ratio, [3 / 1, 3 / 1, 7 / 20])
    np.testing.assert_array_equal(nearest, [0, 1, 2])


def test_mann_whitney_z_of_separated_samples():
    # U = 0, mean 8, variance 4 * 4 * 9 / 12 = 12.
    assert baselines.mann_whitney_z(np.arange(4.0), np.arange(4.0) + 10) == pytest.approx(-8 / math.sqrt(12))
    assert baselines.mann_whitney_z(np.array([1.0, 2.0]), np.array([1.0, 2.0])) == 0.0


def test_contrastive_loss_of_two_orthogonal_pairs():
    rows = torch.eye(2).repeat(2, 1)
    positive = math.exp(1 / contrastive.TEMPERATURE)
    assert float(contrastive.nt_xent(rows)) == pytest.approx(-math.log(positive / (positive + 2)), abs=1e-6)


def test_dar_embedding_finds_exact_copies_among_strangers(monkeypatch):
    monkeypatch.setattr(contrastive, "STEPS", 12)
    train, holdout = [scan(k) for k in range(12)], [scan(k) for k in range(40, 52)]
    asked = [*train[:4], *(scan(k) for k in range(60, 64))]
    owners = [[f"{side}{k}" for k in range(12)] for side in "TH"]
    given_to = Problem(train, owners[0], holdout, owners[1], asked, 50, 0)
    scores = baselines.dar(given_to)
    assert list(scores.patient[:4]) == ["T0", "T1", "T2", "T3"]
    assert scores.score[:4] == pytest.approx(1.0, abs=1e-5)
    assert scores.score[4:].max() < 0.999


def test_command_writes_its_tables(tmp_path, capsys):
    for k in range(12):
        folder = tmp_path / "data" / "sts_petct" / f"STS_{k:03d}"
        folder.mkdir(parents=True)
        made = scan(k, (12, 14, 12), (4.0, 4.0, 3.0))
        nib.save(nib.Nifti1Image(made.array, np.diag([*made.spacing, 1.0])), folder / "PET_image.nii.gz")
    out = tmp_path / "out"
    arguments = ["--data", str(tmp_path / "data"), "--dataset", "pet", "--quick", "--workers", "1", "--out", str(out)]
    generated = tmp_path / "generated"
    generated.mkdir()
    for k in range(2):
        made = scan(50 + k, (12, 14, 12), (4.0, 4.0, 3.0))
        nib.save(nib.Nifti1Image(made.array, np.diag([*made.spacing, 1.0])), generated / f"{k}.nii")
    arguments += ["--generated", str(generated)]
    arguments += ["--judges", "correlation", "dcr_share", "--cells", "identity", "noise", "--clean-sets", "5"]
    assert planted_copies.main(arguments) == 0
    with (out / "recall.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["judge"], r["cell"], r["strength"]) for r in rows[:4]] == [
        ("correlation", "identity", "mild"),
        ("correlation", "noise", "mild"),
        ("correlation", "noise", "medium"),
        ("correlation", "noise", "strong"),
    ]
    assert rows[0]["own"] == "1"
    with (out / "false_positives.csv").open(newline="") as stream:
        kinds = {r["kind"]: int(r["scans"]) for r in csv.DictReader(stream)}
    assert kinds["folder"] == 2
    assert kinds["pooled"] == kinds["others"] + kinds["disguised"] + kinds["generated"]
    assert (out / "recall.png").stat().st_size > 1000
    assert "smallest rate" in capsys.readouterr().out


def test_command_says_where_it_looked(tmp_path, capsys):
    with pytest.raises(SystemExit):
        planted_copies.main(["--data", str(tmp_path), "--dataset", "pet", "--workers", "1"])
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "scans", "patients"),
    [("hippocampus", 216, 140), pytest.param("brain", 140, 140, marks=pytest.mark.slow), ("pet", 40, 40)],
)
def test_real_cohorts_have_their_known_size(name, scans, patients, data_root):
    read = datasets.load(name, data_root)
    assert (len(read), len(set(read.patient))) == (scans, patients)
    assert all(v.dtype == np.float32 and v.ndim == 3 and np.isfinite(v).all() for v in read.volumes)
    if name == "brain":
        assert read.spacing[0] == (4.0, 4.0, 4.0)
        assert max(max(v.shape) for v in read.volumes) < 60
