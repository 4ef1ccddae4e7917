"""The training loop: its schedule, data order and average by hand; both stages learn; everything wrong is named."""

import math
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import SPACE, blobs, small_config
from torch import nn

from synthmed.config import TrainingConfig
from synthmed.errors import ConfigError, InputError, StorageError, TrainingDiverged
from synthmed.models.augmentation import AUGMENTATION_DIM, ROTATION, SHIFT, augment, augmented, draw_augmentation
from synthmed.models.checkpoint import load_autoencoder, load_denoiser
from synthmed.models.devices import make_fabric, resolve_device, resolve_precision
from synthmed.models.sharding import sharding
from synthmed.training import loop, schedule
from synthmed.training.denoising import denoiser_loss
from synthmed.training.fit import data_digest, train_autoencoder, train_denoiser
from synthmed.training.journal import Journal, read_log
from synthmed.training.latents import LatentSet, channel_statistics, latent_scale
from synthmed.training.reconstruction import dice, psnr
from synthmed.training.resume import CHECKPOINT, TrainingState, first_difference, load_state, save_state

TRAIN, HOLDOUT = blobs(6, seed=1), blobs(3, seed=2)


# The schedule, the order of the cases, the average


def test_learning_rate_by_hand():
    s = TrainingConfig(max_steps=110, warmup_steps=10, learning_rate=2.0)
    rates = [schedule.learning_rate(s, step) for step in (0, 4, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0, 0.0], abs=1e-12)


def test_ema_decay_by_hand():
    s = TrainingConfig(ema_decay=0.9)
    assert [schedule.ema_decay(s, step) for step in (0, 8, 1000)] == pytest.approx([0.1, 0.5, 0.9])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 9))
def test_every_case_is_seen_once_an_epoch(count, batch_size, seed):
    seen = torch.cat([schedule.batch_indices(count, batch_size, seed, step) for step in range(count)])
    for epoch in seen[: batch_size * count].view(batch_size, count):
        assert sorted(epoch.tolist()) == list(range(count))


def test_the_order_depends_on_the_seed_and_the_epoch():
    first, second, other = (schedule.batch_indices(50, 50, s, e).tolist() for s, e in ((0, 0), (0, 1), (1, 0)))
    assert first != second
    assert first != other
    assert first == schedule.batch_indices(50, 50, 0, 0).tolist()


def test_seeded_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    with schedule.seeded(3):
        a = torch.rand(1)
    with schedule.seeded(3):
        b = torch.rand(1)
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


# Augmentation


def test_no_augmentation_changes_nothing():
    images, labels = augment(TRAIN.images, TRAIN.labels, torch.zeros(6, AUGMENTATION_DIM))
    assert torch.allclose(images, TRAIN.images, atol=1e-4)
    assert torch.equal(labels, TRAIN.labels)


def test_a_shift_moves_by_its_share_of_half_the_grid():
    image = torch.zeros(1, 1, 8, 8, 16)
    image[..., 4] = 1.0
    parameters = torch.zeros(1, AUGMENTATION_DIM)
    parameters[0, 6] = 2 / (8 * SHIFT)  # two of the last axis' 16 voxels
    moved, _ = augment(image, None, parameters)
    assert torch.allclose(moved[..., 2], torch.ones(()), atol=1e-4)


def test_a_quarter_turn_is_rigid_on_a_grid_that_is_not_a_cube():
    image = torch.rand(1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    parameters = torch.zeros(1, AUGMENTATION_DIM)
    parameters[0, 2] = math.pi / 2 / ROTATION
    turned, _ = augment(image, None, parameters)
    options = [torch.rot90(image, k, dims) for dims in ((3, 4),) for k in (1, 3)]
    assert min(float((turned - option).abs().max()) for option in options) < 1e-3


def test_drawn_augmentations_are_bounded_and_seeded():
    a = draw_augmentation(500, torch.Generator().manual_seed(0))
    assert a.abs().max() <= 2.0
    assert torch.equal(a, draw_augmentation(500, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_cases_is_augmented(share):
    chosen = augmented(4000, share, torch.Generator().manual_seed(0))
    assert float(chosen.float().mean()) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_denoisers_cases_comes_augmented_and_is_said_to(share):
    told = torch.ones(3, 6, AUGMENTATION_DIM)
    told[0] = 0.0  # the first copy is not augmented
    latents = LatentSet(torch.zeros(3, 6, 1, 2, 2, 2), told, torch.zeros(3, 1, 2, 2, 2), torch.zeros(1), torch.ones(1))
    seen = []

    class Network(nn.Linear):
        def forward(self, x, t, condition=None, drop=None, augmentation=None):
            seen.append(float(augmentation.mean()))
            return x

    loss = denoiser_loss(latents, None, small_config(denoiser_training={"augment": share}))
    network, generator = Network(1, 1), torch.Generator().manual_seed(0)
    for step in range(300):
        loss(network, torch.arange(6), generator, step)
    assert sum(seen) / len(seen) == pytest.approx(share * 2 / 3, abs=0.03)


# Measurements


def test_psnr_and_dice_by_hand():
    assert psnr(torch.zeros(4), torch.full((4,), 0.2)) == pytest.approx(20.0, abs=1e-4)  # 10 log10(4 / 0.04)
    assert psnr(torch.ones(4), torch.ones(4)) == pytest.approx(100.0)
    a, b = torch.tensor([1, 1, 0, 2]), torch.tensor([1, 0, 0, 2])
    assert dice(a, b, 4) == pytest.approx([2 / 3, 1.0])


def test_channel_statistics_standardise():
    latents = torch.randn(20, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0)) * 5 + 2
    mean, std = channel_statistics(latents)
    scaled = (latents - mean) / std
    assert mean.shape == std.shape == (3, 1, 1, 1)
    assert torch.allclose(scaled.mean(dim=(0, 2, 3, 4)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(scaled.square().mean(dim=(0, 2, 3, 4)), torch.ones(3), atol=1e-5)


def test_a_channel_keeps_the_root_of_its_energy():
    deviations, gains = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([9.0, 2.0, 0.25])  # energies 9, 4 and 1
    latents = torch.randn(4000, 3, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * deviations.view(3, 1, 1, 1)
    mean, std = latent_scale(latents, gains)
    variance = ((latents - mean) / std).square().mean(dim=(0, 2, 3, 4))
    assert torch.allclose(variance, torch.tensor([9.0, 4.0, 1.0]) / (14 / 3), rtol=0.05)


# Both stages


@pytest.fixture(scope="module")
def autoencoder_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("autoencoder")
    config = small_config(autoencoder_training={"max_steps": 30, "learning_rate": 3e-3, "validate_every": 10})
    train_autoencoder(config, TRAIN, HOLDOUT, SPACE, out, device="cpu", progress=False)
    return out


def test_the_autoencoder_learns_and_leaves_its_record(autoencoder_dir):
    rows = read_log(autoencoder_dir)
    assert [row["step"] for row in rows] == ["10", "20", "30"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["holdout_dice"]) > 0.8
    assert list((autoencoder_dir / "tensorboard").glob("events.*"))
    assert not (autoencoder_dir / CHECKPOINT).exists()
    assert load_autoencoder(autoencoder_dir).space == SPACE


def test_the_denoiser_learns(autoencoder_dir, tmp_path):
    config = small_config(denoiser_training={"max_steps": 60, "learning_rate": 3e-3, "validate_every": 20})
    autoencoder = load_autoencoder(autoencoder_dir)
    found = train_denoiser(config, TRAIN, HOLDOUT, autoencoder, tmp_path, device="cpu", progress=False)
    rows = read_log(tmp_path)
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert found["holdout_loss"] == pytest.approx(float(rows[-1]["holdout_loss"]), rel=1e-5)
    loaded = load_denoiser(tmp_path)
    assert loaded.latent_shape == (8, 4, 4, 4)
    assert loaded.conditioning.dimension == 1
    assert loaded.autoencoder_digest == autoencoder.digest


def test_an_unlabelled_cohort_trains(tmp_path):
    config = small_config(conditioning={"scalars": []})
    train, holdout = blobs(4, 1, labels=False), blobs(2, 2, labels=False)
    train_autoencoder(config, train, holdout, SPACE, tmp_path / "a", device="cpu", progress=False)
    autoencoder = load_autoencoder(tmp_path / "a")
    assert autoencoder.model.num_classes == 1
    train_denoiser(config, train, holdout, autoencoder, tmp_path / "d", device="cpu", progress=False)
    assert load_denoiser(tmp_path / "d").conditioning.dimension == 0


def test_labels_of_another_cohort_are_refused(autoencoder_dir, tmp_path):
    with pytest.raises(ConfigError, match="other labels; found 2 classes; expected 1"):
        train_denoiser(
            small_config(),
            blobs(4, 1, labels=False),
            HOLDOUT,
            load_autoencoder(autoencoder_dir),
            tmp_path,
            device="cpu",
        )


def test_the_adversarial_term_moves_the_weights_and_is_finite(tmp_path):
    digests = []
    for weight in (0.0, 0.1):
        config = small_config(autoencoder={"adversarial_weight": weight, "adversarial_start": 0.3})
        train_autoencoder(config, TRAIN, HOLDOUT, SPACE, tmp_path / str(weight), device="cpu", progress=False)
        digests.append(load_autoencoder(tmp_path / str(weight)).digest)
    assert digests[0] != digests[1]


# A loop on a task with known answers


class _Line(nn.Module):
    """One weight; the loss is its squared distance from 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))

    def forward(self):
        return (self.weight - 1).square().sum()


def _task(holdout, loss=lambda model, cases, generator, step: model(), **identity):
    return loop.Task(
        stage="denoiser",
        count=4,
        loss=loss,
        evaluate=lambda model: {"train_loss": float(model()), "holdout_loss": holdout(model)},
        measurements=("train_loss", "holdout_loss"),
        identity=identity,
    )


def _fit(task, out, model=None, **settings):
    training = TrainingConfig(**({"max_steps": 8, "batch_size": 2, "validate_every": 1, "warmup_steps": 0} | settings))
    fabric = make_fabric("cpu", "32-true")
    return loop.fit(fabric, task, model or _Line(), training, out, seed=0, progress=False)


def test_patience_stops_and_keeps_the_best_average(tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.0, 9.0])
    weights = []

    def holdout(model):
        weights.append(float(model.weight.detach()))
        return next(losses)

    outcome = _fit(_task(holdout), tmp_path, patience=2, learning_rate=0.1)
    assert outcome.steps == 4
    assert float(outcome.weights["weight"]) == weights[1]
    assert outcome.measurements["holdout_loss"] == 1.0


def test_without_patience_the_last_average_is_kept(tmp_path):
    values = iter([1.0, 5.0, 5.0, 5.0])
    outcome = _fit(_task(lambda model: next(values)), tmp_path, max_steps=4, learning_rate=0.1)
    assert outcome.steps == 4
    assert outcome.measurements["holdout_loss"] == 5.0
    assert len(read_log(tmp_path)) == 4


def test_the_average_follows_the_weights_by_hand(tmp_path):
    model = _Line()
    outcome = _fit(_task(lambda m: 0.0), tmp_path, model, max_steps=2, learning_rate=0.1, weight_decay=0.0)
    # AdamW moves by the rate: 0.1, then 0.1 * cosine(1/2) = 0.05 more; decays 1/10 and 2/11.
    first = 0.9 * 0.1
    second = first * 2 / 11 + 0.15 * 9 / 11
    assert float(model.weight.detach()) == pytest.approx(0.15, rel=2e-3)
    assert float(outcome.weights["weight"]) == pytest.approx(second, rel=2e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_stage_and_remedy(tmp_path, value):
    def loss(model, cases, generator, step):
        return model() * (value if step == 2 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"denoiser diverged at step 3.*learning_rate.*32-true") as caught:
        _fit(_task(lambda m: 0.0, loss), tmp_path)
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    def loss(model, cases, generator, step):
        return (model() * 0.0).sqrt()  # 0, with a gradient of 0 / 0

    with pytest.raises(TrainingDiverged, match="step 1: its gradient norm is no longer finite"):
        _fit(_task(lambda m: 0.0, loss), tmp_path)


def test_a_held_out_loss_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(TrainingDiverged, match="held-out loss"):
        _fit(_task(lambda m: math.nan), tmp_path)


def test_ctrl_c_ends_the_step_saves_and_a_second_run_goes_on(tmp_path):
    def loss(model, cases, generator, step):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return model()

    def quiet(model, cases, generator, step):
        return model()

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _fit(_task(lambda m: 0.0, loss), tmp_path / "cut", learning_rate=0.1)
    assert signal.getsignal(signal.SIGINT) is handler
    steps = []
    resumed = _fit(
        _task(lambda m: 0.0, lambda m, c, g, step: (steps.append(step), m())[1]), tmp_path / "cut", learning_rate=0.1
    )
    whole = _fit(_task(lambda m: 0.0, quiet), tmp_path / "whole", learning_rate=0.1)
    assert steps == [5, 6, 7]
    assert torch.equal(resumed.weights["weight"], whole.weights["weight"])
    assert [row["step"] for row in read_log(tmp_path / "cut")] == [str(n) for n in range(1, 9)]


def test_a_second_ctrl_c_interrupts_at_once():
    with loop.interruptible() as event:
        signal.raise_signal(signal.SIGINT)
        assert event.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# What is refused on resuming


def _interrupted(out, **identity):
    def loss(model, cases, generator, step):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return model()

    with pytest.raises(KeyboardInterrupt):
        _fit(_task(lambda m: 0.0, loss, **identity), out)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    _interrupted(tmp_path, denoiser={"width": 32, "depth": 2})
    with pytest.raises(ConfigError, match=r"another run: denoiser\.depth differs; found 2; expected 3"):
        _fit(_task(lambda m: 0.0, denoiser={"width": 32, "depth": 3}), tmp_path)


def test_a_checkpoint_of_other_training_settings_is_refused(tmp_path):
    _interrupted(tmp_path)
    with pytest.raises(ConfigError, match=r"denoiser_training\.learning_rate differs; found 0.001; expected 0.002"):
        _fit(_task(lambda m: 0.0), tmp_path, learning_rate=0.002)


def test_a_run_may_be_saved_more_often_when_it_resumes(tmp_path):
    _interrupted(tmp_path)
    assert _fit(_task(lambda m: 0.0), tmp_path, checkpoint_every=1).steps == 8


def test_a_damaged_checkpoint_is_refused(tmp_path):
    _interrupted(tmp_path)
    file = tmp_path / CHECKPOINT
    for content in (file.read_bytes()[:-50], b"", b"junk" * 30):
        file.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            _fit(_task(lambda m: 0.0), tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save({"identity": print}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="damaged"):
        load_state(tmp_path, TrainingState({}), {})


def test_a_full_disk_is_a_storage_error(tmp_path, monkeypatch):
    def full(content, file):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(StorageError, match="Free space"):
        save_state(tmp_path, TrainingState({}), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, ("a.b", "[1]", "[2]")),
        ({}, {"a": 1}, ("a", "nothing", "1")),
        ({"a": 1, "c": 2}, {"a": 1}, ("c", "2", "nothing")),
    ],
)
def test_first_difference(found, expected, difference):
    assert first_difference(found, expected) == difference


def test_a_batch_that_does_not_divide_among_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = small_config(autoencoder_training={"batch_size": 3})
    with pytest.raises(ConfigError, match=r"autoencoder_training\.batch_size does not divide.*found 3.*multiple of 2"):
        train_autoencoder(config, TRAIN, HOLDOUT, SPACE, tmp_path, device="cpu", progress=False)


def test_a_sharded_network_is_refused_the_scaler():
    with pytest.raises(ConfigError, match=r"sharded .*16-mixed.*bf16-mixed"):
        sharding("16-mixed")


# Log, devices, digests


def test_a_resumed_log_has_no_row_twice(tmp_path):
    with Journal(tmp_path, ["loss"], 0) as journal:
        for step in (1, 2, 3):
            journal.write(step, {"loss": step})
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("4")  # what a kill cut short
    with Journal(tmp_path, ["loss"], 2) as journal:
        journal.write(3, {"loss": 30.0})
    assert [(row["step"], row["loss"]) for row in read_log(tmp_path)] == [("1", "1"), ("2", "2"), ("3", "30")]


def test_bf16_is_refused_on_the_cpu_where_a_level_is_two_wide():
    assert resolve_precision("auto", "cpu", [(4, 4, 4), (2, 3, 2)]) == "32-true"
    assert resolve_precision("bf16-mixed", "cpu", [(4, 4, 4)]) == "bf16-mixed"
    with pytest.raises(ConfigError, match="wrong gradients"):
        resolve_precision("bf16-mixed", "cpu", [(4, 2, 4)])
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        resolve_precision("16-mixed", "cpu", [])


def test_an_absent_device_is_refused():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="no such device; found tpu; expected one of auto, cpu"):
        resolve_device("tpu")


def test_bf16_gradients_of_the_autoencoder_agree_with_float32():
    """The guard against torch's bf16 weight gradients rests on widths other than 2 being right."""
    from synthmed.models.autoencoder import build_autoencoder

    gradients = []
    with schedule.seeded(0):
        model = build_autoencoder(small_config(autoencoder={"channels": [16, 16, 16]}).autoencoder, 1)
        image = torch.randn(2, 1, 24, 32, 24)
        noise = torch.randn(2, 8, 3, 4, 3)
        nn.init.normal_(model.network.decoder.blocks[-1].conv.weight, std=0.1)
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            decoded = model(image, None, noise, 0.1)[0]
        (decoded.float() - image).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def test_the_digest_follows_every_part_of_the_data():
    base = data_digest(TRAIN, HOLDOUT)
    assert base == data_digest(blobs(6, seed=1), blobs(3, seed=2))
    assert base != data_digest(HOLDOUT, TRAIN)
    assert base != data_digest(blobs(6, seed=1, labels=False), HOLDOUT)
    assert base != data_digest(blobs(6, seed=3), HOLDOUT)
