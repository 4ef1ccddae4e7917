"""The denoiser: shapes, conditioning through one embedding, and configurations that are refused."""

import pytest
import torch

from synthmed.config import DenoiserConfig
from synthmed.errors import ConfigError, InputError
from synthmed.models.augmentation import AUGMENTATION_DIM
from synthmed.models.denoiser import build_denoiser, time_features
from synthmed.models.transformer import grid_positions
from synthmed.training.schedule import seeded

TRANSFORMER = DenoiserConfig(width=64, depth=2, num_head_channels=32)
UNET = DenoiserConfig(kind="unet", channels=(32, 64), num_res_blocks=1, num_head_channels=32)
SHAPE = (6, 2, 4, 2)


def _awake(config, condition_dim=3):
    """Return a denoiser whose zero-initialised parameters are not zero, so that its inputs show."""
    with seeded(0):
        model = build_denoiser(config, SHAPE, condition_dim).eval()
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model


def _inputs(batch=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, *SHAPE, generator=generator)
    return x, torch.rand(batch, generator=generator), torch.randn(batch, 3, generator=generator)


@pytest.mark.parametrize("config", [TRANSFORMER, UNET], ids=["transformer", "unet"])
class TestDenoiser:
    @pytest.fixture(autouse=True)
    def _without_gradients(self):
        with torch.no_grad():
            yield

    def test_output_has_the_latents_shape(self, config):
        x, t, condition = _inputs()
        assert _awake(config)(x, t, condition).shape == x.shape
        assert _awake(config, 0)(x, t).shape == x.shape

    def test_time_condition_and_augmentation_change_the_output(self, config):
        model, (x, t, condition) = _awake(config), _inputs()
        base = model(x, t, condition)
        for other in (
            model(x, 0.5 * t, condition),
            model(x, t, -condition),
            model(x, t, condition, augmentation=torch.ones(3, AUGMENTATION_DIM)),
        ):
            assert (other - base).abs().max() > 1e-4

    def test_a_dropped_condition_is_the_learned_null(self, config):
        model, (x, t, condition) = _awake(config), _inputs()
        drop = torch.tensor([True, False, True])
        mixed, given, null = model(x, t, condition, drop), model(x, t, condition), model(x, t)
        assert torch.allclose(mixed[drop], null[drop], atol=1e-6)
        assert torch.allclose(mixed[~drop], given[~drop], atol=1e-6)
        assert (given - null).abs().max() > 1e-4

    def test_no_augmentation_is_an_augmentation_of_zeros(self, config):
        model, (x, t, condition) = _awake(config), _inputs()
        zeros = torch.zeros(3, AUGMENTATION_DIM)
        assert torch.equal(model(x, t, condition, augmentation=zeros), model(x, t, condition))

    def test_samples_do_not_depend_on_their_neighbours(self, config):
        model, (x, t, condition) = _awake(config), _inputs()
        alone = model(x[1:2], t[1:2], condition[1:2])
        assert torch.allclose(model(x, t, condition)[1:2], alone, atol=1e-5)

    def test_a_condition_of_another_length_is_refused(self, config):
        x, t, _ = _inputs()
        with pytest.raises(InputError, match="found 2 values; expected 3"):
            _awake(config)(x, t, torch.zeros(3, 2))

    def test_every_parameter_gets_a_gradient(self, config):
        model, (x, t, condition) = _awake(config), _inputs()
        with torch.enable_grad():
            augmentation = torch.ones(3, AUGMENTATION_DIM)
            model(x, t, condition, torch.tensor([True, False, False]), augmentation).square().sum().backward()
        # MONAI's own time embedding sees a constant 0, so of its first layer only the bias learns.
        silent = [n for n, p in model.named_parameters() if p.grad is None]
        assert silent == []


@torch.no_grad()
def test_positions_tell_cells_apart():
    model = _awake(TRANSFORMER, 0)
    out = model(torch.ones(1, *SHAPE), torch.full((1,), 0.5)).flatten(2)[0]
    assert torch.pdist(out.T).min() > 1e-4


def test_the_first_block_sees_its_neighbours_without_attention():
    model = _awake(TRANSFORMER, 0)
    convolution = model.network.blocks[0].neighbours
    grid = torch.zeros(1, 64, 3, 3, 3)
    grid[0, 5, 1, 1, 1] = 1.0
    touched = (convolution(grid) - convolution(torch.zeros_like(grid))).abs() > 0
    assert touched.any(dim=(2, 3, 4))[0].nonzero().flatten().tolist() == [5]
    assert touched[0, 5].all()


def test_a_new_transformer_predicts_zero():
    model = build_denoiser(TRANSFORMER, SHAPE, 0)
    assert not model(torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.ones(1)).any()


def test_grid_positions_by_hand():
    features = grid_positions((1, 2, 2), 14)
    assert features.shape == (4, 14)
    sine, cosine = torch.sin(torch.tensor(1.0)), torch.cos(torch.tensor(1.0))
    # Cell (0, 1, 0): axis i and k at 0, axis j at 1 with rates 1 and 0.1; two features left over.
    wanted = torch.tensor([0, 0, 1, 1, sine, 0.0998334, cosine, 0.9950042, 0, 0, 1, 1, 0, 0])
    assert torch.allclose(features[2], wanted, atol=1e-5)


def test_time_features_by_hand():
    features = time_features(torch.tensor([0.0, 0.5]))
    assert torch.allclose(features[0], torch.cat([torch.zeros(128), torch.ones(128)]))
    assert float(features[1, 0]) == pytest.approx(0.4794255)  # sin(1 * 0.5)
    assert float(features[1, 127]) == pytest.approx(-0.4677718, abs=1e-3)  # sin(1000 * 0.5)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (TRANSFORMER.model_copy(update={"width": 80}), SHAPE, "denoiser.width .*found 80.*multiple of .*32"),
        (UNET, (6, 5, 4, 2), r"found \(5, 4, 2\); expected sides divisible by 2"),
        (UNET.model_copy(update={"channels": (48, 64)}), SHAPE, r"found \[48, 64\]; expected multiples of 32"),
        (UNET.model_copy(update={"num_head_channels": 48}), SHAPE, "found 64; expected a multiple of .*48"),
        (UNET.model_copy(update={"dropout": 0.1}), SHAPE, "dropout is for the transformer"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, shape, message):
    with pytest.raises(ConfigError, match=message):
        build_denoiser(config, shape, 0)
