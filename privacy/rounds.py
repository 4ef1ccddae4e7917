"""Real scans searched among each other round after round: only what depends on who is whose is found anew."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.coarse import Coarse
from privacy.gallery import Gallery
from privacy.pairs import Pairs
from privacy.similarity import BATCH, Matches, Searched, join, match_batch
from privacy.stored import Rows, even_spans
from privacy.threads import in_order


class Rounds:
    """The scans of a gallery against each other, again and again while its patients merge.

    The coarse search does not look at patients and is made once, its scores kept on disk. Pairs are compared again only
    in batches where merging changed a candidate.
    """

    def __init__(self) -> None:
        self._coarse = (Rows(), Rows(), Rows())
        self._pairs: list[Pairs | None] = []

    def match(self, gallery: Gallery, is_train: NDArray[np.bool_]) -> list[Matches]:
        """Match every scan against the training scans of all other patients, and against all their scans.

        Parameters
        ----------
        gallery : Gallery
            The same at every call, but for the numbers of its patients.
        is_train : ndarray of bool, shape (G,)
        """

        def among_others(batch: tuple[int, slice]) -> tuple[list[Matches], Searched]:
            k, rows = batch
            others = torch.from_numpy(gallery.patient[rows, None] != gallery.patient)
            sides = [others & torch.from_numpy(is_train), others]
            return match_batch(gallery.queries[rows], gallery, sides, self._recall(k, rows))

        found = []
        for k, (matches, searched) in enumerate(in_order(among_others, enumerate(even_spans(len(gallery), BATCH)))):
            self._keep(k, searched)
            found.append(matches)
        return [join(part) for part in zip(*found, strict=True)]

    def _recall(self, k: int, rows: slice) -> Searched | None:
        if k >= len(self._pairs):
            return None
        score, start, shift = (part[rows] for part in self._coarse)
        return Searched(Coarse(score, start.long(), shift.long()), self._pairs[k])

    def _keep(self, k: int, searched: Searched) -> None:
        if k < len(self._pairs):
            self._pairs[k] = searched.pairs
            return
        self._pairs.append(searched.pairs)
        coarse = searched.coarse
        for part, values in zip(self._coarse, (coarse.score, coarse.start.byte(), coarse.shift.byte()), strict=True):
            part.append(values)
