"""Reading and writing volumes: NIfTI files and DICOM series, both as `Volume` in RAS+ millimetres."""

from __future__ import annotations

import os
from pathlib import Path

from synthmed.errors import InputError
from synthmed.io.dicom import read_folder
from synthmed.io.nifti import is_nifti, read_nifti, read_nifti_label
from synthmed.io.nifti_write import write_volume
from synthmed.volume import Volume

__all__ = ["read_label", "read_volume", "write_volume"]


def read_volume(path: Path | str) -> Volume:
    """Read an image from a NIfTI file or a folder that holds one DICOM series.

    Returns
    -------
    Volume
        Array (1, I, J, K) float32 in the file's units (HU for CT), affine voxel -> RAS+ mm.

    Raises
    ------
    InputError
        If nothing readable is there, or the image is one that must not be guessed at.
    """
    path = Path(path)
    if os.path.isdir(path):
        return read_folder(path)
    return read_nifti(_existing_nifti(path))


def read_label(path: Path | str) -> Volume:
    """Read a label map, whole numbers with 0 for background, from a NIfTI file.

    Raises
    ------
    InputError
        If the file is not readable or holds a value that is negative or not whole.
    """
    return read_nifti_label(_existing_nifti(Path(path)))


def _existing_nifti(path: Path) -> Path:
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "nothing"
        raise InputError(f"No file {path}", found=found, expected="a .nii or .nii.gz file", next_step="Check the path")
    if not is_nifti(path):
        raise InputError(
            f"Cannot read {path}",
            found=f"the ending {path.suffix!r}",
            expected=".nii, .nii.gz or a folder with one DICOM series",
        )
    return path
