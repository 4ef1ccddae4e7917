"""Hold the frames of one series, or one segmentation, against what the index and the NIfTI of the case say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from synthmed.errors import InputError
from synthmed.export.dicom.frames import Frame, find, pixels
from synthmed.export.dicom.index import Entry
from synthmed.export.dicom.pixels import RAS_TO_LPS, digest, to_slices
from synthmed.io import read_volume
from synthmed.volume import Affine
from synthmed.words import counted

_AXES = ("slices", "rows", "columns")
_POSITION_TOLERANCE = 1e-4
"""mm; what is written differs from the index by the rounding of 16 digits."""


def series_problems(frames: Sequence[Frame], entry: Entry) -> list[str]:
    """Return what is wrong with a series, in plain words.

    Parameters
    ----------
    frames : sequence of Frame
    entry : Entry
        What the index says about it.
    """
    affine = RAS_TO_LPS @ np.array(entry.affine)
    normal = affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    problems = _stack_problems(ordered, entry, affine)
    problems += _grid_problems(ordered, entry, affine)
    types = {frame.stored.dtype.name for frame in ordered}
    if types != {entry.type}:
        problems.append(f"PixelRepresentation makes {', '.join(sorted(types))} of what is {entry.type}")
    if {(frame.slope, frame.intercept) for frame in ordered} != {(entry.slope, entry.intercept)}:
        problems.append(f"rescale is not {entry.slope:g} and {entry.intercept:g} in every slice")
    if len(ordered) != entry.shape[2] or len({frame.stored.shape for frame in ordered}) > 1:
        return problems
    stored = np.stack([frame.stored for frame in ordered]).view(entry.type)
    return problems + _voxel_problems(stored, entry.voxels_sha256)


def nifti_problems(file: Path, entry: Entry, frames: Sequence[Frame]) -> list[str]:
    """Return how a series differs from the NIfTI file of the same case."""
    if len(frames) != entry.shape[2]:
        return []
    try:
        volume = read_volume(file)
        values, grid = to_slices(volume.array[0], volume.affine)
    except InputError as error:
        return [f"cannot be held against its NIfTI: {error}"]
    normal = grid.affine[:3, 2] / grid.spacing[2]
    ordered = sorted(frames, key=lambda frame: float(frame.position @ normal))
    if grid.shape != entry.shape or np.abs(grid.affine - _affine(ordered)).max() > _POSITION_TOLERANCE:
        return ["does not lie where its NIfTI lies"]
    restored = np.stack([frame.stored.astype(np.float64) * frame.slope + frame.intercept for frame in ordered])
    if restored.shape != values.shape:
        return ["does not lie where its NIfTI lies"]
    # Half a step of the rescale, and the rounding of float32.
    allowed = (0.0 if entry.slope == 1 else entry.slope / 2) + 1e-6 * float(np.abs(values).max())
    worst = float(np.abs(restored - values).max())
    return [f"its voxels differ from its NIfTI by up to {worst:.4g}"] if worst > allowed else []


def segmentation_problems(data: Dataset, entry: Entry, instances: set[str]) -> list[str]:
    """Return what is wrong with a segmentation.

    Parameters
    ----------
    data : Dataset
    entry : Entry
    instances : set of str
        SOPInstanceUIDs of the series that it must refer to.
    """
    # A LABELMAP may describe its background, number 0, as well.
    names = {str(item.SegmentLabel): int(item.SegmentNumber) for item in data.SegmentSequence if item.SegmentNumber}
    problems = [] if names == entry.segments else [f"its segments are {names}, not {entry.segments}"]
    referred = {
        str(instance.ReferencedSOPInstanceUID)
        for series in data.ReferencedSeriesSequence
        for instance in series.ReferencedInstanceSequence
    }
    series = {str(item.SeriesInstanceUID) for item in data.ReferencedSeriesSequence}
    if referred != instances or series != {entry.series_uid}:
        problems.append("refers to images other than those of its series")
    labels, misplaced = _label_map(data, entry)
    if misplaced:
        return [*problems, "its frames do not lie on the grid of its series"]
    return problems + _voxel_problems(labels, entry.labels_sha256, "labels")


def _stack_problems(ordered: Sequence[Frame], entry: Entry, affine: Affine) -> list[str]:
    """Find missing slices, uneven gaps, and numbers that run against the positions."""
    problems = []
    normal, step = affine[:3, 2] / np.linalg.norm(affine[:3, 2]), float(np.linalg.norm(affine[:3, 2]))
    if len(ordered) != entry.shape[2]:
        problems.append(f"has {counted(len(ordered), 'slice')}, not {entry.shape[2]}")
    gaps = np.diff([float(frame.position @ normal) for frame in ordered])
    if len(gaps) and np.abs(gaps - step).max() > _POSITION_TOLERANCE:
        problems.append(f"gaps between slices run from {gaps.min():.4g} to {gaps.max():.4g} mm, not {step:.4g}")
    numbers = [frame.number for frame in ordered]
    if numbers == sorted(numbers, reverse=True) and len(numbers) > 1:
        problems.append("slices are reversed: InstanceNumber descends along the positions")
    elif numbers != sorted(set(numbers)):
        problems.append("InstanceNumber does not follow the positions")
    return problems


def _grid_problems(ordered: Sequence[Frame], entry: Entry, affine: Affine) -> list[str]:
    """Find sizes, spacing, directions and positions that are not the index's."""
    columns, rows, _ = entry.shape
    sizes = {frame.stored.shape for frame in ordered}
    problems = [] if sizes == {(rows, columns)} else [f"Rows and Columns are {sorted(sizes)}, not {rows} and {columns}"]
    spacing = np.linalg.norm(affine[:3, [1, 0]], axis=0)
    found = np.array([frame.pixel_spacing for frame in ordered])
    if np.abs(found - spacing).max() > _POSITION_TOLERANCE:
        swapped = np.abs(found - spacing[::-1]).max() <= _POSITION_TOLERANCE
        wrong = "is swapped" if swapped else f"is {found[0].tolist()}"
        return [
            *problems,
            f"PixelSpacing {wrong}, not {spacing[0]:.6g} between rows and {spacing[1]:.6g} between columns",
        ]
    cosines = (affine[:3, :2] / spacing[::-1]).T.ravel()
    if any(np.abs(np.array(frame.orientation) - cosines).max() > 1e-6 for frame in ordered):
        return [*problems, "ImageOrientationPatient is not that of the index"]
    if np.abs(ordered[0].position - affine[:3, 3]).max() > _POSITION_TOLERANCE:
        problems.append("ImagePositionPatient is not that of the index")
    return problems


def _affine(ordered: Sequence[Frame]) -> Affine:
    """Return (column, row, slice) -> LPS mm, of frames sorted along their normal."""
    first, last = ordered[0], ordered[-1]
    between_rows, between_columns = first.pixel_spacing
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * between_columns
    affine[:3, 1] = np.array(first.orientation[3:]) * between_rows
    affine[:3, 2] = (last.position - first.position) / max(len(ordered) - 1, 1)
    affine[:3, 3] = first.position
    return affine


def _voxel_problems(stored: NDArray[np.generic], expected: str, what: str = "voxels") -> list[str]:
    """Compare digests; where they differ, say whether a flip explains it."""
    if digest(stored) == expected:
        return []
    for count in (1, 2, 3):
        for axes in combinations(range(3), count):
            if digest(np.flip(stored, axes)) == expected:
                return [f"its {what} are flipped along {' and '.join(_AXES[axis] for axis in axes)}"]
    return [f"its {what} are not those of the index"]


def _label_map(data: Dataset, entry: Entry) -> tuple[NDArray[np.uint16], bool]:
    """Put the planes of a segmentation together; also say whether one lies off the grid."""
    columns, rows, slices = entry.shape
    labels = np.zeros((slices, rows, columns), dtype=np.uint16)
    affine = RAS_TO_LPS @ np.array(entry.affine)
    shared, inverse = data.SharedFunctionalGroupsSequence[0], np.linalg.inv(affine)
    stored = pixels(data)
    if stored.shape[1:] != (rows, columns):
        return labels, True
    for plane, group in zip(stored, data.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(find([group, shared], "PlanePositionSequence", "ImagePositionPatient"), dtype=np.float64)
        i, j, k = inverse[:3, :3] @ position + inverse[:3, 3]
        spacing = find([group, shared], "PixelMeasuresSequence", "PixelSpacing")
        cosines = np.array(find([group, shared], "PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float)
        columns_of = np.column_stack([cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])])
        off = max(abs(i), abs(j), abs(k - round(k)), float(np.abs(columns_of - affine[:3, :2]).max()))
        if off > 1e-3 or not 0 <= round(k) < slices:
            return labels, True
        number = find([group, shared], "SegmentIdentificationSequence", "ReferencedSegmentNumber")
        if data.SegmentationType == "LABELMAP":
            labels[round(k)] = plane
        else:
            labels[round(k)][plane != 0] = int(number)
    return labels, False
