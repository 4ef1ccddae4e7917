"""How exactly a release comes back: affine and voxel error by format and reader.

    python benchmarks/release_fidelity.py [--shape 48 40 24] [--compression none]

The phantom is asymmetric, oblique and anisotropic, so that a flip, a swap or a shift shows. Affine error is the largest
difference of an entry of the affine; corner error the largest distance between where a corner of the volume is and
where the reader says it is, which adds up the slices. Voxel error of MR is given in quanta, the steps that its
intensities were stored in; of CT in HU; of a segmentation in voxels that differ.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation, ornt_transform

from synthmed.export.dicom.case import Case
from synthmed.export.dicom.encode import SYNTAXES
from synthmed.export.dicom.index import Entry
from synthmed.export.dicom.writing import Job, write_case
from synthmed.io import read_volume, write_volume
from synthmed.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = {"liver": 1, "left kidney": 2, "something else": 3}
Read = tuple[np.ndarray, np.ndarray]
"""Voxels, shape (I, J, K), and affine, voxel -> RAS+ mm."""
Reader = Callable[[Path, Path], Read]
"""From the files' place and a scratch folder."""


@dataclass(frozen=True)
class Phantom:
    """What is written: voxels (I, J, K), their label map and their affine."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    format: str
    reader: str
    affine: float
    corner: float
    voxels: float
    unit: str


def make_phantom(modality: str, shape: tuple[int, int, int], seed: int = 0) -> Phantom:
    """Return noise on a slope along every axis: HU for CT, fractions for MR. No two corners look alike."""
    rng = np.random.default_rng(seed)
    i, j, k = (np.linspace(0, 1, n) for n in shape)
    ramp = i[:, None, None] * 900 + j[None, :, None] ** 2 * 1500 + np.sqrt(k)[None, None, :] * 400
    image = ramp + rng.normal(0, 40, shape)
    image = np.rint(image - 1000).clip(-1024, 3071) if modality == "CT" else image.clip(0) / 3
    label = np.zeros(shape)
    for value in NAMES.values():
        start = [2 * value + axis for axis in range(3)]
        label[tuple(slice(s, s + n // 4 + axis) for axis, (s, n) in enumerate(zip(start, shape, strict=True)))] = value
    return Phantom(image.astype(np.float32), label, _oblique(shape))


def _oblique(shape: tuple[int, int, int]) -> np.ndarray:
    """Return an affine turned by 20 degrees about (1, 2, 3), spacing 0.9 x 1.3 x 2.7 mm, of float32 precision."""
    axis, angle = np.array([1.0, 2.0, 3.0]) / np.sqrt(14), np.radians(20)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.9, 1.3, 2.7)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (3.0, -7.0, 11.0)
    return affine


def aligned(read: Read, affine: np.ndarray) -> Read:
    """Permute and flip what a reader returned to the axes of `affine`."""
    voxels, found = read
    move = ornt_transform(io_orientation(found), io_orientation(affine))
    turned = nib.Nifti1Image(voxels.astype(np.float64), found).as_reoriented(move)
    return np.asarray(turned.dataobj), turned.affine


def corner_error(found: np.ndarray, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between a corner's two places, mm."""
    corners = np.array([[*corner, 1.0] for corner in product(*[(0, n - 1) for n in shape])])
    return float(np.linalg.norm((corners @ (found - affine).T)[:, :3], axis=1).max())


def read_itk(path: Path, _scratch: Path) -> Read:
    """Read a NIfTI file, a multi-frame file or a series with SimpleITK."""
    import SimpleITK as sitk

    if path.is_dir():
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        return _from_itk(sitk.ReadImage(names if len(names) > 1 else names[0]))
    return _from_itk(sitk.ReadImage(str(path)))


def _from_itk(image: object) -> Read:
    import SimpleITK as sitk

    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS @ affine


def read_highdicom(path: Path, _scratch: Path) -> Read:
    """Read a series, a multi-frame image or a segmentation with highdicom."""
    import highdicom as hd
    import pydicom

    files = sorted(path.glob("*.dcm")) if path.is_dir() else [path]
    if len(files) > 1:
        volume = hd.get_volume_from_series([pydicom.dcmread(file) for file in files])
    elif pydicom.dcmread(files[0], stop_before_pixels=True).Modality == "SEG":
        volume = hd.seg.segread(files[0]).get_volume(combine_segments=True)
    else:
        volume = hd.imread(files[0]).get_volume(apply_real_world_transform=False)
    slices_first = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    return volume.array.transpose(2, 1, 0), LPS @ volume.affine @ slices_first


def read_dcm2niix(path: Path, scratch: Path) -> Read:
    """Convert with dcm2niix and read what it wrote."""
    tool = str(Path(sys.executable).with_name("dcm2niix"))
    command = [tool, "-z", "n", "-b", "n", "-f", "out", "-o", str(scratch), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    written = list(scratch.glob("*.nii"))
    if done.returncode or len(written) != 1:
        raise ValueError(f"dcm2niix wrote {len(written)} files, exit code {done.returncode}: {done.stdout}")
    image = nib.load(written[0])
    return np.asarray(image.dataobj, dtype=np.float64), image.affine


def read_monai(path: Path, _scratch: Path) -> Read:
    """Read with MONAI: its NiBabel reader for NIfTI, its own PyDicom reader for a series."""
    from monai.data import NibabelReader, PydicomReader
    from monai.transforms import LoadImage

    reader = PydicomReader() if path.is_dir() else NibabelReader()
    image = LoadImage(reader=reader, image_only=True, dtype=np.float64)(path)
    return image.numpy(), image.affine.numpy()


def read_own(path: Path, _scratch: Path) -> Read:
    """Read with synthmed.io."""
    volume = read_volume(path)
    return volume.array[0], volume.affine


def read_dcmqi(path: Path, scratch: Path) -> Read:
    """Convert a segmentation with dcmqi, to one or several NRRD files of label values, and put them together."""
    import SimpleITK as sitk

    tool = str(Path(sys.executable).with_name("segimage2itkimage"))
    command = [tool, "-t", "nrrd", "-p", "s", "--outputDirectory", str(scratch), "--inputDICOM", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"segimage2itkimage ended with {done.returncode}: {done.stdout}{done.stderr}")
    parts = [_from_itk(sitk.ReadImage(str(file))) for file in sorted(scratch.glob("s-*.nrrd"))]
    return np.sum([voxels for voxels, _ in parts], axis=0), parts[0][1]


IMAGE_READERS: dict[str, Reader] = {
    "SimpleITK": read_itk,
    "highdicom": read_highdicom,
    "dcm2niix": read_dcm2niix,
    "MONAI": read_monai,
    "synthmed.io": read_own,
}
SEG_READERS: dict[str, Reader] = {"highdicom": read_highdicom, "dcmqi": read_dcmqi}
NIFTI_READERS = ("SimpleITK", "MONAI", "synthmed.io")
NOT_MULTI_FRAME = ("MONAI",)
"""MONAI's reader takes single-frame series only."""


def write_dicom_case(
    folder: Path, phantom: Phantom, modality: str, *, enhanced: bool = False, compression: str = "none"
) -> Entry:
    """Write a phantom with the exporter's own function."""
    files = {}
    for kind, array, dtype in (("image", phantom.image, "float32"), ("label", phantom.label, "uint8")):
        file = folder / f"{kind}.nii.gz"
        write_volume(file, Volume(array[np.newaxis], phantom.affine), dtype=dtype)
        files[kind] = file.read_bytes()
    case = Case("phantom", modality, "0" * 64, "A phantom.", (40.0, 400.0))
    numbers = {value: value for value in (0, *NAMES.values())}
    return write_case(Job(case, files["image"], files["label"], numbers, NAMES, enhanced, compression), folder)


def compare(read: Read, truth: np.ndarray, affine: np.ndarray) -> tuple[tuple[float, float], np.ndarray]:
    """Return affine and corner error (mm), and the absolute difference of each voxel."""
    voxels, found = aligned(read, affine)
    if voxels.shape != truth.shape:
        raise ValueError(f"the reader returned {voxels.shape}, not {truth.shape}")
    return (float(np.abs(found - affine).max()), corner_error(found, affine, truth.shape)), np.abs(voxels - truth)


def measure(modality: str, shape: tuple[int, int, int], enhanced: bool, compression: str) -> list[Row]:
    """Write one phantom as DICOM and read it back in every way."""
    phantom, rows = make_phantom(modality, shape), []
    with tempfile.TemporaryDirectory() as name:
        entry = write_dicom_case(Path(name), phantom, modality, enhanced=enhanced, compression=compression)
        kind = f"{'Enhanced ' if enhanced else ''}{modality} DICOM"
        for reader, function in IMAGE_READERS.items():
            if enhanced and reader in NOT_MULTI_FRAME:
                continue
            found = _scratch(function, Path(name) / entry.series)
            errors, difference = compare(found, phantom.image, _stored_affine(phantom))
            rows.append(Row(kind, reader, *errors, float(difference.max()) / entry.slope, _unit(entry)))
        for reader, function in SEG_READERS.items():
            found = _scratch(function, Path(name) / entry.seg)
            errors, difference = compare(found, phantom.label, _stored_affine(phantom))
            rows.append(Row(f"SEG of {kind}", reader, *errors, float((difference != 0).sum()), "voxels"))
    return rows


def measure_nifti(modality: str, shape: tuple[int, int, int]) -> list[Row]:
    """Write one phantom as NIfTI and read it back."""
    phantom, rows = make_phantom(modality, shape), []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "image.nii.gz"
        volume = Volume(phantom.image[np.newaxis], phantom.affine)
        write_volume(file, volume, dtype="int16" if modality == "CT" else "float32")
        for reader in NIFTI_READERS:
            errors, difference = compare(_scratch(IMAGE_READERS[reader], file), phantom.image, phantom.affine)
            rows.append(Row(f"{modality} NIfTI", reader, *errors, float(difference.max()), "units"))
    return rows


def _unit(entry: Entry) -> str:
    return "HU" if entry.modality == "CT" else f"quanta of {entry.slope:.3g}"


def _stored_affine(phantom: Phantom) -> np.ndarray:
    """Return the affine as the approved NIfTI file holds it, in float32; that is what the exporter is given."""
    return phantom.affine.astype(np.float32).astype(np.float64)


def _scratch(function: Reader, path: Path) -> Read:
    with tempfile.TemporaryDirectory() as name:
        return function(path, Path(name))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 40, 24))
    parser.add_argument("--compression", choices=list(SYNTAXES), default="none")
    options = parser.parse_args()
    shape = (options.shape[0], options.shape[1], options.shape[2])
    print(f"{'format':24} {'reader':12} {'affine, mm':>11} {'corner, mm':>11}  voxels")
    for modality in ("CT", "MR"):
        rows = measure_nifti(modality, shape)
        for enhanced in (False, True):
            rows += measure(modality, shape, enhanced, options.compression)
        for row in rows:
            print(f"{row.format:24} {row.reader:12} {row.affine:11.1e} {row.corner:11.1e}  {row.voxels:.4g} {row.unit}")


if __name__ == "__main__":
    main()
