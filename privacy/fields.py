"""What a file says beside its voxels: names, header fields, extensions, sidecars and DICOM attributes, as text."""

from __future__ import annotations

import gzip
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from privacy.errors import InputError
from privacy.patients import stem
from privacy.reading import DAMAGE, is_nifti, joint_digest, parse_nifti, read_bytes
from privacy.records import Scan

NIFTI_TEXT = ("descrip", "aux_file", "intent_name", "db_name")
NIFTI_PLACE = (
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "descrip",
)
DICOM_EXTENSION = 2
_IDENTITY = """
    PatientName PatientID OtherPatientIDs OtherPatientNames OtherPatientIDsSequence PatientBirthDate PatientBirthTime
    PatientBirthName PatientMotherBirthName PatientAddress PatientTelephoneNumbers PatientTelecomInformation
    IssuerOfPatientID MedicalRecordLocator InsurancePlanIdentification MilitaryRank BranchOfService CountryOfResidence
    RegionOfResidence ResponsiblePerson ResponsibleOrganization ReferringPhysicianName ReferringPhysicianAddress
    ReferringPhysicianTelephoneNumbers PerformingPhysicianName OperatorsName PhysiciansOfRecord
    NameOfPhysiciansReadingStudy RequestingPhysician ScheduledPerformingPhysicianName InstitutionName
    InstitutionAddress InstitutionalDepartmentName AccessionNumber AdmissionID CurrentPatientLocation PersonName
    PersonAddress PersonTelephoneNumbers EthnicGroup Occupation PatientReligiousPreference RequestingService
    FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest
"""
IDENTITY = frozenset(_IDENTITY.split())
"""Attributes of DICOM PS3.15 table E.1-1 that say who the patient is, or who and where looked after them."""
PATIENT = frozenset({"PatientID", "OtherPatientIDs", "PatientName", "subject", "subject_id", "patient", "patient_id"})


@dataclass(frozen=True)
class Field:
    """One piece of text.

    Attributes
    ----------
    kind : str
        ``"name"``, ``"header"``, ``"extension"``, ``"sidecar"`` or ``"dicom"``.
    where : str
        A standard's own word for the field; no text of the file.
    text : str
    role : str
        ``"name"``, ``"text"``, ``"patient"`` (whose identifiers stand here), ``"identity"`` (which identifies when
        filled), ``"description"`` (of a protocol, where ``^`` parts no names), ``"uid"``, ``"date"`` or ``"private"``.
    """

    kind: str
    where: str
    text: str
    role: str = "text"


@dataclass(frozen=True)
class Header:
    """A volume's fields, and the bits that place it in space.

    Attributes
    ----------
    fields : tuple of Field
    place : bytes
        The bits of the transforms and the description; empty where they are nobody's in particular.
    """

    fields: tuple[Field, ...]
    place: bytes = b""


def read_header(scan: Scan) -> Header:
    """Read all the text of a sample's files.

    Raises
    ------
    InputError
        If a file cannot be read, or is no longer what was collected.
    """
    if not scan.files:
        return Header(())
    blobs = [read_bytes(path) for path in scan.files]
    if joint_digest([hashlib.sha256(blob).hexdigest() for blob in blobs]) != scan.sha256:
        raise InputError(f"{scan.path} changed while the audit ran", next_step="Audit again what does not change")
    fields = list(_names(scan))
    if not is_nifti(scan.files[0]):
        for blob in blobs:
            fields += _dicom_file(blob)
        return Header(tuple(dict.fromkeys(fields)))
    image = parse_nifti(blobs[0])
    fields += [Field("header", key, text) for key in NIFTI_TEXT if (text := _decoded(image.header[key].tobytes()))]
    for extension in image.header.extensions:
        fields += _extension(extension)
    fields += _sidecar(scan.files[0])
    return Header(tuple(dict.fromkeys(fields)), place(image.header))


def place_of(path: Path) -> bytes:
    """Return `Header.place` of a NIfTI file from its first bytes alone; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            block = stream.read(540)
        kind = nib.Nifti2Header if 540 in np.frombuffer(block[:4], "<i4").tolist() else nib.Nifti1Header
        return place(kind(block[: kind.template_dtype.itemsize], check=False))
    except DAMAGE:
        return b""


def place(header: Any) -> bytes:
    """Return the bits of a header's transforms and description, or nothing where anybody could have them.

    Anybody's are transforms along the axes whose origin is a whole number of half voxels.
    """
    affine = header.get_best_affine()
    linear, shift = affine[:3, :3], affine[:3, 3]
    size = np.abs(linear).max(0)
    along = np.count_nonzero(np.abs(linear) > 1e-6 * max(float(size.max()), 1e-12)) <= 3
    halves = 2 * shift / np.where(size > 0, size, 1)
    if along and np.abs(halves - halves.round()).max() < 1e-3:
        return b""
    return b"".join([header["pixdim"][:4].tobytes(), *(header[key].tobytes() for key in NIFTI_PLACE)])


def uids(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what identifies a real DICOM file: (kind, text) with the kinds ``uid`` and ``patient``."""
    for field in _dicom_file(read_bytes(path)):
        if field.role in ("uid", "patient"):
            yield field.role, field.text


def _names(scan: Scan) -> Iterator[Field]:
    """Yield the names that would leave with a file: below the set's root, or its own."""
    path = Path(scan.name)
    parts = (path.name,) if path.is_absolute() else path.parts
    for folder in parts[:-1]:
        yield Field("name", "folder name", folder, "name")
    yield Field("name", "file name", stem(parts[-1] if parts else ""), "name")
    if len(scan.files) > 1:
        yield from (Field("name", "file name", stem(file.name), "name") for file in scan.files)


def _decoded(block: bytes) -> str:
    """Read what stands behind a terminating zero, too."""
    return " ".join(block.replace(b"\0", b" ").decode("latin-1").split())


def _extension(extension: Any) -> list[Field]:
    code = int(extension.get_code())
    found = [Field("extension", f"NIfTI extension {code}", "", "private")]
    try:
        content = extension.get_content()
    except DAMAGE as error:
        return [*found, Field("extension", f"NIfTI extension {code}", f"unreadable: {type(error).__name__}")]
    if code == DICOM_EXTENSION and not isinstance(content, bytes):
        return found + [Field("extension", f.where, f.text, f.role) for f in _dicom_fields(content)]
    text = _decoded(content) if isinstance(content, bytes) else " ".join(str(content).split())
    return [*found, Field("extension", f"NIfTI extension {code}", text)]


def _sidecar(path: Path) -> list[Field]:
    beside = path.with_name(stem(path.name) + ".json")
    if not beside.is_file():
        return []
    text = read_bytes(beside).decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return [Field("sidecar", "JSON sidecar", text)]
    return [field for key, value in _flat("", content) for field in _entry(key, value)]


def _entry(key: str, value: str) -> list[Field]:
    if key in IDENTITY or key in PATIENT:
        return [Field("sidecar", key, value, "patient" if key in PATIENT else "identity")]
    if key.endswith("InstanceUID"):
        return [Field("sidecar", "UID", value, "uid")]
    return [Field("sidecar", "JSON sidecar", f"{key}: {value}" if key else value)]


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(str(name), item)
    elif isinstance(value, list):
        for item in value:
            yield from _flat(key, item)
    elif value is not None and not isinstance(value, float):
        yield key, str(value)


def _dicom_file(blob: bytes) -> list[Field]:
    from privacy.dicom import parse

    return _dicom_fields(parse(blob))


def _dicom_fields(data: Any) -> list[Field]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [field for element in data.iterall() for field in _attribute(element)]
    except DAMAGE as error:
        raise InputError("unreadable DICOM attributes", found=type(error).__name__) from error


def _attribute(element: Any) -> list[Field]:
    if element.VR in ("SQ", "OB", "OW", "OF", "OD", "UN", "OL", "OV") and not element.tag.is_private:
        return []
    text = " ".join(str(element.value).split()) if element.VR not in ("SQ", "OB", "OW", "UN") else ""
    if element.tag.is_private:
        return [Field("dicom", "private attribute", text, "private")]
    if not text:
        return []
    keyword = element.keyword or "unknown attribute"
    if element.VR == "UI":
        return [] if text.startswith("1.2.840.10008") else [Field("dicom", keyword, text, "uid")]
    if keyword in PATIENT:
        return [Field("dicom", keyword, text, "patient")]
    if keyword in IDENTITY or element.VR == "PN":
        return [Field("dicom", keyword, text, "identity")]
    if element.VR in ("DA", "DT"):
        return [Field("dicom", keyword, text, "date")]
    if keyword.endswith(("Description", "ProtocolName")):
        return [Field("dicom", keyword, text, "description")]
    return [Field("dicom", keyword, text)] if element.VR in ("LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR") else []
