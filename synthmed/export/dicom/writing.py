"""DICOM: each case a CT or MR series and, where there are labels, a segmentation of it.

``dicom/<case>/<study>/<series>/IM0001.dcm``; study and series are called by the first digits of their UIDs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from synthmed.config import ExportConfig
from synthmed.errors import InputError, ReleaseRefused
from synthmed.export.cohort import ApprovedCohort, Columns
from synthmed.export.dicom import classic as dicom_classic
from synthmed.export.dicom import enhanced as dicom_enhanced
from synthmed.export.dicom.case import Case, describe
from synthmed.export.dicom.encode import SYNTAXES, check_encoder, part10, pixel_data
from synthmed.export.dicom.index import Entry, write_index
from synthmed.export.dicom.pixels import RAS_TO_LPS, Grid, Stored, digest, to_slices, to_stored
from synthmed.export.dicom.seg import check_names, segmentation
from synthmed.export.dicom.workers import ordered_map, worker_count
from synthmed.export.nifti import consecutive_values, structure_names
from synthmed.export.samples import Sample
from synthmed.volume import Affine

_ONE_FILE = "IM0001.dcm"
_SECONDS_A_VOXEL, _SECONDS_A_LABEL = 1.5e-8, 4e-8
Sources = Callable[[], list[Dataset]]


@dataclass(frozen=True)
class Job:
    """One case, read and ready to be written.

    Attributes
    ----------
    case : Case
    image, label : bytes
        The approved NIfTI files; `label` is empty where there is none.
    values : mapping of int to int
        Label value as generated -> segment number.
    names : mapping of str to int
        Structure -> segment number, without the background.
    enhanced : bool
    compression : str
    """

    case: Case
    image: bytes
    label: bytes
    values: Mapping[int, int]
    names: Mapping[str, int]
    enhanced: bool
    compression: str


def write_dicom(cohort: ApprovedCohort, release: Path, config: ExportConfig) -> Columns:
    """Write each case as a series and a segmentation under ``release/dicom``, and their index.

    CT in whole HU is stored as it is; MR that is not whole numbers is restored by Rescale Slope and Intercept to
    within half a step, ``(max - min) / 131070``.

    Parameters
    ----------
    cohort : ApprovedCohort
    release : Path
        The release being written.
    config : ExportConfig
        `enhanced` (one multi-frame file instead of one a slice) and `compression`.

    Returns
    -------
    dict of str to dict
        For each case: dicom_series (folder), dicom_series_uid, dicom_seg (file), dicom_seg_uid.

    Raises
    ------
    ConfigError
        If the modality has no DICOM form here (PET), DICOM cannot hold a name, or nothing installed encodes
        `compression`.
    ReleaseRefused
        If a file is not the approved one any more, or a label map holds a value that the model never learned.
    InputError
        If a file is no volume or label map.
    """
    check_encoder(config.compression)
    check_names(cohort.description.space.label_names.values())
    names = [sample.name for sample in cohort.samples]
    voxels = len(names) * math.prod(cohort.description.space.grid)
    labelled = cohort.samples[0].has_label
    workers = worker_count(len(names), voxels * (_SECONDS_A_VOXEL + labelled * _SECONDS_A_LABEL))
    jobs = (_job(cohort, sample, config) for sample in cohort.samples)
    write = partial(write_case, release=release)
    entries = dict(zip(names, ordered_map(write, jobs, workers), strict=True))
    write_index(release, entries)
    return {name: _cells(entry) for name, entry in entries.items()}


def write_case(job: Job, release: Path) -> Entry:
    """Write one case's series and segmentation; return what the index says about them."""
    values, grid = to_slices(*_read(job.image, f"the image of {job.case.name}"))
    stored = to_stored(values)
    write = _write_enhanced if job.enhanced else _write_classic
    folder, series_uid, sources = write(job, grid, stored, release)
    entry = Entry(
        modality=job.case.modality,
        series=folder,
        series_uid=series_uid,
        transfer_syntax=str(SYNTAXES[job.compression]),
        shape=grid.shape,
        affine=tuple(tuple(float(x) for x in row) for row in RAS_TO_LPS @ grid.affine + 0.0),
        type=stored.array.dtype.name,
        slope=stored.slope,
        intercept=stored.intercept,
        voxels_sha256=digest(stored.array),
    )
    return _write_segmentation(job, grid, sources(), entry, release) if job.label else entry


def _job(cohort: ApprovedCohort, sample: Sample, config: ExportConfig) -> Job:
    space = cohort.description.space
    values = consecutive_values((), space.label_values)
    names = structure_names(values, space.label_names)
    return Job(
        case=describe(cohort, sample),
        image=cohort.image(sample),
        label=cohort.label(sample) if sample.has_label else b"",
        values=values,
        names={name: value for name, value in names.items() if value},
        enhanced=config.enhanced,
        compression=config.compression,
    )


def _read(content: bytes, what: str) -> tuple[NDArray[Any], Affine]:
    """Return voxels (I, J, K) and affine (voxel -> RAS+ mm) of a ``.nii.gz``; fractions as float32."""
    try:
        image = nib.Nifti1Image.from_bytes(igzip.decompress(content))
        array = np.asarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"Cannot read {what}", found=" ".join(str(error).split()), expected="NIfTI-1") from error
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise InputError(f"Cannot use {what}", found=f"{array.ndim} axes of {array.dtype}", expected="three of numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"Voxels that are not finite in {what}", expected="finite values")
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array, image.affine


def _write_classic(job: Job, grid: Grid, stored: Stored, release: Path) -> tuple[str, str, Sources]:
    common, own = dicom_classic.slice_headers(job.case, grid, stored)
    folder = job.case.folder(job.case.modality, str(common.SeriesInstanceUID))
    (release / folder).mkdir(parents=True)
    for name, content in dicom_classic.files(common, own, stored, job.compression):
        (release / folder / name).write_bytes(content)
    return folder, str(common.SeriesInstanceUID), partial(dicom_classic.source_datasets, common, own)


def _write_enhanced(job: Job, grid: Grid, stored: Stored, release: Path) -> tuple[str, str, Sources]:
    data = dicom_enhanced.header(job.case, grid, stored)
    folder = job.case.folder(job.case.modality, str(data.SeriesInstanceUID))
    (release / folder).mkdir(parents=True)
    content = part10(data, SYNTAXES[job.compression], pixel_data(stored.array, job.compression))
    (release / folder / _ONE_FILE).write_bytes(content)
    return folder, str(data.SeriesInstanceUID), lambda: [data]


def _write_segmentation(job: Job, grid: Grid, sources: list[Dataset], entry: Entry, release: Path) -> Entry:
    labels, where = to_slices(*_read(job.label, f"the label map of {job.case.name}"))
    if where.shape != grid.shape or not np.allclose(where.affine, grid.affine, atol=1e-3):
        raise InputError(f"The label map of {job.case.name} does not lie on the grid of its image")
    segments = _segments(labels, job)
    data = segmentation(job.case, sources, segments, job.names)
    folder = job.case.folder("SEG", str(data.SeriesInstanceUID))
    (release / folder).mkdir(parents=True)
    (release / folder / _ONE_FILE).write_bytes(part10(data, SYNTAXES["none"]))
    return replace(
        entry,
        seg=f"{folder}/{_ONE_FILE}",
        seg_uid=str(data.SeriesInstanceUID),
        labels_sha256=digest(segments),
        segments=dict(job.names),
    )


def _segments(labels: NDArray[Any], job: Job) -> NDArray[np.uint16]:
    """Replace label values by segment numbers."""
    old = np.array(sorted(job.values))
    places = np.searchsorted(old, labels).clip(max=len(old) - 1)
    unknown = labels[old[places] != labels]
    if unknown.size:
        raise ReleaseRefused(
            f"The label map of {job.case.name} holds a value that the model never learned",
            found=f"{unknown.flat[0]:g}",
            expected=f"one of {', '.join(map(str, old))}",
        )
    return np.array([job.values[value] for value in old.tolist()], dtype=np.uint16)[places]


def _cells(entry: Entry) -> dict[str, str]:
    return {
        "dicom_series": entry.series,
        "dicom_series_uid": entry.series_uid,
        "dicom_seg": entry.seg,
        "dicom_seg_uid": entry.seg_uid,
    }
