"""Previews: small, right way round, with labels that keep their values, and of a size that no set can break."""

from __future__ import annotations

import base64
import io
import zlib
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from report_pages import volumes

from synthmed.report import Facts, chosen, preview, render_report
from synthmed.report.previews import MOST_VOLUMES, MOST_VOXELS, encode, grey_window, halvings, montage_png
from synthmed.volume import Volume


def volume(array: NDArray[np.float32], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(array[None], np.diag([*spacing, 1.0]))


@pytest.mark.parametrize(
    ("shape", "spacing", "factors"),
    [
        ((64, 64, 64), (1.0, 1.0, 1.0), (1, 1, 1)),
        ((128, 128, 128), (1.0, 1.0, 1.0), (2, 2, 2)),
        ((512, 512, 30), (0.5, 0.5, 5.0), (8, 8, 1)),
        ((256, 256, 128), (1.0, 1.0, 1.0), (4, 4, 4)),
        ((1_000_000, 1, 1), (1.0, 1.0, 1.0), (4, 1, 1)),
    ],
)
def test_the_finest_axes_are_halved_until_it_is_small(
    shape: tuple[int, ...], spacing: tuple[float, ...], factors: tuple[int, ...]
) -> None:
    assert halvings(shape, spacing) == factors
    assert np.prod([-(-side // f) for side, f in zip(shape, factors, strict=True)]) <= MOST_VOXELS


def test_a_halved_image_is_the_mean_of_its_blocks_and_knows_its_spacing() -> None:
    array = np.arange(127 * 64 * 64, dtype=np.float32).reshape(127, 64, 64)
    small = preview("a", volume(array, (0.5, 1.0, 1.0)), None)
    assert small.spacing == (1.0, 1.0, 1.0)
    assert small.image.shape == (64, 64, 64)
    assert (small.image[:63] == array[:126].reshape(63, 2, 64, 64).mean(axis=1)).all()
    assert (small.image[63] == array[126]).all()


def test_a_halved_label_is_what_most_of_a_block_is_and_a_structure_where_it_is_even() -> None:
    label = np.zeros((128, 64, 64), np.float32)
    label[0:1] = 7  # half of the first block
    label[2:4, :, :32] = 3
    small = preview("a", volume(label, (0.5, 1.0, 1.0)), volume(label, (0.5, 1.0, 1.0)), (0, 3, 7))
    assert small.label is not None
    assert small.label.shape == (64, 64, 64)
    assert (small.label[0] == 2).all()
    assert (small.label[1, :, :32] == 1).all()
    assert (small.label[1, :, 32:] == 0).all()


def test_a_majority_wins_over_a_larger_value() -> None:
    label = np.ones((128, 128, 64), np.float32)
    label[::2, ::2] = 2  # one voxel in four
    assert set(np.unique(preview("a", volume(label), volume(label), (0, 1, 2)).label)) == {1}


def test_a_preview_is_turned_to_ras() -> None:
    array = np.zeros((4, 5, 6), np.float32)
    array[0, 0, 0] = 1.0  # right, anterior, superior in LPI order of axes
    turned = preview("a", Volume(array[None], np.diag([-1.0, -1.0, -1.0, 1.0])), None)
    assert turned.image[3, 4, 5] == 1.0


def test_the_choice_is_spread_evenly_and_looks_at_names_alone() -> None:
    names = [f"s{k:03d}" for k in range(200)]
    picked = chosen(names[::-1])
    assert len(picked) == MOST_VOLUMES == len(set(picked))
    assert picked[0] == "s000"
    assert {int(b[1:]) - int(a[1:]) for a, b in pairwise(picked)} <= {16, 17}
    assert chosen(names[:3]) == names[:3]


def test_the_viewer_reads_first_axis_fastest() -> None:
    shown = volumes(1)
    [made] = encode(shown, ("background", "left", "right"))["volumes"]
    flat = np.frombuffer(zlib.decompress(base64.b64decode(made["image"])), np.uint8)
    i, j, k = shown[0].image.shape
    assert len(flat) == i * j * k
    x, y, z = 3, 20, 9
    low, high = grey_window(shown)
    assert flat[x + i * (y + j * z)] == round((shown[0].image[x, y, z] - low) / (high - low) * 255)


def test_structures_without_a_name_get_one() -> None:
    labels = encode(volumes(1), ("background", "left"))["labels"]
    assert [(entry["value"], entry["name"]) for entry in labels] == [(1, "left"), (2, "class 2")]


def test_the_montage_has_every_volume_and_its_colours() -> None:
    shown = volumes(5)
    with Image.open(io.BytesIO(montage_png(shown, columns=3))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 3
    for index in range(5):
        row, column = divmod(index, 3)
        tile = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        spread = tile.max(axis=-1) - tile.min(axis=-1)
        assert (spread > 20).sum() > 500
        assert len(np.unique(tile[spread == 0])) > 5
    assert montage_png(shown, columns=3) == montage_png(shown, columns=3)


def test_an_even_image_and_no_label_can_be_shown() -> None:
    flat = preview("a", volume(np.full((4, 4, 4), 3.0, np.float32)), None)
    assert montage_png([flat]).startswith(b"\x89PNG")
    assert encode([flat], ())["volumes"][0]["label"] is None


def test_a_page_of_many_large_volumes_of_noise_is_under_ten_megabytes() -> None:
    rng = np.random.default_rng(0)
    label = volume(rng.integers(0, 3, (64, 64, 64)).astype(np.float32))
    noise = [preview(f"s{k}", volume(rng.random((64, 64, 64), np.float32)), label, (0, 1, 2)) for k in range(2)]
    page = render_report(Facts("Noise", previews=noise * (MOST_VOLUMES // 2), number_of_volumes=200))
    assert len(page.encode()) < 10e6
