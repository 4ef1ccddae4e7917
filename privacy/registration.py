"""Batched affine registration of feature volumes by Gauss-Newton.

A pose is a 4x4 matrix that maps an offset from the centre of the gallery volume's grid to an offset from the centre of
the query's grid, in voxels of that grid. The update is inverse compositional (Baker and Matthews 2004,
doi 10.1023/B:VISI.0000011205.11775.fd): the gallery's steepest-descent images are computed once, so that one step
costs one interpolation of the query; its gain follows the enhanced correlation coefficient (Evangelidis and Psarakis
2008, doi 10.1109/TPAMI.2008.113).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

PARAMETERS = 12  # three rotations, three translations, three scales, three shears
LIGHT, STIFF = 0.01, 0.05  # damping of the rigid parameters, and of scales and shears
INSIDE = 0.9  # a sampled point counts where its interpolated mask exceeds this
MIN_OVERLAP = 0.5  # of the smaller content; below it the correlation is scaled down


@dataclass(frozen=True)
class Template:
    """Feature volumes of a gallery at one resolution, ready to be registered to.

    Attributes
    ----------
    features, mask : Tensor, shape (G, D, H, W), float32
        Locally normalised intensities, 0 outside the mask; the mask is 0 or 1.
    points : Tensor, shape (N, 3)
        Offsets of all voxels from the grid's centre.
    chosen : Tensor, shape (n,), int64
        The points that are looked at.
    descent : Tensor, shape (G, n, 12)
        Derivative of the features along each parameter at the chosen points.
    normal : Tensor, shape (G, 12, 12)
        Their damped Gauss-Newton matrix over the whole content.
    """

    features: Tensor
    mask: Tensor
    points: Tensor
    chosen: Tensor
    descent: Tensor
    normal: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid shape (D, H, W)."""
        _, d, h, w = self.features.shape
        return d, h, w


def grid_points(shape: tuple[int, int, int]) -> Tensor:
    """Return the offsets of all voxels from the grid's centre, shape (D*H*W, 3), in voxels."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def generators(radius: float) -> Tensor:
    """Return the 4x4 generators of the affine group, shape (12, 4, 4).

    Rotations, scales and shears are divided by `radius` (voxels), so that a unit of each parameter moves voxels by
    about one.
    """
    out = torch.zeros(PARAMETERS, 4, 4)
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        out[k, i, j], out[k, j, i] = -1 / radius, 1 / radius
        out[3 + k, k, 3] = 1
        out[6 + k, k, k] = 1 / radius
        out[9 + k, i, j] = out[9 + k, j, i] = 1 / radius
    return out


def build_template(features: Tensor, mask: Tensor, max_points: int) -> Template:
    """Prepare gallery volumes for registration.

    Parameters
    ----------
    features, mask : Tensor, shape (G, D, H, W), float32
    max_points : int
        How many voxels the optimisation looks at, evenly spread over the grid by a fixed permutation.
    """
    _, d, h, w = features.shape
    points = grid_points((d, h, w))
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    chosen = order[:max_points].sort().values
    homogeneous = torch.cat([points[chosen], torch.ones(len(chosen), 1)], 1)
    motion = torch.einsum("pij,nj->npi", generators(_radius((d, h, w)))[:, :3], homogeneous)
    descent = torch.empty(len(features), len(chosen), PARAMETERS)
    for row, volume, inside in zip(descent, features, mask, strict=True):
        row[:] = torch.einsum("ni,npi->np", _gradient(volume * inside)[chosen], motion)
    normal = descent.transpose(1, 2) @ descent
    stiffness = torch.tensor([LIGHT] * 6 + [STIFF] * 6)
    damping = torch.diag_embed(stiffness * torch.diagonal(normal, dim1=1, dim2=2)) + 1e-3 * torch.eye(PARAMETERS)
    return Template(features, mask, points, chosen, descent, normal + damping)


def sample(volumes: Tensor, pose: Tensor, points: Tensor) -> Tensor:
    """Sample volumes at the posed points, trilinearly, 0 outside.

    Parameters
    ----------
    volumes : Tensor, shape (B, C, D, H, W)
    pose : Tensor, shape (B, 4, 4)
    points : Tensor, shape (n, 3)

    Returns
    -------
    Tensor, shape (B, C, n)
    """
    # grid_sample wants the last axis first, in units of half the grid.
    scaled = (pose[:, :3] / torch.tensor([n / 2 for n in volumes.shape[2:]])[:, None]).flip(1)
    grid = torch.baddbmm(scaled[:, None, :, 3], points.expand(len(pose), -1, -1), scaled[:, :, :3].transpose(1, 2))
    return grid_sample(
        volumes, grid[:, :, None, None], mode="bilinear", padding_mode="zeros", align_corners=False
    ).flatten(2)


def warp(query: Tensor, pose: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Sample features (the first channel) and mask (the last) at the posed points, each of shape (B, n)."""
    sampled = sample(query, pose, points)
    return sampled[:, 0], sampled[:, -1]


def correlation(a: Tensor, mask_a: Tensor, b: Tensor, mask_b: Tensor, area: Tensor) -> Tensor:
    """Return the correlation over the overlap of two masks, scaled down where the overlap is small.

    Parameters
    ----------
    a, mask_a, b, mask_b : Tensor, shape (B, n)
    area : Tensor, shape (B,)
        Number of points in the smaller content; overlaps under `MIN_OVERLAP` of it lower the value in proportion.
    """
    weight = mask_a * (mask_b > INSIDE)
    energy = (weight * a * a).sum(1) * (weight * b * b).sum(1)
    value = (weight * a * b).sum(1) / energy.clamp_min(1e-12).sqrt()
    return value * (weight.sum(1) / (MIN_OVERLAP * area).clamp_min(1)).clamp(max=1)


def register(template: Template, members: Tensor, query: Tensor, pose: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Improve the pose of each pair and return the best found.

    Parameters
    ----------
    template : Template
    members : Tensor, shape (B,), int64
        Which gallery volume each pair uses.
    query : Tensor, shape (B, 2, D, H, W)
    pose : Tensor, shape (B, 4, 4)
        Where to start.
    steps : int

    Returns
    -------
    score : Tensor, shape (B,)
        Correlation over the chosen points at the best pose.
    pose : Tensor, shape (B, 4, 4)
    """
    chosen = template.chosen
    near = template.features.flatten(1)[:, chosen][members]
    near_mask = template.mask.flatten(1)[:, chosen][members]
    descent, normal = template.descent[members], template.normal[members]
    basis = generators(_radius(template.shape))
    fraction = len(chosen) / len(template.points)
    area = torch.minimum(near_mask.sum(1), query[:, 1].flatten(1).sum(1) * fraction)
    best, best_pose = torch.full((len(pose),), -2.0), pose
    for step in range(steps + 1):
        moved, inside = warp(query, pose, template.points[chosen])
        score = correlation(near, near_mask, moved, inside, area)
        better = score > best
        best, best_pose = torch.where(better, score, best), torch.where(better[:, None, None], pose, best_pose)
        if step < steps:
            change = _gauss_newton(descent, normal, near, near_mask * inside, moved)
            pose = pose @ torch.matrix_exp(-torch.einsum("bp,pij->bij", change, basis))
    return best, best_pose


def _gauss_newton(descent: Tensor, normal: Tensor, target: Tensor, weight: Tensor, moved: Tensor) -> Tensor:
    """Solve one damped step for the change of the parameters, shape (B, 12)."""
    gain = (weight * target * moved).sum(1) / (weight * moved * moved).sum(1).clamp_min(1e-9)
    residual = weight * (gain.clamp(0.2, 3)[:, None] * moved - target)
    slope = (descent.transpose(1, 2) @ residual[..., None])[..., 0]
    return torch.linalg.solve(normal, slope).clamp(-3, 3)


def _radius(shape: tuple[int, int, int]) -> float:
    return max(shape) / 3


def _gradient(volume: Tensor) -> Tensor:
    return torch.stack(torch.gradient(volume, dim=(0, 1, 2)), -1).reshape(-1, 3)
