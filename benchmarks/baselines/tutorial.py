"""MONAI's ``3d_ldm`` tutorial on a cohort with labels: its networks, losses and schedules, from MONAI's own classes.

Settings are those of ``generation/3d_ldm/3d_ldm_tutorial.ipynb`` in Project-MONAI/tutorials. What differs:

- The tutorial has no labels. One-hot classes are further channels of what the autoencoder encodes, decodes and
  its discriminator sees, and the L1 loss covers them; a voxel's class is its largest channel.
- The perceptual loss is left out: its weights would have to be downloaded.
- ``clip_sample`` is off, since it squeezes latents of unit variance while sampling: in the tutorial's favour.
- Everything is float32: automatic mixed precision is for a GPU, and bf16 gradients of a ``Conv3d`` are wrong on
  the CPU where a level is two voxels wide, as the UNet's last one can be.
- DDIM takes the place of 1,000 DDPM steps unless these are asked for, on time steps that lie as far apart as MONAI's
  step believes (its own ``set_timesteps`` does not).
- Training ends by the seconds instead of after 100 and 150 epochs.

References
----------
Rombach et al. 2022, doi 10.1109/CVPR52688.2022.01042; Pinaya et al. 2022, doi 10.1007/978-3-031-18576-2_12.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from monai.inferers import LatentDiffusionInferer
from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet, PatchDiscriminator
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from monai.networks.schedulers.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from synthmed.errors import ConfigError
from synthmed.training.schedule import batch_indices, seeded

CHANNELS = (32, 64, 64)
LATENT_CHANNELS = 3
DOWNSAMPLING = 2 ** (len(CHANNELS) - 1)
LEAST_SIDE = 24
BATCH_SIZE = 2
LEARNING_RATE = 1e-4
KL_WEIGHT = 1e-6
ADVERSARIAL_WEIGHT = 0.01
WARM_UP_EPOCHS = 6  # the adversarial term begins with the seventh
TRAINING_STEPS = 1000
Watch = Callable[[nn.Module, int], bool]
"""Called after each step with the network and the number of steps; true ends the training."""
BETAS: dict[str, Any] = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195}


@dataclass(frozen=True)
class Budget:
    """When training ends: at whichever comes first, but not before one step.

    Attributes
    ----------
    seconds : float
        Seconds of computing: of the process, divided by its threads. A run's own are seconds of the clock, which are
        never fewer.
    steps : int, optional
    """

    seconds: float
    steps: int | None = None


@dataclass
class Trained:
    """What training came to."""

    steps: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return steps, epochs, seconds and the mean loss of the last tenth of the steps."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return {
            "steps": self.steps,
            "epochs": round(self.epochs, 2),
            "seconds": round(self.seconds, 1),
            "loss": sum(last) / len(last),
        }


def build_autoencoder(channels: int) -> AutoencoderKL:
    """Return the tutorial's autoencoder for a stack of image and classes; its attention stays on, as there."""
    return AutoencoderKL(
        spatial_dims=3,
        in_channels=channels,
        out_channels=channels,
        channels=CHANNELS,
        latent_channels=LATENT_CHANNELS,
        num_res_blocks=1,
        norm_num_groups=16,
        attention_levels=(False, False, True),
    )


def build_discriminator(channels: int) -> PatchDiscriminator:
    """Return the tutorial's discriminator."""
    return PatchDiscriminator(spatial_dims=3, channels=32, in_channels=channels, out_channels=1, num_layers_d=3)


def build_unet() -> DiffusionModelUNet:
    """Return the tutorial's denoiser of latents."""
    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_res_blocks=1,
        channels=CHANNELS,
        attention_levels=(False, True, True),
        num_head_channels=(0, 64, 64),
    )


def build_scheduler(steps: int = TRAINING_STEPS) -> Scheduler:
    """Return the scheduler of training and of 1,000 steps, or DDIM on fewer.

    Raises
    ------
    ConfigError
        If the steps do not divide 1,000.
    """
    if not 1 <= steps <= TRAINING_STEPS or TRAINING_STEPS % steps:
        raise ConfigError(
            "The tutorial cannot be sampled in these steps", found=str(steps), expected=f"a divisor of {TRAINING_STEPS}"
        )
    kind = DDPMScheduler if steps == TRAINING_STEPS else DDIMScheduler
    scheduler: Scheduler = kind(TRAINING_STEPS, clip_sample=False, **BETAS)
    scheduler.num_inference_steps = steps
    scheduler.timesteps = torch.arange(TRAINING_STEPS - 1, -1, -(TRAINING_STEPS // steps))
    return scheduler


def kl_loss(mean: Tensor, sigma: Tensor) -> Tensor:
    """Return KL(N(mean, sigma^2) || N(0, 1)), summed over the latent and averaged over the batch."""
    return 0.5 * (mean.square() + sigma.square() - sigma.square().log() - 1).flatten(1).sum(1).mean()


def train_autoencoder(
    data: Tensor,
    budget: Budget,
    seed: int,
    *,
    progress: bool,
    batch_size: int = BATCH_SIZE,
    watch: Watch = lambda model, steps: False,
) -> tuple[AutoencoderKL, Trained]:
    """Train on image and classes, after the warm-up against a discriminator.

    Parameters
    ----------
    data : Tensor, shape (N, 1 + classes, I, J, K), [0, 1]
        Every side divisible by 4.
    batch_size : int
        The tutorial's is 2.
    watch : Watch
        By default it never ends the training.
    """
    with seeded(seed):
        model, critic = build_autoencoder(data.shape[1]), build_discriminator(data.shape[1])
        optimizer, critic_optimizer = (torch.optim.Adam(m.parameters(), LEARNING_RATE) for m in (model, critic))
        judge = PatchAdversarialLoss(criterion="least_squares")

        def step(batch: Tensor, epoch: int) -> float:
            found, mean, sigma = model(batch)
            loss = functional.l1_loss(found, batch) + KL_WEIGHT * kl_loss(mean, sigma)
            adversarial = epoch >= WARM_UP_EPOCHS
            if adversarial:
                passing = judge(critic(found)[-1], target_is_real=True, for_discriminator=False)
                loss = loss + ADVERSARIAL_WEIGHT * passing
            _descend(optimizer, loss)
            if adversarial:
                fake = judge(critic(found.detach())[-1], target_is_real=False, for_discriminator=True)
                real = judge(critic(batch)[-1], target_is_real=True, for_discriminator=True)
                _descend(critic_optimizer, ADVERSARIAL_WEIGHT * 0.5 * (fake + real))
            return float(loss.detach())

        caption = "tutorial: autoencoder" if progress else ""
        trained = _train(step, data, budget, seed, caption, batch_size, partial(watch, model))
    return model.eval(), trained


def train_unet(
    autoencoder: AutoencoderKL,
    data: Tensor,
    budget: Budget,
    seed: int,
    *,
    progress: bool,
    batch_size: int = BATCH_SIZE,
    watch: Watch = lambda model, steps: False,
) -> tuple[DiffusionModelUNet, float, Trained]:
    """Train the denoiser to predict noise on latents that are encoded anew in every step, as in the tutorial.

    Parameters are those of `train_autoencoder`.

    Returns
    -------
    unet : DiffusionModelUNet
    scale_factor : float
        1 / standard deviation of the first batch's latents.
    trained : Trained
    """
    with seeded(seed):
        unet = build_unet()
        scale = scale_of(autoencoder, data[batch_indices(len(data), batch_size, seed, 0)])
        infer = make_inferer(build_scheduler(), scale, data.shape[2:])
        optimizer = torch.optim.Adam(unet.parameters(), LEARNING_RATE)

        def step(batch: Tensor, epoch: int) -> float:
            noise = torch.randn(len(batch), LATENT_CHANNELS, *unet_grid(data.shape[2:]))
            times = torch.randint(0, TRAINING_STEPS, (len(batch),))
            found = infer(batch, autoencoder, unet, noise=noise, timesteps=times)
            loss = functional.mse_loss(found, noise)
            _descend(optimizer, loss)
            return float(loss.detach())

        caption = "tutorial: denoiser" if progress else ""
        trained = _train(step, data, budget, seed, caption, batch_size, partial(watch, unet))
    return unet.eval(), scale, trained


@torch.no_grad()
def scale_of(autoencoder: AutoencoderKL, batch: Tensor) -> float:
    """Return 1 / standard deviation of a batch's latents."""
    return float(1 / autoencoder.encode_stage_2_inputs(batch).std())


def sample(
    autoencoder: AutoencoderKL,
    unet: DiffusionModelUNet,
    scale: float,
    grid: Sequence[int],
    steps: int,
    seeds: list[int],
) -> tuple[Tensor, Tensor]:
    """Draw one volume a seed.

    Parameters
    ----------
    steps : int
        1,000 are DDPM's, fewer DDIM's.

    Returns
    -------
    image : Tensor, shape (B, 1, I, J, K), [-1, 1]
    label : Tensor, shape (B, 1, I, J, K), class index
    """
    scheduler = build_scheduler(steps)
    shape = LATENT_CHANNELS, *unet_grid(grid)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    with seeded(seeds[0]):  # DDPM's own noise comes from the global generator
        drawn = make_inferer(scheduler, scale, grid).sample(noise, autoencoder, unet, scheduler, verbose=False)
    stack = torch.as_tensor(drawn)
    return 2 * stack[:, :1].clamp(0, 1) - 1, stack[:, 1:].argmax(1, keepdim=True)


def make_inferer(scheduler: Scheduler, scale: float, grid: Sequence[int]) -> LatentDiffusionInferer:
    """Return MONAI's inferer, which pads latents for the denoiser and cuts them for the decoder."""
    latent = [side // DOWNSAMPLING for side in grid]
    return LatentDiffusionInferer(scheduler, scale, list(unet_grid(grid)), latent)


def unet_grid(grid: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of the latent, rounded up until the denoiser's levels halve them evenly."""
    return tuple(-(-(side // DOWNSAMPLING) // DOWNSAMPLING) * DOWNSAMPLING for side in grid)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _train(
    step: Callable[[Tensor, int], float],
    data: Tensor,
    budget: Budget,
    seed: int,
    caption: str,
    batch_size: int,
    watch: Callable[[int], bool],
) -> Trained:
    """Take steps until the budget is spent or `watch` ends it."""
    began, done, ended = _computed(), Trained(), False
    with tqdm(desc=caption, unit="step", disable=not caption) as bar:
        while not done.steps or not (ended or _spent(budget, done)):
            epoch = done.steps * batch_size // len(data)
            done.losses.append(step(data[batch_indices(len(data), batch_size, seed, done.steps)], epoch))
            done.steps += 1
            done.seconds = _computed() - began
            bar.update()
            ended = watch(done.steps)
    done.epochs = done.steps * batch_size / len(data)
    return done


def _computed() -> float:
    return time.process_time() / torch.get_num_threads()


def _spent(budget: Budget, done: Trained) -> bool:
    return done.seconds >= budget.seconds or (budget.steps is not None and done.steps >= budget.steps)


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(p.numel() for p in model.parameters())
