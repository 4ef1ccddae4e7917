"""Label maps as DICOM Segmentation objects that refer to the images they lie on (PS3.3 A.51)."""

from __future__ import annotations

import colorsys
import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import synthmed
from synthmed.errors import ConfigError
from synthmed.export.dicom.case import MAKER, PLACEHOLDER_DATE, PLACEHOLDER_TIME, Case, code_item, marks
from synthmed.export.samples import WARNING

FALLBACK_SCHEME = "99SYNTHMED"
_MOST_LETTERS, _MOST_CODE_LETTERS = 64, 16
MOST_BINARY_SEGMENTS = 32
"""Up to so many structures are one bit plane each, which every reader knows; more are one LABELMAP (Supplement 243)."""

ANATOMY = {
    "aorta": "Aorta",
    "bone": "Bone",
    "brain": "Brain",
    "brain ventricle": "BrainVentricle",
    "caudate": "CaudateNucleus",
    "cerebellum": "Cerebellum",
    "cerebrospinal fluid": "CerebrospinalFluid",
    "colon": "Colon",
    "csf": "CerebrospinalFluid",
    "esophagus": "Esophagus",
    "fat": "Fat",
    "gallbladder": "Gallbladder",
    "gray matter": "GrayMatter",
    "grey matter": "GrayMatter",
    "heart": "Heart",
    "hippocampus": "Hippocampus",
    "kidney": "Kidney",
    "lateral ventricle": "LateralVentricle",
    "left atrium": "LeftAtrium",
    "liver": "Liver",
    "lung": "Lung",
    "muscle": "Muscle",
    "oesophagus": "Esophagus",
    "pancreas": "Pancreas",
    "prostate": "Prostate",
    "putamen": "Putamen",
    "skin": "Skin",
    "spinal cord": "SpinalCord",
    "spleen": "Spleen",
    "stomach": "Stomach",
    "thalamus": "Thalamus",
    "ventricle": "BrainVentricle",
    "ventricles": "BrainVentricle",
    "vertebra": "Vertebra",
    "white matter": "WhiteMatter",
}
"""Structure, as cohorts call it -> SNOMED CT concept, by its keyword in PS3.16; `property_codes` adds the side."""

ABNORMALITIES = {
    "edema": "Edema",
    "haemorrhage": "Hemorrhage",
    "hemorrhage": "Hemorrhage",
    "lesion": "Lesion",
    "mass": "Mass",
    "necrosis": "Necrosis",
    "nodule": "Nodule",
    "oedema": "Edema",
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
}
"""The same for what is not there in health."""

_SIDES = {"left": "Left", "right": "Right"}


def property_codes(name: str) -> tuple[Code, Code, Code | None]:
    """Return category, type and side of a structure.

    A name that is in no table gets a code of this program, ``99SYNTHMED``, whose meaning is the name, and whose value
    is the name as well or, where that is no Short String, 12 digits of its SHA-256.

    Parameters
    ----------
    name : str
        Such as ``"left kidney"`` or ``"liver_tumour"``; case, ``_`` and ``-`` do not matter.
    """
    words = name.lower().replace("_", " ").replace("-", " ").split()
    side = next((_SIDES[word] for word in words if word in _SIDES), "")
    plain = " ".join(word for word in words if word not in _SIDES)
    modifier = getattr(codes.SCT, side) if side else None
    if " ".join(words) in ANATOMY:
        return codes.SCT.AnatomicalStructure, getattr(codes.SCT, ANATOMY[" ".join(words)]), None
    if plain in ANATOMY:
        return codes.SCT.AnatomicalStructure, getattr(codes.SCT, ANATOMY[plain]), modifier
    if words and words[-1] in ABNORMALITIES:
        return codes.SCT.MorphologicallyAbnormalStructure, getattr(codes.SCT, ABNORMALITIES[words[-1]]), modifier
    return (
        codes.SCT.AnatomicalStructure,
        Code(_own_value(name), FALLBACK_SCHEME, name[:_MOST_LETTERS].strip()),
        modifier,
    )


def _own_value(name: str) -> str:
    fits = name.isascii() and len(name) <= _MOST_CODE_LETTERS
    return name.strip() if fits else hashlib.sha256(name.encode()).hexdigest()[:12]


def check_names(names: Iterable[str]) -> None:
    """Raise `ConfigError` where a structure's name is no SegmentLabel (PS3.5 6.2, Long String)."""
    for name in names:
        if not 0 < len(name) <= _MOST_LETTERS or name != name.strip() or "\\" in name or not name.isprintable():
            raise ConfigError(
                f"The structure {name!r} has a name that DICOM cannot hold",
                expected=f"1 to {_MOST_LETTERS} letters, no backslash, no space at either end",
                next_step="Change cohort.label_names",
            )


def segmentation(
    case: Case, sources: Sequence[Dataset], labels: NDArray[np.uint16], names: Mapping[str, int]
) -> Dataset:
    """Return the segmentation of one case.

    Parameters
    ----------
    case : Case
    sources : sequence of Dataset
        The headers of the classic series, slices in order, or the one multi-frame image.
    labels : ndarray, shape (slices, rows, columns), uint16
        0 for background, else a value of `names`.
    names : mapping of str to int
        Structure -> 1, 2, ..., K, which are the segment numbers. One without a voxel has its empty frames.

    References
    ----------
    Bridge et al. 2022, Highdicom, doi:10.1007/s10278-022-00683-y.
    """
    import highdicom as hd

    source = str(sources[0].SOPInstanceUID)
    kind = "BINARY" if len(names) <= MOST_BINARY_SEGMENTS else "LABELMAP"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=labels,
            segmentation_type=kind,
            segment_descriptions=[_describe(name, number) for name, number in names.items()],
            series_instance_uid=case.uid(source, "seg", "series"),
            series_number=2,
            sop_instance_uid=case.uid(source, "seg", "instance"),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=MAKER,
            software_versions=synthmed.__version__,
            device_serial_number=case.origin[:16],
            omit_empty_frames=False,
            content_label="SYNTHETIC",
            content_description=WARNING,
            transfer_syntax_uid=uid.ExplicitVRLittleEndian,
            series_description="SYNTHETIC SEG",
        )
    _settle(data, case, source)
    return data


def _describe(name: str, number: int) -> Any:
    import highdicom as hd

    category, kind, side = property_codes(name)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        display_color=hd.color.CIELabColor.from_rgb(*_colour(number)),
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MAKER, version=synthmed.__version__, family=codes.DCM.ArtificialIntelligence
        ),
    )
    if side is not None:
        modifier = [code_item(side)]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifier
    return description


def _colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a segment; steps of the golden ratio keep neighbouring numbers far apart."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _settle(data: Dataset, case: Case, source: str) -> None:
    """Add the marks, and replace what highdicom takes from the clock or draws at random."""
    data.update(marks(case))
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.ContentCreatorName = ""
    data.ContentDate, data.ContentTime = PLACEHOLDER_DATE, PLACEHOLDER_TIME
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if keyword in data:
            delattr(data, keyword)
    organization = case.uid(source, "seg", "dimensions")
    for sequence in (data.DimensionOrganizationSequence, data.DimensionIndexSequence):
        for entry in sequence:
            entry.DimensionOrganizationUID = organization
