"""Three public sets of real scans, one patient column, and splits that keep a patient on one side."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Spacing = tuple[float, float, float]
Rows = NDArray[np.int64]
BRAIN_FACTOR = 2  # from 2 mm to 4 mm


class Volume(NamedTuple):
    """Voxels in RAS order, shape (I, J, K), float32, and their edges in mm."""

    array: Array
    spacing: Spacing


@dataclass(frozen=True)
class Cohort:
    """Scans of one set.

    Attributes
    ----------
    name : str
    volumes : list of ndarray, shape (I, J, K), float32, RAS
        Shapes and intensity scales differ from scan to scan where the set's do.
    spacing : list of tuple of float, mm
    patient, label : list of str
        Owner and file name of each scan.
    """

    name: str
    volumes: list[Array]
    spacing: list[Spacing]
    patient: list[str]
    label: list[str]

    def __len__(self) -> int:
        return len(self.volumes)

    def volume(self, row: int) -> Volume:
        """Return one scan."""
        return Volume(self.volumes[row], self.spacing[row])

    def take(self, rows: Sequence[int] | Rows) -> list[Volume]:
        """Return several scans."""
        return [self.volume(int(row)) for row in rows]

    def owners(self, rows: Sequence[int] | Rows) -> list[str]:
        """Return the patients of several scans."""
        return [self.patient[int(row)] for row in rows]


@dataclass(frozen=True)
class Split:
    """Rows of a cohort by role; no patient has two roles, but for `kept_back`.

    Attributes
    ----------
    train, holdout, others : ndarray of int64
        Training scans, held-out scans for thresholds, and the people who are nobody's copy.
    kept_back : ndarray of int64
        Further scans of training patients that are left out of training, at most one a patient.
    """

    train: Rows
    holdout: Rows
    others: Rows
    kept_back: Rows


@dataclass(frozen=True)
class Plan:
    """How a set is used: patients in training, held out and others, and over how many seeded splits."""

    shares: tuple[int, int, int]
    splits: int


PLANS = {
    "hippocampus": Plan((75, 30, 35), 2),
    "brain": Plan((75, 30, 35), 2),
    "pet": Plan((16, 12, 12), 5),
}


def load(name: str, root: Path) -> Cohort:
    """Read a set.

    Parameters
    ----------
    name : {"hippocampus", "brain", "pet"}
    root : Path
        The folder that holds ``msd_hippocampus``, ``ixi_2mm`` and ``sts_petct``.

    Raises
    ------
    ValueError
        If there is no such set.
    FileNotFoundError
        If its folder holds no scan.
    """
    if name not in LOADERS:
        raise ValueError(f"No set named {name!r}; expected one of {', '.join(LOADERS)}")
    rows = LOADERS[name](Path(root))
    if not rows:
        raise FileNotFoundError(f"No scan of {name!r} under {root}; pass --data or set SYNTHMED_DATA")
    volumes, patient, label = zip(*rows, strict=True)
    return Cohort(name, [v.array for v in volumes], [v.spacing for v in volumes], list(patient), list(label))


def split(cohort: Cohort, shares: tuple[int, int, int], seed: int) -> Split:
    """Split by patient.

    Half of the training patients with two scans or more keep one of them back.

    Parameters
    ----------
    cohort : Cohort
    shares : tuple of int
        Numbers of patients in training, holdout and others; scaled down in proportion where there are fewer patients.
    seed : int
    """
    rng = np.random.default_rng([seed, 101])
    patients = rng.permutation(sorted(set(cohort.patient)))
    scale = min(1.0, len(patients) / sum(shares))
    ends = np.cumsum([max(1, int(scale * share)) for share in shares])
    owner = np.array(cohort.patient)
    groups = [set(patients[start:end]) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    train, holdout, others = (np.flatnonzero([p in group for p in owner]) for group in groups)
    several = [p for p in sorted(groups[0]) if (owner[train] == p).sum() > 1]
    chosen = rng.permutation(several)[: (len(several) + 1) // 2]
    kept_back = np.array(sorted(int(rng.choice(train[owner[train] == p])) for p in chosen), dtype=np.int64)
    return Split(np.setdiff1d(train, kept_back), holdout, others, kept_back)


def subset(cohort: Cohort, patients: int, seed: int) -> Cohort:
    """Keep the scans of some patients, drawn at random."""
    chosen = set(np.random.default_rng([seed, 100]).permutation(sorted(set(cohort.patient)))[:patients])
    rows = [k for k, owner in enumerate(cohort.patient) if owner in chosen]
    return Cohort(
        cohort.name,
        [cohort.volumes[k] for k in rows],
        [cohort.spacing[k] for k in rows],
        cohort.owners(rows),
        [cohort.label[k] for k in rows],
    )


def read(path: Path) -> Volume:
    """Read a NIfTI file in the RAS order that is closest to its own."""
    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[arg-type]
    x, y, z = (float(edge) for edge in image.header.get_zooms()[:3])  # type: ignore[attr-defined]
    return Volume(np.asarray(image.dataobj, dtype=np.float32), (x, y, z))  # type: ignore[attr-defined]


Row = tuple[Volume, str, str]


def _hippocampus(root: Path) -> list[Row]:
    folder = root / "msd_hippocampus"
    with (folder / "subjects.csv").open(newline="", encoding="utf-8") as stream:
        table = {row["volume"]: row["subject"] for row in csv.DictReader(stream)}
    names = sorted(table)
    return [(read(folder / "imagesTr" / f"{name}.nii.gz"), table[name], name) for name in names]


def _brain(root: Path) -> list[Row]:
    rows = []
    for path in sorted((root / "ixi_2mm" / "t1").glob("*_T1.nii.gz")):
        name = path.name.removesuffix("_T1.nii.gz")
        mask = read(root / "ixi_2mm" / "dlmuse_seg" / f"{name}_T1_DLMUSE.nii.gz").array > 0
        rows.append((_halved(read(path), mask), name, name))
    return rows


def _halved(volume: Volume, mask: NDArray[np.bool_]) -> Volume:
    """Blank everything outside the mask, crop to it with a margin, and average blocks of voxels."""
    masked = np.where(mask, volume.array, np.float32(0))
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    f = BRAIN_FACTOR
    sides = [-(-(edge.stop - edge.start + 4 * f) // f) * f for edge in box]
    starts = [(edge.start + edge.stop - side) // 2 for edge, side in zip(box, sides, strict=True)]
    pad = max(0, -min(starts), *(a + n - m for a, n, m in zip(starts, sides, masked.shape, strict=True)))
    padded = np.pad(masked, pad)
    cut = padded[tuple(slice(a + pad, a + pad + n) for a, n in zip(starts, sides, strict=True))]
    i, j, k = (side // f for side in sides)
    x, y, z = (edge * f for edge in volume.spacing)
    return Volume(cut.reshape(i, f, j, f, k, f).mean((1, 3, 5)), (x, y, z))


def _pet(root: Path) -> list[Row]:
    paths = sorted((root / "sts_petct").glob("*/PET_image.nii.gz"))
    return [(read(path), path.parent.name, path.parent.name) for path in paths]


LOADERS: dict[str, Callable[[Path], list[Row]]] = {"hippocampus": _hippocampus, "brain": _brain, "pet": _pet}
