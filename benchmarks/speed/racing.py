"""Both contenders from nothing to drawn volumes in the same seconds, which each divides between its two stages."""

from __future__ import annotations

import math

import torch
from baselines import tutorial
from baselines.tutorial import Budget
from monai.transforms import CenterSpatialCrop, SpatialPad
from torch import Tensor, nn

from speed.cohorts import Cohort, stacked
from speed.measuring import Clock, Stopwatch
from speed.quality import CASES, SNR, Curve, fit_ours, mean_psnr, restored, spaced, watcher
from speed.steps import autoencoder_training, denoiser_training
from synthmed.config import Config
from synthmed.diffusion.conditioning import Conditioning
from synthmed.diffusion.process import PATHS, to_sample
from synthmed.models.autoencoder import LabelledAutoencoder
from synthmed.models.checkpoint import LoadedAutoencoder
from synthmed.models.devices import make_fabric
from synthmed.prepare.prepared import PreparedSplit
from synthmed.sampling.generate import decode_latent, sample_latents, volume_seed
from synthmed.training.appearance import fit_finish, fit_screen
from synthmed.training.fit import calibrated, encoded
from synthmed.training.latents import LatentSet
from synthmed.training.schedule import step_generator

TUTORIAL, OURS = "tutorial", "synthmed"
Race = tuple[Curve, Curve, Tensor]
"""The autoencoder's curve, the denoiser's, and drawn images, shape (N, 1, I, J, K), in [-1, 1]."""


def race_ours(cohort: Cohort, budget: float, share: float, volumes: int, clock: Clock) -> Race:
    """Train this project's autoencoder for a share of the budget, then its denoiser; draw as it does, unscreened."""
    config, train, holdout = cohort.config, cohort.train, cohort.holdout
    coding, coder = _our_autoencoder(config, train, holdout, budget * share, clock)
    denoising, network, latents = _our_denoiser(config, coder, train, holdout, budget * (1 - share), clock)
    loaded = calibrated(network, latents, Conditioning.fit((), config.conditioning), config)
    fabric = make_fabric("cpu", "32-true")
    decoder = LoadedAutoencoder(coder, cohort.space, "", fit_finish(coder, train, fabric), fit_screen(train))
    seeds = [volume_seed(config.seed, index) for index in range(volumes)]
    images = []
    for first in range(0, volumes, 8):
        some = seeds[first : first + 8]
        drawn = zip(sample_latents(loaded, some, None, config.sampling), some, strict=True)
        images += [
            torch.from_numpy(decode_latent(decoder, latent, seed, config.sampling).image) for latent, seed in drawn
        ]
    return coding, denoising, torch.stack(images).clamp(-1, 1)


def race_tutorial(cohort: Cohort, budget: float, share: float, volumes: int, steps: int, clock: Clock) -> Race:
    """Train the tutorial's networks likewise, and draw volumes with DDIM in `steps` steps, or DDPM in 1,000."""
    data, known, seed = stacked(cohort.train), stacked(cohort.holdout), cohort.config.seed
    coding, denoising = Curve(budget * share), Curve(budget * (1 - share))

    def decoded(model: nn.Module, case: int) -> Tensor:
        return 2 * model.reconstruct(known[case : case + 1])[:, :1] - 1  # type: ignore[operator]

    @torch.no_grad()
    def fidelity(model: nn.Module) -> float:
        return mean_psnr(lambda case: decoded(model, case), cohort.holdout)

    watch = watcher(coding, Stopwatch(clock), fidelity)
    coder, _ = tutorial.train_autoencoder(data, Budget(math.inf), seed, progress=False, watch=watch)
    stopwatch = Stopwatch(clock)
    latents = stopwatch.paused(lambda: _tutorial_latents(coder, data, known, seed))
    watch = watcher(denoising, stopwatch, lambda unet: restored(lambda x: tutorial_guess(unet, x), latents))
    unet, scale, _ = tutorial.train_unet(coder, data, Budget(math.inf), seed, progress=False, watch=watch)
    seeds, images = [volume_seed(seed, index) for index in range(volumes)], []
    for first in range(0, volumes, 8):
        image, _ = tutorial.sample(coder, unet, scale, cohort.space.grid, steps, seeds[first : first + 8])
        images.append(image)
    return coding, denoising, torch.cat(images)


def tutorial_guess(unet: nn.Module, noisy: Tensor) -> Tensor:
    """Return the clean latents that the tutorial's network sees in noisy ones of the ratio `SNR`."""
    kept = tutorial.build_scheduler().alphas_cumprod
    step = int((kept - SNR / (1 + SNR)).abs().argmin())
    a, s = kept[step].sqrt(), (1 - kept[step]).sqrt()
    sides = noisy.shape[2:]
    wide = [-(-side // tutorial.DOWNSAMPLING) * tutorial.DOWNSAMPLING for side in sides]
    pad, crop = SpatialPad(wide), CenterSpatialCrop(sides)
    found = unet(torch.stack([pad(x) for x in noisy]), torch.full((len(noisy),), step))
    noise = torch.stack([crop(x) for x in found])
    return torch.as_tensor((noisy - s * noise) / a)


def our_guess(model: nn.Module, config: Config, noisy: Tensor) -> Tensor:
    """Return the clean latents that this project's network sees in noisy ones of the ratio `SNR`."""
    path, prediction = PATHS[config.diffusion.path], config.diffusion.prediction
    times = torch.linspace(0, 1, 10_001)
    ratio = path.alpha(times) ** 2 / path.sigma(times).clamp_min(1e-6) ** 2
    t = times[(ratio - SNR).abs().argmin()]
    # `restored` mixes with a^2 + s^2 = 1; a path need not.
    scale = (path.alpha(t[None]) ** 2 + path.sigma(t[None]) ** 2).sqrt()
    x, each = scale * noisy, t.expand(len(noisy))
    return to_sample(path, prediction, model(x, each), x, each)


def _our_autoencoder(
    config: Config, train: PreparedSplit, holdout: PreparedSplit, budget: float, clock: Clock
) -> tuple[Curve, LabelledAutoencoder]:
    curve, watch = Curve(budget), Stopwatch(clock)
    training = autoencoder_training(config, train)
    model: LabelledAutoencoder = training.model
    model.fit_shortcut(train.images, train.labels, step_generator(config.seed, 0, stream=1000))

    def decoded(network: nn.Module, case: int) -> Tensor:
        labels = None if holdout.labels is None else holdout.labels[case : case + 1]
        return network.reconstruct(holdout.images[case : case + 1], labels)[0]  # type: ignore[operator]

    def fidelity(network: nn.Module) -> float:
        return mean_psnr(lambda case: decoded(network, case), holdout)

    average = fit_ours(training, curve, watch, fidelity)
    model.load_state_dict(average.state_dict())
    return curve, model.eval()


def _our_denoiser(
    config: Config,
    coder: LabelledAutoencoder,
    train: PreparedSplit,
    holdout: PreparedSplit,
    budget: float,
    clock: Clock,
) -> tuple[Curve, nn.Module, LatentSet]:
    curve, watch = Curve(budget), Stopwatch(clock)
    latents = encoded(coder, train, holdout, config, make_fabric("cpu", "32-true"))
    some = latents.holdout[spaced(len(latents.holdout), CASES)]

    def quality(network: nn.Module) -> float:
        return restored(lambda x: our_guess(network, config, x), some)

    return curve, fit_ours(denoiser_training(config, latents), curve, watch, quality), latents


@torch.no_grad()
def _tutorial_latents(coder: tutorial.AutoencoderKL, data: Tensor, known: Tensor, seed: int) -> Tensor:
    """Return latents of held-out scans, scaled by the training scans'."""
    scale = tutorial.scale_of(coder, data[spaced(len(data), CASES)])
    cases = spaced(len(known), CASES).tolist()
    return torch.cat([coder.encode(known[case : case + 1])[0] for case in cases]) * scale
