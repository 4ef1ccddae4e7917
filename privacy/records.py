"""What is audited: scans from folders or arrays, with patients and digests, every one of them read and checked."""

from __future__ import annotations

import csv
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from privacy.errors import InputError, UsageError

Array = NDArray[np.float32]
Source = str | Path | Sequence[Any]
Patients = str | Path | Sequence[Any] | None

SUFFIXES = (".nii", ".nii.gz")
IMAGE_FOLDERS = ("images", "imagesTr")
FILE_COLUMNS, PATIENT_COLUMNS = ("file", "volume"), ("subject", "patient")
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    KeyError,
    MemoryError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)
SMALLEST = 8  # voxels along each axis


@dataclass(frozen=True)
class Scan:
    """One volume, its place on disk or in memory, and its owner.

    Attributes
    ----------
    name : str
        Path within its folder, or a number for an array.
    path : Path or None
    patient : str
    sha256 : str
        Of the file's bytes; of the voxels where there is no file.
    content : str
        SHA-256 of spacing and voxels in RAS order: equal for copies of a file under other names or compressions.
    shape : tuple of int
    spacing : tuple of float, mm
    values : ndarray or None
        The voxels, only where there is no file.
    """

    name: str
    path: Path | None
    patient: str
    sha256: str
    content: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    values: Array | None = None

    def array(self) -> Array:
        """Return the voxels in RAS order, shape (I, J, K), float32."""
        if self.path is None:
            return np.asarray(self.values, dtype=np.float32)
        return _read_file(self.path)[0]


def collect(
    role: str, source: Source, patients: Patients = None, tick: Callable[[], object] = lambda: None
) -> list[Scan]:
    """Read and check every volume of a folder or a sequence of arrays, in an order that ignores names.

    Parameters
    ----------
    role : str
        ``"train"``, ``"holdout"`` or ``"synthetic"``, for messages.
    source : path, or sequence of arrays or paths
        A folder is searched recursively for NIfTI; where it holds ``images/`` or ``imagesTr/``, only there.
    patients : path of a CSV, sequence of one id a volume, or None
        With None a ``subjects.csv`` in or beside the folder is used; without one, each volume is its own patient.
    tick : callable
        Called once for each volume read.

    Raises
    ------
    UsageError
        If the patients' table does not fit the volumes.
    InputError
        If there is no volume, or any cannot be read or compared; all of them are counted and named.
    """
    if isinstance(source, str | Path):
        root = image_folder(Path(source))
        items: list[tuple[str, Any]] = [(path.relative_to(root).as_posix(), path) for path in find_volumes(root, role)]
        owners = _owners(role, [name for name, _ in items], _table(root, patients))
    else:
        items = [(_name(role, k, item), item) for k, item in enumerate(source)]
        owners = _owners(role, [name for name, _ in items], patients)
    if not items:
        raise InputError(f"The {role} set is empty", expected="at least one 3D volume")
    scans, problems = [], []
    for name, item in items:
        try:
            scans.append(_scan(name, item, owners[name]))
        except InputError as error:
            problems.append(f"{name} ({error})")
        tick()
    if problems:
        raise InputError(
            f"{len(problems)} of {len(items)} {role} volumes cannot be used: {'; '.join(problems)}",
            next_step="Repair or remove them; none is left out in silence",
        )
    return sorted(scans, key=lambda scan: (scan.content, scan.sha256, scan.name))


def image_folder(folder: Path) -> Path:
    """Return the subfolder of images where a dataset keeps one, else the folder itself."""
    return next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)


def find_volumes(folder: Path, role: str) -> list[Path]:
    """List the NIfTI files under a folder; hidden files are no volumes.

    Raises
    ------
    InputError
        If it is no folder, or holds none.
    """
    if not folder.is_dir():
        raise InputError(f"The {role} folder {folder} does not exist")
    paths = (path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES) and path.is_file())
    visible = sorted(path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    if not visible:
        raise InputError(f"The {role} folder {folder} holds no NIfTI file", expected=" or ".join(SUFFIXES))
    return visible


def read_patients(path: Path) -> dict[str, str]:
    """Read a CSV of files and patients; keys are file names without folder and ending.

    Raises
    ------
    UsageError
        If it cannot be read, lacks a column (file or volume; subject or patient), or names a file twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the patients in {path}", found=" ".join(str(error).split())) from error
    columns = list(rows[0]) if rows else []
    file = next((name for name in FILE_COLUMNS if name in columns), None)
    patient = next((name for name in PATIENT_COLUMNS if name in columns), None)
    if file is None or patient is None:
        raise UsageError(
            f"{path} lacks a column",
            found=", ".join(map(str, columns)) or "no rows",
            expected="file (or volume) and subject",
        )
    table: dict[str, str] = {}
    for row in rows:
        key, owner = stem(row[file] or ""), (row[patient] or "").strip()
        if not owner or table.get(key, owner) != owner:
            raise UsageError(f"{path} gives {row[file]!r} no patient, or two")
        table[key] = owner
    return table


def stem(name: str) -> str:
    """Return a file name without folder and without .nii or .nii.gz."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return next((base[: -len(end)] for end in (".nii.gz", ".nii") if base.lower().endswith(end)), base)


def digest(scans: Sequence[Scan]) -> str:
    """Return one SHA-256 for a set of scans, whatever their order."""
    return hashlib.sha256("".join(sorted(scan.sha256 for scan in scans)).encode()).hexdigest()


def _table(root: Path, patients: Patients) -> Patients:
    if patients is not None:
        return patients
    return next((path for path in (root / "subjects.csv", root.parent / "subjects.csv") if path.is_file()), None)


def _owners(role: str, names: Sequence[str], patients: Patients) -> Mapping[str, str]:
    if patients is None:
        return {name: f"{role}:{name}" for name in names}
    if isinstance(patients, str | Path):
        table = read_patients(Path(patients))
        missing = [name for name in names if stem(name) not in table]
        if missing:
            raise UsageError(f"{patients} has no row for {len(missing)} {role} volumes", found=missing[0])
        return {name: table[stem(name)] for name in names}
    if len(patients) != len(names):
        raise UsageError(f"The {role} patients do not fit", found=f"{len(patients)} ids", expected=f"{len(names)}")
    return {name: str(owner) for name, owner in zip(names, patients, strict=True)}


def _name(role: str, number: int, item: Any) -> str:
    return str(item) if isinstance(item, str | Path) else f"{role}-{number:05d}"


def _scan(name: str, item: Any, patient: str) -> Scan:
    if isinstance(item, str | Path):
        path = Path(item)
        array, spacing = _read_file(path)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        values = None
    else:
        path, spacing, sha256 = None, (1.0, 1.0, 1.0), ""
        array = values = _checked(np.asarray(item))
    head = f"{array.shape}{tuple(round(edge, 4) for edge in spacing)}"
    content = hashlib.sha256(head.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
    return Scan(name, path, patient, sha256 or content, content, array.shape, spacing, values)


def _read_file(path: Path) -> tuple[Array, tuple[float, ...]]:
    try:
        image = nib.as_closest_canonical(nib.load(path))  # type: ignore[arg-type]
        values = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        spacing = tuple(float(edge) for edge in image.header.get_zooms()[:3])  # type: ignore[attr-defined]
    except _DAMAGE as error:
        raise InputError("unreadable", found=f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from error
    if not all(np.isfinite(edge) and edge > 0 for edge in spacing):
        raise InputError("unusable voxel size", found=str(spacing))
    return _checked(values), spacing


def _checked(values: NDArray[Any]) -> Array:
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3:
        raise InputError("not a 3D volume", found=f"shape {values.shape}")
    if values.dtype.kind not in "biuf":
        raise InputError("not a scalar image", found=f"voxels of type {values.dtype}")
    if min(values.shape) < SMALLEST:
        raise InputError("too small to compare", found=f"shape {values.shape}", expected=f"{SMALLEST} voxels an axis")
    array = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError("voxels that are not finite", found=f"{int((~np.isfinite(array)).sum())} NaN or infinite")
    if float(array.max()) == float(array.min()):
        raise InputError("constant", found=f"every voxel is {float(array.flat[0]):g}")
    return array
