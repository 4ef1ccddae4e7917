"""DICOM's validators: dciodvfy and dcentvfy of dicom3tools, and dcm2niix, which reads as users' tools do."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib

from synthmed.export.validation.verdicts import (
    ABSENT,
    MOST_FILES,
    UNUSED,
    Verdict,
    executable,
    installed_version,
    judge,
    run,
    side_by_side,
    spread,
)

_IOD_LINE = re.compile(r"(Error|Abort|Warning) - (.*?)(?=(?:Error|Abort|Warning) - |$)", re.MULTILINE)


def dciodvfy(part: Path) -> Verdict:
    """Hold DICOM files against their IOD: of each case the first and last slice, and the segmentation."""
    tool, series = executable("dciodvfy"), dicom_series(part)
    available = sum(map(len, series))
    if tool is None or not series:
        return Verdict("dciodvfy", UNUSED if tool else ABSENT)
    chosen = spread(list(dict.fromkeys(name for names in series for name in (names[0], names[-1]))), MOST_FILES)
    results = side_by_side(lambda name: run(part, [tool, "-new", name]), chosen)
    said = [m for name, result in zip(chosen, results, strict=True) for m in iod_messages(name, *result)]
    return judge("dciodvfy", installed_version("dicom3tools"), "dciodvfy -new FILE", chosen, available, said)


def iod_messages(name: str, status: int, out: str, err: str) -> Iterator[tuple[str, str, str]]:
    """Return what dciodvfy said of one file; a failure without a word is an error too."""
    found = [(level, " ".join(text.split()), name) for level, text in _IOD_LINE.findall("\n".join([out, err]))]
    yield from found
    if status and all(level == "Warning" for level, _, _ in found):
        yield "Error", f"exit status {status}", name


def dcentvfy(part: Path) -> Verdict:
    """Hold the entities of DICOM files against one another: patients, studies, series, instances."""
    tool, series = executable("dcentvfy"), dicom_series(part)
    names = [name for one in series for name in one]
    if tool is None or not names:
        return Verdict("dcentvfy", UNUSED if tool else ABSENT)
    said = []
    for batch in _batches(names):
        status, out, err = run(part, [tool, *batch])
        said += [(level, text, "") for level, text, _ in iod_messages("", status, out, err)]
    return judge("dcentvfy", installed_version("dicom3tools"), "dcentvfy FILE...", ["dicom/**/*.dcm"], len(names), said)


def _batches(names: Sequence[str], most: int = 100_000) -> Iterator[list[str]]:
    """Cut a list so that each part fits a command line."""
    batch: list[str] = []
    for name in names:
        if (
            batch
            and sum(map(len, batch)) + len(batch) + len(name) > most
            and Path(batch[-1]).parts[1] != Path(name).parts[1]
        ):
            yield batch
            batch = []
        batch.append(name)
    yield batch


def dicom_series(part: Path) -> list[list[str]]:
    """Return the files of each DICOM series, by folder."""
    folders: dict[Path, list[str]] = {}
    for file in sorted((part / "dicom").rglob("*.dcm")):
        folders.setdefault(file.parent, []).append(file.relative_to(part).as_posix())
    return list(folders.values())


def dcm2niix(part: Path) -> Verdict:
    """Convert image series back to NIfTI, as users do: each must become one volume with every slice."""
    tool = executable("dcm2niix")
    series = [names for names in dicom_series(part) if not Path(names[0]).parent.name.startswith("SEG-")]
    if tool is None or not series:
        return Verdict("dcm2niix", UNUSED if tool else ABSENT)
    folders = [Path(names[0]).parent.as_posix() for names in series]
    chosen = spread(folders, MOST_FILES)
    slices = dict(zip(folders, map(len, series), strict=True))
    results = side_by_side(lambda folder: _converted(part, tool, folder, slices[folder]), chosen)
    said = [message for result in results for message in result]
    command = "dcm2niix -b n -z n -f %s -o OUT FOLDER"
    return judge("dcm2niix", installed_version("dcm2niix"), command, chosen, len(folders), said)


def _converted(part: Path, tool: str, folder: str, slices: int) -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory(prefix="synthmed-") as out:
        status, said, err = run(part, [tool, "-b", "n", "-z", "n", "-f", "%s", "-o", out, folder])
        lines = [line.strip() for line in (said + err).splitlines()]
        found = [("Warning", line.removeprefix("Warning: "), folder) for line in lines if line.startswith("Warning")]
        found += [("Error", line, folder) for line in lines if line.startswith("Error")]
        volumes = sorted(Path(out).glob("*.nii"))
        shapes = [nib.nifti1.Nifti1Image.from_filename(file).shape for file in volumes]
    if status:
        found.append(("Error", f"exit status {status}", folder))
    if len(shapes) != 1 or len(shapes[0]) != 3:
        found.append(("Error", f"became {len(shapes)} volumes, not one", folder))
    elif slices > 1 and shapes[0][2] != slices:
        found.append(("Error", "the volume has not as many slices as the series has files", folder))
    return [(level, text.replace(out, "OUT"), name) for level, text, name in found]
