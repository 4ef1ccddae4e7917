"""Classic single-frame CT and MR series: one file a slice (PS3.3 A.3 and A.4)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom import uid
from pydicom.dataset import Dataset

from synthmed.export.dicom.case import Case, common_attributes, item
from synthmed.export.dicom.encode import SYNTAXES, file_meta, pixel_data, template
from synthmed.export.dicom.pixels import Grid, Stored, decimal
from synthmed.export.samples import WARNING

SOP_CLASSES = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage}
_OWN = ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "SliceLocation")


def slice_headers(case: Case, grid: Grid, stored: Stored) -> tuple[Dataset, list[Dataset]]:
    """Return what the slices share and, for each, what is its own; no pixels.

    Parameters
    ----------
    case : Case
    grid : Grid
    stored : Stored
    """
    common = common_attributes(case)
    common.update(_series(case))
    common.update(_image(grid, stored))
    common.update(_rescale(case.modality, stored))
    common.update(_acquisition(case.modality))
    common.WindowCenter, common.WindowWidth = decimal(case.window[0]), decimal(case.window[1])
    return common, [_slice(case, grid, k) for k in range(grid.shape[2])]


def source_datasets(common: Dataset, own: list[Dataset]) -> list[Dataset]:
    """Return whole headers, one a slice, for a segmentation to refer to."""
    sources = []
    for data in own:
        whole = Dataset()
        whole.update(common)
        whole.update(data)
        sources.append(whole)
    return sources


def files(common: Dataset, own: list[Dataset], stored: Stored, compression: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each slice's file, slices in order."""
    syntax, render = SYNTAXES[compression], template(common, _OWN)
    for k, data in enumerate(own):
        meta = file_meta(str(common.SOPClassUID), str(data.SOPInstanceUID), syntax)
        pixels = pixel_data(stored.array[k : k + 1], compression)
        yield f"IM{k + 1:04d}.dcm", meta + render(data) + pixels


def _series(case: Case) -> Dataset:
    return item(
        SOPClassUID=SOP_CLASSES[case.modality],
        Modality=case.modality,
        SeriesInstanceUID=case.uid("classic", "series"),
        SeriesNumber=1,
        SeriesDescription=f"{WARNING.split(' ')[0]} {case.modality}",
        Laterality="",
        PatientPosition="HFS",
        AcquisitionNumber=1,
        ImageType=["DERIVED", "SECONDARY", "AXIAL" if case.modality == "CT" else "OTHER"],
    )


def _image(grid: Grid, stored: Stored) -> Dataset:
    columns, rows, _ = grid.shape
    return item(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(stored.array.dtype.kind == "i"),
        PixelSpacing=grid.pixel_spacing,
        ImageOrientationPatient=grid.orientation,
        SliceThickness=decimal(grid.spacing[2]),
        SpacingBetweenSlices=decimal(grid.spacing[2]),
    )


def _rescale(modality: str, stored: Stored) -> Dataset:
    """Return how stored values become units; MR images say it only where there is something to say."""
    if modality == "MR" and (stored.slope, stored.intercept) == (1.0, 0.0):
        return Dataset()
    return item(
        RescaleSlope=decimal(stored.slope),
        RescaleIntercept=decimal(stored.intercept),
        RescaleType="HU" if modality == "CT" else "US",
    )


def _acquisition(modality: str) -> Dataset:
    """Return what the two objects demand of an acquisition that never took place: mostly nothing."""
    if modality == "CT":
        return item(KVP=None)
    return item(
        ScanningSequence="RM",
        SequenceVariant="NONE",
        ScanOptions="",
        MRAcquisitionType="3D",
        RepetitionTime=None,
        EchoTime=None,
        EchoTrainLength=None,
    )


def _slice(case: Case, grid: Grid, k: int) -> Dataset:
    normal = grid.affine[:3, 2] / grid.spacing[2]
    return item(
        SOPInstanceUID=case.uid("classic", "instance", str(k + 1)),
        InstanceNumber=k + 1,
        ImagePositionPatient=grid.position(k),
        SliceLocation=decimal(float(normal @ (grid.affine[:3, 3] + k * grid.affine[:3, 2]))),
    )
