"""Every byte of a release is searched for the cohort: names, numbers, files, paths, the machine, and its voxels.

The cohort's names are telling on purpose, and leaks of each kind are planted to show that the search sees them.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml
from numpy.typing import NDArray
from report_pages import Page, embedded
from tiny_run import ENVIRONMENT, command, write_config

from synthmed.cohort.phantom import Phantom
from synthmed.io import read_volume
from synthmed.report import Facts, preview, render_report

pytestmark = pytest.mark.slow

FAMILY, NUMBER, DOCTOR, HOSPITAL, USER = "Mustermann", "MRN-0070", "Quacksalber", "Sankt-Vinzenz", "ward7physicist"
SHAPE = (24, 24, 24)
KINDS = {".md", ".html", ".json", ".csv", ".tsv", ".gz", ".dcm", ".pub", ".sig", ""}
LENIENT = {
    "max_identity_matches": 3,
    "max_copy_rate_upper": 0.1,
    "max_match_excess_upper": 0.1,
    "min_recall_lower": 0.5,
    "min_disguise_recall": 0.0,
    "confidence": 0.8,
}


@dataclass(frozen=True)
class Secrets:
    """What must not be found: words, in any spelling, and slices of real scans, by their shade.

    `seen` keeps what files of the same content held, so that a planted fault costs one file.
    """

    words: tuple[str, ...]
    slices: frozenset[bytes]
    seen: dict[tuple[str, bytes], list[str]] = field(default_factory=dict)


def write_cohort(root: Path, patients: int = 40) -> Path:
    """Write scans whose file names, headers and tables tell whose they are."""
    subjects, covariates = ["volume,subject"], ["subject,age,sex"]
    for i in range(patients):
        phantom = Phantom(seed=3, subject=i, shape=SHAPE)
        name, number = f"{FAMILY}-Erika{i:02d}_19{50 + i % 40}0101", f"{NUMBER}{431 + 7 * i}"
        for kind, volume in zip(("images", "labels"), phantom.render(), strict=True):
            image = nib.Nifti1Image(volume.array[0], volume.affine)
            image.header.set_xyzt_units("mm")
            image.header["descrip"] = f"{FAMILY}^ERIKA".encode()
            image.header["aux_file"] = f"Dr {DOCTOR}".encode()
            (root / kind).mkdir(parents=True, exist_ok=True)
            nib.save(image, root / kind / f"{name}.nii.gz")
        subjects.append(f"{name},{number}")
        covariates.append(f"{number},{phantom.covariates['age']},{phantom.covariates['sex']}")
    (root / "subjects.csv").write_text("\n".join(subjects) + "\n")
    (root / "covariates.csv").write_text("\n".join(covariates) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on the telling cohort, with a release in every format and what the validators said of it."""
    folder = tmp_path_factory.mktemp(HOSPITAL)
    policy = yaml.safe_load((files("privacy") / "policies" / "research.yaml").read_text())
    for key, value in LENIENT.items():
        policy["thresholds"][key]["value"] = value
    (folder / "lenient.yaml").write_text(yaml.safe_dump(policy | {"name": "lenient"}))
    cohort = write_cohort(folder / f"{HOSPITAL} scans")
    section = {"format": "folder", "path": str(cohort), "images": "images", "labels": "labels"}
    section |= {"subjects": "subjects.csv", "covariates": "covariates.csv", "label_names": {1: "ventricles"}}
    config = write_config(
        folder,
        name=f"{HOSPITAL}-run",
        cohort=section,
        preprocess={"grid": list(SHAPE)},
        sampling={"num_samples": 24},
        audit={"policy": str(folder / "lenient.yaml")},
        export={"formats": ["nifti", "dicom", "bids"], "validate_with_tools": True},
    )
    environment = ENVIRONMENT | {"USER": USER, "LOGNAME": USER}
    arguments = command("run", config, "--run-dir", folder / "r")
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "r"


@pytest.fixture
def release(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run / "export" / "release", tmp_path / "release")


@pytest.fixture(scope="module")
def secrets(run: Path) -> Secrets:
    cohort = run.parent / f"{HOSPITAL} scans"
    with (run / "prepare" / "cases.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert any(FAMILY in row["case"] for row in rows), "the cohort is not telling"
    real = [*cohort.rglob("*.nii.gz"), *(run / "prepare").rglob("*.nii.gz")]
    scans = [file for file in real if file.parent.name == "images"]
    machine = {str(run.parent), str(Path.home()), sys.prefix, socket.gethostname(), USER}
    people = {FAMILY, NUMBER, DOCTOR, HOSPITAL, "Erika", "lenient.yaml", *(row["subject"] for row in rows)}
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in real} | {row["sha256"] for row in rows}
    words = tuple(sorted(word.lower() for word in machine | people | digests if len(word) > 4))
    return Secrets(words, frozenset(shade for file in scans for shade in shades(voxels(file), turned=True)))


def voxels(file: Path) -> NDArray[np.float64]:
    return np.asarray(nib.load(file).dataobj, dtype=np.float64)


def shades(volume: NDArray[np.float64], *, turned: bool = False) -> Iterator[bytes]:
    """Yield a print of each slice along each axis, the same after scaling; of a real one also turned and flipped."""
    for axis in range(3):
        for plane in np.moveaxis(volume, axis, 0):
            low, high = plane.min(), plane.max()
            if len(np.unique(plane)) < 30:  # empty, or nearly
                continue
            scaled = np.round((plane - low) / (high - low) * 250).astype(np.uint8)
            for quarter in range(4 if turned else 1):
                for one in (scaled, scaled.T) if turned else (scaled,):
                    rotated = np.rot90(one, quarter)
                    yield hashlib.sha256(repr(rotated.shape).encode() + rotated.tobytes()).digest()


def leaks(release: Path, secrets: Secrets) -> list[str]:
    """Return what the search finds: a line for each file and word, strange file and real slice."""
    found = []
    for entry in sorted(release.rglob("*")):
        name = entry.relative_to(release).as_posix()
        said = [word for word in secrets.words if holds(name.encode(), word)]
        if entry.is_file():
            if entry.suffix not in KINDS:
                said.append("a file of a kind that no release holds")
            said += inside(entry, secrets)
        found += [f"{name}: {what}" for what in said]
    return found


def inside(file: Path, secrets: Secrets) -> list[str]:
    """Return what the content of a file holds."""
    key = file.suffix, hashlib.sha256(file.read_bytes()).digest()
    if key not in secrets.seen:
        texts = readings(file)
        found = [word for word in secrets.words if any(holds(text, word) for text in texts)]
        if any(shade in secrets.slices for volume in volumes(file) for shade in shades(volume)):
            found.append("a slice of a real scan")
        secrets.seen[key] = found
    return secrets.seen[key]


def holds(text: bytes, word: str) -> bool:
    """Say whether a word is in bytes, in upper or lower case, as UTF-8, UTF-16 or escaped in JSON."""
    lowered = text.lower()
    spellings = {word.encode(), word.encode("utf-16-le"), json.dumps(word)[1:-1].encode()}
    return any(spelling in lowered for spelling in spellings)


def readings(file: Path) -> list[bytes]:
    """Return a file's bytes as they are, decompressed, decoded from base64, and its DICOM elements as text."""
    content = file.read_bytes()
    texts = [content]
    if content[:2] == b"\x1f\x8b":
        texts.append(gzip.decompress(content))
    if file.suffix == ".dcm":
        data = pydicom.dcmread(file)
        texts.append(f"{data.file_meta}\n{data}".encode())
    if file.suffix in {".json", ".md", ".html", ".csv", ".pub", ".sig", ""}:
        for packed in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", content):
            texts.append(base64.b64decode(packed[: len(packed) // 4 * 4], validate=False))
    return texts


def volumes(file: Path) -> list[NDArray[np.float64]]:
    """Return the voxels that a file shows; a single slice as a volume one slice thick."""
    if file.name.endswith(".nii.gz"):
        try:
            return [voxels(file)]
        except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError):
            return []
    if file.suffix == ".dcm":
        array = np.asarray(pydicom.dcmread(file).pixel_array, dtype=np.float64)
        return [array if array.ndim == 3 else array[None]]
    return []


def test_nothing_in_the_release_tells_of_the_cohort_or_the_machine(release: Path, secrets: Secrets) -> None:
    held = {file.suffix for file in release.rglob("*") if file.is_file()}
    assert {".gz", ".dcm", ".json", ".md", ".html", ".csv", ".tsv"} <= held
    assert (release / "validation").is_dir()
    assert len(secrets.slices) > 1000
    assert leaks(release, secrets) == []


def in_a_document(release: Path) -> None:
    with (release / "DATASHEET.md").open("a") as stream:
        stream.write(f"Thanks to {FAMILY.upper()}")


def in_a_nifti_header(release: Path) -> None:
    file = next((release / "nifti" / "labelsTr").iterdir())
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[148:228] = f"SYNTHETIC from {NUMBER}431".encode().ljust(80, b"\0")
    file.write_bytes(gzip.compress(bytes(content)))


def in_a_dicom_header(release: Path) -> None:
    file = next((release / "dicom").rglob("*.dcm"))
    data = pydicom.dcmread(file)
    data.ReferringPhysicianName = f"{DOCTOR}^Otto"
    data.save_as(file)


def in_the_signed_payload(release: Path) -> None:
    file = release / "provenance.dsse.json"
    content = json.loads(file.read_text())
    payload = base64.b64decode(content["payload"]).replace(b'"configuration"', f'"{USER}"'.encode())
    file.write_text(json.dumps(content | {"payload": base64.b64encode(payload).decode()}))


def in_utf_16(release: Path) -> None:
    (release / "notes.md").write_bytes(f"{HOSPITAL}".encode("utf-16"))


def in_a_file_name(release: Path) -> None:
    (release / "audit" / f"{FAMILY}-Erika00.md").write_text("")


def in_a_validator_s_words(release: Path) -> None:
    (release / "validation" / "monai.json").write_text(json.dumps({"command": f"{sys.prefix}/bin/python"}))


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        (in_a_document, FAMILY),
        (in_a_nifti_header, NUMBER),
        (in_a_dicom_header, DOCTOR),
        (in_the_signed_payload, USER),
        (in_utf_16, HOSPITAL),
        (in_a_file_name, FAMILY),
        (in_a_validator_s_words, sys.prefix),
    ],
)
def test_a_planted_word_is_found(release: Path, secrets: Secrets, plant: Callable[[Path], None], word: str) -> None:
    plant(release)
    found = leaks(release, secrets)
    assert any(line.endswith(f": {word.lower()}") for line in found), found


def real_scan(run: Path) -> Path:
    return sorted((run / "prepare" / "train" / "images").iterdir())[0]


def test_a_real_volume_is_found(run: Path, release: Path, secrets: Secrets) -> None:
    victim = next((release / "bids").rglob("*_T1w.nii.gz"))
    image = nib.load(victim)
    nib.save(nib.Nifti1Image(voxels(real_scan(run))[::-1].astype(np.int16), image.affine), victim)
    assert f"{victim.relative_to(release).as_posix()}: a slice of a real scan" in leaks(release, secrets)


def test_one_real_slice_in_a_dicom_series_is_found(run: Path, release: Path, secrets: Secrets) -> None:
    victim = sorted((release / "dicom").rglob("MR-*/*.dcm"))[5]
    data = pydicom.dcmread(victim)
    plane = voxels(real_scan(run))[:, :, 8].astype(data.pixel_array.dtype)
    data.PixelData = np.ascontiguousarray(plane.T).tobytes()
    data.save_as(victim)
    assert f"{victim.relative_to(release).as_posix()}: a slice of a real scan" in leaks(release, secrets)


def test_a_picture_is_found(release: Path, secrets: Secrets) -> None:
    (release / "audit" / "pairs.png").write_bytes(b"\x89PNG\r\n")
    assert leaks(release, secrets) == ["audit/pairs.png: a file of a kind that no release holds"]


def closest(html: str, run: Path) -> float:
    """Return the largest correlation of a preview in a page with a real scan, as it lies or mirrored."""
    scans = [voxels(file) for file in (run / "prepare").rglob("images/*.nii.gz")]
    shown = [image for _, image, _ in embedded(Page(html))]
    assert len(scans) == 40
    assert len(shown) > 0
    return max(
        np.corrcoef(image.ravel(), scan[:: 1 - 2 * m].ravel())[0, 1]
        for image in shown
        for scan in scans
        for m in (0, 1)
    )


def test_the_page_shows_no_real_scan(run: Path, release: Path) -> None:
    html = (release / "audit" / "report.html").read_text()
    assert closest(html, run) < 0.97
    drawn = [file.read_bytes() for file in (run / "audit" / "steward" / "pairs").iterdir()]
    assert drawn
    assert not any(base64.b64encode(png).decode() in html for png in drawn)


def test_a_real_scan_on_the_page_would_be_seen(run: Path) -> None:
    scan = read_volume(real_scan(run))
    assert closest(render_report(Facts("Leak", previews=[preview("synth_00001", scan, None)])), run) > 0.99
