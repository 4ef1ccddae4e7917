"""From a patient's own grid to the shared one and back, along the scan's own axes.

Axes are permuted and flipped, resampled to the spacing, and cropped or padded about a centre. An oblique scan keeps
its obliquity: its affine says so, and no voxel is interpolated for the sake of rotation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthmed.errors import InputError
from synthmed.prepare.region import inside, masked, middle
from synthmed.prepare.resample import Array, Resampling, Triple, interpolate, resample_image, resample_label
from synthmed.prepare.space import Space
from synthmed.volume import Affine, Geometry, Volume, reorient

SAME_SPACING = 1e-3
"""Spacings that differ by less than this share are taken as equal, so that nothing is interpolated needlessly."""


@dataclass(frozen=True)
class Record:
    """How one volume came onto the grid, and therefore how to go back.

    Attributes
    ----------
    source : Geometry
        The grid of the file.
    orientation : str
        Axis codes of the shared grid.
    oriented_shape, resampled_shape : tuple of int
        Shape after reorienting, and after resampling.
    ratio : tuple of float
        Target over source spacing along the oriented axes; 1 where nothing was resampled.
    start : tuple of int
        Index in the resampled volume of the grid's first voxel; negative where the grid is padded.
    grid : tuple of int
    source_range, intensity_range : tuple of float
        Intensities of the file and those of the release that they were mapped to, linearly and clipped.
    """

    source: Geometry
    orientation: str
    oriented_shape: Triple
    resampled_shape: Triple
    ratio: tuple[float, float, float]
    start: Triple
    grid: Triple
    source_range: tuple[float, float]
    intensity_range: tuple[float, float]

    @property
    def first(self) -> tuple[float, ...]:
        """Oriented index of the resampled volume's first voxel; the centres of both coincide."""
        shapes = zip(self.oriented_shape, self.resampled_shape, self.ratio, strict=True)
        return tuple((n - 1) / 2 - (m - 1) / 2 * r for n, m, r in shapes)

    @property
    def resampling(self) -> Resampling:
        """How the oriented volume came to the shared spacing."""
        return Resampling(self.ratio, self.first, self.resampled_shape)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        content = asdict(self)
        content["source"] = {"shape": list(self.source.shape), "affine": self.source.affine.tolist()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Record:
        """Read what `to_json` wrote."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        source = content["source"]
        values["source"] = Geometry(tuple(source["shape"]), np.asarray(source["affine"], dtype=np.float64))
        return cls(**values)


@dataclass(frozen=True)
class Preprocessed:
    """A case on the shared grid.

    Attributes
    ----------
    image : Volume, shape (1, I, J, K), units of `Space.intensity_range`
    label : Volume or None, label values as given
    record : Record
    label_voxels_cut : int
        Labelled voxels, at the target spacing, that the grid did not hold.
    """

    image: Volume
    label: Volume | None
    record: Record
    label_voxels_cut: int = 0


def preprocess(image: Volume, label: Volume | None, space: Space, filed: Volume | None = None) -> Preprocessed:
    """Mask, orient, resample, normalise and fit one case to the grid; the affines stay true to the patient.

    Parameters
    ----------
    image : Volume, shape (1, I, J, K)
    label : Volume, shape (1, I, J, K), on the image's grid; or None
    space : Space
    filed : Volume, optional
        The label before its values were grouped, which mask and centre follow; by default `label`.

    Raises
    ------
    InputError
        If the image has several channels, holds NaN or infinities, is constant (inside the mask), the label lies on
        another grid or holds values that are not whole numbers from 0, or mask or centre need a label that is not
        there.
    """
    _check_image(image)
    filed = label if filed is None else filed
    if filed is not None:
        _check_label(filed, image)
    mask = inside(filed, space)
    source_range = _source_range(image.array if mask is None else image.array[mask], space)
    oriented = reorient(masked(image, mask, source_range[0]), space.orientation)
    turned = None if filed is None else reorient(filed, space.orientation)
    record = _plan(
        image.geometry, oriented.geometry, space, source_range, middle(oriented, turned, space, source_range)
    )
    resampled = resample_image(oriented.array, record.resampling)
    fitted = _fit(_rescale(resampled, record), record.start, record.grid, space.intensity_range[0])
    affine = _grid_affine(oriented.affine, record)
    if label is None:
        return Preprocessed(Volume(fitted, affine), None, record)
    whole = resample_label(reorient(label, space.orientation).array, record.resampling)
    kept = _fit(whole, record.start, record.grid, 0.0)
    cut = int(np.count_nonzero(whole) - np.count_nonzero(kept))
    return Preprocessed(Volume(fitted, affine), Volume(kept, affine), record, cut)


def restore(array: Array, record: Record, *, nearest: bool = False, fill: float | None = None) -> Volume:
    """Put an array on the shared grid back onto the patient's own grid.

    Exact for flips, permutations, crops and pads; up to interpolation where the spacing differed.

    Parameters
    ----------
    array : ndarray, shape (C, I, J, K), on `Record.grid`
    record : Record
    nearest : bool
        Interpolate by nearest neighbour, for labels.
    fill : float, optional
        Value outside the grid: by default the low end of the range for an image and 0 for a label.

    Raises
    ------
    InputError
        If `array` does not lie on the record's grid.
    """
    array = np.asarray(array, dtype=np.float32)
    if array.ndim != 4 or array.shape[1:] != record.grid:
        raise InputError("The array is not on the prepared grid", found=str(array.shape), expected=str(record.grid))
    value = fill if fill is not None else (0.0 if nearest else record.intensity_range[0])
    back = tuple(-start for start in record.start)
    resampled = _fit(array, back, record.resampled_shape, value)  # type: ignore[arg-type]
    inverse = tuple(1 / r for r in record.ratio)
    first = tuple(-a / r for a, r in zip(record.first, record.ratio, strict=True))
    oriented = interpolate(resampled, Resampling(inverse, first, record.oriented_shape), order=0 if nearest else 1)
    turned = reorient(Volume(oriented, _oriented_affine(record)), record.source.orientation)
    return Volume(turned.array, record.source.affine)


def _check_image(image: Volume) -> None:
    if image.array.shape[0] != 1:
        raise InputError("The image has several channels", found=str(image.array.shape[0]), expected="one")
    if not np.isfinite(image.array).all():
        bad = int(np.count_nonzero(~np.isfinite(image.array)))
        raise InputError("The image holds NaN or infinite voxels", found=str(bad), expected="finite intensities")


def _check_label(label: Volume, image: Volume) -> None:
    if label.shape != image.shape:
        raise InputError("Label and image disagree in shape", found=str(label.shape), expected=str(image.shape))
    if not label.geometry.agrees_with(image.geometry):
        apart = float(np.abs(label.affine - image.affine).max())
        raise InputError("Label and image disagree in affine", found=f"a difference of {apart:.4g}", expected="none")
    values = label.array
    if label.array.shape[0] != 1 or not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError("The label is not a segmentation", expected="one channel of whole numbers")
    if values.min() < 0:
        raise InputError("The label holds negative values", found=f"{values.min():g}", expected="0 and above")


def _source_range(array: Array, space: Space) -> tuple[float, float]:
    if space.normalisation == "window":
        low, high = space.intensity_range
        clipped_low, clipped_high = np.clip([array.min(), array.max()], low, high)
        if clipped_low == clipped_high:
            raise InputError("The image is constant inside the intensity window", found=f"{clipped_low:g}")
        return low, high
    low, high = (float(value) for value in np.percentile(array, space.percentiles))
    if not low < high:
        a, b = space.percentiles
        raise InputError(
            "The image is constant", found=f"{low:g} at percentile {a:g} and at {b:g}", expected="intensities that vary"
        )
    return low, high


def _plan(
    source: Geometry, oriented: Geometry, space: Space, source_range: tuple[float, float], centre: tuple[float, ...]
) -> Record:
    """Return the record of a volume whose voxel `centre`, an oriented index, goes nearest to the grid's centre."""
    ratio, resampled = [], []
    for n, s, t in zip(oriented.shape, oriented.spacing, space.spacing, strict=True):
        same = abs(t / s - 1) < SAME_SPACING
        ratio.append(1.0 if same else t / s)
        resampled.append(n if same else max(1, round(n * s / t)))
    sides = zip(oriented.shape, resampled, space.grid, ratio, centre, strict=True)
    # Halves go down; six decimals keep them halves.
    corner = ((m - g) / 2 + (c - (n - 1) / 2) / r for n, m, g, r, c in sides)
    start = tuple(math.ceil(round(c, 6) - 0.5) for c in corner)
    return Record(
        source=source,
        orientation=space.orientation,
        oriented_shape=oriented.shape,
        resampled_shape=tuple(resampled),  # type: ignore[arg-type]
        ratio=tuple(ratio),  # type: ignore[arg-type]
        start=start,  # type: ignore[arg-type]
        grid=space.grid,
        source_range=source_range,
        intensity_range=space.intensity_range,
    )


def _rescale(array: Array, record: Record) -> Array:
    source_low, source_high = record.source_range
    low, high = record.intensity_range
    clipped = np.clip(array, source_low, source_high)
    if (source_low, source_high) == (low, high):
        return clipped
    unit = (clipped - source_low) / (source_high - source_low)
    return np.asarray(unit * (high - low) + low, dtype=np.float32)


def _fit(array: Array, start: Triple, shape: Triple, fill: float) -> Array:
    """Return the box of `shape` that begins at index `start`, filled where it reaches outside."""
    out = np.full((array.shape[0], *shape), fill, dtype=np.float32)
    source, target = [slice(None)], [slice(None)]
    for n, a, m in zip(array.shape[1:], start, shape, strict=True):
        low, high = max(a, 0), max(min(a + m, n), max(a, 0))
        source.append(slice(low, high))
        target.append(slice(low - a, high - a))
    out[tuple(target)] = array[tuple(source)]
    return out


def _grid_affine(oriented: Affine, record: Record) -> Affine:
    step = np.eye(4)
    step[:3, :3] = np.diag(record.ratio)
    first = np.asarray(record.first) + np.asarray(record.start) * np.asarray(record.ratio)
    step[:3, 3] = first
    return oriented @ step


def _oriented_affine(record: Record) -> Affine:
    corner = Volume(np.zeros((1, *record.source.shape), dtype=np.float32), record.source.affine)
    return reorient(corner, record.orientation).affine
