"""Density attack: are the samples denser round members than real scans are, compared with held-out patients?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk
from scipy.special import logsumexp

from privacy.attack_stats import even_scans, membership_measurements, patient_scores
from privacy.attacks.result import AttackResult
from privacy.codes import Codes
from privacy.evidence import Evidence
from privacy.policy import Policy
from privacy.stored import even_spans

DIMENSIONS = 32
SCANS_A_DIMENSION = 3  # real scans that each principal axis needs
LEAST_ENERGY, TINY = 1e-8, 1e-18  # of the axis of the largest variance, or absolute
PART = 500  # scans, or numbers of their codes, at a time
BLOCK = 4_000_000  # distances held at a time

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


def density(evidence: Evidence, policy: Policy, rng: np.random.Generator) -> AttackResult:
    """Score each patient by the density ratio at their scans; ask whether members score higher."""
    codes = even_scans(evidence.codes)
    scored = patient_scores(density_ratio(codes), codes.patient, codes.is_train)
    return AttackResult(
        membership_measurements("density", scored, policy.thresholds["confidence"], rng),
        citations=(
            "van Breugel et al. 2023, Membership inference attacks against synthetic data, arXiv 2302.12580",
            "Scott 1992, Multivariate density estimation, doi 10.1002/9780470316849",
        ),
    )


def density_ratio(codes: Codes) -> Floats:
    """Return log p_synthetic(x) - log p_reference(x) at each real scan, shape (G,).

    The reference at a scan comes from the real scans of all other patients, members and held-out alike: it has not
    seen the scan, and no label, so that labels stay exchangeable. Both are Gaussian kernel densities with Scott's
    bandwidth on the leading principal axes of the real codes, scaled to unit variance.

    References
    ----------
    van Breugel et al. 2023, eq. 2, arXiv 2302.12580; Scott 1992, eq. 6.44, doi 10.1002/9780470316849.
    """
    if len(np.unique(codes.patient)) < 2:
        return np.zeros(len(codes.real))
    real, samples = project(codes)
    everyone = np.full(len(samples), -1, dtype=np.int64)
    return log_density(real, samples, codes.patient, everyone) - log_density(real, real, codes.patient, codes.patient)


def project(codes: Codes) -> tuple[Floats, Floats]:
    """Return real scans and samples on the leading principal axes of the real ones, each of unit variance."""
    centre = codes.real.mean(0, dtype=np.float64)
    scale = _scaled_axes(codes.real, centre)
    return _projected(codes.real, centre, scale), _projected(codes.samples, centre, scale)


def _projected(vectors: Vectors, centre: Floats, scale: Floats) -> Floats:
    return np.concatenate([(vectors[rows] - centre) @ scale for rows in even_spans(len(vectors), PART)])


def _scaled_axes(real: Vectors, centre: Floats) -> Floats:
    """Return the leading principal axes as columns, each over the deviation along it.

    They come from the covariance or, where a code has more numbers than there are scans, from the scans' inner
    products: whichever matrix is smaller. Memory holds it and the offsets of a part.
    """
    count, length = real.shape
    few = count < length

    def offsets(part: slice) -> Floats:
        return (real[:, part] - centre[part]).T if few else real[part] - centre

    parts = even_spans(max(count, length), PART)
    most, side = max(1, min(DIMENSIONS, count // SCANS_A_DIMENSION, length)), min(count, length)
    product = np.zeros((side, side), order="F")
    for part in parts:  # added in place, the upper triangle alone
        product = dsyrk(1.0, offsets(part).T, beta=1.0, c=product, overwrite_c=1)
    energy, weights = eigh(product, lower=False, subset_by_index=(side - most, side - 1), overwrite_a=True)
    kept = energy > LEAST_ENERGY * energy[-1]
    kept[-1] = True
    energy, weights = np.maximum(energy[kept], TINY), weights[:, kept]
    axes = np.concatenate([offsets(part) @ weights for part in parts]) / np.sqrt(energy) if few else weights
    return axes * np.sqrt(count / energy)


def log_density(points: Floats, kernels: Floats, owner: NDArray[np.int64], kernel_owner: NDArray[np.int64]) -> Floats:
    """Return the log of a Gaussian kernel density, each point judged without the kernels of its own owner.

    Up to a constant that depends on the number of axes alone.

    Parameters
    ----------
    points, kernels : ndarray, shape (n, k) and (m, k)
    owner, kernel_owner : ndarray of int64, shape (n,) and (m,)
    """
    axes = points.shape[1]
    width = len(kernels) ** (-1 / (axes + 4))
    out = np.empty(len(points))
    size = max(1, BLOCK // len(kernels))
    for rows in (slice(start, start + size) for start in range(0, len(points), size)):
        squares = (points[rows] ** 2).sum(1)[:, None] + (kernels**2).sum(1) - 2 * points[rows] @ kernels.T
        foreign = owner[rows, None] != kernel_owner
        logs = np.where(foreign, -np.maximum(squares, 0) / (2 * width**2), -np.inf)
        out[rows] = logsumexp(logs, axis=1) - np.log(foreign.sum(1))
    return out - axes * math.log(width)
