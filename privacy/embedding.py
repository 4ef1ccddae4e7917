"""A copy-detection embedding, learned from the real scans at hand: laid over an atlas, freed of what disguises change.

Each real scan is seen again under random disguises. What all scans have in common and what disguises change does not
tell one scan from another: the mean is taken off, and the directions along which disguises spread a scan are shrunk by
their variance, which is Fisher's discriminant with the scatter within scans (Fukunaga 1990, Introduction to statistical
pattern recognition, section 10.2). The embedding knows neither sides nor patients, and no synthetic scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from privacy import planted
from privacy.atlas import PART, POINTS, Laid, build_atlas, lay
from privacy.errors import UsageError
from privacy.features import COARSE_STEP, Array, Features, Space, extract, join_features, normalise_locally
from privacy.poses import mirror_all
from privacy.registration import Template, build_template, grid_points, warp
from privacy.stored import Scans, even_spans
from privacy.threads import in_order, one_thread

STEP = 2.0  # embedding voxel over fine voxel
BANDS = ((0.6, 1.5), (1.0, 4.0))  # inner and outer widths, embedding voxels
LESSONS = 600
NUISANCES = 320
REST_DIRECTIONS = 4  # times the nuisances: over how many more directions their remaining variance is spread
LEAST_VARIANCE = 1e-6  # of the largest; below it a direction is rounding error, and not orthogonal to the others
INSIDE = 0.5
CHUNK = 16
METHOD = "atlas-fisher-3"  # changes when the same scans would give another embedding


@dataclass(frozen=True)
class Embedding:
    """From a scan's features to unit vectors of length D.

    Attributes
    ----------
    atlas : Template
    shape : tuple of int
        The grid it looks at, over the atlas.
    mean : Tensor, shape (D,)
    nuisance : Tensor, shape (r, D)
        Orthonormal directions along which disguises spread a scan.
    gain : Tensor, shape (r,)
        What remains of each.
    """

    atlas: Template
    shape: tuple[int, int, int]
    mean: Tensor
    nuisance: Tensor
    gain: Tensor

    def encode(self, scans: Scans) -> tuple[Tensor, Laid]:
        """Return unit codes, shape (n, H, D), one for each pose over the atlas, and the poses."""
        laid = lay(scans, self.atlas)
        codes = torch.empty(*laid.mirror.shape, len(self.mean))
        parts = even_spans(len(scans), PART)
        for rows, part in zip(parts, in_order(lambda rows: self._codes(scans[rows], laid[rows]), parts), strict=True):
            codes[rows] = part
        return codes, laid

    def _codes(self, scans: Features, laid: Laid) -> Tensor:
        seen = look(scans, laid, self.shape) - self.mean
        return normalize(seen - ((seen @ self.nuisance.T) * (1 - self.gain)) @ self.nuisance, dim=-1)


def look(scans: Features, laid: Laid, shape: tuple[int, int, int]) -> Tensor:
    """Return locally normalised intensities over the atlas as unit vectors, shape (n, H, D), one for each pose."""
    points, poses = grid_points(shape) * STEP, []
    for h in range(laid.mirror.shape[1]):
        pose = laid.pose[:, h].clone()
        pose[:, :3, 3] *= COARSE_STEP  # from coarse voxels to those of the intensities
        values, inside = warp(mirror_all(scans.intensity, laid.mirror[:, h]), pose, points)
        values, mask = values.view(-1, *shape), (inside.view(-1, *shape) > INSIDE).float()
        poses.append(torch.cat([normalise_locally(values, mask, *band).flatten(1) for band in BANDS], 1))
    return normalize(torch.stack(poses, 1), dim=-1)


def learn(
    real: Scans,
    scans: Sequence[tuple[Array, tuple[float, ...]]],
    space: Space,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> Embedding:
    """Learn the embedding from real scans, their patients and sides unseen.

    Parameters
    ----------
    real : Features
    scans : sequence of (array, spacing)
        Those of the features, in the same order.
    space : Space
    seed : int
        Of the disguises.
    tick : callable
        Called once for each of the `LESSONS`.
    """
    atlas = build_atlas(real)
    shape = _shape(space)
    laid = lay(real, atlas)
    parts = even_spans(len(real), PART)
    seen = torch.cat(list(in_order(lambda rows: look(real[rows], laid[rows], shape)[:, 0].clone(), parts)))
    order = np.random.default_rng([seed, 5]).permutation(len(scans))

    def lesson(rows: slice) -> Tensor:
        numbers = range(LESSONS)[rows]
        owners = [int(order[k % len(scans)]) for k in numbers]
        views = join_features([_view(*scans[owner], k, seed, space) for owner, k in zip(owners, numbers, strict=True)])
        poses = look(views, lay(views, atlas), shape)
        origin = seen[owners]
        # The pose that fits: where the atlas is ambiguous, the other would teach that all directions are nuisances.
        best = torch.einsum("nhd,nd->nh", poses, origin).argmax(1)
        return poses[torch.arange(len(poses)), best] - origin

    spread = []
    for part in in_order(lesson, even_spans(LESSONS, CHUNK)):
        spread.append(part)
        for _ in part:
            tick()
    with one_thread():
        nuisance, gain = nuisances(torch.cat(spread))
    return Embedding(atlas, shape, seen.mean(0), nuisance, gain)


def nuisances(spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return the directions of largest variance of disguised minus original scans, and what to keep of each.

    Parameters
    ----------
    spread : Tensor, shape (n, D)

    Returns
    -------
    direction : Tensor, shape (r, D)
        Orthonormal.
    gain : Tensor, shape (r,)
        rest / (variance + rest), where the rest is the variance of the other directions.
    """
    variance, vector = torch.linalg.eigh(spread @ spread.T / len(spread))
    count = min(NUISANCES, len(spread) - 1, int((variance > LEAST_VARIANCE * variance.max()).sum()))
    kept = variance.flip(0)[:count].clamp_min(0)
    rest = (variance.sum() - kept.sum()).clamp_min(1e-9) / (REST_DIRECTIONS * NUISANCES)
    direction = normalize((spread.T @ vector.flip(1)[:, :count]).T.contiguous(), dim=1)
    return direction, rest / (kept + rest)


def cached(
    folder: Path | None,
    contents: Sequence[str],
    real: Scans,
    scans: Sequence[tuple[Array, tuple[float, ...]]],
    space: Space,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> Embedding:
    """Read the embedding of scans with these digests from a folder, or learn it and keep it there; see `learn`."""
    if folder is None:
        return learn(real, scans, space, seed, tick)
    path = folder / f"embedding-{_key(contents, space, seed)}.safetensors"
    try:
        return _read(path, space)
    except (OSError, SafetensorError, KeyError):
        embedding = learn(real, scans, space, seed, tick)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".part-{path.name}")
        save_file(_tensors(embedding), part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"Cannot keep the embedding in {folder}", found=" ".join(str(error).split())) from error
    return embedding


def _tensors(embedding: Embedding) -> dict[str, Tensor]:
    return {
        "atlas": embedding.atlas.features.contiguous(),
        "mask": embedding.atlas.mask.contiguous(),
        "mean": embedding.mean.contiguous(),
        "nuisance": embedding.nuisance.contiguous(),
        "gain": embedding.gain.contiguous(),
    }


def _read(path: Path, space: Space) -> Embedding:
    # Copied, so that they lie in memory as learned ones do: products then are the same to the last bit.
    stored = {key: tensor.clone() for key, tensor in load_file(path).items()}
    atlas = build_template(stored["atlas"], stored["mask"], POINTS)
    return Embedding(atlas, _shape(space), stored["mean"], stored["nuisance"], stored["gain"])


def _key(contents: Sequence[str], space: Space, seed: int) -> str:
    text = "\n".join([METHOD, f"{LESSONS} {NUISANCES} {seed}", repr(space), *contents])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shape(space: Space) -> tuple[int, int, int]:
    d, h, w = (int(np.ceil(n / STEP)) + 1 for n in space.fine)
    return d, h, w


def _view(array: Array, spacing: tuple[float, ...], number: int, seed: int, space: Space) -> Features:
    disguised = planted.lesson(array, np.random.default_rng([seed, 6, number]))
    return extract(np.ascontiguousarray(disguised, dtype=np.float32), spacing, space)
