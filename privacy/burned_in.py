"""Characters burned into voxels: bright thin strokes, the same on most slices, standing in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SLICES = 33  # looked at along each axis
STEADY, BRIGHT = 0.02, 0.35  # of the volume's range: how little a stroke varies over slices, how bright it is
QUANTILES = (0.5, 0.95)  # of the slices, darkest first: text that outshines them is seen on 55 % of them
FEWEST, FEWEST_PIECES = 3, 2  # characters in a line, and pieces that they fall into
SMALLEST_HEIGHT, LARGEST_SHARE = 4, 0.35  # voxels; of the plane's edge
ALIKE, GAP = 0.6, 1.2  # least over greatest height; space between neighbours over height
STROKE = 0.25  # greatest half width over height
INK = (0.05, 0.75)  # of the line's box
CONTRAST, SURROUND = 0.2, 15  # of the range, between strokes and the median of as many voxels around
CORE = 0.2  # of a character's voxels


@dataclass(frozen=True)
class Line:
    """A line of characters.

    Attributes
    ----------
    axis : int
        Across which the slices run, 0 to 2 in RAS order.
    box : tuple of int
        First and last voxel along the two other axes: (start, stop, start, stop).
    characters : int
    """

    axis: int
    box: tuple[int, int, int, int]
    characters: int


def find_text(array: NDArray[np.float32]) -> Line | None:
    """Return the longest line of characters burned into a volume, or None.

    Looked for along all three axes and in both directions of each plane; what stands on fewer than 55 % of the
    slices, runs together, or is blurred away, is not seen.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
    """
    low, high = float(array.min()), float(array.max())
    if high <= low:
        return None
    lines = [line for axis in range(3) for line in _lines(array, axis, low, high - low)]
    return max(lines, key=lambda line: line.characters, default=None)


def _lines(array: NDArray[np.float32], axis: int, low: float, size: float) -> list[Line]:
    count = array.shape[axis]
    chosen = np.unique(np.linspace(0, count - 1, min(count, SLICES)).round().astype(int))
    ranks = [round(q * (len(chosen) - 1)) for q in QUANTILES]
    ordered = np.partition(array.take(chosen, axis), ranks, axis)
    first, last = (ordered.take(rank, axis) for rank in ranks)
    core: NDArray[np.bool_] = np.logical_and(last - first <= STEADY * size, first >= low + BRIGHT * size)
    if not core.any():
        return []
    stroke: NDArray[np.bool_] = first - ndimage.median_filter(first, SURROUND) > CONTRAST * size
    ink = _with_core(stroke, core)
    boxes = _characters(ink)
    found = []
    for turned in (False, True):
        for line in _in_line([(b[1], b[0]) for b in boxes] if turned else boxes):
            rows, columns = (line[1], line[0]) if turned else line[:2]
            part = ink[rows, columns]
            if INK[0] <= part.mean() <= INK[1]:
                found.append(Line(axis, (rows.start, rows.stop, columns.start, columns.stop), line[2]))
    return found


def _with_core(stroke: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the pieces of which enough is fully inked: soft edges vary with what they are drawn on."""
    pieces, count = ndimage.label(stroke, np.ones((3, 3)))
    share = ndimage.mean(core, pieces, np.arange(count + 1))
    keep = np.asarray(share) >= CORE
    keep[0] = False
    return np.asarray(keep[pieces], dtype=bool)


def _characters(ink: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """Return the boxes of pieces that may be characters: neither specks nor areas."""
    pieces, _ = ndimage.label(ink, np.ones((3, 3)))
    depth = ndimage.distance_transform_cdt(np.pad(ink, 1), "chessboard")[1:-1, 1:-1]
    boxes = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        edges = [part.stop - part.start for part in box]
        inside = pieces[box] == number
        if max(edges) < SMALLEST_HEIGHT or min(edges) > LARGEST_SHARE * min(ink.shape):
            continue
        if float(depth[box][inside].max()) <= max(1.0, STROKE * max(edges)):
            boxes.append(box)
    return boxes


def _in_line(boxes: Sequence[tuple[slice, slice]]) -> list[tuple[slice, slice, int]]:
    """Chain boxes of like height beside each other along the second axis; return whole lines and their lengths."""
    lines: list[list[tuple[slice, slice]]] = []
    for box in sorted(boxes, key=lambda b: b[1].start):
        home = next((line for line in lines if _follows(line[-1], box)), None)
        if home is None:
            lines.append([box])
        else:
            home.append(box)
    return [
        (
            slice(min(b[0].start for b in line), max(b[0].stop for b in line)),
            slice(line[0][1].start, max(b[1].stop for b in line)),
            sum(_letters(box) for box in line),
        )
        for line in lines
        if sum(_letters(box) for box in line) >= FEWEST and len(line) >= FEWEST_PIECES
    ]


def _letters(box: tuple[slice, slice]) -> int:
    """Count the characters in a box; letters may touch."""
    height, width = (part.stop - part.start for part in box)
    return max(1, round(width / height))


def _follows(one: tuple[slice, slice], other: tuple[slice, slice]) -> bool:
    heights = [box[0].stop - box[0].start for box in (one, other)]
    overlap = min(one[0].stop, other[0].stop) - max(one[0].start, other[0].start)
    gap = other[1].start - one[1].stop
    return (
        min(heights) >= max(SMALLEST_HEIGHT, ALIKE * max(heights))
        and overlap >= 0.6 * max(heights)
        and -1 <= gap <= GAP * max(heights)
    )
