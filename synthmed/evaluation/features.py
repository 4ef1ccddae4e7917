"""What volumes are compared by: fixed random convolutions, and radiomic statistics. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from synthmed.evaluation.intervals import Array

WIDTHS = (16, 32, 64)
SEED = 20180104
CLIP = 5.0
LEAST_SD = 1e-2


@dataclass(frozen=True)
class Standardiser:
    """Centre and scale of each feature over real cases; far values are clipped, so that none outweighs the rest.

    Attributes
    ----------
    mean, sd : ndarray, shape (D,)
    """

    mean: Array
    sd: Array

    def __call__(self, features: Array) -> Array:
        """Return standardised features, shape (N, D), within +-`CLIP`."""
        return np.clip((features - self.mean) / self.sd, -CLIP, CLIP)


def standardiser_of(features: Array) -> Standardiser:
    """Fit a `Standardiser` to features of shape (N, D); near-constant features are not blown up."""
    return Standardiser(features.mean(axis=0), np.maximum(features.std(axis=0), LEAST_SD))


@torch.no_grad()
def random_convolutions(images: Tensor, *, batch_size: int = 16, seed: int = SEED) -> Array:
    """Describe images by an untrained convolutional network with fixed weights.

    Each of three layers halves the grid; the features are mean and standard deviation of every channel, and the
    last layer's means over the eight octants.

    Parameters
    ----------
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]

    Returns
    -------
    ndarray, shape (N, 736), float64

    References
    ----------
    Naeem et al. 2020, "Reliable fidelity and diversity metrics", section 3.3: random embeddings tell sets apart
    where a pretrained network does not know the domain. arXiv:2002.09797
    """
    weights = _random_weights(seed)
    return np.concatenate([_convolve(batch, weights) for batch in images.split(batch_size)])


def _random_weights(seed: int) -> list[Tensor]:
    """Draw He-normal kernels, one a layer."""
    generator = torch.Generator().manual_seed(seed)
    weights, fan = [], 1
    for width in WIDTHS:
        kernel = torch.randn((width, fan, 3, 3, 3), generator=generator)
        weights.append(kernel * (2 / (27 * fan)) ** 0.5)
        fan = width
    return weights


def _convolve(images: Tensor, weights: list[Tensor]) -> Array:
    parts, x = [], images.float().cpu()
    for kernel in weights:
        x = functional.leaky_relu(functional.conv3d(x, kernel, stride=2, padding=1), 0.2)
        flat = x.flatten(2)
        parts += [flat.mean(2), flat.std(2, correction=0)]
    parts.append(functional.adaptive_avg_pool3d(x, 2).flatten(1))
    return torch.cat(parts, 1).double().numpy()


def radiomics(images: Tensor, labels: Tensor | None, num_structures: int) -> Array:
    """Describe each case by first-order, texture and shape statistics.

    Parameters
    ----------
    images : Tensor, shape (N, 1, I, J, K), float32 in [-1, 1]
    labels : Tensor, shape (N, 1, I, J, K), integer class index, or None
    num_structures : int
        Classes without background.

    Returns
    -------
    ndarray, shape (N, 18 + 11 * num_structures), float64
        Without labels, 18 columns.

    References
    ----------
    Zwanenburg et al. 2020, "The Image Biomarker Standardization Initiative", doi 10.1148/radiol.2020191145
    (intensity-based statistics; morphological features). Features are computed in voxels of the common grid.
    """
    rows = []
    for index, image in enumerate(images[:, 0].double().numpy()):
        row = _first_order(image) + _texture(image)
        if labels is not None:
            label = labels[index, 0].numpy()
            row += [value for s in range(1, num_structures + 1) for value in _structure(image, label == s)]
        rows.append(row)
    return np.asarray(rows, dtype=np.float64)


def _first_order(image: NDArray[np.float64]) -> list[float]:
    """Mean, SD, skewness, excess kurtosis, entropy (nats, 32 bins) and seven percentiles of the intensities."""
    mean, sd = image.mean(), image.std()
    z = (image - mean) / max(sd, 1e-6)
    counts, _ = np.histogram(image, bins=32, range=(-1.0, 1.0))
    share = counts[counts > 0] / max(counts.sum(), 1)
    percentiles = np.percentile(image, [5, 10, 25, 50, 75, 90, 95])
    entropy = float(-(share * np.log(share)).sum())
    return [float(mean), float(sd), float((z**3).mean()), float((z**4).mean() - 3), entropy, *map(float, percentiles)]


def _texture(image: NDArray[np.float64]) -> list[float]:
    """Mean absolute difference and correlation of neighbours along each axis."""
    centred = image - image.mean()
    variance = max(float((centred**2).mean()), 1e-12)
    values = []
    for axis in range(3):
        ahead, behind = np.moveaxis(centred, axis, 0)[1:], np.moveaxis(centred, axis, 0)[:-1]
        values += [float(np.abs(ahead - behind).mean()), float((ahead * behind).mean() / variance)]
    return values


def _structure(image: NDArray[np.float64], mask: NDArray[np.bool_]) -> list[float]:
    """Size, intensity, place, principal extents and surface share of one structure; all 0 when it is empty."""
    size = int(mask.sum())
    if size == 0:
        return [0.0] * 11
    sides = np.asarray(mask.shape, dtype=np.float64)
    places = np.argwhere(mask) / sides
    extents = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(places.T, bias=True).reshape(3, 3)), 0))
    surface = (mask & ~ndimage.binary_erosion(mask)).sum() / size
    inside = image[mask]
    share = (size / mask.size) ** (1 / 3)
    _, pieces = ndimage.label(mask)
    shape = [share, *map(float, places.mean(axis=0)), *map(float, extents), float(surface), float(np.log(pieces))]
    return [*shape, float(inside.mean()), float(inside.std())]
