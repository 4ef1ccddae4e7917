"""Small releases with DICOM, as far as sending looks at one: files with checksums. Voxels and grid are known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from dicom_files import Grid
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, RLELossless, SegmentationStorage

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}


def uid(*parts: object) -> str:
    """A UID that depends on `parts` alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def header(modality: str, sop_class: str, case: str, instance: str, kind: str) -> Dataset:
    """What every object of a case carries."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = UID(sop_class)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID(uid(case, kind, instance))
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(case), uid(case, kind)
    data.FrameOfReferenceUID = uid(case, "frame")
    data.PatientID = data.PatientName = case
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.StudyID = ""
    data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.SeriesNumber, data.SyntheticData = modality, 1, "YES"
    return data


def slices(modality: str, case: str, voxels: NDArray[np.int16], grid: Grid) -> list[Dataset]:
    """Return one dataset a slice; `voxels` has shape (columns, rows, slices)."""
    out = []
    for k in range(voxels.shape[2]):
        data = header(modality, SOP_CLASSES[modality], case, str(k), "image")
        data.ImageOrientationPatient = [*grid.row, *grid.column]
        data.ImagePositionPatient = [f"{x:.10g}" for x in grid.position(k)]
        data.PixelSpacing, data.SliceThickness = list(grid.pixel_spacing), grid.increment
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.RescaleIntercept, data.RescaleSlope, data.InstanceNumber = -100, 1, k + 1
        _pixels(data, np.ascontiguousarray(voxels[:, :, k].T), signed=True)
        out.append(data)
    return out


def _pixels(data: Dataset, rows: NDArray[np.generic], signed: bool) -> None:
    data.Rows, data.Columns = rows.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * rows.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(signed)
    data.PixelData = rows.tobytes()


def segmentation(case: str, labels: NDArray[np.bool_]) -> Dataset:
    """Return a one-segment SEG as far as a server looks at one; `labels` has shape (columns, rows, slices)."""
    data = header("SEG", SegmentationStorage, case, "0", "seg")
    frames = np.ascontiguousarray(labels.transpose(2, 1, 0))
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 1
    data.HighBit = data.PixelRepresentation = 0
    data.SegmentationType, data.InstanceNumber = "BINARY", 1
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    data.PixelData = packed + b"\0" * (len(packed) % 2)
    return data


def write_release(root: Path, datasets: list[Dataset]) -> Path:
    """Write the datasets and their checksums as a release holds them."""
    lines = []
    for number, data in enumerate(datasets):
        name = f"dicom/{data.PatientID}/study/{data.Modality.lower()}/IM{number:04d}.dcm"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        data.save_as(root / name, enforce_file_format=True)
        lines.append(f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n")
    (root / "SHA256SUMS").write_text("".join(lines))
    return root


def small_release(root: Path, *, cases: int = 2, depth: int = 3, compressed: bool = False, width: int = 8) -> Path:
    """Write CT cases, each with a SEG: ``cases * (depth + 1)`` files."""
    datasets = []
    for number in range(cases):
        voxels = np.arange(width * 6 * depth, dtype=np.int16).reshape(width, 6, depth) + 7 * number
        images = slices("CT", f"case{number}", voxels, Grid())
        if compressed:
            for data in images:
                data.compress(RLELossless, generate_instance_uid=False)
        datasets += [*images, segmentation(f"case{number}", voxels % 3 == 0)]
    return write_release(root, datasets)


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every file of a release."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
