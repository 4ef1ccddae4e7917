"""The popular scores, each by its source's rule, on voxel distances of scans of zero mean and unit norm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from copies import contrastive
from copies.judging import Floats, Judge, Problem, Scores, by_threshold

QUANTILE = 0.95
SIGNIFICANCE = 0.05


def correlation(problem: Problem) -> Scores:
    """Whole-volume correlation with the nearest training scan; the holdout's 95th percentile is the threshold."""
    codes = problem.codes
    found, null = codes.queries[:, : codes.members], codes.holdout[:, : codes.members]
    nearest = found.argmax(1)
    threshold = float(np.quantile(null.max(1), QUANTILE))
    return by_threshold(found.max(1), np.array(problem.train_patient)[nearest], threshold)


def dar(problem: Problem) -> Scores:
    """Dar's rule: the 95th percentile of training scans' highest correlation with a held-out scan is the threshold.

    References
    ----------
    Dar et al. 2024, arXiv 2402.01054; the embedding is that of `contrastive`.
    """
    network = contrastive.fit(problem.train, problem.seed)
    train, holdout, queries = (
        contrastive.embed(*network, volumes) for volumes in (problem.train, problem.holdout, problem.queries)
    )
    found = queries @ train.T
    threshold = float(np.quantile((train @ holdout.T).max(1), QUANTILE))
    return by_threshold(found.max(1), np.array(problem.train_patient)[found.argmax(1)], threshold)


def auth_pct(problem: Problem) -> Scores:
    """AuthPct: a sample is no copy where it is farther from its training scan than that is from the next one.

    The score is the ratio of the two distances, with 1 as threshold. As a verdict on a set, AuthPct objects where the
    share of authentic samples is below that of the held-out scans, one-sided at 5 % (exact test, Fisher 1935).

    References
    ----------
    Alaa et al. 2022, equation 9, arXiv 2102.08921.
    """
    codes = problem.codes
    among = codes.to_train(codes.train)
    ratio, nearest = authenticity(codes.to_train(codes.queries), among)
    null = authenticity(codes.to_train(codes.holdout), among)[0]

    def alarm(rows: NDArray[np.int64]) -> bool:
        copies, chance = int((ratio[rows] >= 1).sum()), int((null >= 1).sum())
        table = [[copies, len(rows) - copies], [chance, len(null) - chance]]
        return bool(stats.fisher_exact(table, "greater")[1] < SIGNIFICANCE)

    return Scores(ratio, np.array(problem.train_patient)[nearest], 1.0, alarm)


def c_t(problem: Problem) -> Scores:
    """C_T: are samples nearer to training than held-out scans are? One cell; objects at z < -1.645.

    References
    ----------
    Meehan et al. 2020, section 3, arXiv 2004.05675.
    """
    codes = problem.codes
    found = codes.to_train(codes.queries)
    null = codes.to_train(codes.holdout).min(1)
    near = found.min(1)

    def alarm(rows: NDArray[np.int64]) -> bool:
        return mann_whitney_z(near[rows], null) < stats.norm.ppf(SIGNIFICANCE)

    return Scores(-near, np.array(problem.train_patient)[found.argmin(1)], None, alarm)


def dcr_share(problem: Problem) -> Scores:
    """DCR share: how many samples lie nearer to training than to held-out scans, against the share by their numbers.

    Objects where the binomial test rejects the share n_train / (n_train + n_holdout), one-sided at 5 %.
    """
    codes = problem.codes
    found = codes.to_train(codes.queries)
    near, far = found.min(1), codes.to_holdout(codes.queries).min(1)
    expected = len(problem.train) / (len(problem.train) + len(problem.holdout))
    score = far / np.maximum(near, 1e-9)

    def alarm(rows: NDArray[np.int64]) -> bool:
        nearer = int((score[rows] > 1).sum())
        return bool(stats.binomtest(nearer, len(rows), expected, "greater").pvalue < SIGNIFICANCE)

    return Scores(score, np.array(problem.train_patient)[found.argmin(1)], None, alarm)


def authenticity(found: Floats, among: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return d(t, nearest other training scan) / d(query, t) for each query's nearest training scan t, and t.

    Parameters
    ----------
    found : ndarray, shape (q, n)
        Distances of queries to training scans.
    among : ndarray, shape (n, n)
        Distances of training scans to each other.
    """
    others = among + np.diag(np.full(len(among), np.inf))
    nearest = found.argmin(1)
    return others.min(1)[nearest] / np.maximum(found.min(1), 1e-9), nearest


def mann_whitney_z(first: Floats, second: Floats) -> float:
    """Return the z-score of the Mann-Whitney U of `first` over `second`; negative where `first` is smaller."""
    ranks = stats.rankdata(np.concatenate([first, second]))
    n, m = len(first), len(second)
    u = ranks[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


BASELINES: dict[str, Judge] = {
    "correlation": correlation,
    "dar": dar,
    "auth_pct": auth_pct,
    "c_t": c_t,
    "dcr_share": dcr_share,
}
