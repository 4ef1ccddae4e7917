"""A scan as the search sees it: content on a common isotropic grid, intensities normalised within their neighbourhood.

Margins, gamma, contrast, scale and bias fields then matter little, and volumes of different grids, spacings and
orientations are compared in the same millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

FINE_CELLS = 34  # working voxels along the longest median extent
COARSE_STEP = 8 / 3  # coarse voxel over fine voxel
INNER, OUTER_FINE, OUTER_COARSE = 0.7, 3.0, 1.5  # widths of the neighbourhoods, voxels
DARK = 0.05  # of the range above the darkest: still margin
EDGE = 0.25  # share of the nearby brightness where the content ends
EDGE_WIDTH = 3  # voxels by which its edge is followed
LEAST_NOISE = DARK / 6  # share of the range that disturbs nothing
LEFT = 4.0  # deviations of the usual noise by which a margin that was smoothed may rise above the darkest
LEVELS = 129  # quantiles that ranks are interpolated between
FLATNESS = 0.1  # share of the typical variance added, so that noise in flat regions is not blown up

Array = NDArray[np.float32]
Numbers = slice | Sequence[int] | Tensor
"""Which rows: a slice, or each one's number."""


@dataclass(frozen=True)
class Space:
    """The common grids: isotropic, centred on each volume's content.

    Attributes
    ----------
    spacing : float
        Edge of a fine voxel, mm; a coarse voxel is 8/3 of it.
    fine, coarse : tuple of int, (D, H, W)
        Grid shapes; the coarse one has a voxel to spare on each side for the shifts.
    noise : float
        What real scans have, as a share of their range; content is told from margin with no more than that.
    """

    spacing: float
    fine: tuple[int, int, int]
    coarse: tuple[int, int, int]
    noise: float


@dataclass(frozen=True)
class Features:
    """Volumes in the common space.

    Attributes
    ----------
    intensity : Tensor, shape (n, 3, D, H, W), float32
        Ranks and intensities, both scaled to [0, 1], and the content mask, on the fine grid.
    fine, coarse : Tensor, shape (n, 2, D, H, W), float32
        Locally normalised intensities and the content mask, at the two resolutions.
    centre : Tensor, shape (n, 3), float32
        From the middle of each volume's own grid to the middle of its content, fine voxels.
    """

    intensity: Tensor
    fine: Tensor
    coarse: Tensor
    centre: Tensor

    def __len__(self) -> int:
        return len(self.fine)

    def __getitem__(self, rows: Numbers) -> Features:
        return Features(self.intensity[rows], self.fine[rows], self.coarse[rows], self.centre[rows])


def content(volume: Array, usual_noise: float = np.inf) -> NDArray[np.bool_]:
    """Return the mask of everything but a flat margin that reaches the border.

    Zero padding, air round a head and the empty corners of a rotated copy are margin; a dark structure inside is
    content, and so is a crop without any margin, but for dark spots at its border. Noise, blur and gamma hardly move
    the edge: more than the usual noise is smoothed away, intensities are brought to a common power, the margin may be
    as noisy as the whole volume is, and its edge is where the nearby content falls to a quarter of its brightness.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
    usual_noise : float
        See `Space.noise`.
    """
    quiet = quieten(volume, usual_noise)
    left = 0.0 if quiet is volume else LEFT * max(usual_noise, LEAST_NOISE)
    padding = _padding(volume)
    if 0.05 < padding.mean() < 1 and volume[padding][0] > np.median(volume[~padding]):
        quiet = -quiet  # a bright margin round an inverted scan
    mask = _inside(quiet, padding if quiet is volume else _padding(quiet), left)
    if mask.mean() > 0.98:
        inverse = _inside(-quiet, _padding(-quiet), left)
        mask = inverse if inverse.mean() < 0.9 else mask
    return mask if mask.mean() > 0.05 else np.ones(volume.shape, bool)


def _inside(volume: Array, padding: NDArray[np.bool_], left: float) -> NDArray[np.bool_]:
    """Say what is inside; `left` is the range of the noise that smoothing left, as a share of that of intensities."""
    unit = _common_power(volume)
    smooth = ndimage.gaussian_filter(unit, 1.0)
    noise = 1.4826 * float(np.median(np.abs(unit - smooth)))
    low = float(np.percentile(smooth[~padding], 0.2)) if not padding.all() else 0.0
    dark = (smooth <= low + max(DARK, noise)) | padding
    if left:
        plain = ndimage.gaussian_filter(_unit(volume), 1.0)
        dark |= plain <= np.percentile(plain, 0.2) + left
    dark = np.pad(dark, 3, constant_values=True)
    labels, _ = ndimage.label(_opened(dark))
    margin = labels == labels[0, 0, 0]
    # The smoothing moved the edge outwards by two or three voxels: follow it back towards the nearby brightness.
    edge = low + EDGE * (ndimage.maximum_filter(smooth, 7) - low)
    margin = ndimage.binary_dilation(margin, iterations=EDGE_WIDTH, mask=margin | np.pad(smooth < edge, 3))
    return ~margin[3:-3, 3:-3, 3:-3]


def _opened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Open a mask whose border is all inside with a cube of 3 voxels: an axis at a time, seven times as fast."""
    for both in (np.logical_and, np.logical_or):
        for axis in range(3):
            here = np.moveaxis(mask, axis, 0)
            wider = here.copy()
            both(wider[1:], here[:-1], out=wider[1:])
            both(wider[:-1], here[1:], out=wider[:-1])
            mask = np.moveaxis(wider, 0, axis)
    return mask


def _padding(volume: Array) -> NDArray[np.bool_]:
    """Return the voxels that hold the one value most of all corners have, and reach the border."""
    corners = volume[np.ix_(*((0, n - 1) for n in volume.shape))].ravel()
    values, counts = np.unique(corners, return_counts=True)
    labels, _ = ndimage.label(np.pad(volume == values[counts.argmax()], 1, constant_values=True))
    return (labels == labels[0, 0, 0])[1:-1, 1:-1, 1:-1]


def _common_power(volume: Array) -> Array:
    """Scale to [0, 1] and raise to the power that takes the typical bright voxel to one half: gamma leaves no trace."""
    unit = _unit(volume)
    bright = float(np.clip(np.median(unit[unit >= unit.mean()]), 0.02, 0.98))
    return unit ** np.float32(np.clip(np.log(0.5) / np.log(bright), 0.25, 4))


def noise_of(volume: Array) -> float:
    """Estimate the standard deviation of white noise, as a share of the range of intensities.

    By second differences along all axes, which see little else (after Immerkaer 1996, doi 10.1006/cviu.1996.0060).
    """
    detail = _unit(volume)
    for axis in range(3):
        detail = np.diff(detail, 2, axis)
    return 1.4826 * float(np.median(np.abs(detail))) / 6**1.5 if detail.size else 0.0


def quieten(volume: Array, usual: float) -> Array:
    """Smooth a volume with more than the usual noise down to it; leave others as they are.

    A Gaussian of width s voxels leaves (4 pi s^2)^(-3/4) of white noise.
    """
    noise, allowed = noise_of(volume), max(usual, LEAST_NOISE)
    if noise <= allowed:
        return volume
    return ndimage.gaussian_filter(volume, (noise / allowed) ** (2 / 3) / (2 * np.pi**0.5))


def crop_to_content(volume: Array, usual_noise: float = np.inf) -> tuple[Array, NDArray[np.bool_], NDArray[np.float64]]:
    """Cut a volume and its content mask to the content's bounding box.

    Returns
    -------
    volume, mask : ndarray
    centre : ndarray, shape (3,)
        From the middle of the grid to that of the box, voxels.
    """
    mask = content(volume, usual_noise)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    centre = np.array([(side.start + side.stop - n) / 2 for side, n in zip(box, volume.shape, strict=True)])
    return volume[box], mask[box], centre


def rank(volume: Array, mask: NDArray[np.bool_]) -> Array:
    """Return ranks within the content, in [0, 1]: the same for every increasing change of intensities."""
    levels, first = np.unique(np.quantile(volume[mask], np.linspace(0, 1, LEVELS)), return_index=True)
    return np.interp(volume, levels, np.linspace(0, 1, LEVELS)[first]).astype(np.float32)


def _unit(volume: Array) -> Array:
    """Scale to [0, 1], the darkest and brightest half per cent clipped."""
    low, high = np.percentile(volume, [0.5, 99.5])
    return np.clip((volume - low) / max(float(high - low), 1e-12), 0, 1).astype(np.float32)


def survey(volume: Array, spacing: tuple[float, ...]) -> tuple[NDArray[np.float64], float]:
    """Return the size of a real scan's content, mm, and its noise: what `plan_space` needs to know."""
    return np.array(crop_to_content(volume)[0].shape) * np.asarray(spacing), noise_of(volume)


def plan_space(extents: NDArray[np.float64], native: float, noise: Sequence[float]) -> Space:
    """Choose the common grids from the real scans.

    Parameters
    ----------
    extents : ndarray, shape (n, 3)
        Size of each scan's content, mm.
    native : float
        Median voxel edge of the scans, mm; the working grid is never finer.
    noise : sequence of float
        Of each scan; all but the noisiest tenth are left as they are.
    """
    spacing = max(native, float(np.median(extents.max(1))) / FINE_CELLS)
    largest = np.percentile(extents, 95, axis=0) * 1.1
    fine = [max(8, int(np.ceil(edge / spacing))) for edge in largest]
    coarse = [max(5, int(np.ceil(edge / spacing / COARSE_STEP))) + 2 for edge in largest]
    usual = float(np.quantile(noise, 0.9))
    return Space(spacing, (fine[0], fine[1], fine[2]), (coarse[0], coarse[1], coarse[2]), usual)


def to_grid(volume: Array, spacing: tuple[float, ...], step: float, shape: tuple[int, int, int]) -> Array:
    """Resample a volume about its centre onto an isotropic grid, smoothing first where voxels grow; 0 outside."""
    return _resample(volume, step / np.asarray(spacing), shape, "constant")


def shrink(volume: Array, spacing: tuple[float, ...], space: Space) -> tuple[Array, tuple[float, ...]]:
    """Make voxels as large as half a fine voxel where they are smaller: a scan to keep in memory and to disguise."""
    step = tuple(max(edge, space.spacing / 2) for edge in spacing)
    if all(new < 1.25 * old for new, old in zip(step, spacing, strict=True)):
        return volume, spacing
    factor = np.array(step) / np.array(spacing)
    i, j, k = (max(1, int(n / f)) for n, f in zip(volume.shape, factor, strict=True))
    return _resample(volume, factor, (i, j, k), "nearest"), step


def _resample(volume: Array, factor: NDArray[np.float64], shape: tuple[int, int, int], mode: str) -> Array:
    """Resample about the centre to voxels `factor` times as large, smoothing first where they grow."""
    smooth = ndimage.gaussian_filter(volume, 0.5 * np.sqrt(np.maximum(factor**2 - 1, 0)))
    offset = (np.array(volume.shape) - 1) / 2 - (np.array(shape) - 1) / 2 * factor
    return ndimage.affine_transform(smooth, factor, offset, output_shape=shape, order=1, mode=mode)


def normalise_locally(
    volume: Tensor, mask: Tensor, inner: float, outer: float, shares: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return (smoothed - local mean) / local standard deviation over the mask, 0 outside.

    Means are Gaussian and taken over the mask only, so that the edge of the content leaves no trace.

    Parameters
    ----------
    volume, mask : Tensor, shape (n, D, H, W)
    inner, outer : float
        Widths of the smoothing and of the neighbourhood, voxels.
    shares : tuple of two Tensors, shape (n, D, H, W), or None
        What `mask_shares` says of the mask, where several volumes have the same one.
    """
    near, far = mask_shares(mask, inner, outer) if shares is None else shares
    smooth = _blur(volume * mask, inner) / near
    detail = (smooth - _blur(smooth * mask, outer) / far) * mask
    variance = _blur(detail * detail, outer) / far
    typical = (variance * mask).sum((1, 2, 3), keepdim=True) / mask.sum((1, 2, 3), keepdim=True).clamp_min(1)
    return detail / (variance + FLATNESS * typical + 1e-12).sqrt() * mask


def mask_shares(mask: Tensor, inner: float, outer: float) -> tuple[Tensor, Tensor]:
    """Return how much of the neighbourhoods of both widths lies in the mask."""
    return _blur(mask, inner).clamp_min(1e-3), _blur(mask, outer).clamp_min(1e-3)


def _blur(volume: Tensor, width: float) -> Tensor:
    """Blur the last three axes with a Gaussian, zero outside: one small matrix product an axis, nothing transposed."""
    d, h, w = volume.shape[1:]
    volume = (_gaussian(d, width) @ volume.flatten(2)).view(volume.shape)
    return (_gaussian(h, width) @ volume) @ _gaussian(w, width)


@lru_cache(maxsize=64)
def _gaussian(size: int, width: float) -> Tensor:
    at = torch.arange(size, dtype=torch.float32)
    return torch.exp(-((at[:, None] - at) ** 2) / (2 * width**2)) / (width * (2 * torch.pi) ** 0.5)


def extract(volume: Array, spacing: tuple[float, ...], space: Space) -> Features:
    """Return the features of one volume.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K), float32
        In RAS order.
    spacing : tuple of float, mm
    space : Space
    """
    cut, mask, middle = crop_to_content(volume, space.noise)
    centre = torch.from_numpy(middle * spacing / space.spacing).float()[None]
    ranks, unit = rank(cut, mask), _unit(cut)
    inside, fine = _at(ranks, mask, spacing, space.spacing, space.fine, (INNER, OUTER_FINE))
    _, coarse = _at(ranks, mask, spacing, space.spacing * COARSE_STEP, space.coarse, (INNER, OUTER_COARSE))
    linear = torch.from_numpy(to_grid(unit, spacing, space.spacing, space.fine))[None]
    return Features(torch.stack([inside[:, 0], linear, inside[:, 1]], 1), fine, coarse, centre)


def join_features(parts: list[Features]) -> Features:
    """Join the features of several volumes."""
    fields = ("intensity", "fine", "coarse", "centre")
    return Features(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def _at(
    ranks: Array,
    mask: NDArray[np.bool_],
    spacing: tuple[float, ...],
    step: float,
    shape: tuple[int, int, int],
    widths: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    inside = torch.from_numpy((to_grid(mask.astype(np.float32), spacing, step, shape) > 0.5).astype(np.float32))[None]
    values = torch.from_numpy(to_grid(ranks, spacing, step, shape))[None]
    return torch.stack([values, inside], 1), torch.stack([normalise_locally(values, inside, *widths), inside], 1)
