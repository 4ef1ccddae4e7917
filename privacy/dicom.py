"""DICOM series as volumes, read by highdicom; what is not one regular volume is refused with the reason.

Geometry comes from Image Position and Image Orientation (Patient) alone (DICOM PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid as sop
from pydicom.dataset import Dataset

from privacy.errors import InputError
from privacy.reading import DAMAGE, unreadable
from privacy.words import counted

ENHANCED = {
    sop.EnhancedCTImageStorage,
    sop.LegacyConvertedEnhancedCTImageStorage,
    sop.EnhancedMRImageStorage,
    sop.LegacyConvertedEnhancedMRImageStorage,
    sop.EnhancedPETImageStorage,
    sop.LegacyConvertedEnhancedPETImageStorage,
}
CLASSIC = {sop.CTImageStorage, sop.MRImageStorage, sop.PositronEmissionTomographyImageStorage}
NOWHERE = "2.25.1"
"""Stands in for a FrameOfReferenceUID that the whole series lacks: highdicom asks for one, geometry does not."""
SLICE_TOLERANCE = 0.01  # of the slice step
NORMAL_TOLERANCE = 5e-6  # 1 - cosine: a tilt of 0.18 degrees; gantries tilt by 0.5 and more
COSINE_TOLERANCE = 1e-4


def parse(blob: bytes) -> Dataset:
    """Parse a whole DICOM file.

    Raises
    ------
    InputError
        If the bytes are none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(io.BytesIO(blob), force=blob[128:132] != b"DICM")
    except DAMAGE as error:
        raise unreadable(error) from error


def read_volume(datasets: Sequence[Dataset]) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Stack the images of one series, or the frames of one multi-frame image.

    Parameters
    ----------
    datasets : sequence of Dataset
        In any order.

    Returns
    -------
    array : ndarray, shape (I, J, K), float32, RAS order
        After Rescale Slope and Intercept: HU for CT.
    spacing : tuple of float, mm

    Raises
    ------
    InputError
        If they are no CT, MR or PET images, of several patients, in colour, a localiser, or not one regular grid: a
        missing slice, uneven spacing, mixed orientation or size, a tilted gantry, several frames a position.
    """
    _refuse_kinds(datasets)
    _refuse_pixels(datasets)
    enhanced = datasets[0].SOPClassUID in ENHANCED
    if not enhanced:
        _refuse_stack(datasets)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = (_enhanced(datasets[0]) if enhanced else _classic(datasets)).to_patient_orientation("RAS")
    except DAMAGE as error:
        raise InputError("not one regular 3D volume", found=" ".join(str(error).split())[:160]) from error
    return np.asarray(volume.array, dtype=np.float32), tuple(float(edge) for edge in volume.spacing)


def _refuse_kinds(datasets: Sequence[Dataset]) -> None:
    kinds = {str(data.get("SOPClassUID", "")) for data in datasets}
    if kinds - {str(uid) for uid in ENHANCED | CLASSIC}:
        found = ", ".join(sorted(sop.UID(kind).name or "no SOPClassUID" for kind in kinds))
        raise InputError("not an image series", found=found, expected="CT, MR or PET images")
    if len(kinds) > 1 or (kinds & {str(uid) for uid in ENHANCED} and len(datasets) > 1):
        raise InputError("several volumes under one SeriesInstanceUID", found=counted(len(datasets), "file"))
    for keyword, what in (("SeriesInstanceUID", "several series"), ("PatientID", "one series of several patients")):
        if len({str(data.get(keyword, "")) for data in datasets}) > 1:
            raise InputError(what, expected=f"one {keyword}")
    if any("LOCALIZER" in [str(word).upper() for word in _values(data, "ImageType")] for data in datasets):
        raise InputError("a localiser", found="ImageType LOCALIZER", expected="a stack of slices")


def _values(data: Dataset, keyword: str) -> list[Any]:
    value = data.get(keyword)
    return [] if value is None else [value] if isinstance(value, str | int | float) else list(value)


def _refuse_pixels(datasets: Sequence[Dataset]) -> None:
    for data in datasets:
        samples, colour = data.get("SamplesPerPixel", 1), str(data.get("PhotometricInterpretation", ""))
        if samples != 1 or colour != "MONOCHROME2":
            raise InputError("not a scalar image", found=f"{samples} samples a pixel, {colour or 'no colour space'}")
        if "ModalityLUTSequence" in data:
            raise InputError("a Modality LUT", expected="Rescale Slope and Intercept")
        if not any(keyword in data for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise InputError("unreadable", found="no pixel data", expected="a whole DICOM file")
    if datasets[0].SOPClassUID in ENHANCED:
        return
    scaled = sum(data.get("RescaleSlope") is not None and data.get("RescaleIntercept") is not None for data in datasets)
    if scaled < len(datasets) and (scaled or datasets[0].SOPClassUID == sop.CTImageStorage):
        raise InputError(
            "values of unknown unit",
            found=f"{len(datasets) - scaled} of {len(datasets)} slices without it",
            expected="Rescale Slope and Intercept in every slice",
        )


def _refuse_stack(datasets: Sequence[Dataset]) -> None:
    """Say in a user's words what is wrong with a stack of single-frame images."""
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        lacking = sum(len(_values(data, keyword)) != length for data in datasets)
        if lacking:
            raise InputError(f"no {keyword}", found=f"{lacking} of {len(datasets)} slices without it")
    cosines = np.array([data.ImageOrientationPatient for data in datasets], dtype=np.float64)
    if float(np.ptp(cosines, axis=0).max()) > COSINE_TOLERANCE:
        raise InputError("mixed orientation", expected="one ImageOrientationPatient for all slices")
    if len({(data.get("Rows"), data.get("Columns"), tuple(data.PixelSpacing)) for data in datasets}) > 1:
        raise InputError("slices of different size", expected="one matrix and pixel spacing")
    normal = np.cross(cosines[0, :3], cosines[0, 3:])
    positions = np.array([data.ImagePositionPatient for data in datasets], dtype=np.float64)
    _refuse_gaps(positions[np.argsort(positions @ normal, kind="stable")], normal)


def _refuse_gaps(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    if len(positions) < 3:
        raise InputError("too few slices", found=str(len(positions)), expected="at least 3")
    gaps = np.diff(positions @ normal)
    if gaps.min() < 1e-3:
        raise InputError("several images at one position", expected="one slice a position")
    usual = float(np.median(gaps))
    off = np.linalg.norm(positions - np.linspace(positions[0], positions[-1], len(positions)), axis=1)
    if off.max() > max(SLICE_TOLERANCE * usual, 0.01):
        times = gaps.max() / usual
        raise InputError(
            "a missing slice" if times > 1.5 and abs(times - round(times)) < 0.05 else "uneven slice spacing",
            found=f"gaps from {gaps.min():.4g} to {gaps.max():.4g} mm",
            expected="equal gaps",
        )
    step = positions[-1] - positions[0]
    cosine = float(step @ normal / np.linalg.norm(step))
    if 1 - cosine > NORMAL_TOLERANCE:
        raise InputError(
            "a tilted gantry",
            found=f"slices that shift by {np.degrees(np.arccos(min(cosine, 1.0))):.2f} degrees off their normal",
            expected="slices stacked along their normal",
        )


def _classic(datasets: Sequence[Dataset]) -> Any:
    from highdicom import get_volume_from_series

    if not any(data.get("FrameOfReferenceUID") for data in datasets):
        for data in datasets:
            data.FrameOfReferenceUID = NOWHERE
    return get_volume_from_series(
        datasets,
        dtype=np.float32,
        apply_real_world_transform=False,
        rtol=5 * SLICE_TOLERANCE,  # `_refuse_gaps` was stricter, and allows for positions of two decimals
        perpendicular_tol=NORMAL_TOLERANCE,
        orientation_tol=COSINE_TOLERANCE,
    )


def _enhanced(data: Dataset) -> Any:
    from highdicom import Image

    if not data.get("FrameOfReferenceUID"):
        data.FrameOfReferenceUID = NOWHERE
    _drop_private_indices(data)
    return Image.from_dataset(data, copy=False).get_volume(
        dtype=np.float32,
        apply_real_world_transform=False,
        rtol=SLICE_TOLERANCE,
        perpendicular_tol=NORMAL_TOLERANCE,
    )


def _drop_private_indices(data: Dataset) -> None:
    """Remove dimension indices where one is a maker's own, which highdicom cannot look up; the geometry needs none."""
    indices = data.get("DimensionIndexSequence") or []
    if any(item.DimensionIndexPointer.is_private for item in indices):
        del data.DimensionIndexSequence
