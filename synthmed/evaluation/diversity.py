"""How varied synthetic volumes are, beside real ones: similarity of random pairs, and sizes of structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics.regression import compute_ms_ssim
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from synthmed.evaluation.fidelity import DATA_RANGE, Groups
from synthmed.evaluation.intervals import Array, pair_interval

PAIRS = 200
# Wang, Simoncelli and Bovik 2003, section 4; fewer scales take the first weights, rescaled to sum 1.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_KERNEL = 7


def draw_pairs(groups: Groups, *, rng: np.random.Generator, count: int = PAIRS) -> NDArray[np.int64]:
    """Draw distinct pairs of cases of different patients, shape (at most `count`, 2)."""
    first, second = np.triu_indices(len(groups), k=1)
    names = np.asarray(groups)
    apart = np.flatnonzero(names[first] != names[second])
    chosen = np.sort(rng.permutation(apart)[:count])
    return np.stack([first[chosen], second[chosen]], axis=1)


def diversity(images: Tensor, groups: Groups, *, seed: int) -> dict[str, float | int] | None:
    """Return the mean MS-SSIM of random pairs with its interval: higher means less varied. None without a pair."""
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(groups, rng=rng)
    if len(pairs) == 0:
        return None
    parts = [ms_ssim(images[p[:, 0]], images[p[:, 1]]) for p in np.array_split(pairs, -(-len(pairs) // 8))]
    return pair_interval(np.concatenate(parts), pairs, groups, rng=rng)


def ms_ssim_scales(shape: Sequence[int]) -> int:
    """Return how many scales MONAI's MS-SSIM accepts on this grid, 1 to 5."""
    side = min(shape)
    fits = (m for m in range(5, 1, -1) if side // (m - 1) ** 2 >= MS_SSIM_KERNEL <= side // 2 ** (m - 1))
    return next(fits, 1)


def ms_ssim(a: Tensor, b: Tensor) -> Array:
    """Return the multi-scale structural similarity of each pair, with as many scales as the grid allows.

    Parameters
    ----------
    a, b : Tensor, shape (P, 1, I, J, K), float32 in [-1, 1]

    References
    ----------
    Wang, Simoncelli and Bovik 2003, doi 10.1109/ACSSC.2003.1292216, equation 7.
    """
    chosen = MS_SSIM_WEIGHTS[: ms_ssim_scales(a.shape[2:])]
    weights = [w / sum(chosen) for w in chosen]
    # The luminance term expects a scale that starts at 0.
    value = compute_ms_ssim(
        a.float() + 1, b.float() + 1, 3, data_range=DATA_RANGE, kernel_size=MS_SSIM_KERNEL, weights=weights
    )
    return value.flatten().double().numpy()


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


def _spread(values: Array) -> dict[str, float]:
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean_mm3": float(values.mean()), "sd_mm3": sd, "empty": float((values == 0).mean()), "n": len(values)}
