"""Scans to be searched in, and scans to be searched for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from privacy.atlas import Laid
from privacy.embedding import Embedding
from privacy.features import Space
from privacy.stored import Scans


@dataclass(frozen=True)
class Gallery:
    """What queries are searched in: G real scans.

    Attributes
    ----------
    space : Space
    embedding : Embedding
    patient : ndarray of int64, shape (G,)
        Which patient each belongs to.
    features : Features or StoredFeatures
    codes : Tensor, shape (G, H, D)
        One code for each pose over the atlas, the best first.
    laid : Laid
    """

    space: Space
    embedding: Embedding
    patient: NDArray[np.int64]
    features: Scans
    codes: Tensor
    laid: Laid

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def queries(self) -> Queries:
        """The scans of the gallery as queries."""
        return Queries(self.features, self.codes, self.laid)


@dataclass(frozen=True)
class Queries:
    """Scans to be searched for, with their codes, shape (n, H, D), and poses over the atlas."""

    features: Scans
    codes: Tensor
    laid: Laid

    def __getitem__(self, rows: slice) -> Queries:
        return Queries(self.features[rows], self.codes[rows], self.laid[rows])


def build_gallery(features: Scans, patient: NDArray[np.int64], space: Space, embedding: Embedding) -> Gallery:
    """Prepare real scans to be searched in."""
    return Gallery(space, embedding, patient, features, *embedding.encode(features))
