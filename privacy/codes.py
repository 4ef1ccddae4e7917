"""Every scan as vectors that a membership or an inference attack can compare: a learned code, and a small picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.atlas import pictures
from privacy.gallery import Gallery, Queries


@dataclass(frozen=True)
class Codes:
    """Samples and real scans as vectors, real ones with their patient and side.

    Attributes
    ----------
    samples, real : ndarray, shape (n, d) and (G, d), float32
        Unit vectors: the inner product of two codes is their similarity.
    sample_views, real_views : ndarray, shape (n, D, H, W) and (G, D, H, W), float32
        Locally normalised intensities over the atlas; 0 outside the content.
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


Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]


def vectors(queries: Queries, gallery: Gallery) -> Vectors:
    """Return the codes and the pictures of scans, each in its best pose over the atlas."""
    views, _ = pictures(queries.features, queries.laid, gallery.embedding.atlas)
    # Copied: a part of the codes would keep those of the other poses in memory.
    return queries.codes[:, 0].clone().numpy(), views.numpy()


def assemble(
    samples: Sequence[Vectors], gallery: Gallery, kept: NDArray[np.bool_], is_train: NDArray[np.bool_]
) -> Codes:
    """Join the vectors of chunks of samples with those of the real scans that are kept.

    Parameters
    ----------
    samples : sequence of (codes, pictures)
    gallery : Gallery
    kept, is_train : ndarray of bool, shape (G,)
    """
    real = vectors(gallery.queries, gallery)
    codes, views = (np.concatenate([part[k] for part in samples]) for k in (0, 1))
    return Codes(codes, real[0][kept], views, real[1][kept], gallery.patient[kept], is_train[kept])
