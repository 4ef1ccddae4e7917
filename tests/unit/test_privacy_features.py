"""What of a scan is content, and what its features do not depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from privacy_scans import SPACE, features, scan
from scipy import ndimage

from privacy import planted
from privacy.features import (
    _blur,
    _opened,
    content,
    crop_to_content,
    extract,
    mask_shares,
    noise_of,
    normalise_locally,
    plan_space,
    quieten,
    rank,
    to_grid,
)

Change = Callable[[np.ndarray], np.ndarray]
AXES = np.array([11.0, 13.0, 10.0])  # of the phantom's body, voxels


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return a textured ellipsoid in a dark margin of five voxels and more, and its mask."""
    shape = (30, 34, 28)
    places = [(np.arange(n) - (n - 1) / 2) / axis for n, axis in zip(shape, AXES, strict=True)]
    body = sum(place**2 for place in np.meshgrid(*places, indexing="ij")) < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    volume = ndimage.gaussian_filter(np.where(body, 1 + 0.15 * texture / texture.std(), 0), 0.5)
    return volume.astype(np.float32), body


def within(voxels: float) -> float:
    """Return the overlap of two such bodies where the surface of one lies so many voxels outside the other's."""
    return float(np.prod(AXES / (AXES + voxels)))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def noisy(share: float) -> Change:
    def change(volume: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(1).standard_normal(volume.shape)
        return (volume + share * volume.max() * noise).astype(np.float32)

    return change


def test_the_content_of_a_body_is_the_body_and_a_thin_rim() -> None:
    volume, body = phantom()
    mask = content(volume)
    assert mask[body].mean() > 0.99
    assert overlap(mask, body) > within(0.5)


@pytest.mark.parametrize(
    ("change", "voxels"),
    [
        (noisy(0.05), 1),
        (noisy(0.12), 1),
        (lambda v: ndimage.gaussian_filter(v, 0.5), 0.5),
        (lambda v: ndimage.gaussian_filter(v, 1.2), 1),
        (lambda v: v ** np.float32(0.6), 0.5),
        (lambda v: v ** np.float32(1.6), 0.5),
        (lambda v: v.max() - v, 0.1),
        (lambda v: -v, 0.1),
        (lambda v: 1000 * v - 5, 0.1),
        (lambda v: planted.bias_field(v, np.random.default_rng(2)), 0.25),
        (lambda v: np.clip(v, None, np.percentile(v, 98)), 0.25),
    ],
    ids=[
        "low noise",
        "noise",
        "low blur",
        "blur",
        "gamma 0.6",
        "gamma 1.6",
        "invert",
        "minus",
        "scale",
        "bias",
        "clip",
    ],
)
def test_the_edge_of_the_content_hardly_moves(change: Change, voxels: float) -> None:
    volume, _ = phantom()
    assert overlap(content(change(volume)), content(volume)) > within(voxels)


@pytest.mark.parametrize("move", [lambda v: np.roll(v, 2, 0), lambda v: np.flip(v, 1)], ids=["shift", "mirror"])
def test_the_content_moves_with_the_scan(move: Change) -> None:
    volume, _ = phantom()
    assert overlap(content(move(volume)), move(content(volume))) > within(0.1)


def test_a_margin_is_no_content_and_a_dark_hole_is() -> None:
    volume = np.zeros((20, 20, 20), np.float32)
    volume[4:16, 5:17, 3:15] = 1 + 0.1 * scan(1)[:12, :12, :12]
    volume[9:12, 9:12, 8:11] = 0
    mask = content(volume)
    assert mask[10, 10, 9]
    assert not mask[0].any()
    assert not mask[:, :, -3:].any()
    assert crop_to_content(volume)[0].shape == pytest.approx((12, 12, 12), abs=2)


@pytest.mark.parametrize("patient", range(4))
def test_a_crop_without_a_margin_is_nearly_all_content(patient: int) -> None:
    """Dark places at the border may count as margin, under every disguise the same ones."""
    volume = scan(patient)
    mask = content(volume)
    assert mask.mean() > 0.85
    assert mask[volume > np.median(volume)].all()
    for name in ("gamma", "noise", "blur", "coarser", "compression", "bias_field"):
        disguised = planted.DISGUISES[name](volume, np.random.default_rng(patient))
        assert overlap(content(disguised), mask) > 0.93


@pytest.mark.parametrize("value", [0.0, -3.0, 7.0])
def test_a_constant_volume_is_all_content(value: float) -> None:
    volume = np.full((9, 8, 7), value, np.float32)
    assert content(volume).all()
    assert np.isfinite(crop_to_content(volume)[0]).all()


def _channel(volume: np.ndarray, channel: int) -> np.ndarray:
    """Ranks (0), intensities (1) or content (2) of a volume on the fine grid."""
    return extract(volume.astype(np.float32), (1.0, 1.0, 1.0), SPACE).intensity[0, channel].numpy()


def test_intensities_become_ranks_within_the_content() -> None:
    volume, _ = phantom()
    cut, mask, _ = crop_to_content(volume)
    ranks = rank(cut, mask)
    assert (ranks.min(), ranks.max()) == (0, 1)
    assert np.quantile(ranks[mask], [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.01)


def test_ranks_are_the_same_for_every_increasing_change() -> None:
    volume = scan(0)
    mask = content(volume)
    for changed in (np.exp(volume), volume**3, 1000 * volume + 5):
        between = np.abs(rank(changed.astype(np.float32), mask) - rank(volume, mask))
        assert between.max() < 2 / 128  # between two of 129 quantiles
    assert np.abs(_channel(1000 * volume + 5, 0) - _channel(volume, 0)).max() < 1e-3


def test_intensities_are_kept_beside_their_ranks() -> None:
    volume = scan(0)
    plain, squared = _channel(volume, 1), _channel(volume**2, 1)
    assert (plain.min(), plain.max()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.05))
    assert np.abs(_channel(1000 * volume + 5, 1) - plain).max() < 1e-3
    assert np.abs(squared - plain).max() > 0.1


def test_only_unusual_noise_is_smoothed_away() -> None:
    rng = np.random.default_rng(0)
    clean = ndimage.gaussian_filter(rng.standard_normal((30, 30, 30)), 2).astype(np.float32)
    clean /= np.ptp(clean)
    noisy = clean + (0.1 * rng.standard_normal(clean.shape)).astype(np.float32)
    assert noise_of(clean) < 0.002
    assert noise_of(noisy) == pytest.approx(0.1 / np.ptp(np.percentile(noisy, [0.5, 99.5])), rel=0.1)
    assert noise_of(clean[:, :2]) == 0
    assert quieten(clean, 0.0) is clean
    assert quieten(noisy, 0.3) is noisy
    assert np.std(quieten(noisy, 0.0) - clean) < 0.5 * np.std(noisy - clean)
    assert plan_space(np.full((10, 3), 20.0), 1.0, [0.01] * 9 + [0.2]).noise < 0.05


def test_local_normalisation_ignores_scale_and_offset() -> None:
    values = torch.from_numpy(scan(0).copy())[None]
    mask = torch.ones_like(values)
    plain = normalise_locally(values, mask, 0.7, 3.0)
    assert torch.allclose(plain, normalise_locally(5000 * values + 70, mask, 0.7, 3.0), atol=2e-2)
    assert plain.std() == pytest.approx(0.9, abs=0.2)


def test_shares_of_a_mask_that_are_given_change_nothing() -> None:
    volume = torch.from_numpy(np.stack([scan(0), scan(1)]))
    mask = (volume > volume.median()).float()
    given = normalise_locally(volume, mask, 1.0, 4.0, mask_shares(mask, 1.0, 4.0))
    assert torch.equal(given, normalise_locally(volume, mask, 1.0, 4.0))


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_opening_an_axis_at_a_time_is_opening_with_a_cube(share: float) -> None:
    mask = np.random.default_rng(0).random((9, 14, 11)) < share
    padded = np.pad(mask, 3, constant_values=True)
    expected = ndimage.binary_opening(padded, np.ones((3, 3, 3)), border_value=1)
    assert np.array_equal(_opened(padded), expected)
    assert not expected.all()


def test_blurring_is_ndimages() -> None:
    volume = torch.from_numpy(np.stack([scan(0), scan(1)]))
    expected = [ndimage.gaussian_filter(v, 1.5, mode="constant", truncate=20) for v in volume.numpy()]
    np.testing.assert_allclose(_blur(volume, 1.5).numpy(), np.stack(expected), rtol=1e-3, atol=1e-4)


def test_what_lies_outside_the_mask_has_no_influence() -> None:
    values = torch.from_numpy(scan(0).copy())[None]
    mask = torch.zeros_like(values)
    mask[:, 4:14, 4:18, 3:13] = 1
    changed = torch.where(mask > 0, values, 100.0)
    assert torch.allclose(normalise_locally(values, mask, 0.7, 3.0), normalise_locally(changed, mask, 0.7, 3.0))


def test_the_working_grid_is_never_finer_than_the_scans() -> None:
    space = plan_space(np.array([[60.0, 40.0, 40.0], [64.0, 40.0, 40.0]]), 4.0, [0.0])
    assert space.spacing == 4.0
    assert plan_space(np.array([[170.0, 100.0, 100.0]]), 1.0, [0.0]).spacing == pytest.approx(5.0)


def test_a_grid_is_laid_about_the_centre() -> None:
    volume = np.arange(5.0, dtype=np.float32)[:, None, None] * np.ones((5, 5, 5), np.float32)
    same = to_grid(volume, (2.0, 2.0, 2.0), 2.0, (5, 5, 5))
    assert np.allclose(same, volume)
    wide = to_grid(volume, (2.0, 2.0, 2.0), 2.0, (9, 5, 5))
    assert np.allclose(wide[2:7], volume)
    assert not wide[:2].any()
    assert to_grid(volume, (1.0, 1.0, 1.0), 0.5, (3, 3, 3))[:, 1, 1] == pytest.approx([1.5, 2.0, 2.5])


def test_features_of_two_spacings_are_alike() -> None:
    volume = ndimage.gaussian_filter(scan(2), 1.0)
    finer = ndimage.zoom(volume, 2, order=1, grid_mode=True, mode="nearest")
    one, two = features([volume]), extract(finer.astype(np.float32), (0.5, 0.5, 0.5), SPACE)
    assert one.fine.shape == two.fine.shape
    assert np.corrcoef(one.fine[:, 0].flatten(), two.fine[:, 0].flatten())[0, 1] > 0.9
