"""What is sent: the DICOM files of a release, each with its digest and what a server knows it by."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from synthmed.errors import ConfigError, VerificationFailed
from synthmed.export.seal import SUMS

ROOM = "dicom"
_KEYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Instance:
    """One DICOM file of a release.

    Attributes
    ----------
    file : str
        Path inside the release.
    sha256 : str
        What ``SHA256SUMS`` says.
    size : int
        Bytes.
    sop_class, uid, syntax, study, series : str
        Unique identifiers: of its SOP class, of itself, of its transfer syntax, of its study and series.
    """

    file: str
    sha256: str
    size: int
    sop_class: str
    uid: str
    syntax: str
    study: str
    series: str


def read_instances(release: Path) -> tuple[Instance, ...]:
    """Read the header of every ``.dcm`` under ``dicom/``, in the order of their names.

    Parameters
    ----------
    release : Path
        A release that verifies.

    Raises
    ------
    ConfigError
        If the release holds no DICOM.
    VerificationFailed
        If a file has no checksum, is not DICOM, or shares its UID with another.
    """
    sums = _checksums(release)
    files = sorted(path.relative_to(release).as_posix() for path in (release / ROOM).rglob("*.dcm"))
    if not files:
        raise ConfigError(
            f"{release} holds no DICOM", found=f"no .dcm under {ROOM}/", next_step="Export it with --format dicom"
        )
    found = tuple(_instance(release, name, sums) for name in files)
    uid, times = Counter(instance.uid for instance in found).most_common(1)[0]
    if times > 1:
        raise VerificationFailed(f"{times} files of {release} share the SOP Instance UID {uid}")
    return found


def read_bytes(release: Path, instance: Instance) -> bytes:
    """Return the bytes of a file; raise `VerificationFailed` unless they are those that were verified."""
    try:
        content = (release / instance.file).read_bytes()
    except OSError as error:
        raise VerificationFailed(
            f"{instance.file} can no longer be read", found=error.strerror or str(error)
        ) from error
    if hashlib.sha256(content).hexdigest() != instance.sha256:
        raise VerificationFailed(f"{instance.file} changed while the release was being sent")
    return content


def _checksums(release: Path) -> dict[str, str]:
    try:
        lines = (release / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VerificationFailed(f"{release / SUMS} cannot be read") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _instance(release: Path, name: str, sums: dict[str, str]) -> Instance:
    if name not in sums:
        raise VerificationFailed(f"{name} has no line in {SUMS}")
    path = release / name
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_KEYS))
        sop_class, uid, study, series = (str(header[key].value) for key in _KEYS)
        syntax = str(header.file_meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, KeyError, AttributeError) as error:
        raise VerificationFailed(f"{name} is not a DICOM file that can be sent", found=str(error)) from error
    return Instance(name, sums[name], path.stat().st_size, sop_class, uid, syntax, study, series)
