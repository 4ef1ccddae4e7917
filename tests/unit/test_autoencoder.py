"""The autoencoder: a lossless stem, a shortcut equal to the block PCA, and shapes that are refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synthmed.config import AutoencoderConfig
from synthmed.errors import ConfigError, InputError
from synthmed.models.autoencoder import (
    build_autoencoder,
    haar,
    inverse_haar,
    one_hot,
    principal_axes,
)
from synthmed.training.reconstruction import edge_loss, gaussian_kl, label_loss

SMALL = AutoencoderConfig(channels=(16, 16), latent_channels=12)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_haar_of_a_block_is_its_signed_sums():
    block = torch.arange(8.0).view(1, 1, 2, 2, 2)
    sums = [28, -4, -8, 0, -16, 0, 0, 0]  # LLL, LLH, LHL, LHH, HLL, HLH, HHL, HHH of 0..7
    assert torch.allclose(haar(block).flatten(), torch.tensor(sums) / math.sqrt(8), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 99))
def test_haar_is_lossless_and_keeps_energy(channels, half, seed):
    volume = torch.randn(2, channels, *(2 * n for n in half), generator=_generator(seed))
    bands = haar(volume)
    assert bands.shape == (2, 8 * channels, *half)
    assert torch.allclose(inverse_haar(bands), volume, atol=1e-5)
    assert torch.allclose(bands.square().sum(), volume.square().sum(), rtol=1e-5)


def test_principal_axes_agree_with_the_exact_decomposition():
    generator = _generator()
    rows = torch.randn(400, 30, generator=generator) * torch.linspace(3.0, 0.1, 30)
    rows = rows - rows.mean(0)
    axes, deviation = principal_axes(rows, 5, generator)
    _, singular, exact = torch.linalg.svd(rows, full_matrices=False)
    assert torch.allclose((axes * exact[:5]).sum(1).abs(), torch.ones(5), atol=1e-3)
    assert torch.allclose(deviation, singular[:5] / math.sqrt(400), rtol=1e-3)


def test_an_axis_without_variance_stays_finite():
    rows = torch.outer(torch.linspace(-1, 1, 50), torch.ones(6))
    axes, deviation = principal_axes(rows, 4, _generator())
    assert torch.isfinite(axes).all()
    assert (deviation >= 1e-3 * deviation[0] * 0.999).all()


def test_before_training_the_autoencoder_is_the_block_pca():
    generator = _generator()
    images = torch.randn(6, 1, 8, 8, 8, generator=generator).clamp(-1, 1)
    model = build_autoencoder(SMALL, 1)
    model.fit_shortcut(images, None, generator)
    with torch.no_grad():
        found = haar(model.decode(model.encode(images))[0])
    blocks = haar(images).unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).permute(0, 2, 3, 4, 1, 5, 6, 7)
    mean = blocks.mean(dim=(0, 1, 2, 3, 5, 6, 7)).view(8, 1, 1, 1)
    rows = (blocks - mean).flatten(4).flatten(0, 3)
    _, _, axes = torch.linalg.svd(rows, full_matrices=False)
    projected = (rows @ axes[:12].T @ axes[:12]).view(*blocks.shape) + mean
    wanted = projected.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(found.shape)
    assert torch.allclose(found, wanted, atol=2e-2)


def test_the_shortcut_gives_latents_of_unit_power():
    images = torch.randn(8, 1, 16, 16, 16, generator=_generator()).clamp(-1, 1)
    labels = (images > 0).to(torch.uint8)
    model = build_autoencoder(SMALL, 2)
    model.fit_shortcut(images, labels, _generator())
    with torch.no_grad():
        power = model.encode(images, one_hot(labels, 2)).square().mean(dim=(0, 2, 3, 4))
    assert torch.allclose(power, torch.ones(12), atol=0.05)


@pytest.mark.parametrize("num_classes", [1, 4])
@pytest.mark.parametrize("shortcut", [True, False])
def test_shapes(num_classes, shortcut):
    model = build_autoencoder(SMALL.model_copy(update={"linear_shortcut": shortcut}), num_classes)
    image = torch.zeros(2, 1, 8, 16, 12)
    onehot = one_hot(torch.zeros(2, 1, 8, 16, 12, dtype=torch.uint8), num_classes)
    mean, log_variance = model.posterior(image, onehot)
    assert mean.shape == log_variance.shape == (2, 12, 2, 4, 3)
    decoded, logits = model.decode(mean)
    assert decoded.shape == image.shape
    assert logits is None if num_classes == 1 else logits.shape == (2, num_classes, 8, 16, 12)


def test_encoding_is_deterministic_and_batch_independent():
    model = build_autoencoder(SMALL, 1).eval()
    images = torch.randn(3, 1, 8, 8, 8, generator=_generator())
    with torch.no_grad():
        together, alone = model.encode(images), model.encode(images[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_the_gain_is_how_far_a_unit_of_a_channel_moves_the_volume():
    model = build_autoencoder(SMALL, 1)
    model.fit_shortcut(torch.randn(4, 1, 8, 8, 8, generator=_generator()), None, _generator())
    with torch.no_grad():
        still, moved = torch.zeros(1, 12, 1, 1, 1), torch.zeros(1, 12, 1, 1, 1)
        moved[0, 3] = 1.0
        distance = (model.expand(moved) - model.expand(still)).norm()
    assert float(model.channel_gain()[3]) == pytest.approx(float(distance), rel=1e-4)
    without = build_autoencoder(SMALL.model_copy(update={"linear_shortcut": False}), 1)
    assert without.channel_gain().tolist() == [1.0] * 12


def test_what_is_decoded_is_refined_across_the_border_of_a_block():
    model = build_autoencoder(SMALL, 1)
    bands = torch.zeros(1, 8, 4, 4, 4)  # two blocks of two cells a side
    with torch.no_grad():
        assert not model.refine(torch.ones_like(bands)).any()
        torch.nn.init.constant_(model.refine[-1].weight, 0.1)
        still = model.refine(bands)
        bands[:, :, 1] = 1.0  # the last cell of the first block
        assert (model.refine(bands) - still)[:, :, 2].abs().min() > 0


def test_there_is_no_attention_in_the_network():
    names = [type(m).__name__ for m in build_autoencoder(SMALL, 2).modules()]
    assert not [n for n in names if "Attention" in n]


def test_a_grid_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"\(8, 10, 8\).*divisible by 4.*preprocess.grid"):
        build_autoencoder(SMALL, 1).encode(torch.zeros(1, 1, 8, 10, 8))


@pytest.mark.parametrize("num_classes", [1, 3])
def test_label_channels_that_do_not_fit_are_refused(num_classes):
    with pytest.raises(InputError, match="label channels"):
        build_autoencoder(SMALL, num_classes).encode(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 2, 8, 8, 8))


def test_widths_that_do_not_divide_into_groups_are_refused():
    with pytest.raises(ConfigError, match=r"norm_num_groups; found \[16, 24\]; expected .* multiples of 16"):
        build_autoencoder(SMALL.model_copy(update={"channels": (16, 24)}), 1)


def test_more_latent_channels_than_voxels_are_refused():
    with pytest.raises(ConfigError, match="found 65; expected at most 64"):
        build_autoencoder(SMALL.model_copy(update={"latent_channels": 65}), 1)


def test_one_hot_by_hand():
    labels = torch.tensor([0, 2, 1, 0], dtype=torch.uint8).view(1, 1, 4, 1, 1)
    assert one_hot(labels, 3).flatten(2).tolist() == [[[1, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]]
    assert one_hot(labels, 1) is None


def test_losses_by_hand():
    zeros = torch.zeros(1, 2)
    assert float(gaussian_kl(zeros, zeros)) == 0.0
    assert float(gaussian_kl(zeros + 2, zeros)) == pytest.approx(2.0)
    ramp = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 4, 4)
    assert float(edge_loss(3 * ramp, ramp)) == pytest.approx(2.0 / 3)
    onehot = one_hot(torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 2, 1, 1), 2)
    assert float(label_loss(50 * onehot, onehot)) == pytest.approx(0.0, abs=1e-6)
    flat = torch.zeros_like(onehot)
    # ln 2, and a Dice of (2 * 0.5 + 1) / (2 + 1) = 2/3 for each class.
    assert float(label_loss(flat, onehot)) == pytest.approx(math.log(2) + 1 / 3, abs=1e-6)
