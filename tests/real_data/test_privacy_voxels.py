"""Characters and faces in real volumes: no alarm without cause, and what is drawn or cut is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from privacy.burned_in import find_text
from privacy.faces import has_face
from privacy.metadata import examine
from privacy.records import collect

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

Volume = tuple[np.ndarray, tuple[float, ...]]


def _load(path: Path) -> Volume:
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, dtype=np.float32), tuple(float(edge) for edge in image.header.get_zooms()[:3])


def _heads(data_root: Path, every: int) -> Iterator[tuple[Volume, np.ndarray]]:
    for path in sorted((data_root / "ixi_2mm" / "t1").iterdir())[::every]:
        mask, _ = _load(data_root / "ixi_2mm" / "dlmuse_seg" / path.name.replace("_T1", "_T1_DLMUSE"))
        yield _load(path), mask > 0


def _others(data_root: Path, every: int) -> Iterator[Volume]:
    for pattern in ("msd_hippocampus/imagesTr/*.nii.gz", "sts_petct/*/*_image.nii.gz"):
        yield from (_load(path) for path in sorted(data_root.glob(pattern))[::every])
    for name in ("lung_ct", "brain_t1post_oblique"):
        yield from ((scan.array(), scan.spacing) for scan in collect("train", data_root / "dicom" / name))


def _burn(volume: np.ndarray, text: str, size: int, share: float) -> np.ndarray:
    """Draw a text in a lower corner of so many axial slices."""
    out = np.moveaxis(volume.copy(), 2, 0)
    height, width = out.shape[1:]
    font = ImageFont.load_default(size)
    _, _, right, bottom = font.getbbox(text)
    image = Image.new("L", (width, height))
    place = (width - right - 1, height - bottom - 1)
    ImageDraw.Draw(image).text(place, text, fill=255, font=font)
    ink = np.asarray(image, dtype=np.float32) / 255
    part = slice(0, round(share * len(out)))
    out[part] = out[part] * (1 - ink) + volume.max() * ink
    return np.moveaxis(out, 0, 2)


def test_no_characters_are_seen_where_there_are_none(data_root: Path) -> None:
    for (volume, _), mask in _heads(data_root, 10):
        assert find_text(volume) is None
        assert find_text(volume * mask) is None
    assert all(find_text(volume) is None for volume, _ in _others(data_root, 6))


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_characters_in_real_scans_are_found(data_root: Path, share: float) -> None:
    heads = [find_text(_burn(volume, "DOE 71", 12, share)) for (volume, _), _ in _heads(data_root, 10)]
    assert all(line is not None and line.axis == 2 for line in heads)
    small = [_load(path)[0] for path in sorted(data_root.glob("msd_hippocampus/imagesTr/*"))[::12]]
    found = [find_text(_burn(volume, "DOE 7", 10, share)) is not None for volume in small]
    assert np.mean(found) >= 0.85


def test_faces_are_seen_and_nothing_else_is_one(data_root: Path) -> None:
    faces, brains, cut = [], [], []
    for (volume, spacing), mask in _heads(data_root, 5):
        faces.append(has_face(volume, spacing))
        brains.append(has_face(volume * mask, spacing))
        cut.append(has_face(_defaced(volume, mask), spacing))
    assert np.mean(faces) >= 0.95
    assert not any(brains)
    assert np.mean(cut) <= 0.05
    assert not any(has_face(volume, spacing) for volume, spacing in _others(data_root, 6))


def _defaced(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Clear everything before a plane that slopes from the brow to the back of the mouth, for voxels of 2 mm."""
    brain = ndimage.binary_opening(mask)
    front = np.flatnonzero(brain.any((0, 2)))[-1]
    bottom = np.flatnonzero(brain.any((0, 1)))[0]
    _, y, z = np.indices(volume.shape)
    return np.where((y - (front - 2)) - 0.7 * (z - (bottom + 27)) > 0, 0, volume)


@pytest.mark.parametrize("millimetres", [1.0, 3.0, 4.0])
def test_faces_at_other_voxel_sizes_and_scales(data_root: Path, millimetres: float) -> None:
    for (volume, spacing), _ in _heads(data_root, 35):
        resampled = ndimage.zoom(volume, spacing[0] / millimetres, order=1)
        assert has_face(resampled * 1e4 - 5, (millimetres,) * 3)


def test_real_headers_raise_alarm_only_for_what_they_hold(data_root: Path) -> None:
    cohort = collect("train", sorted((data_root / "ixi_2mm" / "t1").iterdir())[:4])
    clean = collect("synthetic", sorted((data_root / "msd_hippocampus" / "imagesTr").iterdir())[:12])
    assert examine(clean, cohort) == ()
    found = examine(cohort[:1], cohort)
    kinds = {(item.severity, item.kind, item.what) for item in found}
    assert ("identifying", "name", "holds the file or folder name of a real scan") in kinds
    assert ("identifying", "extension", "holds the file or folder name of a real scan") in kinds
    assert ("notice", "face", "show a whole head with a face that was not removed") in kinds
    assert ("notice", "geometry", "position and description are bit for bit those of one real scan") in kinds
    assert not any(cohort[0].name.split(".")[0] in item.what + item.where for item in found)
