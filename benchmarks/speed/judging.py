"""Kernel distance of sets of volumes to held-out patients, beside that of the training scans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from synthmed.evaluation.distances import kid
from synthmed.evaluation.features import random_convolutions, standardiser_of
from synthmed.evaluation.intervals import Figure
from synthmed.evaluation.sample import sample_of
from synthmed.prepare.prepared import PreparedSplit

REAL = "training scans"


def distances_to_holdout(
    sets: Mapping[str, Tensor], train: PreparedSplit, holdout: PreparedSplit, seed: int
) -> dict[str, Figure | None]:
    """Return KID with its 95 % interval over patients and volumes, by set; the training scans are one more set.

    Features are the fixed random convolutions of `synthmed.evaluation`, standardised by all real scans. KID is
    unbiased, so that sets of different sizes compare; small ones have wide intervals.

    Parameters
    ----------
    sets : mapping of str to Tensor, shape (N, 1, I, J, K), in [-1, 1]
    train, holdout : PreparedSplit
    seed : int
        Of the bootstrap.
    """
    known, judge = random_convolutions(train.images), random_convolutions(holdout.images)
    standardise = standardiser_of(np.concatenate([known, judge]))
    rng = np.random.default_rng(seed)
    wanted = sample_of(standardise(judge), holdout.subject_ids, rng=rng)
    found = {REAL: kid(sample_of(standardise(known), train.subject_ids, rng=rng), wanted).figure()}
    for name, images in sets.items():
        points = standardise(random_convolutions(images))
        each = sample_of(points, [f"{name} {k}" for k in range(len(points))], rng=rng)
        found[name] = kid(each, wanted).figure()
    return found


def figure_text(figure: Figure | None) -> str:
    """Return a value with its interval."""
    return "" if figure is None else f"{figure['value']:.3g} [{figure['low']:.3g}, {figure['high']:.3g}]"
