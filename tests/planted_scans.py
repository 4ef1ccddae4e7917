"""Made-up scans for the tests of the planted-copy benchmark."""

from __future__ import annotations

import numpy as np
from copies.datasets import Spacing, Volume
from scipy import ndimage

SHAPE, SPACING = (20, 23, 18), (1.0, 1.2, 2.0)


def scan(seed: int, shape: tuple[int, int, int] = SHAPE, spacing: Spacing = SPACING) -> Volume:
    """Draw a smooth random volume of positive values."""
    noise = np.random.default_rng([seed, 1]).standard_normal(shape)
    array = ndimage.gaussian_filter(noise, 1.5)
    return Volume((100 + 50 * array / array.std()).astype(np.float32), spacing)
