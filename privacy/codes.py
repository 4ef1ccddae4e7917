"""Every scan as vectors that a membership or an inference attack can compare: a learned code, and a small picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Codes:
    """Samples and real scans as vectors, real ones with their patient and side.

    Attributes
    ----------
    samples, real : ndarray, shape (n, d) and (G, d), float32
        Unit vectors: the inner product of two codes is their similarity.
    sample_views, real_views : ndarray, shape (n, D, H, W) and (G, D, H, W), float32
        Locally normalised intensities on the common coarse grid; 0 outside the content.
    patient : ndarray of int64, shape (G,)
    is_train : ndarray of bool, shape (G,)
        Members; the others are held out. Held-out scans of patients who occur in training are not listed.
    """

    samples: NDArray[np.float32]
    real: NDArray[np.float32]
    sample_views: NDArray[np.float32]
    real_views: NDArray[np.float32]
    patient: NDArray[np.int64]
    is_train: NDArray[np.bool_]
