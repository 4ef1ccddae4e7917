"""From datasets to bytes: Part 10 files, lossless compression, and what all slices share encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.tag import Tag

from synthmed.errors import ConfigError, InputError
from synthmed.export.dicom.case import IMPLEMENTATION_UID

Frames = NDArray[np.int16] | NDArray[np.uint16]
SYNTAXES: dict[str, uid.UID] = {
    "none": uid.ExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg-2000": uid.JPEG2000Lossless,
    "htj2k": uid.HTJ2KLossless,
}
"""ExportConfig.compression -> transfer syntax; all are lossless."""

ENCODERS: dict[str, dict[str, str]] = {
    "rle": {"gdcm": "python-gdcm"},
    "jpeg-ls": {"jpeg_ls": "pyjpegls"},
    "jpeg-2000": {"pylibjpeg": "pylibjpeg", "openjpeg": "pylibjpeg-openjpeg"},
    "htj2k": {"imagecodecs": "imagecodecs", "pylibjpeg": "pylibjpeg", "openjpeg": "pylibjpeg-openjpeg"},
}
"""Compression -> modules that encode it and decode it again, and what pip calls them; all BSD or MIT licensed.

RLE and JPEG-LS always come with synthmed.
"""

_PREAMBLE = bytes(128) + b"DICM"
_VERSION_NAME = "SYNTHMED"
_PIXEL_DATA = bytes.fromhex("e07f1000")
_UNDEFINED, _SEQUENCE_END = b"\xff" * 4, bytes.fromhex("feffdde0") + bytes(4)


def check_encoder(compression: str) -> None:
    """Raise `ConfigError` where nothing installed encodes `compression`."""
    packages = ENCODERS.get(compression, {})
    missing = [package for module, package in packages.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"Nothing installed encodes --compression {compression}",
            expected=f"the package{'s' * (len(missing) > 1)} {' and '.join(missing)}",
            next_step=f"Run `pip install {' '.join(missing)}`, or choose rle",
        )


def compress(frame: Frames, compression: str) -> bytes:
    """Return one frame, shape (rows, columns), as a lossless codestream.

    Raises
    ------
    InputError
        If the encoder refuses it; OpenJPEG wants 32 rows and columns.
    """
    try:
        return _compress(frame, compression)
    except RuntimeError as error:
        raise InputError(
            f"A slice of {frame.shape[0]} x {frame.shape[1]} cannot be encoded as {compression}",
            found=" ".join(str(error).split()),
            next_step="Choose --compression none or rle",
        ) from error


def _compress(frame: Frames, compression: str) -> bytes:
    if compression == "htj2k":
        return bytes(import_module("imagecodecs").htj2k_encode(np.ascontiguousarray(frame), reversible=True))
    from pydicom.pixels import get_encoder

    plugin = {"rle": "gdcm", "jpeg-ls": "pyjpegls", "jpeg-2000": "pylibjpeg"}[compression]
    return get_encoder(SYNTAXES[compression]).encode(
        np.ascontiguousarray(frame).tobytes(),
        encoding_plugin=plugin,
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=int(frame.dtype.kind == "i"),
        photometric_interpretation="MONOCHROME2",
    )


def pixel_data(frames: Frames, compression: str) -> bytes:
    """Return the element Pixel Data (PS3.5 8.2, A.4) that holds `frames`, shape (frames, rows, columns)."""
    if compression == "none":
        content = frames.astype(frames.dtype.newbyteorder("<"), copy=False).tobytes()
        return _PIXEL_DATA + b"OW\0\0" + len(content).to_bytes(4, "little") + content
    content = encapsulate([compress(frame, compression) for frame in frames])
    return _PIXEL_DATA + b"OB\0\0" + _UNDEFINED + content + _SEQUENCE_END


def part10(data: Dataset, syntax: uid.UID, pixels: bytes = b"") -> bytes:
    """Return a dataset as a DICOM file (PS3.10); `pixels` is its encoded pixel data, unless it holds them itself."""
    return file_meta(str(data.SOPClassUID), str(data.SOPInstanceUID), syntax) + encode(data) + pixels


def file_meta(sop_class: str, instance: str, syntax: uid.UID) -> bytes:
    """Return preamble and file meta information; nothing in it depends on the moment or the machine."""
    before, after = _around_instance(sop_class, len(instance), syntax)
    return before + instance.encode() + after


@cache
def _around_instance(sop_class: str, length: int, syntax: uid.UID) -> tuple[bytes, bytes]:
    """Return what stands before and after the instance's UID of `length` characters; slices differ in it alone."""
    instance = "1" * length
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid.UID(sop_class), uid.UID(instance)
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID, meta.ImplementationVersionName = uid.UID(IMPLEMENTATION_UID), _VERSION_NAME
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_file_meta_info(stream, meta, enforce_standard=True)
    before, after = stream.getvalue().split(instance.encode())
    return _PREAMBLE + before, after


def encode(data: Dataset) -> bytes:
    """Return a dataset's elements in Explicit VR Little Endian."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, data)
    return stream.getvalue()


def template(common: Dataset, own: Iterable[str]) -> Callable[[Dataset], bytes]:
    """Encode `common` once; return a function that puts the elements of another slice in their places.

    Parameters
    ----------
    common : Dataset
        What all slices share.
    own : iterable of str
        Keywords of what differs; every dataset given to the function has exactly these.
    """
    places = sorted(Tag(keyword) for keyword in own)
    bounds = [Tag(0), *places, Tag(0xFFFFFFFF)]
    pieces = [encode(common[slice(first, last)]) for first, last in pairwise(bounds)]

    def render(data: Dataset) -> bytes:
        parts = [pieces[0]]
        for place, piece in zip(places, pieces[1:], strict=True):
            parts += [encode(data[slice(place, Tag(place + 1))]), piece]
        return b"".join(parts)

    return render
