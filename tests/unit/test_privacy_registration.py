"""Registration recovers known affine poses, and knows when little is shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from privacy_scans import SHAPE, features, scan
from scipy import ndimage
from torch import Tensor

from privacy.pairs import joint_correlation
from privacy.registration import build_template, generators, grid_points, register, warp

GRID = (20, 24, 18)


def rotation(degrees: float) -> Tensor:
    c, s = float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def pose(linear: Tensor, shift: tuple[float, float, float]) -> Tensor:
    out = torch.eye(4)
    out[:3, :3], out[:3, 3] = linear, torch.tensor(shift)
    return out


KNOWN = {
    "rotation": pose(rotation(5), (1.0, -0.6, 0.4)),
    "zoom": pose(1.08 * torch.eye(3), (0.5, 0.5, -0.5)),
    "scales": pose(torch.diag(torch.tensor([1.07, 0.94, 1.02])), (0.0, 0.0, 0.0)),
    "shear": pose(torch.tensor([[1.0, 0.06, 0.0], [0.0, 1.0, 0.0], [-0.05, 0.0, 1.0]]), (0.3, 0.0, 0.6)),
    "affine": pose(
        rotation(4)
        @ torch.diag(torch.tensor([1.06, 0.95, 1.03]))
        @ torch.tensor([[1.0, 0.0, 0.05], [-0.04, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (0.8, -0.5, 0.4),
    ),
}


def texture(seed: int) -> Tensor:
    volume = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(GRID), 2).astype(np.float32)
    return torch.from_numpy(volume / volume.std())[None]


def posed(volume: Tensor, known: Tensor) -> Tensor:
    """Resample a volume and its mask, so that registration has to find `known`."""
    both = torch.stack([volume, torch.ones_like(volume)], 1)
    moved, inside = warp(both, torch.linalg.inv(known)[None], grid_points(GRID))
    return torch.stack([moved.view(volume.shape), (inside > 0.99).float().view(volume.shape)], 1)


def test_generators_move_by_one_voxel_at_the_radius() -> None:
    basis = generators(6.0)
    point = torch.tensor([6.0, 0.0, 0.0, 1.0])
    assert (basis[1] @ point)[:3].norm() == pytest.approx(1.0)
    assert (basis[6] @ point)[:3].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert (basis[10] @ point)[:3].norm() == pytest.approx(1.0)
    assert (basis[0] @ point)[:3].norm() == 0


def test_generators_span_the_affine_group() -> None:
    basis = generators(6.0)
    assert torch.linalg.matrix_rank(basis.flatten(1)) == 12
    assert not basis[:, 3].any()


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("seed", range(2))
def test_registration_recovers_a_known_pose(name: str, seed: int) -> None:
    fixed = texture(seed)
    template = build_template(fixed, torch.ones_like(fixed), 3000)
    query = posed(fixed, KNOWN[name])
    before, _ = register(template, torch.tensor([0]), query, torch.eye(4)[None], 0)
    score, found = register(template, torch.tensor([0]), query, torch.eye(4)[None], 12)
    assert score.item() > 0.995
    assert 1 - score.item() < (1 - before.item()) / 4
    # In voxels, at the corner of a box half as wide as the grid.
    corner = torch.tensor([GRID[0] / 4, GRID[1] / 4, GRID[2] / 4, 1.0])
    assert ((found[0] - KNOWN[name]) @ corner).norm() < 0.2


def test_each_pair_is_registered_as_if_alone() -> None:
    fixed = torch.cat([texture(0), texture(1)])
    template = build_template(fixed, torch.ones_like(fixed), 2000)
    queries = torch.cat([posed(texture(1), KNOWN["affine"]), posed(texture(0), KNOWN["rotation"])])
    start = torch.eye(4).repeat(2, 1, 1)
    score, found = register(template, torch.tensor([1, 0]), queries, start, 6)
    for k, member in enumerate((1, 0)):
        alone = register(template, torch.tensor([member]), queries[k : k + 1], start[:1], 6)
        assert torch.allclose(alone[0], score[k : k + 1], atol=1e-5)
        assert torch.allclose(alone[1], found[k : k + 1], atol=1e-4)


def test_more_steps_never_lower_the_score() -> None:
    fixed, other = texture(0), texture(5)
    template = build_template(fixed, torch.ones_like(fixed), 2000)
    query = torch.stack([other, torch.ones_like(other)], 1)
    scores = [register(template, torch.tensor([0]), query, torch.eye(4)[None], steps)[0].item() for steps in (0, 3, 9)]
    assert scores == sorted(scores)


def test_a_scan_correlates_fully_with_itself_and_its_rescaling() -> None:
    own, other = features([scan(0), 1000 * scan(0)]), features([scan(1), scan(1)])
    eye = torch.eye(4).repeat(2, 1, 1)
    assert joint_correlation(own.intensity, own.intensity.flip(0), eye) == pytest.approx(torch.ones(2, 3), abs=1e-3)
    assert joint_correlation(own.intensity, other.intensity, eye).max() < 0.7


def test_half_a_copy_is_whole_in_its_half() -> None:
    own, other = features([scan(0)]).intensity, features([scan(1)]).intensity
    blended = torch.where(torch.arange(own.shape[2])[:, None, None] < own.shape[2] // 2, own, other)
    whole, half, linear = joint_correlation(own, blended, torch.eye(4)[None])[0].tolist()
    assert max(whole, linear) < 0.85
    assert half > 0.95


def test_little_overlap_lowers_the_correlation() -> None:
    own = features([scan(0)])
    far = torch.eye(4)[None].clone()
    far[0, 0, 3] = 0.9 * SHAPE[0]
    assert joint_correlation(own.intensity, own.intensity, far).abs().max() < 0.3
