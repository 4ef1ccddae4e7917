"""Enhanced multi-frame CT and MR: one file a volume (PS3.3 A.38 and A.36)."""

from __future__ import annotations

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from synthmed.export.dicom.case import (
    PLACEHOLDER_DATE,
    PLACEHOLDER_TIME,
    Case,
    code_item,
    common_attributes,
    item,
)
from synthmed.export.dicom.pixels import Grid, Stored, decimal
from synthmed.export.samples import WARNING

SOP_CLASSES = {"CT": uid.EnhancedCTImageStorage, "MR": uid.EnhancedMRImageStorage}
_IMAGE_TYPE = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]


def header(case: Case, grid: Grid, stored: Stored) -> Dataset:
    """Return the whole volume's dataset without its pixels."""
    data = common_attributes(case)
    data.update(_image(case, grid, stored))
    data.update(_dimensions(case))
    data.update(_description(case.modality))
    data.SharedFunctionalGroupsSequence = Sequence([_shared(case, grid, stored)])
    data.PerFrameFunctionalGroupsSequence = Sequence([_frame(grid, k) for k in range(grid.shape[2])])
    return data


def _image(case: Case, grid: Grid, stored: Stored) -> Dataset:
    columns, rows, slices = grid.shape
    return item(
        SOPClassUID=SOP_CLASSES[case.modality],
        SOPInstanceUID=case.uid("enhanced", "instance"),
        Modality=case.modality,
        SeriesInstanceUID=case.uid("enhanced", "series"),
        SeriesNumber=1,
        SeriesDescription=f"{WARNING.split(' ')[0]} {case.modality}",
        PatientPosition="HFS",
        InstanceNumber=1,
        ContentDate=PLACEHOLDER_DATE,
        ContentTime=PLACEHOLDER_TIME,
        NumberOfFrames=slices,
        AcquisitionContextSequence=Sequence(),
        PresentationLUTShape="IDENTITY",
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=rows,
        Columns=columns,
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(stored.array.dtype.kind == "i"),
    )


def _dimensions(case: Case) -> Dataset:
    """Return the Multi-frame Dimension module: frames run along one stack (PS3.3 C.7.6.17)."""
    organization = case.uid("enhanced", "dimensions")
    content = Tag("FrameContentSequence")
    index = [
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=Tag(keyword),
            FunctionalGroupPointer=content,
            DimensionDescriptionLabel=label,
        )
        for keyword, label in (("StackID", "Stack"), ("InStackPositionNumber", "Slice"))
    ]
    return item(
        DimensionOrganizationSequence=Sequence([item(DimensionOrganizationUID=organization)]),
        DimensionOrganizationType="3D",
        DimensionIndexSequence=Sequence(index),
    )


def _description(modality: str) -> Dataset:
    """Return the Common CT/MR Image Description and what else the object demands at its top."""
    data = item(
        ImageType=_IMAGE_TYPE,
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        AcquisitionNumber=1,
    )
    if modality == "MR":
        data.update(_mr_description())
        data.ApplicableSafetyStandardAgency = "NONE"
    return data


def _mr_description() -> Dataset:
    return item(ComplexImageComponent="MAGNITUDE", AcquisitionContrast="UNKNOWN")


def _frame_type(modality: str) -> Dataset:
    data = item(
        FrameType=_IMAGE_TYPE,
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if modality == "MR":
        data.update(_mr_description())
    return data


def _shared(case: Case, grid: Grid, stored: Stored) -> Dataset:
    """Return the functional groups that all frames have in common (PS3.3 C.7.6.16)."""
    measures = item(
        PixelSpacing=grid.pixel_spacing,
        SliceThickness=decimal(grid.spacing[2]),
        SpacingBetweenSlices=decimal(grid.spacing[2]),
    )
    rescale = item(
        RescaleSlope=decimal(stored.slope),
        RescaleIntercept=decimal(stored.intercept),
        RescaleType="HU" if case.modality == "CT" else "US",
    )
    anatomy = item(FrameLaterality="U", AnatomicRegionSequence=Sequence([code_item(codes.SCT.AnatomicalStructure)]))
    window = item(WindowCenter=decimal(case.window[0]), WindowWidth=decimal(case.window[1]))
    shared = item(
        PixelMeasuresSequence=Sequence([measures]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=grid.orientation)]),
        PixelValueTransformationSequence=Sequence([rescale]),
        FrameAnatomySequence=Sequence([anatomy]),
        FrameVOILUTSequence=Sequence([window]),
    )
    frame_type = Sequence([_frame_type(case.modality)])
    if case.modality == "CT":
        event = item(IrradiationEventUID=case.uid("irradiation event"))
        shared.CTImageFrameTypeSequence = frame_type
        shared.IrradiationEventIdentificationSequence = Sequence([event])
    else:
        shared.MRImageFrameTypeSequence = frame_type
    return shared


def _frame(grid: Grid, k: int) -> Dataset:
    content = item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[1, k + 1])
    return item(
        FrameContentSequence=Sequence([content]),
        PlanePositionSequence=Sequence([item(ImagePositionPatient=grid.position(k))]),
    )
