"""A montage is a picture of what it was given."""

import subprocess
import sys

import numpy as np
import pytest
from skimage.io import imread

from synthmed.errors import InputError
from synthmed.show import centre_of, montage


@pytest.fixture
def pair():
    images = np.full((3, 12, 16, 10), -1.0, np.float32)
    labels = np.zeros(images.shape, np.uint8)
    images[:, 3:9, 4:12, 2:8] = 0.5
    labels[:, 4:8, 5:11, 3:7] = 1
    return images, labels


def test_montage_writes_a_png_with_coloured_outlines(tmp_path, pair):
    images, labels = pair
    picture = imread(montage(images, labels, tmp_path / "m.png"))
    spread = np.ptp(picture[..., :3].astype(int), axis=-1)
    assert picture.shape[1] > picture.shape[0] > 50
    assert (spread > 100).sum() > 200


def test_montage_without_labels_is_grey_and_shows_the_volume(tmp_path, pair):
    picture = imread(montage(pair[0], None, tmp_path / "m.png"))[..., :3].astype(int)
    assert np.ptp(picture, axis=-1).max() == 0
    assert picture.max() > 200


def test_montage_accepts_a_channel_axis_and_gives_the_same_bytes(tmp_path, pair):
    images, labels = pair
    flat = montage(images, labels, tmp_path / "a.png").read_bytes()
    assert flat == montage(images[:, None], labels[:, None], tmp_path / "b.png").read_bytes()


def test_montage_draws_at_most_so_many(tmp_path, pair):
    images, labels = pair
    few = imread(montage(images, labels, tmp_path / "a.png", columns=1, most=1)).shape
    all_ = imread(montage(images, labels, tmp_path / "b.png", columns=1)).shape
    assert all_[0] > few[0]
    assert all_[1] == few[1]


def test_thick_slices_are_drawn_thick(tmp_path):
    """A cube of voxels 3 mm high fills three times as many rows in the planes that show its height."""
    images = np.zeros((1, 12, 12, 12), np.float32)
    images[0, 4:8, 4:8, 5:7] = 1
    counts = []
    for height in (1.0, 3.0):
        montage(images, None, tmp_path / "m.png", spacing=(1.0, 1.0, height))
        picture = imread(tmp_path / "m.png")[..., 0]
        sagittal = picture[:, : picture.shape[1] // 3] > 128
        counts.append(sagittal.any(axis=1).sum() / sagittal.any(axis=0).sum())
    assert counts[0] == pytest.approx(0.5, rel=0.1)
    assert counts[1] == pytest.approx(1.5, rel=0.1)


def test_centre_is_the_labels_centroid_or_the_middle():
    mask = np.zeros((10, 10, 10), bool)
    mask[2:5, 6, 8] = True
    assert centre_of(mask, mask.shape) == (3, 6, 8)
    assert centre_of(np.zeros((4, 6, 8), bool), (4, 6, 8)) == (2, 3, 4)
    assert centre_of(None, (4, 6, 8)) == (2, 3, 4)


@pytest.mark.parametrize("shape", [(0, 4, 4, 4), (4, 4, 4), (2, 3, 4, 4, 4)])
def test_montage_refuses_what_is_not_volumes(tmp_path, shape):
    with pytest.raises(InputError, match="needs volumes"):
        montage(np.zeros(shape), None, tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_montage_refuses_labels_of_another_shape(tmp_path, pair):
    with pytest.raises(InputError, match="one label a volume"):
        montage(pair[0], pair[1][:2], tmp_path / "m.png")


def test_importing_show_does_not_import_matplotlib():
    code = "import sys, synthmed.show; raise SystemExit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
