"""How varied synthetic volumes are, beside real ones: similarity of random pairs, and intensities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.metrics.regression import compute_ms_ssim
from numpy.typing import NDArray
from torch import Tensor

from synthmed.evaluation.intervals import Array, Figure, beside, pair_interval
from synthmed.evaluation.reconstruction import DATA_RANGE
from synthmed.evaluation.sample import Sample, estimate, sample_of

PAIRS = 200
BINS = 256
# Wang, Simoncelli and Bovik 2003, section 4; fewer scales take the first weights, rescaled to sum 1.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_KERNEL = 7


def draw_pairs(groups: Sequence[str], *, rng: np.random.Generator, count: int = PAIRS) -> NDArray[np.int64]:
    """Draw distinct pairs of cases of different patients, shape (at most `count`, 2)."""
    first, second = np.triu_indices(len(groups), k=1)
    names = np.asarray(groups)
    apart = np.flatnonzero(names[first] != names[second])
    chosen = np.sort(rng.permutation(apart)[:count])
    return np.stack([first[chosen], second[chosen]], axis=1)


def diversity(images: Tensor, groups: Sequence[str], *, seed: int) -> dict[str, float | int] | None:
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


def compare_intensities(
    synthetic: Tensor, train: Tensor, holdout: Tensor, patients: tuple[Sequence[str], Sequence[str]], *, seed: int
) -> dict[str, Figure | None]:
    """Compare the sets' histograms of intensities: Wasserstein distance to the held-out set, on the scale of [-1, 1].

    The distance between two histograms is the mean distance that an intensity has to move: the area between the
    distribution functions (Ramdas, Garcia Trillos and Cuturi 2017, doi 10.3390/e19020047, proposition 1). Both sides
    take the same number of cases.

    Parameters
    ----------
    synthetic, train, holdout : Tensor, shape (N, 1, I, J, K), in [-1, 1]
    patients : pair of sequences of str
        Of the training and of the held-out cases.

    Returns
    -------
    dict
        ``synthetic``, ``floor`` (training against held-out) and ``ratio``.
    """
    rng = np.random.default_rng(seed)
    n = min(len(synthetic), len(train))
    s, t = (np.sort(rng.permutation(len(images))[:n]) for images in (synthetic, train))
    judge = sample_of(histograms(holdout), patients[1], rng=rng)
    drawn = sample_of(histograms(synthetic[torch.from_numpy(s)]), [str(i) for i in s], rng=rng)
    known = sample_of(histograms(train[torch.from_numpy(t)]), [patients[0][i] for i in t], rng=rng)
    far, floor = (estimate(_moved(part, judge), part, judge) for part in (drawn, known))
    # The ratio is taken before the draws are moved: moved ones may come near to 0.
    return beside(far.recentred(least=0.0), floor.recentred(least=0.0), far.over(floor).recentred(least=0.0))


def histograms(images: Tensor) -> Array:
    """Return each image's distribution function at the upper edges of `BINS` bins of [-1, 1], shape (N, BINS)."""
    rows = [torch.histc(image.float().clamp(-1, 1), BINS, -1, 1) for image in images]
    shares = torch.stack(rows).double().numpy() / images[0].numel()
    return np.asarray(np.cumsum(shares, axis=1))


def _moved(x: Sample, y: Sample) -> Callable[[Array, Array], Array]:
    def statistic(wx: Array, wy: Array) -> Array:
        below = (w @ part.points / w.sum(axis=1, keepdims=True) for w, part in ((wx, x), (wy, y)))
        return np.asarray(np.abs(np.subtract(*below)).sum(axis=1) * DATA_RANGE / BINS)

    return statistic
