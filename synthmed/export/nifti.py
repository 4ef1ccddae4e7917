"""NIfTI with the layout of nnU-Net v2, and the same cases as a MONAI datalist.

Images are the audited files, byte for byte. nnU-Net wants labels 0, 1, ..., K: label maps with gaps are written anew
with consecutive values, and ``dataset.json`` keeps the generated value of each.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from synthmed.config import ExportConfig
from synthmed.errors import InputError, ReleaseRefused
from synthmed.export.cohort import ApprovedCohort, Columns
from synthmed.export.samples import SUFFIX, Sample
from synthmed.files import sha256_file, write_json
from synthmed.io import read_label, write_volume
from synthmed.volume import Geometry, Volume

ROOT = "nifti"
CHANNEL = "_0000"
MARK = b"SYNTHETIC"
_HEADER_BYTES, _EXTENDED_BYTES = 348, 352
_GZIP_EXTRAS = 0x04 | 0x08 | 0x10  # FEXTRA, FNAME, FCOMMENT of RFC 1952
_FREE_TEXT = ("data_type", "db_name", "aux_file", "intent_name")


def write_nifti(cohort: ApprovedCohort, release: Path, config: ExportConfig) -> Columns:
    """Write images, labels, ``dataset.json`` and ``datalist.json`` under ``release/nifti``.

    Parameters
    ----------
    cohort : ApprovedCohort
    release : Path
        The release being written.
    config : ExportConfig
        Not used: there is one way to write NIfTI.

    Returns
    -------
    dict of str to dict
        For each case: image, label (paths in the release), their digests, spacing in mm.

    Raises
    ------
    ReleaseRefused
        If a file is not the approved one any more.
    InputError
        If a label map is not one, or two structures have the same name.
    """
    labelled = cohort.samples[0].has_label
    # nnU-Net keeps cases without a segmentation in imagesTs, and wants a label for each in imagesTr.
    images, labels = release / ROOT / ("imagesTr" if labelled else "imagesTs"), release / ROOT / "labelsTr"
    images.mkdir(parents=True)
    for sample in cohort.samples:
        (images / f"{sample.name}{CHANNEL}{SUFFIX}").write_bytes(cohort.image(sample))
    if labelled:
        labels.mkdir()
        for sample in cohort.samples:
            (labels / (sample.name + SUFFIX)).write_bytes(cohort.label(sample))
    space = cohort.description.space
    found = _values_in(labels)
    if undeclared := sorted(set(found) - set(space.label_values)):
        raise ReleaseRefused(
            "The label maps hold values that the model never learned",
            found=", ".join(map(str, undeclared[:5])),
            expected=f"only {', '.join(map(str, space.label_values))}",
        )
    values = consecutive_values(found, space.label_values)
    if labelled and any(old != new for old, new in values.items()):
        for sample in cohort.samples:
            relabel(labels / (sample.name + SUFFIX), values)
    names = structure_names(values, space.label_names)
    cases = [_place(s, images, labels, release) for s in cohort.samples]
    write_json(release / ROOT / "dataset.json", _dataset(cohort, names, values))
    write_json(release / ROOT / "datalist.json", _datalist(cohort, names, cases))
    return dict(zip([s.name for s in cohort.samples], cases, strict=True))


def consecutive_values(found: Iterable[int], declared: Iterable[int]) -> dict[int, int]:
    """Map label values, found or declared, to 0 (background), 1, ..., K in their order."""
    return {old: new for new, old in enumerate(sorted({0, *found, *declared}))}


def structure_names(values: Mapping[int, int], declared: Mapping[int, str]) -> dict[str, int]:
    """Return structure name -> released value; an undeclared value is called ``label_<generated value>``."""
    names = {"background": 0}
    for old, new in values.items():
        name = declared.get(old, f"label_{old}")
        if new and names.setdefault(name, new) != new:
            raise InputError(f"Two structures are called {name!r}", expected="one name a label value")
    return names


def relabel(file: Path, values: Mapping[int, int]) -> None:
    """Write a label map anew, each voxel's value replaced by its counterpart."""
    volume = read_label(file)
    old = np.array(sorted(values))
    new = np.array([values[value] for value in old.tolist()])
    array = new[np.searchsorted(old, volume.array.astype(np.int64))]
    dtype: Literal["uint8", "int16"] = "uint8" if len(values) <= 256 else "int16"
    write_volume(file, Volume(array.astype(np.float32), volume.affine), dtype=dtype, description=MARK.decode())


def read_header(file: Path) -> tuple[Geometry, list[str]]:
    """Read a NIfTI-1 header without the voxels.

    Returns
    -------
    Geometry
        Shape and affine (sform).
    list of str
        What in it is not as a release must be, in plain words.

    Raises
    ------
    ValueError
        If it is not a NIfTI-1 file.
    """
    try:
        with file.open("rb") as stream:
            flags = stream.read(4)[3:4]
        with gzip.open(file) as stream:
            block = stream.read(_EXTENDED_BYTES)
        if len(block) < _HEADER_BYTES:
            raise ValueError(f"{len(block)} bytes, too short for a header")
        header = nib.Nifti1Header(block[:_HEADER_BYTES])
        shape = tuple(int(n) for n in header.get_data_shape())
        sform, qform = header.get_sform(), header.get_qform()
    except (OSError, EOFError, zlib.error, ValueError, nib.spatialimages.HeaderDataError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if len(shape) != 3:
        raise ValueError(f"shape {shape}, not three axes")
    problems = _text_problems(header) + _space_problems(header, sform, qform)
    if flags and flags[0] & _GZIP_EXTRAS:
        problems.append("gzip carries a file name, a comment or extra data")
    if any(block[_HEADER_BYTES:]):
        problems.append("has a header extension, which may hold anything")
    return Geometry((shape[0], shape[1], shape[2]), np.asarray(sform, dtype=np.float64)), problems


def _text_problems(header: nib.Nifti1Header) -> list[str]:
    filled = [name for name in _FREE_TEXT if bytes(header[name].item()).strip(b"\0 ")]
    problems = [f"header field {name} holds text" for name in filled]
    if bytes(header["descrip"].item()).rstrip(b"\0 ") != MARK:
        problems.append("descrip is not SYNTHETIC")
    return problems


def _space_problems(header: nib.Nifti1Header, sform: Any, qform: Any) -> list[str]:
    problems = []
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes != (1, 1):
        problems.append(f"sform and qform codes are {codes[0]} and {codes[1]}, not 1 and 1")
    if not np.allclose(sform, qform, atol=1e-4):
        problems.append("sform and qform differ")
    if header.get_xyzt_units()[0] != "mm":
        problems.append(f"spatial unit is {header.get_xyzt_units()[0]}, not mm")
    return problems


def _values_in(folder: Path) -> set[int]:
    found: set[int] = set()
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        found |= {int(value) for value in np.unique(read_label(file).array)}
    return found


def _place(sample: Sample, images: Path, labels: Path, release: Path) -> dict[str, str]:
    image, label = images / f"{sample.name}{CHANNEL}{SUFFIX}", labels / (sample.name + SUFFIX)
    try:
        geometry, _ = read_header(image)
    except ValueError as error:
        raise InputError(f"The image of {sample.name} is not NIfTI-1", found=str(error)) from error
    return {
        "spacing": " ".join(f"{round(edge, 6):g}" for edge in geometry.spacing),
        "image": image.relative_to(release).as_posix(),
        "image_sha256": sha256_file(image),
        "label": label.relative_to(release).as_posix() if sample.has_label else "",
        "label_sha256": sha256_file(label) if sample.has_label else "",
    }


def _dataset(cohort: ApprovedCohort, names: Mapping[str, int], values: Mapping[int, int]) -> dict[str, Any]:
    """Return nnU-Net v2's ``dataset.json``."""
    content = {
        "channel_names": {"0": cohort.description.space.modality},
        "labels": dict(names),
        "numTraining": len(cohort.samples) if cohort.samples[0].has_label else 0,
        "file_ending": SUFFIX,
    }
    if any(old != new for old, new in values.items()):
        content["generated_label_values"] = {str(new): old for old, new in values.items()}
    return content


def _datalist(cohort: ApprovedCohort, names: Mapping[str, int], cases: list[dict[str, str]]) -> dict[str, Any]:
    """Return the list that ``monai.data.load_decathlon_datalist`` reads."""
    kinds = ("image", "label") if cohort.samples[0].has_label else ("image",)
    return {
        "modality": {"0": cohort.description.space.modality},
        "labels": {str(value): name for name, value in names.items()},
        "numTraining": len(cases),
        "training": [{kind: f"./{case[kind].removeprefix(ROOT + '/')}" for kind in kinds} for case in cases],
    }
