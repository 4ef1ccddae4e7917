"""Tiles give what the whole network gives: odd counts, flat grids, labels or none, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from synthmed.config import WHOLE_VOXELS, AutoencoderConfig, SamplingConfig, dump_config, parse_config
from synthmed.errors import ConfigError, InputError
from synthmed.models import fields, tiling
from synthmed.models.autoencoder import LabelledAutoencoder, build_autoencoder, one_hot
from synthmed.models.tiling import cases_at_once, decode_pieces, decode_scans, encode_scans

TOLERANCE = 2e-4
"""A tenth of a thousandth of the range of 2, on networks whose values reach ten times the range."""
NETWORKS = {
    "three levels": AutoencoderConfig(channels=(8, 16, 16), norm_num_groups=4, latent_channels=6),
    "two blocks": AutoencoderConfig(channels=(8, 8), norm_num_groups=4, latent_channels=4, num_res_blocks=2),
    "no shortcut": AutoencoderConfig(channels=(8,), norm_num_groups=4, latent_channels=4, linear_shortcut=False),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few cells a side, so that small volumes have many tiles."""
    tile = (5, 4, 3)
    monkeypatch.setattr(fields, "TILE", tile)
    monkeypatch.setattr(tiling, "TILE", tile)
    monkeypatch.setattr(fields.tiles, "__defaults__", (tile,))
    monkeypatch.setattr(fields.stored, "__defaults__", (tile,))


def autoencoder(name: str, num_classes: int) -> LabelledAutoencoder:
    """An untrained network with no weight at zero."""
    generator = torch.Generator().manual_seed(0)
    model = build_autoencoder(NETWORKS[name], num_classes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def scans(grid: tuple[int, int, int], num_classes: int, number: int = 1) -> tuple[Tensor, Tensor | None]:
    """Noise beside an empty part, so that a tile's statistics are not the whole's."""
    image = 2 * torch.rand(number, 1, *grid, generator=torch.Generator().manual_seed(1)) - 1
    image[:, :, : grid[0] // 3] = -1
    return image, (image > 0).to(torch.uint8) if num_classes > 1 else None


@pytest.mark.parametrize("num_classes", [1, 2])
@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("three levels", (40, 24, 8)),
        ("three levels", (8, 8, 8)),
        ("two blocks", (28, 20, 12)),
        ("no shortcut", (26, 10, 6)),
    ],
)
def test_tiles_are_the_whole(name: str, grid: tuple[int, int, int], num_classes: int) -> None:
    model = autoencoder(name, num_classes)
    image, labels = scans(grid, num_classes)
    with torch.no_grad():
        latent = model.encode(image, None if labels is None else one_hot(labels, num_classes))
        decoded, logits = model.decode(latent)
    torch.testing.assert_close(encode_scans(model, image, labels, whole_voxels=1), latent, atol=TOLERANCE, rtol=0)
    found, scores = decode_scans(model, latent, whole_voxels=1)
    torch.testing.assert_close(found, decoded, atol=TOLERANCE, rtol=0)
    assert (scores is None) == (logits is None) == (num_classes == 1)
    if scores is not None and logits is not None:
        torch.testing.assert_close(scores, logits, atol=16 * TOLERANCE, rtol=0)


def test_a_spare_map_is_held_over() -> None:
    """A sum over neighbours along each axis, written where its terms lay, as if they were still there."""
    terms = torch.rand(1, 2, 11, 9, 13, generator=torch.Generator().manual_seed(2))
    pool = torch.nn.AvgPool3d(3, stride=1, padding=1)
    wanted, lazy = pool(terms), fields.near(fields.held(terms), pool, 1)
    found = fields.stored(replace(lazy, spare=terms))
    assert found.values is terms
    torch.testing.assert_close(terms, wanted)
    assert fields.stored(fields.held(terms)).values is not terms


def test_statistics_of_a_tile_would_not_do() -> None:
    """What the frozen statistics are for: a part decoded by itself differs even far from its edge."""
    model = autoencoder("three levels", 1)
    image, _ = scans((96, 16, 16), 1)
    with torch.no_grad():
        latent = model.encode(image)
        whole, part = model.decode(latent)[0], model.decode(latent[:, :, :8])[0]
    assert (whole[:, :, :16] - part[:, :, :16]).abs().max() > 100 * TOLERANCE


def test_pieces_cover_the_grid_once() -> None:
    model = autoencoder("three levels", 2)
    seen = torch.zeros(24, 40, 8)
    for box, image, logits in decode_pieces(model, torch.randn(1, 6, 3, 5, 1), whole_voxels=1):
        assert image.shape[2:] == seen[box].shape
        assert logits is not None
        assert logits.shape[1:] == (2, *seen[box].shape)
        seen[box] += 1
    assert (seen == 1).all()


def test_what_fits_is_not_touched() -> None:
    """Bytes of the whole network, whether the budget is met exactly or by far."""
    model = autoencoder("three levels", 2)
    image, labels = scans((16, 8, 8), 2, number=3)
    assert labels is not None
    with torch.no_grad():
        latent = model.encode(image, one_hot(labels, 2))
        decoded, logits = model.decode(latent)
    for budget in (3 * 1024, WHOLE_VOXELS):
        assert torch.equal(encode_scans(model, image, labels, whole_voxels=budget), latent)
        found, scores = decode_scans(model, latent, whole_voxels=budget)
        assert torch.equal(found, decoded)
        assert scores is not None
        assert logits is not None
        assert torch.equal(scores, logits)
    assert len(list(decode_pieces(model, latent[:1], whole_voxels=1024))) == 1
    assert len(list(decode_pieces(model, latent[:1], whole_voxels=1023))) > 1


def test_a_batch_in_tiles_is_its_cases() -> None:
    model = autoencoder("two blocks", 1)
    image, _ = scans((12, 28, 8), 1, number=2)
    image[1] *= 0.3
    with torch.no_grad():
        latent = model.encode(image)
        decoded, _ = model.decode(latent)
    torch.testing.assert_close(encode_scans(model, image, None, whole_voxels=1), latent, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(decode_scans(model, latent, whole_voxels=1)[0], decoded, atol=TOLERANCE, rtol=0)


def test_tiles_are_the_same_bytes_again() -> None:
    model = autoencoder("three levels", 1)
    latent = torch.randn(1, 6, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    one, other = (decode_scans(model, latent, whole_voxels=1)[0] for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("voxels", "expected"), [(40 * 56 * 40, 8), (128**3, 2), (192**3, 1)])
def test_batches_shrink_as_grids_grow(voxels: int, expected: int) -> None:
    assert cases_at_once(voxels, 8) == expected


def test_a_setting_nobody_changed_is_not_written() -> None:
    assert "whole_voxels" not in SamplingConfig().model_dump()
    assert "whole_voxels" not in dump_config(parse_config({}))
    changed = parse_config({"sampling": {"whole_voxels": 1000}})
    assert changed.sampling.model_dump()["whole_voxels"] == 1000


@pytest.mark.parametrize(
    ("grid", "labelled", "message"),
    [((16, 8, 12), True, "cannot take this grid"), ((16, 8, 8), False, "label channels")],
)
def test_scans_that_do_not_fit_are_refused(grid: tuple[int, int, int], labelled: bool, message: str) -> None:
    image, labels = scans(grid, 2)
    with pytest.raises(InputError, match=message):
        encode_scans(autoencoder("three levels", 2), image, labels if labelled else None, whole_voxels=1)


@pytest.mark.parametrize("shape", [(1, 5, 2, 2, 2), (6, 2, 2, 2)])
def test_latents_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="latent does not fit"):
        next(decode_pieces(autoencoder("three levels", 1), torch.zeros(shape)))


def test_too_small_a_budget_is_refused() -> None:
    model = autoencoder("no shortcut", 1)
    with pytest.raises(ConfigError, match="too few"):
        encode_scans(model, torch.zeros(1, 1, 4, 4, 4), None, whole_voxels=0)
    with pytest.raises(ConfigError):
        parse_config({"sampling": {"whole_voxels": 0}})


def test_a_network_that_looks_everywhere_is_refused() -> None:
    model = autoencoder("no shortcut", 1)
    model.network.decoder.get_submodule("blocks").append(torch.nn.InstanceNorm3d(8))
    with pytest.raises(ConfigError, match="cannot work in tiles"):
        next(decode_pieces(model, torch.zeros(1, 4, 2, 2, 2), whole_voxels=1))
