"""Structures as numbers: volume and shape of each, synthetic beside real, and volume against age and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage.measure import marching_cubes, mesh_surface_area
from torch import Tensor

from synthmed.evaluation.cases import Cases
from synthmed.evaluation.intervals import Array, Estimate
from synthmed.evaluation.regression import correlation, slope
from synthmed.evaluation.sample import Sample, estimate, sample_of

SHAPES = ("elongation", "flatness", "sphericity")
Spacing = tuple[float, float, float]


def describe_structures(
    synthetic: Cases,
    train: Cases,
    holdout: Cases,
    structures: Sequence[str],
    spacing: Spacing,
    scalars: Sequence[str] = (),
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Compare the structures of three labelled sets.

    Parameters
    ----------
    structures : sequence of str
        Names of classes 1, 2, ...
    spacing : tuple of float, mm
    scalars : sequence of str
        Covariates to hold volumes against.

    Returns
    -------
    dict
        For each structure what `compare_volumes` returns, ``shape`` (for each of `SHAPES` what `compare_values`
        returns) and ``against`` (for each scalar slope and correlation of volume in each set).
    """
    sets = {"synthetic": synthetic, "train": train, "holdout": holdout}
    voxel = float(np.prod(spacing))
    volumes = {name: label_volumes(cases.segmentations, len(structures), voxel) for name, cases in sets.items()}
    forms = {name: shapes(cases.segmentations, len(structures), spacing) for name, cases in sets.items()}
    patients = {name: cases.patients for name, cases in sets.items()}
    described: dict[str, dict[str, Any]] = {}
    for index, structure in enumerate(structures):
        found: dict[str, Any] = compare_volumes(*(v[:, index] for v in volumes.values()))
        found["shape"] = {
            name: compare_values({key: form[:, index, place] for key, form in forms.items()}, patients, seed=seed)
            for place, name in enumerate(SHAPES)
        }
        found["against"] = {
            scalar: {k: _against(scalar, cases, volumes[k][:, index], seed) for k, cases in sets.items()}
            for scalar in scalars
        }
        described[structure] = found
    return described


def label_volumes(labels: Tensor, num_structures: int, voxel_volume: float) -> Array:
    """Return the volume of each case and structure, mm^3, shape (N, num_structures)."""
    counts = [(labels == s).flatten(1).sum(1) for s in range(1, num_structures + 1)]
    return torch.stack(counts, 1).double().numpy() * voxel_volume


def compare_volumes(synthetic: Array, train: Array, holdout: Array) -> dict[str, Any]:
    """Compare one structure's volumes (mm^3, shapes (N,)) with the held-out ones, beside the training ones.

    Returns
    -------
    dict
        Mean and SD of each set, share of cases without the structure, Kolmogorov-Smirnov statistic and Wasserstein
        distance (mm^3) to the held-out set.
    """
    sets = {"synthetic": synthetic, "train": train, "holdout": holdout}
    result: dict[str, Any] = {name: _spread(values) for name, values in sets.items()}
    for name in ("synthetic", "train"):
        result[name]["ks"] = float(stats.ks_2samp(sets[name], holdout).statistic)
        result[name]["wasserstein_mm3"] = float(stats.wasserstein_distance(sets[name], holdout))
    return result


def shapes(labels: Tensor, num_structures: int, spacing: Spacing) -> Array:
    """Return elongation, flatness and sphericity of each case and structure, shape (N, num_structures, 3).

    NaN where a structure is absent.
    """
    return np.asarray(
        [[shape_of(label == s, spacing) for s in range(1, num_structures + 1)] for label in labels[:, 0].numpy()]
    )


def shape_of(mask: NDArray[np.bool_], spacing: Spacing) -> tuple[float, float, float]:
    """Return elongation, flatness and sphericity of one structure, each 1 for a ball; NaN for an empty mask.

    With l1 >= l2 >= l3 the variances along the principal axes, sqrt(l2 / l1) and sqrt(l3 / l1); sphericity is
    (36 pi V^2)^(1/3) / A, with volume and area of the surface mesh.

    References
    ----------
    Zwanenburg et al. 2020, doi 10.1148/radiol.2020191145: morphological features Q3CK, N17B and QCFX.
    """
    if not mask.any():
        return np.nan, np.nan, np.nan
    places = np.argwhere(mask) * np.asarray(spacing)
    # The spread within a voxel keeps a single layer of voxels from having no thickness.
    spread = np.cov(places.T, bias=True).reshape(3, 3) + np.diag(np.square(spacing) / 12)
    least, middle, most = np.linalg.eigvalsh(spread)
    part = np.pad(mask[ndimage.find_objects(mask.astype(np.uint8))[0]], 1)
    corners, faces, _, _ = marching_cubes(part.astype(np.float32), 0.5, spacing=spacing)
    a, b, c = (corners[faces[:, i]].astype(np.float64) for i in range(3))
    volume = abs(float((a * np.cross(b, c)).sum() / 6))
    area = float(mesh_surface_area(corners, faces))
    return (
        float(np.sqrt(middle / most)),
        float(np.sqrt(least / most)),
        float((36 * np.pi * volume**2) ** (1 / 3) / area),
    )


def compare_values(
    sets: dict[str, Array], patients: dict[str, tuple[str, ...]], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare one number a case with the held-out set: Kolmogorov-Smirnov statistic and Wasserstein distance.

    Parameters
    ----------
    sets : dict
        ``synthetic``, ``train`` and ``holdout`` -> ndarray, shape (N,); NaN is left out.
    patients : dict
        The same keys -> patients.

    Returns
    -------
    dict
        For each set ``mean`` and ``sd``, and but for the held-out one ``ks`` and ``wasserstein`` with intervals; None
        where a set has no value.
    """
    rng = np.random.default_rng(seed)
    samples: dict[str, Sample | None] = {}
    result: dict[str, dict[str, Any]] = {}
    for name, values in sets.items():
        kept = np.isfinite(values)
        owners = [owner for owner, keep in zip(patients[name], kept, strict=True) if keep]
        there = values[kept]
        samples[name] = sample_of(there[:, None], owners, rng=rng) if len(there) else None
        spread = {"mean": float(there.mean()), "sd": float(there.std())} if len(there) else {"mean": None, "sd": None}
        result[name] = {**spread, "n": len(there)}
    judge = samples["holdout"]
    for name in ("synthetic", "train"):
        x = samples[name]
        found = (None, None) if x is None or judge is None else (part.figure() for part in gaps(x, judge))
        result[name]["ks"], result[name]["wasserstein"] = found
    return result


def gaps(x: Sample, y: Sample) -> tuple[Estimate, Estimate]:
    """Return the largest gap between two distribution functions, and the area between them.

    Both grow when cases are resampled, so the draws are moved to the value.

    Parameters
    ----------
    x, y : Sample
        Points of shape (N, 1).
    """
    values = np.concatenate([x.points[:, 0], y.points[:, 0]])
    order = np.argsort(values, kind="stable")
    steps = np.diff(values[order])
    last = np.append(steps > 0, True)  # equal values step together

    def between(wx: Array, wy: Array) -> Array:
        shares = np.concatenate([wx / wx.sum(axis=1, keepdims=True), -wy / wy.sum(axis=1, keepdims=True)], axis=1)
        return np.asarray(np.abs(np.cumsum(shares[:, order], axis=1)))

    largest = estimate(lambda wx, wy: between(wx, wy)[:, last].max(axis=1), x, y)
    area = estimate(lambda wx, wy: between(wx, wy)[:, :-1] @ steps, x, y)
    return largest.recentred(0.0, 1.0), area.recentred(0.0)


def _against(scalar: str, cases: Cases, volumes: Array, seed: int) -> dict[str, Any] | None:
    """Return slope (mm^3 a unit) and correlation of volume against a covariate; None without enough cases."""
    known = cases.scalar(scalar)
    kept = np.isfinite(known)
    if kept.sum() < 3:
        return None
    owners = [owner for owner, keep in zip(cases.patients, kept, strict=True) if keep]
    sample = sample_of(volumes[kept][:, None], owners, rng=np.random.default_rng(seed))
    found = {
        name: measure(known[kept], volumes[kept], sample).figure()
        for name, measure in (("slope", slope), ("correlation", correlation))
    }
    return found | {"n": int(kept.sum())}


def _spread(values: Array) -> dict[str, float]:
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean_mm3": float(values.mean()), "sd_mm3": sd, "empty": float((values == 0).mean()), "n": len(values)}
