"""Characters in voxels are found at several sizes and places; anatomy-like texture, bars and ramps are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from privacy.burned_in import find_text

SHAPE = (72, 96, 40)


def _texture(seed: int = 0) -> np.ndarray:
    """Smooth blobs in air, as a scan has."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3)
    body = np.linalg.norm([(x - (n - 1) / 2) / (n / 2) for x, n in zip(np.indices(SHAPE), SHAPE, strict=True)], axis=0)
    return np.where(body < 0.9, 100 + 800 * field / field.std() / 3, rng.uniform(0, 20, SHAPE)).astype(np.float32)


def _burn(volume: np.ndarray, text: str, size: int, place: tuple[int, int], axis: int, turned: bool) -> np.ndarray:
    plane = np.moveaxis(volume.copy(), axis, 0)
    height, width = plane.shape[1:]
    image = Image.new("L", (height, width) if turned else (width, height))
    font = ImageFont.load_default(size)
    left, top, _, _ = font.getbbox(text)
    ImageDraw.Draw(image).text((place[0] - left, place[1] - top), text, fill=255, font=font)
    ink = np.asarray(image, dtype=np.float32) / 255
    ink = ink.T if turned else ink
    return np.moveaxis(plane * (1 - ink) + volume.max() * ink, 0, axis)


@pytest.mark.parametrize("size", [10, 12, 16])
@pytest.mark.parametrize("place", [(2, 2), (6, 20)])
@pytest.mark.parametrize(("axis", "turned"), [(2, False), (2, True), (0, True), (1, False)])
def test_text_is_found_where_it_stands(size: int, place: tuple[int, int], axis: int, turned: bool) -> None:
    if axis != 2:
        size = 10  # a plane of 40 voxels holds no more
    found = find_text(_burn(_texture(), "DOE 7", size, place, axis, turned))
    assert found is not None
    assert found.axis == axis
    assert found.characters >= 3
    start = found.box[0::2][::-1] if not turned else found.box[0::2]
    assert np.abs(np.subtract(start, place)).max() <= size


def test_intensity_scale_does_not_matter() -> None:
    volume = _burn(_texture(), "DOE 71", 12, (4, 4), 2, False)
    assert find_text(volume) == find_text(volume * 1e4 - 1000) == find_text(volume / 1e4)


@pytest.mark.parametrize("seed", range(5))
def test_texture_is_no_text(seed: int) -> None:
    assert find_text(_texture(seed)) is None


def test_bars_frames_and_ramps_are_no_text() -> None:
    volume = _texture()
    volume[2:6, 5:90] = volume.max()
    volume[:, -2:] = volume.max()
    assert find_text(volume) is None
    assert find_text(np.indices(SHAPE)[0].astype(np.float32)) is None
    assert find_text(np.zeros(SHAPE, dtype=np.float32)) is None


def test_text_on_one_slice_of_many_is_not_claimed() -> None:
    volume, written = _texture(), _burn(_texture(), "DOE 71", 12, (4, 4), 2, False)
    volume[:, :, 7] = written[:, :, 7]
    assert find_text(volume) is None
