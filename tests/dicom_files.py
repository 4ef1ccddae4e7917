"""Small classic and enhanced DICOM series with a known grid, to be read back or damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

Edit = Callable[[int, Dataset], None]

CLASSIC = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}


@dataclass(frozen=True)
class Grid:
    """Where the slices of a series lie, in DICOM's own terms: mm, LPS."""

    row: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column: tuple[float, float, float] = (0.0, 1.0, 0.0)
    pixel_spacing: tuple[float, float] = (1.5, 0.75)
    increment: float = 2.5
    origin: tuple[float, float, float] = (-20.0, 30.0, -40.0)

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.row, self.column)

    def position(self, k: int) -> list[float]:
        return [float(x) for x in self.origin + k * self.increment * self.normal]

    def ras(self, i: int, j: int, k: int) -> NDArray[np.float64]:
        """RAS+ mm of the centre of the voxel in column i, row j, slice k."""
        between_rows, between_columns = self.pixel_spacing
        x, y, z = (
            np.array(self.position(k))
            + i * between_columns * np.array(self.row)
            + j * between_rows * np.array(self.column)
        )
        return np.array([-x, -y, z])


def rotated(row: tuple[float, ...], column: tuple[float, ...], degrees: float = 20.0) -> Grid:
    """A grid whose cosines are turned about the oblique axis (1, 2, 3): no axis stays cardinal."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    angle = np.radians(degrees)

    def turn(vector: tuple[float, ...]) -> tuple[float, float, float]:
        v = np.array(vector)
        x, y, z = v * np.cos(angle) + np.cross(axis, v) * np.sin(angle) + axis * (axis @ v) * (1.0 - np.cos(angle))
        return float(x), float(y), float(z)

    return Grid(row=turn(row), column=turn(column))


OBLIQUE = rotated((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def voxels(columns: int = 8, rows: int = 6, slices: int = 5) -> NDArray[np.uint16]:
    """Stored values, shape (columns, rows, slices), each a different one, so that no flip maps them on themselves."""
    return np.arange(1, columns * rows * slices + 1, dtype=np.uint16).reshape(columns, rows, slices)


def _base(modality: str, uid: str, stored: NDArray[np.generic], sop_class: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = sop_class, generate_uid()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = uid, generate_uid(entropy_srcs=[uid, "study"])
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=[uid, "frame of reference"])
    data.PatientID, data.PatientName, data.Modality, data.SeriesDescription = "P1", "Test", modality, "phantom"
    data.Columns, data.Rows = stored.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    return data


def write_classic(
    folder: Path,
    *,
    grid: Grid = OBLIQUE,
    stored: NDArray[np.generic] | None = None,
    modality: str = "CT",
    position: str = "HFS",
    slope: float = 1.0,
    intercept: float = -1024.0,
    uid: str = "1.2.3.4",
    edit: Edit | None = None,
) -> list[Path]:
    """Write one file a slice; `edit` changes slice k's dataset before it is saved. Names do not follow the slices."""
    stored = voxels() if stored is None else stored
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(stored.shape[2]):
        data = _base(modality, uid, stored, CLASSIC[modality])
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.InstanceNumber, data.PatientPosition = k + 1, position
        data.PixelSpacing = list(grid.pixel_spacing)
        data.ImageOrientationPatient = [*grid.row, *grid.column]
        data.ImagePositionPatient = grid.position(k)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()
        if edit:
            edit(k, data)
        paths.append(folder / f"{(k * 7 + 3) % 11:02d}-{k}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def _item(**attributes: object) -> Dataset:
    data = Dataset()
    for keyword, content in attributes.items():
        setattr(data, keyword, content)
    return data


def write_enhanced(
    path: Path,
    *,
    grid: Grid = OBLIQUE,
    stored: NDArray[np.generic] | None = None,
    modality: str = "CT",
    order: list[int] | None = None,
    uid: str = "1.2.3.5",
    edit: Edit | None = None,
) -> Path:
    """Write one multi-frame file whose frames follow `order` and whose slope is k + 1 in slice k.

    `edit` changes the functional groups of slice k, and the whole dataset as slice -1.
    """
    stored = voxels() if stored is None else stored
    order = list(range(stored.shape[2])) if order is None else order
    data = _base(modality, uid, stored, ENHANCED[modality])
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.NumberOfFrames = len(order)
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[*grid.row, *grid.column])],
        PixelMeasuresSequence=[_item(PixelSpacing=list(grid.pixel_spacing), SliceThickness=1.0)],
    )
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=grid.position(k))],
            PixelValueTransformationSequence=[_item(RescaleSlope=k + 1, RescaleIntercept=-10, RescaleType="HU")],
        )
        for k in order
    ]
    data.PixelData = np.ascontiguousarray(stored[:, :, order].transpose(2, 1, 0)).tobytes()
    if edit:
        for k, group in zip(order, data.PerFrameFunctionalGroupsSequence, strict=True):
            edit(k, group)
        edit(-1, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def recode(path: Path, syntax: int) -> None:
    """Rewrite a file in another transfer syntax with GDCM (a constant of ``gdcm.TransferSyntax``)."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    if not reader.Read():
        raise ValueError(f"GDCM cannot read {path}")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError(f"GDCM cannot recode {path}")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise ValueError(f"GDCM cannot write {path}")
