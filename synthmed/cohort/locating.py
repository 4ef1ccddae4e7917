"""Finding the files of a cohort and naming its cases after them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from synthmed.cohort.matching import capture, stem
from synthmed.errors import ConfigError, InputError
from synthmed.files import files_below, is_output

_BIDS_SUBJECT = re.compile(r"(?:^|[_/])(sub-[0-9A-Za-z]+)(?=[_/]|$)")


def sibling_labels(root: Path, images_at: str) -> str | None:
    """Return the folder of labels that goes with a conventional folder of images, if it is there."""
    named = {"imagesTr": "labelsTr", "images": "labels", ".": "labels"}.get(images_at.rstrip("/"))
    return named if named and (root / named).is_dir() else None


def nifti_below(folder: Path) -> Iterator[Path]:
    """Yield the NIfTI files below a folder; what BIDS keeps under ``derivatives`` are results, not scans."""
    files = (p for p in files_below(folder) if p.name.lower().endswith((".nii", ".nii.gz")) and p.is_file())
    return (p for p in files if "derivatives" not in p.relative_to(folder).parts)


def other_scans(folder: Path) -> list[str]:
    """Return the names of files below a folder that end as DICOM does, or do not say what they are."""
    files = sorted(p for p in files_below(folder) if p.is_file())
    return [p.name for p in files if p.suffix.lower() in ("", ".dcm", ".ima") and p.stem.upper() != "README"]


def volumes(root: Path, where: str, key: str) -> dict[str, Path]:
    """Return the NIfTI files of a sub-folder, or of a glob, by the name that tells them apart."""
    if any(sign in where for sign in "*?"):
        files = _matching(root, where)
        named = [(capture(where, p.relative_to(root).as_posix()) or stem(p.name), p) for p in files]
    else:
        folder = root / where
        if not folder.is_dir():
            raise ConfigError(f"cohort.{key}: there is no folder {folder}", next_step="Check cohort.path")
        files = sorted(nifti_below(folder))
        named = list(zip(unique_names(files), files, strict=True))
    if not named:
        raise InputError(f"No NIfTI file in {root / where}", expected="*.nii or *.nii.gz that synthmed did not write")
    return _unique(named)


def _matching(root: Path, where: str) -> list[Path]:
    """Return the files that a glob finds, without what synthmed wrote, unless the folder it names is of that."""
    named = itertools.takewhile(lambda part: not any(sign in part for sign in "*?"), Path(where).parts[:-1])
    base = root.joinpath(*named)
    written = functools.cache(is_output)
    files = sorted(path for path in root.glob(where) if path.is_file())
    return [path for path in files if not any(written(base / f) for f in path.relative_to(base).parents[:-1])]


def _unique(named: list[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            raise InputError(f"Two files are both case {name}", found=f"{found[name]} and {path}")
        found[name] = path
    return found


def unique_names(files: list[Path]) -> list[str]:
    """Return stems, with as many parent folders in front as tell every file from the others."""
    longest = max((len(file.parts) for file in files), default=1)
    for depth in range(1, longest + 1):
        names = ["_".join([*file.parts[-depth:-1], stem(file.name)]).replace("/", "_") for file in files]
        if len(set(names)) == len(files):
            return names
    return [stem(file.name) for file in files]


def below(folder: Path, name: str) -> Path:
    """Return a path that a table names, relative to the table's folder."""
    path = Path(name).expanduser()
    return path if path.is_absolute() else folder / path


def bids_subject(path: Path) -> str | None:
    """Return ``sub-01`` from a path that follows the Brain Imaging Data Structure."""
    match = _BIDS_SUBJECT.search(path.as_posix().removesuffix(path.suffix))
    return match.group(1) if match else None
