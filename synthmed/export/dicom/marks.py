"""What every DICOM object of a release must say, and what none may: the marks of synthetic data, and no patient."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from privacy.fields import IDENTITY
from synthmed.export.dicom.case import patient_id, patient_name
from synthmed.export.samples import WARNING

_FIXED = {
    "SyntheticData": "YES",
    "ImageComments": WARNING,
    "ContentQualification": "RESEARCH",
    "PatientIdentityRemoved": "YES",
    "BurnedInAnnotation": "NO",
}
_IDENTITY = {tag_for_keyword(keyword) for keyword in IDENTITY} - {None}
_SERIAL = re.compile(r"[0-9a-f]{16}")
_NAMED = {tag_for_keyword("PatientName"), tag_for_keyword("PatientID")}


def mark_problems(data: Dataset, case: str) -> list[str]:
    """Return what is wrong with the marks of one object, in plain words.

    Parameters
    ----------
    data : Dataset
    case : str
        The case whose folder it lies in.
    """
    problems = [
        f"{keyword} is {_text(data, keyword) or 'missing'}, not {value}"
        for keyword, value in _FIXED.items()
        if _text(data, keyword) != value
    ]
    kind = _text(data, "ImageType").split("\\")[0]
    if kind != "DERIVED":
        problems.append(f"ImageType begins with {kind or 'nothing'}, not DERIVED")
    if not _text(data, "DeidentificationMethod"):
        problems.append("DeidentificationMethod is missing")
    if not _text(data, "DerivationDescription"):
        problems.append("DerivationDescription is missing")
    if codes.DCM.SynthesizingEquipment.value not in _contributions(data):
        problems.append("ContributingEquipmentSequence names no synthesizing equipment")
    return problems + _person_problems(data, case)


def _person_problems(data: Dataset, case: str) -> list[str]:
    problems, serial = [], _text(data, "DeviceSerialNumber")
    if not _SERIAL.fullmatch(serial):
        problems.append("DeviceSerialNumber is not the beginning of a digest")
    identity = patient_id(serial, case)
    if (_text(data, "PatientID"), _text(data, "PatientName")) != (identity, patient_name(identity)):
        problems.append(f"PatientName or PatientID is not that of the synthetic case {case}")
    filled = sorted(set(_identifying(data)))
    return problems + [f"{keyword_for_tag(tag)} is filled" if tag else "has private attributes" for tag in filled]


def _identifying(data: Dataset) -> Iterator[int]:
    """Yield tags, at any depth, of filled attributes that identify people and of private ones (as 0)."""
    for tag in data.keys():  # noqa: SIM118 - the dataset itself iterates over parsed elements
        element = data.get_item(tag)
        if tag.is_private:
            yield 0
        elif tag in _IDENTITY and tag not in _NAMED:
            if str(data[tag].value or "").strip():
                yield tag
        elif element is not None and element.VR == "SQ":
            for nested in data[tag].value:
                yield from _identifying(nested)


def _contributions(data: Dataset) -> set[str]:
    purposes = [
        purpose
        for equipment in data.get("ContributingEquipmentSequence") or ()
        for purpose in equipment.get("PurposeOfReferenceCodeSequence") or ()
    ]
    return {str(purpose.get("CodeValue")) for purpose in purposes}


def _text(data: Dataset, keyword: str) -> str:
    found = data.get(keyword)
    if found is None:
        return ""
    return found if isinstance(found, str) else "\\".join(map(str, found)) if _several(found) else str(found)


def _several(found: object) -> bool:
    return isinstance(found, list) or type(found).__name__ == "MultiValue"
