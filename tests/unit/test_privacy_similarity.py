"""Features, registration and search on made-up scans with known transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from privacy_scans import SHAPE, scan, scans
from scipy import ndimage

from privacy.features import Features, content, crop_to_content, extract, join_features, normalise_locally, plan_space
from privacy.registration import build_template, generators, grid_points, register, warp
from privacy.similarity import (
    CEILING,
    MIRRORS,
    Gallery,
    Matches,
    best,
    build_gallery,
    coarse_search,
    joint_correlation,
    refine,
)

SPACE = plan_space(np.array([SHAPE], dtype=float), 1.0)


def _features(volumes: list[np.ndarray]) -> Features:
    return join_features([extract(np.asarray(v, np.float32), (1.0, 1.0, 1.0), SPACE) for v in volumes])


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return build_gallery(_features(scans(range(8))), np.arange(8), SPACE)


def _search(volumes: list[np.ndarray], gallery: Gallery) -> Matches:
    queries = _features(volumes)
    everything = torch.ones(len(queries), len(gallery), dtype=torch.bool)
    return refine(queries, gallery, coarse_search(queries, gallery), [everything])[0]


def test_a_margin_is_no_content_and_a_dark_hole_is() -> None:
    volume = np.zeros((20, 20, 20), np.float32)
    volume[4:16, 5:17, 3:15] = 1 + 0.1 * scan(1)[:12, :12, :12]
    volume[9:12, 9:12, 8:11] = 0
    mask = content(volume)
    assert mask[10, 10, 9]
    assert not mask[0].any()
    assert not mask[:, :, -3:].any()
    assert crop_to_content(volume)[0].shape == pytest.approx((12, 12, 12), abs=2)


def test_a_crop_without_a_margin_is_all_content() -> None:
    assert content(scan(0)).mean() > 0.97


def test_local_normalisation_ignores_scale_and_offset() -> None:
    values = torch.from_numpy(scan(0).copy())[None]
    mask = torch.ones_like(values)
    plain = normalise_locally(values, mask, 0.7, 3.0)
    assert torch.allclose(plain, normalise_locally(5000 * values + 70, mask, 0.7, 3.0), atol=2e-2)
    assert plain.std() == pytest.approx(0.9, abs=0.2)


def test_what_lies_outside_the_mask_has_no_influence() -> None:
    values = torch.from_numpy(scan(0).copy())[None]
    mask = torch.zeros_like(values)
    mask[:, 4:14, 4:18, 3:13] = 1
    changed = torch.where(mask > 0, values, 100.0)
    assert torch.allclose(normalise_locally(values, mask, 0.7, 3.0), normalise_locally(changed, mask, 0.7, 3.0))


def test_generators_move_by_one_voxel_at_the_radius() -> None:
    basis = generators(6.0)
    point = torch.tensor([6.0, 0.0, 0.0, 1.0])
    assert (basis[1] @ point)[:3].norm() == pytest.approx(1.0)
    assert (basis[6] @ point)[:3].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert (basis[0] @ point)[:3].norm() == 0


def test_registration_recovers_a_known_pose() -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((20, 24, 18)), 2).astype(np.float32)
    fixed = torch.from_numpy(volume / volume.std())[None]
    template = build_template(fixed, torch.ones_like(fixed), 3000)
    angle = np.deg2rad(5)
    known = torch.eye(4)
    known[0, 0] = known[1, 1] = float(np.cos(angle))
    known[0, 1], known[1, 0] = -float(np.sin(angle)), float(np.sin(angle))
    known[:3, 3] = torch.tensor([1.0, -0.6, 0.4])
    points = grid_points((20, 24, 18))
    both = torch.stack([fixed, torch.ones_like(fixed)], 1)
    moved, inside = warp(both, torch.linalg.inv(known)[None], points)
    query = torch.stack([moved.view(fixed.shape), (inside > 0.99).float().view(fixed.shape)], 1)
    score, pose = register(template, torch.tensor([0]), query, torch.eye(4)[None], 12)
    assert score.item() > 0.97
    assert torch.allclose(pose[0], known, atol=0.08)


def test_a_scan_correlates_fully_with_itself_and_its_rescaling() -> None:
    own, other = _features([scan(0), 1000 * scan(0)]), _features([scan(1), scan(1)])
    eye = torch.eye(4).repeat(2, 1, 1)
    assert joint_correlation(own.intensity, own.intensity.flip(0), eye).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert joint_correlation(own.intensity, other.intensity, eye).max() < 0.7


def test_little_overlap_lowers_the_correlation() -> None:
    own = _features([scan(0)])
    far = torch.eye(4)[None].clone()
    far[0, 0, 3] = 0.9 * SHAPE[0]
    assert joint_correlation(own.intensity, own.intensity, far).abs().item() < 0.3


def test_best_measures_the_margin_over_the_best_other_patient() -> None:
    index = np.array([[0, 1, 2, -1], [3, -1, -1, -1], [-1, -1, -1, -1]])
    score = np.array([[0.9, 0.8, 0.5, -1], [1.0, -1, -1, -1], [-1.0, -1, -1, -1]])
    found = best(Matches(index, score, np.zeros_like(index), np.zeros((3, 4, 4, 4))), np.array([7, 7, 8, 9]))
    assert found.patient.tolist() == [7, 9, -1]
    assert found.margin[0] == pytest.approx(np.arctanh(0.9) - np.arctanh(0.5))
    assert found.margin[1] == pytest.approx(np.arctanh(CEILING))
    assert found.margin[2] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v,
        lambda v: 1000 * v + 5,
        lambda v: (v / v.max()) ** 0.6,
        lambda v: v[::-1],
        lambda v: v[::-1, ::-1, ::-1],
        lambda v: np.roll(v, (2, -2, 1), (0, 1, 2)),
        lambda v: np.pad(v, ((0, 5), (3, 0), (1, 6))),
        lambda v: ndimage.gaussian_filter(v, 0.7),
        lambda v: ndimage.rotate(v, 6, axes=(0, 1), reshape=False, order=1, cval=float(v.min())),
    ],
    ids=["same", "scale", "gamma", "mirror", "point", "roll", "margins", "blur", "rotation"],
)
def test_a_disguised_scan_finds_its_source(gallery: Gallery, change: object) -> None:
    matches = _search([change(scan(k)) for k in (2, 5)], gallery)  # type: ignore[operator]
    found = best(matches, gallery.patient)
    assert found.scan.tolist() == [2, 5]
    assert found.margin.min() > 0.8


def test_other_people_have_no_margin(gallery: Gallery) -> None:
    assert best(_search(scans(range(50, 58)), gallery), gallery.patient).margin.max() < 0.4


def test_a_mirror_image_is_named_as_one(gallery: Gallery) -> None:
    matches = _search([scan(4)[:, ::-1]], gallery)
    assert MIRRORS[int(matches.mirror[0, 0])] == (False, True, False)


def test_a_side_is_searched_as_if_alone(gallery: Gallery) -> None:
    queries = _features(scans(range(3)))
    coarse = coarse_search(queries, gallery)
    sides = [torch.arange(8).expand(3, 8) < 4, torch.arange(8).expand(3, 8) >= 4, torch.zeros(3, 8, dtype=torch.bool)]
    together = refine(queries, gallery, coarse, sides)
    for side, matches in zip(sides, together, strict=True):
        alone = refine(queries, gallery, coarse, [side])[0]
        assert np.array_equal(matches.index, alone.index)
        assert np.allclose(matches.score, alone.score, atol=1e-5)
    assert (together[0].index < 4).all()
    assert (together[2].index == -1).all()


def test_scans_of_one_patient_leave_room_for_others() -> None:
    visits = [scan(0, visit) for visit in range(6)]
    gallery = build_gallery(_features([*visits, *scans(range(1, 4))]), np.array([0] * 6 + [1, 2, 3]), SPACE)
    matches = _search([scan(0, 9)], gallery)
    assert (matches.index[0] < 6).sum() == 2
    assert best(matches, gallery.patient).margin[0] > 0.8


def test_the_working_grid_is_never_finer_than_the_scans() -> None:
    space = plan_space(np.array([[60.0, 40.0, 40.0], [64.0, 40.0, 40.0]]), 4.0)
    assert space.spacing == 4.0
    assert plan_space(np.array([[170.0, 100.0, 100.0]]), 1.0).spacing == pytest.approx(5.0)
