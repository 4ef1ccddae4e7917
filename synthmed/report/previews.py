"""Small copies of volumes, eight bits a voxel, for a page that must stay small however large the set is."""

from __future__ import annotations

import base64
import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthmed.pictures import colour
from synthmed.sections import centre_of
from synthmed.volume import Volume, reorient

MOST_VOLUMES = 12
MOST_VOXELS = 64**3
MOST_CLASSES = 256
_PANE = 150  # pixels of the longest edge of a plane in the montage
_MARGIN = 12
_GREY = (0.5, 99.5)  # percentiles that become black and white


@dataclass(frozen=True, eq=False)
class Preview:
    """A volume made small.

    Attributes
    ----------
    name : str
    image : ndarray, shape (I, J, K), float64, RAS
    label : ndarray, shape (I, J, K), uint8, class index, or None
    spacing : tuple of float, mm
    """

    name: str
    image: NDArray[np.float64]
    label: NDArray[np.uint8] | None
    spacing: tuple[float, float, float]


def chosen(names: Sequence[str], most: int = MOST_VOLUMES) -> list[str]:
    """Return at most `most` names, evenly spread over the sorted list: the choice looks at no volume."""
    ordered = sorted(names)
    if len(ordered) <= most:
        return ordered
    return [ordered[(k * len(ordered)) // most] for k in range(most)]


def preview(name: str, image: Volume, label: Volume | None, label_values: Sequence[int] = ()) -> Preview:
    """Turn a volume to RAS and halve its finest axes until it has few voxels.

    Images are averaged over blocks; a label voxel gets the class that most of its block has.

    Parameters
    ----------
    name : str
    image : Volume
    label : Volume or None
    label_values : sequence of int
        Values in label files, background first; a value's place is its class.
    """
    image = reorient(image, "RAS")
    factors = halvings(image.shape, image.spacing)
    blocks = _blocks(image.array[0].astype(np.float64), factors)
    small = None
    if label is not None:
        small = _majority(_classes(reorient(label, "RAS").array[0], label_values), factors)
    i, j, k = (edge * factor for edge, factor in zip(image.spacing, factors, strict=True))
    return Preview(name, blocks.mean(axis=(1, 3, 5)), small, (i, j, k))


def preview_of_files(name: str, image: bytes, label: bytes | None, label_values: Sequence[int] = ()) -> Preview:
    """Return the preview of a volume from the bytes of its ``.nii.gz`` files; see `preview`."""
    return preview(name, _volume(image), None if label is None else _volume(label), label_values)


def _volume(content: bytes) -> Volume:
    import nibabel as nib

    read = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    return Volume(np.asarray(read.dataobj, dtype=np.float32)[None], np.asarray(read.affine))


def halvings(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
    """Return how many voxels along each axis become one: powers of two, the finest axes first."""
    factors = [1, 1, 1]
    while np.prod([-(-side // f) for side, f in zip(shape, factors, strict=True)]) > MOST_VOXELS:
        edges = [edge * f if f < side else np.inf for edge, f, side in zip(spacing, factors, shape, strict=True)]
        finest = min(edges)
        factors = [f * 2 if edge <= 1.5 * finest else f for f, edge in zip(factors, edges, strict=True)]
    return tuple(factors)


def encode(previews: Sequence[Preview], structures: Sequence[str]) -> dict[str, Any]:
    """Return what the viewer reads: voxels as base64 of zlib, first axis fastest, one grey scale for all.

    Parameters
    ----------
    previews : sequence of Preview
        At least one.
    structures : sequence of str
        What each class is called, background first.
    """
    window = grey_window(previews)
    values = sorted({int(v) for p in previews if p.label is not None for v in np.unique(p.label)} - {0})
    return {
        "volumes": [
            {
                "name": p.name,
                "shape": list(p.image.shape),
                "spacing": [round(edge, 4) for edge in p.spacing],
                "at": list(centre_of(p.label, p.image.shape)),
                "image": _pack(grey(p, window)),
                "label": None if p.label is None else _pack(p.label),
            }
            for p in previews
        ],
        "labels": [
            {"value": v, "name": structures[v] if v < len(structures) else f"class {v}", "colour": colour(v)}
            for v in values
        ],
    }


def montage_png(previews: Sequence[Preview], columns: int = 3) -> bytes:
    """Draw the three planes through the middle of each preview's label, with the label laid over, as a PNG."""
    from PIL import Image

    window = grey_window(previews)
    tiles = [_tile(p, window) for p in previews]
    columns = min(columns, len(tiles))
    height, width = tiles[0].shape[0] + _MARGIN, tiles[0].shape[1] + _MARGIN
    sheet = np.zeros((-(-len(tiles) // columns) * height, columns * width, 3), np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        y, x = row * height, column * width
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "PNG")
    return stream.getvalue()


def grey_window(previews: Sequence[Preview]) -> tuple[float, float]:
    """Return the intensities that become black and white."""
    low, high = np.percentile(np.concatenate([p.image.ravel() for p in previews]), _GREY)
    return float(low), float(high) if high > low else float(low) + 1.0


def grey(p: Preview, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return a preview's image in 256 shades."""
    low, high = window
    return np.clip(np.rint((p.image - low) / (high - low) * 255), 0, 255).astype(np.uint8)


def _blocks(array: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Return shape (I, f, J, f, K, f); the far edge is repeated where a factor does not divide."""
    padded = np.pad(array, [(0, -side % f) for side, f in zip(array.shape, factors, strict=True)], mode="edge")
    i, j, k = (side // f for side, f in zip(padded.shape, factors, strict=True))
    return padded.reshape(i, factors[0], j, factors[1], k, factors[2])


def _classes(label: NDArray[Any], values: Sequence[int]) -> NDArray[np.uint8]:
    """Return each voxel's class; those beyond what eight bits hold become the last one."""
    places = np.searchsorted(np.asarray(values or [0]), label)
    return np.minimum(places, MOST_CLASSES - 1).astype(np.uint8)


def _majority(classes: NDArray[np.uint8], factors: tuple[int, ...]) -> NDArray[np.uint8]:
    """Halve axes again and again; each voxel takes the class that most of its block has, of equals a structure."""
    while max(factors) > 1:
        step = tuple(min(2, factor) for factor in factors)
        blocks = np.moveaxis(_blocks(classes, step), (1, 3, 5), (0, 1, 2))
        cells = blocks.reshape(-1, *blocks.shape[3:])
        votes = np.stack([2 * (cells == cell).sum(axis=0, dtype=np.uint8) + (cell > 0) for cell in cells])
        classes = np.take_along_axis(cells, votes.argmax(axis=0)[None], axis=0)[0]
        factors = tuple(factor // by for factor, by in zip(factors, step, strict=True))
    return classes


def _pack(array: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(order="F"), 6)).decode("ascii")


def _tile(p: Preview, window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return sagittal, coronal and axial planes side by side on a black square each, RGB."""
    shades = grey(p, window)
    centre = centre_of(p.label, shades.shape)
    planes = []
    longest = max(side * edge for side, edge in zip(shades.shape, p.spacing, strict=True))
    for axis in range(3):
        across, up = (edge for other, edge in enumerate(p.spacing) if other != axis)
        section = np.take(shades, centre[axis], axis).T[::-1]
        rgb = np.repeat(section[..., None], 3, axis=2).astype(np.float64)
        if p.label is not None:
            rgb = _laid_over(rgb, np.take(p.label, centre[axis], axis).T[::-1])
        planes.append(_fitted(rgb, across, up, longest))
    return np.concatenate(planes, axis=1)


def _laid_over(rgb: NDArray[np.float64], mask: NDArray[np.uint8], opacity: float = 0.5) -> NDArray[np.float64]:
    for value in np.unique(mask[mask > 0]):
        tint = [int(colour(int(value))[k : k + 2], 16) for k in (1, 3, 5)]
        rgb[mask == value] = (1 - opacity) * rgb[mask == value] + opacity * np.array(tint)
    return rgb


def _fitted(rgb: NDArray[np.float64], across: float, up: float, longest: float) -> NDArray[np.uint8]:
    """Enlarge a plane so that a millimetre is as long on both axes, and centre it on a black square."""
    scale = (_PANE - 4) / longest
    height, width = (max(1, round(n * edge * scale)) for n, edge in zip(rgb.shape[:2], (up, across), strict=True))
    rows, columns = (np.arange(n) * side // n for n, side in ((height, rgb.shape[0]), (width, rgb.shape[1])))
    pane = np.zeros((_PANE, _PANE, 3), np.uint8)
    y, x = (_PANE - height) // 2, (_PANE - width) // 2
    pane[y : y + height, x : x + width] = np.rint(rgb[rows][:, columns])
    return pane
