"""``dicom/index.json``: what each series is meant to hold, so that anyone can hold the files against it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from synthmed.errors import InputError
from synthmed.export.dicom.case import ROOT
from synthmed.files import read_json, write_json

INDEX = f"{ROOT}/index.json"
SCHEMA = "synthmed-dicom/1"


@dataclass(frozen=True)
class Entry:
    """One case.

    Attributes
    ----------
    modality : str
    series, series_uid : str
        Folder in the release, and SeriesInstanceUID.
    transfer_syntax : str
    shape : tuple of int, (columns, rows, slices)
    affine : tuple of tuple of float, 4x4, (column, row, slice) -> RAS+ mm
        Slices ascend along ``row x column``.
    type : str, int16 or uint16
    slope, intercept : float
        Units of the release = stored value * slope + intercept.
    voxels_sha256 : str
        Over the stored values, little-endian, column fastest, slice slowest.
    seg, seg_uid : str
        File in the release and SeriesInstanceUID of the segmentation; empty without labels.
    labels_sha256 : str
        Over the label map in the same order, uint16.
    segments : mapping of structure to value
    """

    modality: str
    series: str
    series_uid: str
    transfer_syntax: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    type: str
    slope: float
    intercept: float
    voxels_sha256: str
    seg: str = ""
    seg_uid: str = ""
    labels_sha256: str = ""
    segments: dict[str, int] = field(default_factory=dict)


def write_index(release: Path, entries: dict[str, Entry]) -> None:
    """Write the index of all cases."""
    write_json(release / INDEX, {"schema": SCHEMA, "cases": {name: asdict(entry) for name, entry in entries.items()}})


def read_index(release: Path) -> dict[str, Entry]:
    """Read the index.

    Raises
    ------
    ValueError
        If it is missing or is not one.
    """
    try:
        content = read_json(release / INDEX)
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        return {str(name): _parse(case) for name, case in content["cases"].items()}
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot be used: {' '.join(str(error).split())}") from error


def _parse(case: dict[str, Any]) -> Entry:
    columns, rows, slices = (int(n) for n in case["shape"])
    affine = tuple(tuple(float(x) for x in row) for row in case["affine"])
    if len(affine) != 4 or any(len(row) != 4 for row in affine):
        raise ValueError("an affine is not 4x4")
    return Entry(**case | {"shape": (columns, rows, slices), "affine": affine})
