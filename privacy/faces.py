"""Whole heads with an intact face: told by geometry alone, in millimetres, so that no recogniser is needed.

A face is a surface from which a person can be recognised (Schwarz et al. 2019, doi 10.1056/NEJMc1908881). A head has
the size of one, ends in a dome with air above it, and a nose stands out in front of its lower half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WORKING = 4.0  # mm
FIELD = (120.0, 150.0, 150.0)  # mm: a field that is smaller holds no whole head
WIDTH, LENGTH = (110.0, 220.0), (140.0, 260.0)  # mm: of the head above the nose
AIR = 0.12  # of the bright tissue; skin is brighter, air and its noise are not
DOME = 0.75  # of the widest section: what a section near the vertex has at most
FOREHEAD, FACE = (36.0, 84.0), (104.0, 176.0)  # mm below the vertex
CUT = 0.1  # of the foremost plane: what a nose that the field cuts off may fill
HALF_NOSE, CHEEK = 10.0, (26.0, 44.0)  # mm from the middle
RELIEF, SETBACK = 12.0, 2.0  # mm


@dataclass(frozen=True)
class Head:
    """What the surface of a volume looks like, mm.

    Attributes
    ----------
    width, length : float
        Of the widest section in the upper part.
    dome : float
        Section just below the vertex over the widest section.
    setback : float
        Forehead's front over the face's: a nose in place gives less than a few mm.
    relief : float
        How far the middle of the face stands out from its sides at the nose.
    """

    width: float
    length: float
    dome: float
    setback: float
    relief: float


def has_face(array: NDArray[np.float32], spacing: tuple[float, ...]) -> bool:
    """Tell whether a volume shows a whole head whose face was not removed.

    Parameters
    ----------
    array : ndarray, shape (I, J, K), RAS order
        Of any scale: only what is brighter than air counts.
    spacing : tuple of float, mm
    """
    head = measure(array, spacing)
    return (
        head is not None
        and WIDTH[0] <= head.width <= WIDTH[1]
        and LENGTH[0] <= head.length <= LENGTH[1]
        and head.dome <= DOME
        and head.setback <= SETBACK
        and head.relief >= RELIEF
    )


def measure(array: NDArray[np.float32], spacing: tuple[float, ...]) -> Head | None:
    """Measure the surface of a volume; None where the field is too small, or no air is in front of it and above."""
    extent = np.multiply(array.shape, spacing)
    if (extent < FIELD).any():
        return None
    body = _body(array, spacing)
    if not body.any():
        return None
    levels = np.flatnonzero(body.any((0, 1)))
    vertex = int(levels[-1])
    upper = body[:, :, max(0, vertex - int(FACE[0] / WORKING)) : vertex + 1]
    sections = upper.sum((0, 1))
    if vertex == body.shape[2] - 1 or body[:, -1].mean() > CUT or vertex < FACE[0] / WORKING + 4:
        return None
    middle = round(float(np.flatnonzero(upper.any((1, 2))).mean()))
    width, length = (float(np.ptp(np.flatnonzero(upper.any(axes))) + 1) * WORKING for axes in ((1, 2), (0, 2)))
    front = _front(body)
    half = round(HALF_NOSE / WORKING)
    nose = front[max(0, middle - half) : middle + half + 1].max(0)
    near, far = (round(edge / WORKING) for edge in CHEEK)
    sides = [front[max(0, middle - far) : max(0, middle - near) + 1], front[middle + near : middle + far + 1]]
    if min(len(side) for side in sides) == 0:
        return None
    cheek = np.maximum(*(np.median(side, 0) for side in sides))
    forehead = nose[_below(vertex, FOREHEAD)].max()
    face = _below(vertex, FACE)
    profile, relief = nose[face], (nose - cheek)[face]
    return Head(
        width=width,
        length=length,
        dome=float(sections[-3]) / float(max(sections.max(), 1)),
        setback=float(forehead - profile.max()) * WORKING,
        relief=float(relief[profile >= profile.max() - 2].max()) * WORKING,
    )


def _body(array: NDArray[np.float32], spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return what is no air, as one piece, on a grid of `WORKING` mm."""
    factor = np.divide(spacing, WORKING)
    smooth = (
        ndimage.gaussian_filter(array, np.maximum(0.0, 0.4 * (1 / factor - 1)).tolist()) if factor.min() < 1 else array
    )
    small = ndimage.zoom(smooth, factor, order=1, mode="nearest", grid_mode=True)
    floor = float(np.quantile(small, 0.02))
    bright = float(np.quantile(small, 0.95)) - floor
    mask = ndimage.binary_opening(small - floor > AIR * bright)
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(small.shape, dtype=bool)
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(largest, dtype=bool)


def _front(body: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the foremost voxel of each column across the head, shape (I, K); 0 where there is none."""
    last = body.shape[1] - 1 - np.argmax(body[:, ::-1], axis=1)
    return np.where(body.any(1), last.astype(np.float64), 0.0)


def _below(vertex: int, band: tuple[float, float]) -> slice:
    return slice(max(0, vertex - int(band[1] / WORKING)), max(1, vertex - int(band[0] / WORKING) + 1))
