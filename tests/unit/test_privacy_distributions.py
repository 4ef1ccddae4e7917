"""Bins hold every score, whatever its size, with bounds that a person can read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.distributions import BINS, bin_edges

SCORES = st.floats(-50, 1e6, allow_nan=False, allow_subnormal=False)


@given(st.lists(SCORES, min_size=1, max_size=30))
def test_every_score_lies_in_a_bin(values: list[float]) -> None:
    scores = np.array([0.0, 1.0, *values])
    edges = bin_edges(scores)
    assert len(edges) == BINS + 1
    assert np.histogram(scores, edges)[0].sum() == len(scores)
    assert np.diff(edges) == pytest.approx((edges[-1] - edges[0]) / BINS)
    assert edges[-1] - edges[0] <= 1.05 * (scores.max() - scores.min())


def test_bounds_have_few_digits() -> None:
    edges = bin_edges(np.array([0.0, 1.0, 0.3337]))
    assert all(len(f"{edge:g}") <= 8 for edge in edges)
    assert edges[0] == 0
