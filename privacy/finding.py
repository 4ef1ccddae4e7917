"""Where the volumes of a set lie: NIfTI files and DICOM series below a folder, or in a list of paths."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privacy.errors import InputError
from privacy.patients import Owned, stem
from privacy.reading import is_nifti
from privacy.words import counted

IMAGE_FOLDERS = ("images", "imagesTr", "imagesTs")
CHANNEL = re.compile(r"_\d{4}$")
"""nnU-Net's ending of a case's channels; read as such in its own folders only."""
TABLE = "subjects.csv"


@dataclass(frozen=True)
class Found:
    """One volume before it is read.

    Attributes
    ----------
    owned : Owned
        Its name, and what a table of patients may call it by.
    files : tuple of Path
        One NIfTI file or the files of one DICOM series; empty for an array.
    array : object
        What was given in place of a path.
    """

    owned: Owned
    files: tuple[Path, ...] = ()
    array: Any = None


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes
    ----------
    volumes : list of Found
    problems : list of str
        Files and folders that cannot be read, named.
    notes : list of str
        What was left aside, in plain words that name nothing of the set.
    """

    volumes: list[Found]
    problems: list[str]
    notes: list[str]


def image_folder(folder: Path) -> Path:
    """Return the subfolder of images where a dataset keeps one, else the folder itself."""
    return next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)


def search_folder(folder: Path, role: str) -> Search:
    """Find the volumes below a folder; hidden files and folders are none.

    Links to folders are followed, and no folder is searched twice.

    Raises
    ------
    InputError
        If it is no folder, or holds no volume.
    """
    require_folder(folder, role)
    root = image_folder(folder)
    problems: list[str] = []
    files = sorted(_walk(root, problems))
    nifti = [path for path in files if is_nifti(path)]
    series, more, other = _series(root, [path for path in files if not is_nifti(path)])
    volumes = [_nifti(root, path) for path in nifti] + series
    problems += more
    if not volumes and not problems:
        raise InputError(
            f"The {role} folder {root} holds no NIfTI file and no DICOM series", found=counted(len(other), "other file")
        )
    aside = [path for path in other if path.name != TABLE]
    return Search(volumes, problems, [*_aside(folder, root), *_counted(len(nifti), len(series), len(aside))])


def require_folder(folder: Path, role: str) -> None:
    """Refuse a set that is no folder; raise `InputError`."""
    if not folder.is_dir():
        raise InputError(
            f"There is no {role} folder {folder}",
            found="a file" if folder.exists() else "nothing of that name",
            expected="a folder of NIfTI volumes or DICOM series",
            next_step="Check its path",
        )


def search_list(items: Sequence[Any], role: str) -> Search:
    """Find the volumes in a list of arrays, NIfTI files and folders that each hold one DICOM series."""
    volumes, problems = [], []
    for k, item in enumerate(items):
        path = Path(item) if isinstance(item, str | Path) else None
        if path is None:
            volumes.append(Found(Owned(f"{role}-{k:05d}", (f"{role}-{k:05d}",)), (), item))
        elif os.path.isdir(path):
            try:
                volumes.append(_one_series(path))
            except InputError as error:
                problems.append(f"{path} ({error})")
        else:
            volumes.append(Found(Owned(str(path), (path.absolute().as_posix(),)), (path,)))
    return Search(_told_apart(volumes), problems, [])


def _told_apart(volumes: Sequence[Found]) -> list[Found]:
    """Number the names of paths that are listed more than once."""
    seen: Counter[str] = Counter()
    out = []
    for volume in volumes:
        name = volume.owned.name
        seen[name] += 1
        again = f"{name} ({seen[name]})" if seen[name] > 1 else name
        out.append(replace(volume, owned=replace(volume.owned, name=again)))
    return out


def _walk(root: Path, problems: list[str]) -> Iterator[Path]:
    """Yield the visible files; each folder once, though links lead to it several times."""
    seen = {_identity(root)}

    def note(error: OSError) -> None:
        problems.append(f"{_relative(root, Path(error.filename))} (unreadable folder; found {error.strerror})")

    for place, folders, names in os.walk(root, onerror=note, followlinks=True):
        fresh = []
        for name in sorted(folders):
            mark = _identity(Path(place) / name)
            if not name.startswith(".") and mark not in seen:
                seen.add(mark)
                fresh.append(name)
        folders[:] = fresh
        if not (folders or names) and is_nifti(Path(place)):
            problems.append(f"{_relative(root, Path(place))} (an empty folder named like a file)")
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError:
        return (-1, hash(folder))
    return status.st_dev, status.st_ino


def _nifti(root: Path, path: Path) -> Found:
    name, whole = _relative(root, path), path.absolute().as_posix()
    folder, case = os.path.split(whole)
    if root.name in IMAGE_FOLDERS[1:] and CHANNEL.search(stem(case)):
        return Found(Owned(name, (whole,), (f"{folder}/{CHANNEL.sub('', stem(case))}",)), (path,))
    return Found(Owned(name, (whole,)), (path,))


def _series(root: Path, paths: Sequence[Path]) -> tuple[list[Found], list[str], list[Path]]:
    from privacy.series import sort_files

    found = sort_files(paths)
    folders = Counter(_folder(item.files) for item in found.series)
    volumes = []
    for item in found.series:
        folder = _folder(item.files)
        place = "" if folder == root else _relative(root, folder)
        parts = [place, item.uid if folders[folder] > 1 or not place else "", "" if item.alone else item.files[0].name]
        whole = folder.absolute().as_posix()
        files = tuple(path.absolute().as_posix() for path in item.files)
        owned = Owned("/".join(part for part in parts if part), files, (item.uid, whole))
        volumes.append(Found(owned, item.files))
    problems = [f"{_relative(root, path)} ({reason})" for path, reason in found.damaged]
    return volumes, problems, found.other


def _folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in files]))


def _one_series(folder: Path) -> Found:
    problems: list[str] = []
    files = [path for path in _walk(folder, problems) if not is_nifti(path)]
    series, more, _ = _series(folder, sorted(files))
    if problems or more:
        raise InputError(
            f"{counted(len(problems) + len(more), 'file or folder', 'files or folders')} cannot be read",
            found=(more or problems)[0],
        )
    if len(series) != 1:
        raise InputError("not one DICOM series", found=f"{len(series)} of them")
    owned = series[0].owned
    return Found(Owned(str(folder), owned.paths, owned.groups), series[0].files)


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _aside(folder: Path, root: Path) -> list[str]:
    """Say which folder of a dataset is used where it has several."""
    if root == folder:
        return []
    rest = [name for name in IMAGE_FOLDERS if (folder / name).is_dir() and name != root.name]
    return [f"only {root.name}/ was read" + (f"; {' and '.join(f'{name}/' for name in rest)} was not" if rest else "")]


def _counted(nifti: int, series: int, other: int) -> list[str]:
    notes = [f"{counted(nifti, 'NIfTI file')} and {series} DICOM series were read together"] if nifti and series else []
    if other:
        notes.append(f"left aside, being neither NIfTI nor DICOM: {counted(other, 'file')}")
    return notes
