"""A picture is a picture of what it was given."""

import io
import subprocess
import sys

import numpy as np
import pytest
from skimage.io import imread

import synthmed
from synthmed.errors import InputError
from synthmed.pictures import COLOURS, centre_of, montage, pair, show
from synthmed.volume import Volume


@pytest.fixture
def scans():
    images = np.full((3, 12, 16, 10), -1.0, np.float32)
    labels = np.zeros(images.shape, np.uint8)
    images[:, 3:9, 4:12, 2:8] = 0.5
    labels[:, 4:8, 5:11, 3:7] = 1
    return images, labels


def pixels(picture):
    return imread(io.BytesIO(picture.png()))[..., :3].astype(int)


def count_of(picture, colour):
    """Pixels within a small distance of a colour such as ``#ff5a36``."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(picture) - wanted).max(axis=-1) < 20).sum())


def test_montage_has_coloured_outlines(scans):
    picture = pixels(montage(*scans))
    assert picture.shape[1] > picture.shape[0] > 50
    assert (np.ptp(picture, axis=-1) > 100).sum() > 200


def test_montage_without_labels_is_grey_and_shows_the_volume(scans):
    picture = pixels(montage(scans[0]))
    assert np.ptp(picture, axis=-1).max() == 0
    assert picture.max() > 200


def test_montage_takes_a_channel_axis_or_volumes_and_gives_the_same_bytes(tmp_path, scans):
    images, labels = scans
    flat = montage(images, labels).save(tmp_path / "a.png").read_bytes()
    assert flat == montage(images[:, None], labels[:, None]).png()
    affine = np.eye(4)
    volumes = [[Volume(array[None], affine) for array in arrays] for arrays in scans]
    assert flat == montage(*volumes).png()


def test_montage_draws_at_most_so_many(scans):
    few = pixels(montage(*scans, columns=1, most=1)).shape
    every = pixels(montage(*scans, columns=1)).shape
    assert every[0] > few[0]
    assert every[1] == few[1]


def test_thick_slices_are_drawn_thick():
    """A cube of voxels 3 mm high fills three times as many rows in the planes that show its height."""
    images = np.zeros((1, 12, 12, 12), np.float32)
    images[0, 4:8, 4:8, 5:7] = 1
    counts = []
    for height in (1.0, 3.0):
        picture = pixels(montage(images, spacing=(1.0, 1.0, height)))[..., 0]
        sagittal = picture[:, : picture.shape[1] // 3] > 128
        counts.append(sagittal.any(axis=1).sum() / sagittal.any(axis=0).sum())
    assert counts[0] == pytest.approx(0.5, rel=0.1)
    assert counts[1] == pytest.approx(1.5, rel=0.1)


def test_a_volume_is_turned_to_ras_and_keeps_its_spacing(scans):
    array = np.zeros((12, 16, 10), np.float32)
    array[2:5, 3:9, 1:6] = 1
    upright = Volume(array[None], np.diag([1.0, 1.0, 2.0, 1.0]))
    # The same scan stored from left to right the other way, and its axes in another order.
    turned = Volume(
        array[::-1].transpose(2, 0, 1)[None], np.array([[0, -1, 0, 11.0], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    )
    assert show(turned).png() == show(upright).png()
    assert show(turned).png() != show(array).png(), "2 mm and 1 mm look different"
    assert show(array, spacing=(1.0, 1.0, 2.0)).png() == show(upright).png()


def test_show_names_the_structures_in_their_colours(scans):
    image, label = scans[0][0], scans[1][0].copy()
    label[5:7, 6:8, 4:6] = 2
    plain, named = show(image, label), show(image, label, names={1: "box", 2: "core"})
    assert plain.png() != named.png()
    texts = [text.get_text() for text in named.figure.legends[0].get_texts()]
    assert texts == ["box", "core"]
    assert [t.get_text() for t in plain.figure.legends[0].get_texts()] == ["label 1", "label 2"]
    assert count_of(named, COLOURS[0]) > 50
    assert count_of(named, COLOURS[1]) > 20
    assert show(image).figure.legends == []


def test_left_is_drawn_left(scans):
    """What lies at low I is at the side marked L in the coronal and the axial section."""
    image = np.zeros((12, 12, 12), np.float32)
    image[1:4, 5:8, 5:8] = 1
    for axes in show(image).figure.axes[1:3]:
        section = np.asarray(axes.images[0].get_array())
        assert section[:, :6].sum() > 0 == section[:, 6:].sum()
        letters = {text.get_text(): text.get_position()[0] for text in axes.texts}
        assert letters["L"] < 0.5 < letters["R"]


def test_a_pair_shows_where_two_differ(scans):
    first = scans[0][0]
    second = first.copy()
    second[3:6] += 0.4
    names = ("sample", "scan")
    picture = pair(first, second, titles=names)
    rows = [axes.get_ylabel() for axes in picture.figure.axes if axes.get_ylabel()]
    assert rows == [*names, "second - first"]
    difference = picture.figure.axes[7].images[0]
    assert np.asarray(difference.get_array()).max() == pytest.approx(0.4)
    assert difference.get_clim() == pytest.approx((-0.4, 0.4))
    assert np.ptp(pixels(pair(first, first)), axis=-1).max() < 10, "equal scans differ nowhere"
    with pytest.raises(InputError, match="equal shapes"):
        pair(first, first[1:])


def test_planes_pass_where_most_is_seen():
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[2:5, 6, 8] = 1
    assert centre_of(mask, mask.shape) == (3, 6, 8)
    mask[4:6, 3, 8] = 2
    assert centre_of(mask, mask.shape) == (4, 6, 8), "both structures are in section 4 alone"
    assert centre_of(np.zeros((4, 6, 8), bool), (4, 6, 8)) == (2, 3, 4)
    assert centre_of(None, (4, 6, 8)) == (2, 3, 4)


@pytest.mark.parametrize("shape", [(0, 4, 4, 4), (4, 4), (2, 3, 4, 4, 4), (1, 0, 4, 4)])
def test_what_is_not_volumes_is_refused(shape):
    with pytest.raises(InputError, match="needs volumes"):
        montage(np.zeros(shape))


def test_labels_of_another_shape_are_refused(scans):
    images, labels = scans
    with pytest.raises(InputError, match="one label a volume"):
        montage(images, labels[:2])
    with pytest.raises(InputError, match="one label a volume"):
        show(images[0], labels[0][1:])
    with pytest.raises(InputError, match="of one shape"):
        montage([images[0], images[1][1:]])


def test_the_package_offers_what_draws():
    assert (synthmed.show, synthmed.pair, synthmed.montage) == (show, pair, montage)
    with pytest.raises(AttributeError, match="shaw"):
        _ = synthmed.shaw


@pytest.mark.parametrize("code", ["import synthmed", "import synthmed.pictures", "from synthmed import show"])
def test_nothing_heavy_is_imported_before_something_is_drawn(code):
    code = f"{code}; import sys; raise SystemExit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
