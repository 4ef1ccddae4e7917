"""What samples get back of scans: noise, background, whole pieces; and which of them are out of range."""

import numpy as np
import pytest
from scipy import ndimage

from synthmed.errors import InputError
from synthmed.models.finish import Finish
from synthmed.models.screen import Screen

GRID = (12, 14, 10)


def scans(number=20, noise=0.1, background=0.0, seed=0):
    """Return smooth decoded volumes and images that are noisier the brighter they are."""
    rng = np.random.default_rng(seed)
    decoded = rng.uniform(-0.8, 0.8, (number, *GRID)).astype(np.float32)
    images = decoded + noise * (1 + decoded) * rng.standard_normal(decoded.shape)
    outside = rng.random(decoded.shape) < background
    decoded[outside] = -1 + 0.01 * rng.standard_normal(int(outside.sum()))
    images[outside] = -1
    return images.clip(-1, 1).astype(np.float32), decoded.astype(np.float32)


def test_noise_follows_the_intensity():
    finish = Finish.fit(*scans(), None, 1)
    finished = finish.image(np.full((1, 40, 40, 40), 0.5, np.float32), np.random.default_rng(1))
    darker = finish.image(np.full((1, 40, 40, 40), -0.5, np.float32), np.random.default_rng(1))
    assert finished.std() == pytest.approx(0.15, rel=0.1)
    assert darker.std() == pytest.approx(0.05, rel=0.15)
    assert finished.mean() == pytest.approx(0.5, abs=0.01)


def test_a_finished_volume_has_the_spread_of_a_scan():
    images, decoded = scans(60)
    finish = Finish.fit(images, decoded, None, 1)
    rng = np.random.default_rng(0)
    finished = np.stack([finish.image(volume[None], rng)[0] for volume in decoded])
    assert finished.std() == pytest.approx(images.std(), rel=0.01)
    assert (finished - decoded).std() == pytest.approx((images - decoded).std(), rel=0.03)


def test_detail_that_neighbours_share_is_not_taken_for_noise():
    rng = np.random.default_rng(0)
    decoded = rng.uniform(-0.5, 0.5, (30, *GRID)).astype(np.float32)
    detail = ndimage.gaussian_filter(rng.standard_normal(decoded.shape), (0, 2, 2, 2))
    detail *= 0.1 / detail.std()
    white = 0.05 * rng.standard_normal(decoded.shape)
    added = [
        Finish.fit((decoded + residual).astype(np.float32), decoded, None, 1).noise[16]
        for residual in (detail, detail + white, white)
    ]
    assert added[0] < 0.03
    assert 0.035 < added[1] < 0.055
    assert added[2] == pytest.approx(0.05, rel=0.1)


def test_scans_of_different_noise_are_drawn_with_different_noise():
    levels = np.repeat([0.02, 0.2], 20)
    parts = [scans(1, noise, seed=seed) for seed, noise in enumerate(levels)]
    images, decoded = (np.concatenate(part) for part in zip(*parts, strict=True))
    even = Finish.fit(*scans(40, 0.1), None, 1)
    finish = Finish.fit(images, decoded, None, 1)
    assert even.spread < 0.05 < 0.8 < finish.spread


def test_background_is_exact_where_the_cohort_has_one():
    images, decoded = scans(20, background=0.3)
    finish = Finish.fit(images, decoded, None, 1)
    assert -1 < finish.floor <= -0.9
    finished = finish.image(decoded[:1], np.random.default_rng(0))
    assert (finished == -1).mean() == pytest.approx((images[:1] == -1).mean(), abs=0.03)
    assert Finish.fit(*scans(20), None, 1).floor == -1.0


def test_crumbs_go_and_the_largest_piece_stays():
    classes = np.zeros((1, *GRID), np.uint8)
    classes[0, 1:6, 1:6, 1:6] = 1
    training = np.repeat(classes, 20, axis=0)
    finish = Finish.fit(np.zeros(training.shape, np.float32), np.zeros(training.shape, np.float32), training, 2)
    assert finish.pieces[1] == 125
    crumbed = classes.copy()
    crumbed[0, 9, 9, 8] = 1
    crumbed[0, 3, 3, 3] = 0
    np.testing.assert_array_equal(finish.labels(crumbed), classes)
    small = np.zeros_like(classes)
    small[0, 2:4, 2:4, 2:4] = 1
    np.testing.assert_array_equal(finish.labels(small), small)


def test_pieces_that_scans_have_are_kept():
    rng = np.random.default_rng(0)
    training = (rng.random((10, *GRID)) < 0.05).astype(np.uint8)
    finish = Finish.fit(np.zeros(training.shape, np.float32), np.zeros(training.shape, np.float32), training, 2)
    np.testing.assert_array_equal(finish.labels(training[:1]), training[:1])


def test_the_default_changes_nothing():
    image, classes = scans(1)[0], np.zeros((1, *GRID), np.uint8)
    np.testing.assert_array_equal(Finish().image(image, np.random.default_rng(0)), image)
    assert Finish().labels(classes) is classes
    assert Screen().outside(image[0], None, []) == ""


def test_both_come_back_from_json():
    images, decoded = scans(8, background=0.2)
    classes = (images > 0.2).astype(np.uint8)
    finish, screen = Finish.fit(images, decoded, classes, 2), Screen.fit(images, classes, 2)
    assert Finish.from_json(finish.to_json()) == finish
    assert Screen.from_json(screen.to_json()) == screen
    for kind in (Finish, Screen):
        with pytest.raises(InputError):
            kind.from_json({"grain": [1.0]})


def cases(number=200, seed=0):
    rng = np.random.default_rng(seed)
    images = (0.1 * rng.standard_normal((number, *GRID)) + 0.1 * rng.standard_normal((number, 1, 1, 1))).clip(-1, 1)
    classes = np.zeros((number, *GRID), np.uint8)
    for n, size in enumerate(rng.integers(3, 9, number)):
        classes[n, :size, :6, :6] = 1
        if n % 3:
            classes[n, :2, 8:12, :4] = 2
    return images.astype(np.float32), classes


def test_real_cases_pass_the_screen():
    images, classes = cases()
    screen = Screen.fit(images, classes, 3)
    others, labels = cases(seed=1)
    refused = [bool(screen.outside(i, c, ["a", "b"])) for i, c in zip(others, labels, strict=True)]
    assert np.mean(refused) < 0.03
    assert screen.optional == (False, True)


def test_what_is_out_of_range_is_named():
    images, classes = cases()
    screen = Screen.fit(images, classes, 3)
    empty = classes[1].copy()
    empty[empty == 1] = 0
    assert "log voxels of a 0.00" in screen.outside(images[1], empty, ["a", "b"])
    assert "mean intensity" in screen.outside(images[1] * 0 + 0.9, classes[1], ["a", "b"])
    assert "intensity SD" in screen.outside(images[1] * 0 + images[1].mean(), classes[1], ["a", "b"])
