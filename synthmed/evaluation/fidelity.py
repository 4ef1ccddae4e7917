"""How close synthetic volumes are to real ones, and what the autoencoder loses.

Every distance comes with the real-against-real floor, held-out patients against training patients at the same
number of cases, because neither value means anything alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthmed.evaluation.features import LEAST_SD, standardiser_of
from synthmed.evaluation.intervals import Array, mean_interval, patient_weights, percentile_interval
from synthmed.models.autoencoder import one_hot

DATA_RANGE = 2.0
LEAST_MSE = 1e-10
COMPONENTS = 16

Groups = Sequence[str]


def psnr(reference: Tensor, other: Tensor, data_range: float = DATA_RANGE) -> Array:
    """Return the peak signal-to-noise ratio of each case, dB: 10 log10(data_range^2 / MSE).

    Parameters
    ----------
    reference, other : Tensor, shape (N, ...)
    data_range : float
        Whole width of the intensity scale; 2 for [-1, 1].

    Returns
    -------
    ndarray, shape (N,)
        At most 106 dB on [-1, 1]: an error below 1e-5 (root mean square) counts as 1e-5.
    """
    squared = (reference.double() - other.double()) ** 2
    mse = squared.flatten(1).mean(1).clamp_min(LEAST_MSE)
    return (10 * torch.log10(data_range**2 / mse)).numpy()


def dice_per_structure(predicted: Tensor, reference: Tensor, num_classes: int) -> Array:
    """Return 2 |A and B| / (|A| + |B|) of each case and structure.

    A structure absent from both counts as 1, absent from one alone as 0.

    Parameters
    ----------
    predicted, reference : Tensor, shape (N, 1, I, J, K), integer class index, background 0
    num_classes : int
        Background included.

    Returns
    -------
    ndarray, shape (N, num_classes - 1)
    """
    scores = []
    for index in range(1, num_classes):
        a, b = (predicted == index).flatten(1), (reference == index).flatten(1)
        both = (a & b).sum(1).double()
        total = a.sum(1) + b.sum(1)
        scores.append(torch.where(total == 0, torch.ones_like(both), 2 * both / total.clamp_min(1)))
    return torch.stack(scores, 1).numpy()


def kid(x: Array, y: Array, x_groups: Groups, y_groups: Groups, *, rng: np.random.Generator) -> dict[str, float]:
    """Return the unbiased kernel distance (MMD squared) of two sets with a bootstrap interval over patients.

    The kernel is k(a, b) = (a.b / D + 1)^3. Pairs of scans of one patient are left out, as each scan's pair with
    itself is: neither is a pair of independent draws.

    Parameters
    ----------
    x, y : ndarray, shapes (N, D) and (M, D)
    x_groups, y_groups : sequence of str
        Patients; synthetic cases are each their own.

    References
    ----------
    Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401, equations 3 and 4.
    """
    weights = patient_weights(x_groups, rng=rng), patient_weights(y_groups, rng=rng)
    ones = np.ones((1, len(x))), np.ones((1, len(y)))
    value = _mmd_squared(x, y, x_groups, y_groups, *ones)[0]
    low, high = percentile_interval(_mmd_squared(x, y, x_groups, y_groups, *weights))
    return {"value": float(value), "low": low, "high": high}


def _mmd_squared(x: Array, y: Array, x_groups: Groups, y_groups: Groups, wx: Array, wy: Array) -> Array:
    """Return MMD squared under each row of case weights; NaN where a row leaves no pair of patients."""
    within = _pair_mean(_kernel(x, x), wx, wx, _differ(x_groups)), _pair_mean(_kernel(y, y), wy, wy, _differ(y_groups))
    across = _pair_mean(_kernel(x, y), wx, wy, np.ones((len(x), len(y))))
    return within[0] + within[1] - 2 * across


def _kernel(a: Array, b: Array) -> Array:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _differ(groups: Groups) -> Array:
    names = np.asarray(groups)
    return (names[:, None] != names[None, :]).astype(np.float64)


def _pair_mean(values: Array, wa: Array, wb: Array, mask: Array) -> Array:
    top = ((wa @ (values * mask)) * wb).sum(axis=1)
    total = ((wa @ mask) * wb).sum(axis=1)
    return np.divide(top, total, out=np.full(len(total), np.nan), where=total > 0)


def frechet_distance(x: Array, y: Array, wx: Array | None = None, wy: Array | None = None) -> float:
    """Return |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) of two sets of features.

    Parameters
    ----------
    x, y : ndarray, shapes (N, D) and (M, D)
    wx, wy : ndarray, shapes (N,) and (M,), optional
        Case weights.

    References
    ----------
    Dowson and Landau 1982, doi 10.1016/0047-259X(82)90077-X, equation 4; Heusel et al. 2017, arXiv:1706.08500.
    """
    mean_x, cov_x = np.average(x, axis=0, weights=wx), np.atleast_2d(np.cov(x.T, bias=True, aweights=wx))
    mean_y, cov_y = np.average(y, axis=0, weights=wy), np.atleast_2d(np.cov(y.T, bias=True, aweights=wy))
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


def frechet(x: Array, y: Array, x_groups: Groups, y_groups: Groups, *, rng: np.random.Generator) -> dict[str, float]:
    """Return the Frechet distance with an interval.

    The distance is biased upwards at small n, and more so in a bootstrap: the interval is the bootstrap's, moved so
    that its mean lies on the value, and cut at 0. Compare only with a floor of the same n.
    """
    wx, wy = patient_weights(x_groups, rng=rng), patient_weights(y_groups, rng=rng)
    value = frechet_distance(x, y)
    draws = np.asarray([frechet_distance(x, y, a, b) for a, b in zip(wx, wy, strict=True)])
    low, high = percentile_interval(draws - draws.mean() + value)
    return {"value": value, "low": max(low, 0.0), "high": high}


def distances(
    synthetic: Array, train: Array, holdout: Array, train_groups: Groups, holdout_groups: Groups, *, seed: int
) -> dict[str, Any]:
    """Return KID and Frechet distance of synthetic to held-out cases beside training to held-out cases.

    The floor's KID is unbiased and so as often below 0 as above: compare intervals, not ratios.
    Both sides use the same number of cases, `n`. Features are standardised by all real cases; the Frechet distance
    is taken on their leading principal components, each of unit variance among real cases, since a covariance
    needs more cases than dimensions.

    Parameters
    ----------
    synthetic, train, holdout : ndarray, shape (N, D)
        Raw features.
    train_groups, holdout_groups : sequence of str
        Patients.
    """
    rng = np.random.default_rng(seed)
    real = np.concatenate([train, holdout])
    standardise = standardiser_of(real)
    axes = whitening_of(standardise(real))
    n = min(len(synthetic), len(train))
    s = np.sort(rng.permutation(len(synthetic))[:n])
    t = np.sort(rng.permutation(len(train))[:n])
    sets = standardise(synthetic[s]), standardise(train[t]), standardise(holdout)
    groups = [str(i) for i in s], [train_groups[i] for i in t], list(holdout_groups)
    result: dict[str, Any] = {"n": n, "n_holdout": len(holdout), "dimensions": real.shape[1]}
    result["kid"] = {
        "synthetic": kid(sets[0], sets[2], groups[0], groups[2], rng=rng),
        "floor": kid(sets[1], sets[2], groups[1], groups[2], rng=rng),
    }
    low = [part @ axes for part in sets]
    result["frechet"] = {
        "synthetic": frechet(low[0], low[2], groups[0], groups[2], rng=rng),
        "floor": frechet(low[1], low[2], groups[1], groups[2], rng=rng),
        "components": axes.shape[1],
    }
    return result


def whitening_of(features: Array, components: int = COMPONENTS) -> Array:
    """Return the projection to leading principal components of unit variance, shape (D, at most `components`).

    Parameters
    ----------
    features : ndarray, shape (N, D)
    """
    _, scales, rows = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    kept = min(components, len(features) - 1)
    sd = np.maximum(scales[:kept] / np.sqrt(len(features)), LEAST_SD)
    return rows[:kept].T / sd


@torch.no_grad()
def reconstruction(
    model: Any, images: Tensor, labels: Tensor | None, structures: Sequence[str], patients: Groups, *, seed: int
) -> dict[str, Any]:
    """Return what the autoencoder keeps of real cases: PSNR (dB) and Dice of each structure.

    Parameters
    ----------
    model : Autoencoder
        With ``encode(image, onehot) -> mean`` and ``decode(latent) -> (image, logits)``.
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), integer class index, or None
    """
    rng = np.random.default_rng(seed)
    num_classes = len(structures) + 1
    ratios, overlaps = [], []
    for start in range(0, len(images), 8):
        image = images[start : start + 8]
        label = None if labels is None else labels[start : start + 8]
        decoded, logits = _round_trip(model, image, label, num_classes)
        ratios.append(psnr(image, decoded))
        if label is not None and logits is not None:
            overlaps.append(dice_per_structure(logits.argmax(1, keepdim=True), label, num_classes))
    result: dict[str, Any] = {"psnr_db": mean_interval(np.concatenate(ratios), patients, rng=rng)}
    if overlaps:
        dice = np.concatenate(overlaps)
        result["dice"] = {n: mean_interval(dice[:, i], patients, rng=rng) for i, n in enumerate(structures)}
    return result


def _round_trip(model: Any, image: Tensor, label: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor | None]:
    device = next(model.parameters()).device
    onehot = None if label is None else one_hot(label.to(device), num_classes)
    decoded, logits = model.decode(model.encode(image.to(device), onehot))
    return decoded.float().clamp(-1, 1).cpu(), None if logits is None else logits.float().cpu()
