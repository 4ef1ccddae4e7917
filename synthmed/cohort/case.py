"""A case is one scan of one patient, read when it is needed; a cohort is many of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from synthmed.cohort.phantom import GENERATOR, Phantom
from synthmed.errors import InputError
from synthmed.files import sha256_file, sha256_json
from synthmed.io import read_label, read_volume
from synthmed.label_groups import Sources, group_labels
from synthmed.volume import Volume

if TYPE_CHECKING:
    from synthmed.io.dicom import Series

Covariates = Mapping[str, float | str]


@dataclass(frozen=True)
class Case:
    """One scan, its segmentation if it has one, and whose it is.

    Attributes
    ----------
    case_id : str
        Unique in the cohort, and fit for a file name.
    subject_id : str
        The patient: all scans of one stay on one side of the split.
    image : Path, Series or Phantom
        A NIfTI file, a folder with one DICOM series, a series out of a tree, or a procedure.
    label : Path or None
    covariates : mapping of name to number or text; what is unknown is absent
    label_groups : mapping of label value to the values of the file that it stands for; empty: as the file has them
    """

    case_id: str
    subject_id: str
    image: Path | Series | Phantom
    label: Path | None = None
    covariates: Covariates = field(default_factory=dict)
    label_groups: Sources = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the scan comes from, for a person to read."""
        return self.case_id if isinstance(self.image, Phantom) else str(self.image)

    @property
    def has_label(self) -> bool:
        """Whether `read` returns a segmentation."""
        return self.label is not None or isinstance(self.image, Phantom)

    def read(self) -> tuple[Volume, Volume | None]:
        """Return image and label, its values grouped.

        Raises
        ------
        InputError
            If either cannot be read, or values are to be grouped and are not whole numbers.
        """
        image, label = self.read_files()
        return image, None if label is None else group_labels(label, self.label_groups)

    def read_files(self) -> tuple[Volume, Volume | None]:
        """Return image and label as the files have them.

        Raises
        ------
        InputError
            If either cannot be read.
        """
        if isinstance(self.image, Phantom):
            return self.image.render()
        label = None if self.label is None else read_label(self.label)
        if isinstance(self.image, Path):
            return read_volume(self.image), label
        from synthmed.io.dicom import read_series

        return read_series(self.image), label

    def digest(self) -> str:
        """Return the SHA-256 of the image's bytes (of all files of a series, in the order of their names)."""
        if isinstance(self.image, Phantom):
            key = [GENERATOR, self.image.seed, self.image.subject, list(self.image.shape), self.image.scan]
            return sha256_json(key)
        try:
            digests = [sha256_file(file) for file in self.image_files]
        except OSError as error:
            raise InputError(f"Cannot read {self.source}", found=str(error)) from error
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def image_files(self) -> tuple[Path, ...]:
        """Every file that the image is read from, in the order of their names."""
        if isinstance(self.image, Phantom):
            return ()
        if not isinstance(self.image, Path):
            return self.image.files
        if self.image.is_dir():
            return tuple(sorted(file for file in self.image.rglob("*") if file.is_file()))
        return (self.image,)


@dataclass(frozen=True)
class Cohort:
    """All cases, in ascending order of `Case.case_id`.

    Attributes
    ----------
    cases : tuple of Case
    label_names : mapping of label value to structure
    modality : str, DICOM code: MR, CT or PT
    notes : tuple of str
        What the importer assumed or left out: nothing happens in silence.
    """

    cases: tuple[Case, ...]
    label_names: Mapping[int, str] = field(default_factory=dict)
    modality: str = "MR"
    notes: tuple[str, ...] = ()

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Every patient once, sorted."""
        return tuple(sorted({case.subject_id for case in self.cases}))
