"""How fast a release is written, and how long it takes to verify one.

    python benchmarks/release.py [--volumes 8] [--shape 256 256 128] [--runs 5] [--files 10000] [--formats nifti dicom]

MB/s are of voxels before compression (int16). Each writer is timed beside the plain loop that a user would write with
nibabel or pydicom, in turn, so that both meet the same load; the times are medians. DICOM is timed from the NIfTI files
on disk to the last slice. The release that is verified holds tiny volumes as NIfTI and DICOM, so that its time is that
of files rather than of bytes; beside it stands `sha256sum`, which reads the same files and knows nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from releases import make_audit, write_table

from synthmed.config import ExportConfig
from synthmed.export import approve, export, verify
from synthmed.export.cohort import ApprovedCohort, open_approved
from synthmed.export.dicom.writing import write_dicom
from synthmed.io import write_volume
from synthmed.prepare.space import Space
from synthmed.volume import Volume

TINY = (16, 16, 12)
FILES_A_CASE = {"nifti": 2, "dicom": TINY[2] + 1}
"""An image and a label map; the slices and a segmentation."""
SPACING = (0.9, 0.9, 2.0)
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of each run, and what was written in each."""

    name: str
    seconds: list[float]
    voxel_bytes: int
    file_bytes: int


def phantom(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """Return HU, float32 whole numbers: air around an ellipsoid of smooth tissue with noise."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    tissue = 60 * np.sin(5 * i) * np.cos(4 * j) * np.cos(3 * k) + rng.normal(0, 12, shape).astype(np.float32)
    return np.where(i**2 + j**2 + k**2 < 0.8, np.rint(tissue), np.float32(-1000))


def time_in_turn(works: dict[str, Callable[[Path], None]], runs: int, folder: Path) -> dict[str, list[float]]:
    """Run each piece of work `runs` times, in turn, into a new folder each; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(runs + 1):
        for name, work in works.items():
            out = folder / f"{name}-{number}"
            out.mkdir()
            start = time.perf_counter()
            work(out)
            seconds[name] += [time.perf_counter() - start] if number else []
    return seconds


def size(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def compare(works: dict[str, Callable[[Path], None]], runs: int, voxel_bytes: int) -> list[Row]:
    """Time works against one another."""
    with tempfile.TemporaryDirectory() as name:
        seconds = time_in_turn(works, runs, Path(name))
        sizes = {work: size(Path(name) / f"{work}-{runs}") for work in works}
    return [Row(work, seconds[work], voxel_bytes, sizes[work]) for work in works]


def nifti_works(images: list[np.ndarray], affine: np.ndarray) -> dict[str, Callable[[Path], None]]:
    """Return ours and the plain loop; both begin with float32 arrays in memory."""

    def ours(out: Path) -> None:
        for number, image in enumerate(images):
            write_volume(out / f"{number}.nii.gz", Volume(image[np.newaxis], affine))

    def plain(out: Path) -> None:
        for number, image in enumerate(images):
            nib.save(nib.Nifti1Image(image.astype(np.int16), affine), out / f"{number}.nii.gz")

    return {"nibabel": plain, "NIfTI": ours}


def dicom_works(cohort: ApprovedCohort) -> dict[str, Callable[[Path], None]]:
    """Return ours and the plain loop; both begin with NIfTI files."""
    config = ExportConfig(formats=("dicom",))

    def ours(out: Path) -> None:
        write_dicom(cohort, out, config)

    def plain(out: Path) -> None:
        for sample in cohort.samples:
            plain_series(cohort.folder / "images" / f"{sample.name}.nii.gz", out / sample.name)

    return {"pydicom": plain, "DICOM": ours}


def plain_series(file: Path, out: Path) -> None:
    """Write a NIfTI file as a CT series in the usual way: one dataset a slice, made from nothing."""
    image = nib.load(file)
    voxels = np.asarray(image.dataobj).astype(np.int16)
    study, series, frame = (generate_uid() for _ in range(3))
    out.mkdir()
    for number in range(voxels.shape[2]):
        position = np.diag([-1, -1, 1, 1]) @ image.affine @ [0, 0, number, 1]
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, generate_uid(), "CT"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientName = data.PatientID = data.StudyID = out.name
        data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.InstanceNumber, data.SeriesNumber = number + 1, 1
        data.ImagePositionPatient = [float(f"{x:.9g}") for x in position[:3]]
        data.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
        data.PixelSpacing, data.SliceThickness = list(SPACING[:2]), SPACING[2]
        data.Rows, data.Columns = voxels.shape[1], voxels.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, 0, "HU"
        data.PixelData = voxels[:, :, number].T.tobytes()
        data.save_as(out / f"IM{number + 1:04d}.dcm", enforce_file_format=True)


def approved(folder: Path, images: list[np.ndarray], labelled: bool) -> ApprovedCohort:
    """Write images, and label maps where asked, as a generated set with an audit that passed, and approve it."""
    shape: Shape = images[0].shape  # type: ignore[assignment]
    space = Space(shape, SPACING, normalisation="window", intensity_range=(-1000.0, 1000.0), modality="CT")
    if labelled:
        space = Space(**(vars(space) | {"label_values": (0, 1), "label_names": {1: "bright"}}))
    rows = []
    for number, image in enumerate(images):
        name = f"synth_{number + 1:05d}"
        write_volume(folder / "generate" / "images" / f"{name}.nii.gz", Volume(image[np.newaxis], space.affine))
        if labelled:
            label = Volume((image > 0).astype(np.float32)[np.newaxis], space.affine)
            write_volume(folder / "generate" / "labels" / f"{name}.nii.gz", label, dtype="uint8")
        rows.append({"name": name, "seed": number, "condition": "{}"})
    write_table(folder / "generate", rows)
    (folder / "generate" / "generation.json").write_text(json.dumps({"space": space.to_json(), "seed": 0}))
    make_audit(folder / "audit", folder / "generate")
    approval = approve(folder / "generate", folder / "audit" / "report.json", "default")
    return open_approved(folder / "generate", approval)


def verification(files: int, formats: list[str], runs: int) -> str:
    """Export a release of about `files` files and return how long verifying it takes."""
    cases = -(-files // sum(FILES_A_CASE[name] for name in formats))
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CONFIG_HOME"] = name  # the key that signs is made anew, and goes with the release
        rng, folder = np.random.default_rng(1), Path(name)
        cohort = approved(folder, [phantom(TINY, rng) for _ in range(cases)], labelled=True)
        config = ExportConfig(formats=tuple(formats))
        release = export(cohort.folder, cohort.approval, folder / "release", config=config, audit_dir=folder / "audit")
        ours, plain = [], []
        for _ in range(runs):
            start = time.perf_counter()
            findings = verify(release)
            ours.append(time.perf_counter() - start)
            if findings:
                raise SystemExit(f"the release does not verify: {findings[0]}")
            start = time.perf_counter()
            subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=release, check=True)
            plain.append(time.perf_counter() - start)
        count, total = sum(1 for p in release.rglob("*") if p.is_file()), size(release) / 1e6
    seconds, baseline = statistics.median(ours), statistics.median(plain)
    return (
        f"verify, {count} files ({', '.join(formats)}), {total:.0f} MB: {seconds:.1f} s, "
        f"{1e3 * seconds / count:.2f} ms a file (sha256sum alone {baseline:.1f} s)"
    )


def format_rows(rows: list[Row]) -> str:
    """Return a table; each second line is compared with the one before it."""
    lines = [f"{'writer':9}{'MB/s':>8}{'s a run':>9}{'files MB':>10}{'speed':>8}{'size':>7}"]
    for baseline, ours in zip(rows[::2], rows[1::2], strict=True):
        plain = statistics.median(baseline.seconds)
        for row in (baseline, ours):
            median = statistics.median(row.seconds)
            rate, megabytes = row.voxel_bytes / 1e6 / median, row.file_bytes / 1e6
            cells = f"{rate:8.0f}{median:9.2f}{megabytes:10.1f}{plain / median:7.2f}x"
            lines.append(f"{row.name:9}{cells}{row.file_bytes / baseline.file_bytes:7.2f}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=8, help="volumes a run")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 128))
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each writer")
    parser.add_argument("--files", type=int, default=10_000, help="files of the release that is verified; 0: none")
    parser.add_argument(
        "--formats", nargs="+", choices=FILES_A_CASE, default=list(FILES_A_CASE), help="of that release"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [phantom(tuple(options.shape), rng) for _ in range(options.volumes)]
    voxel_bytes = 2 * sum(image.size for image in images)
    with tempfile.TemporaryDirectory() as name:
        cohort = approved(Path(name), images, labelled=False)
        rows = compare(nifti_works(images, cohort.description.space.affine), options.runs, voxel_bytes)
        rows += compare(dicom_works(cohort), options.runs, voxel_bytes)
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{options.volumes} volumes of {' x '.join(map(str, options.shape))}, {cores} cores, load {load:.1f}")
    print(format_rows(rows))
    if options.files:
        print(verification(options.files, options.formats, min(options.runs, 3)))


if __name__ == "__main__":
    main()
