"""The planted-copy benchmark: its disguises, splits, generators, real cohorts and command."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import csv
import math

import nibabel as nib
import numpy as np
import planted_copies
import pytest
from copies import datasets, generators, steps, transforms
from copies.datasets import Cohort, Volume
from copies.transforms import BLEND, CHANGES_GRID, PARTIAL, TRANSFORMS, Material, cells
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_scans import SHAPE, SPACING, scan


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
