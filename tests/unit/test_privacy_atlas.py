"""A scan that was moved is laid over the atlas where the original is, and the atlas knows no order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from privacy_scans import features, scan, scans
from scipy import ndimage
from torch import Tensor

from privacy.atlas import HYPOTHESES, build_atlas, lay, pictures
from privacy.poses import MIRRORS, SIGNS, flip, mirror_all
from privacy.registration import Template

Change = Callable[[np.ndarray], np.ndarray]
PEOPLE = range(10)
KINDRED = 0.5  # what is a person's own, against what all share


@pytest.fixture(scope="module")
def atlas() -> Template:
    return build_atlas(features(scans(PEOPLE, KINDRED)))


def alike(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> Tensor:
    """Correlate pictures over what both show, shape (n,)."""
    shared = one[1] * two[1]
    a, b = ((values * shared).flatten(1) for values in (one[0], two[0]))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def rotated(degrees: float, axes: tuple[int, int]) -> Change:
    def change(volume: np.ndarray) -> np.ndarray:
        return ndimage.rotate(volume, degrees, axes=axes, reshape=False, order=1, mode="nearest")

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v,
        lambda v: v[::-1],
        lambda v: v[:, ::-1, ::-1],
        lambda v: v[::-1, ::-1, ::-1],
        lambda v: 700 * v + 3,
        lambda v: np.pad(v, ((0, 6), (2, 0), (4, 4))),
        lambda v: ndimage.shift(v, (1.5, -2, 1), order=1, mode="nearest"),
        rotated(7, (0, 1)),
        rotated(-6, (1, 2)),
        lambda v: rotated(6, (0, 2))(np.pad(v, 3, mode="edge")[::-1]),
    ],
    ids=["same", "mirror", "two mirrors", "point", "scale", "margins", "shift", "turn", "turn back", "all"],
)
def test_a_moved_scan_is_laid_where_the_original_is(atlas: Template, change: Change) -> None:
    people = scans(PEOPLE, KINDRED)
    original, moved = features(people), features([change(v) for v in people])
    one, two = (pictures(seen, lay(seen, atlas), atlas) for seen in (original, moved))
    same, others = alike(one, two), alike(one, (two[0].roll(1, 0), two[1].roll(1, 0)))
    assert same.min() > 0.85
    assert same.median() > others.max()


@pytest.mark.parametrize("mirror", MIRRORS[1:])
def test_a_mirror_image_is_laid_as_its_mirror_image(atlas: Template, mirror: tuple[bool, ...]) -> None:
    """The index of two mirrorings in a row is the exclusive or of theirs."""
    original = features(scans(PEOPLE, KINDRED))
    index = MIRRORS.index(mirror)
    flipped = (flip(getattr(original, key), mirror) for key in ("intensity", "fine", "coarse"))
    seen = type(original)(*flipped, original.centre)
    one, two = lay(original, atlas), lay(seen, atlas)
    assert torch.equal(two.mirror, one.mirror ^ index)
    assert torch.allclose(two.pose, one.pose, atol=1e-4)
    assert torch.allclose(two.score, one.score, atol=1e-5)


def test_poses_are_kept_best_first(atlas: Template) -> None:
    laid = lay(features(scans(range(30, 36))), atlas)
    assert laid.score.shape == laid.mirror.shape == (6, HYPOTHESES)
    assert laid.pose.shape == (6, HYPOTHESES, 4, 4)
    assert (laid.score[:, 0] >= laid.score[:, 1]).all()
    assert (laid.mirror[:, 0] != laid.mirror[:, 1]).all()


def test_the_score_is_the_correlation_with_the_atlas(atlas: Template) -> None:
    whole = features(scans(PEOPLE, KINDRED))
    laid = lay(whole, atlas)
    atlas_picture = (atlas.features.expand(len(whole), -1, -1, -1), atlas.mask.expand(len(whole), -1, -1, -1))
    found = alike(pictures(whole, laid, atlas), atlas_picture)
    assert torch.allclose(found, laid.score[:, 0], atol=0.05)


def test_each_scan_is_laid_as_if_alone(atlas: Template) -> None:
    whole = features(scans(range(40)))
    together = lay(whole, atlas)
    for k in (0, 33, 39):
        alone = lay(whole[[k]], atlas)
        assert torch.equal(alone.mirror[0], together.mirror[k])
        assert torch.allclose(alone.pose[0], together.pose[k], atol=1e-3)


def test_the_atlas_ignores_the_order(atlas: Template) -> None:
    order = np.random.default_rng(0).permutation(len(PEOPLE))
    again = build_atlas(features(scans(order.tolist(), KINDRED)))
    assert torch.allclose(again.features, atlas.features, atol=1e-3)
    assert torch.equal(again.mask, atlas.mask)


def test_scans_lie_closer_over_the_atlas_than_before(atlas: Template) -> None:
    rng = np.random.default_rng(3)
    strewn = [ndimage.shift(scan(k, own=KINDRED), rng.uniform(-3, 3, 3), order=1, mode="nearest") for k in PEOPLE]
    seen = features(strewn)
    values, mask = pictures(seen, lay(seen, atlas), atlas)
    before, after = (
        alike((a.roll(1, 0), b.roll(1, 0)), (a, b))  # each with the next one
        for a, b in ((seen.coarse[:, 0], seen.coarse[:, 1]), (values, mask))
    )
    assert after.mean() > before.mean() + 0.1


def test_an_atlas_of_one_scan_is_the_scan() -> None:
    one = features([scan(4)])
    alone = build_atlas(one)
    laid = lay(one, alone)
    assert laid.score[0, 0] > 0.99
    assert MIRRORS[int(laid.mirror[0, 0])] == (False, False, False)


def test_pictures_are_zero_outside_their_mask(atlas: Template) -> None:
    seen = features([np.pad(scan(1), ((0, 8), (0, 0), (5, 0)))])
    values, mask = pictures(seen, lay(seen, atlas), atlas)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert not values[mask == 0].any()


def test_mirror_images_have_signs_and_are_their_own_inverse() -> None:
    volume = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    for index, mirror in enumerate(MIRRORS):
        assert torch.equal(flip(flip(volume, mirror), mirror), volume)
        assert [sign < 0 for sign in SIGNS[index]] == list(mirror)
    first, second = torch.tensor([3]), torch.tensor([6])
    assert torch.equal(mirror_all(mirror_all(volume, first), second), mirror_all(volume, first ^ second))
    assert torch.equal(mirror_all(volume, torch.tensor([4])), volume.flip(2))
    assert len(mirror_all(volume[:0], first[:0])) == 0
