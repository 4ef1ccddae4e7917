"""What the autoencoder learns from: reconstruction, labels, KL, and optionally a discriminator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional

from synthmed import processes
from synthmed.config import AutoencoderConfig, TrainingConfig
from synthmed.models.augmentation import augment, augmented, draw_augmentation
from synthmed.models.autoencoder import one_hot
from synthmed.prepare.prepared import PreparedSplit

AUTOENCODER_MEASUREMENTS = ("train_loss", "holdout_loss", "train_psnr", "holdout_psnr", "train_dice", "holdout_dice")
_EVALUATED_CASES = 32
_DISCRIMINATOR_CHANNELS = 16


def reconstruction_loss(
    decoded: Tensor,
    logits: Tensor | None,
    image: Tensor,
    onehot: Tensor | None,
    config: AutoencoderConfig,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Tensor:
    """Return L1 + gradient_weight * L1 of differences + label_weight * (cross-entropy + Dice), a scalar.

    `total` completes sums over a batch of which this is a share; see `label_loss`.
    """
    loss = (decoded - image).abs().mean() + config.gradient_weight * edge_loss(decoded, image)
    if logits is not None and onehot is not None:
        loss = loss + config.label_weight * label_loss(logits.float(), onehot, total)
    return loss


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) a latent value, averaged (Kingma, Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


def edge_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute error of finite differences along the three axes."""
    error = found - wanted
    return torch.stack([error.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).mean()


def label_loss(logits: Tensor, onehot: Tensor, total: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor:
    """Return cross-entropy plus soft Dice loss over the classes (Milletari et al. 2016, doi 10.1109/3DV.2016.79).

    Dice is a quotient of sums over the batch; `total` completes them where the batch lies in many processes.
    """
    crossing = functional.cross_entropy(logits, onehot)
    shares = logits.softmax(dim=1)
    overlap = total((shares * onehot).sum(dim=(0, 2, 3, 4)))
    both = total((shares + onehot).sum(dim=(0, 2, 3, 4)))
    return crossing + 1.0 - ((2 * overlap + 1.0) / (both + 1.0)).mean()


def autoencoder_loss(
    train: PreparedSplit, config: AutoencoderConfig, settings: TrainingConfig, adversary: Adversary | None
) -> Callable[[nn.Module, Tensor, torch.Generator, int], Tensor]:
    """Return the loss of a step as `synthmed.training.loop.Task` takes it."""

    def loss(model: nn.Module, cases: Tensor, generator: torch.Generator, step: int) -> Tensor:
        device, share = next(model.parameters()).device, processes.share()
        images = train.images[cases[share]].to(device)
        labels = None if train.labels is None else train.labels[cases[share]].to(device)
        if settings.augment:
            drawn = draw_augmentation(len(cases), generator)
            drawn = drawn * augmented(len(cases), settings.augment, generator)[:, None]
            images, labels = augment(images, labels, drawn[share].to(device))
        onehot = None if labels is None else one_hot(labels, train.num_classes)
        cells = (side // config.downsampling for side in images.shape[2:])
        noise = torch.randn(len(cases), config.latent_channels, *cells, generator=generator)[share].to(device)
        decoded, logits, mean, log_variance = model(images, onehot, noise, config.latent_noise)
        total = reconstruction_loss(decoded, logits, images, onehot, config, processes.total)
        total = total + config.kl_weight * gaussian_kl(mean.float(), log_variance.float())
        if adversary is not None and step >= adversary.start:
            total = total + config.adversarial_weight * adversary.judge(decoded, images)
        return total

    return loss


def autoencoder_evaluation(
    train: PreparedSplit, holdout: PreparedSplit, config: AutoencoderConfig, fabric: Fabric
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that measures like numbers of training and held-out cases, without noise or augmentation."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        sides = {"train": train, "holdout": holdout}
        found = {side: measure_autoencoder(model, split, config, fabric) for side, split in sides.items()}
        return {f"{side}_{name}": found[side][name] for name in ("loss", "psnr", "dice") for side in sides}

    return evaluate


@torch.no_grad()
def measure_autoencoder(
    model: nn.Module, split: PreparedSplit, config: AutoencoderConfig, fabric: Fabric, limit: int = _EVALUATED_CASES
) -> dict[str, float]:
    """Reconstruct at most `limit` evenly spaced cases from their posterior means.

    Returns
    -------
    dict
        ``loss``; ``psnr``, dB over the intensity range, and ``dice``, over the classes without background, each
        the mean over the cases; a Dice without labels is 0.
    """
    cases = torch.linspace(0, len(split.images) - 1, min(limit, len(split.images))).round().long()
    losses, psnrs, dices = [], [], []
    for case in cases.tolist():
        image = fabric.to_device(split.images[case : case + 1])
        label = None if split.labels is None else fabric.to_device(split.labels[case : case + 1])
        onehot = None if label is None else one_hot(label, split.num_classes)
        with fabric.autocast():
            decoded, logits = model.reconstruct(image, label)  # type: ignore[operator]
        losses.append(float(reconstruction_loss(decoded, logits, image, onehot, config)))
        psnrs.append(psnr(decoded.clamp(-1.0, 1.0), image))
        if logits is not None and label is not None:
            dices += dice(logits.argmax(1, keepdim=True), label, split.num_classes)
    means = (sum(values) / max(len(values), 1) for values in (losses, psnrs, dices))
    return dict(zip(("loss", "psnr", "dice"), means, strict=True))


def psnr(found: Tensor, wanted: Tensor, data_range: float = 2.0) -> float:
    """Return the peak signal-to-noise ratio, dB: 10 log10(range^2 / mean squared error), at most 100."""
    error = float((found.float() - wanted.float()).square().mean())
    return 10.0 * math.log10(data_range**2 / max(error, data_range**2 * 1e-10))


def dice(found: Tensor, wanted: Tensor, num_classes: int) -> list[float]:
    """Return 2 |A and B| / (|A| + |B|) of each class that either holds, without the background."""
    scores = []
    for index in range(1, num_classes):
        a, b = found == index, wanted == index
        total = int(a.sum()) + int(b.sum())
        if total:
            scores.append(2.0 * int((a & b).sum()) / total)
    return scores


class Adversary:
    """A patch discriminator with the least-squares loss, which joins after a share of the steps.

    It stays in float32: its last layers are so narrow that bf16 gives wrong weight gradients on the CPU.

    Parameters
    ----------
    grid : tuple of int, (I, J, K)
    config : AutoencoderConfig
    settings : TrainingConfig
    fabric : Fabric

    References
    ----------
    Mao et al. 2017, equation 9, doi 10.1109/ICCV.2017.304; Isola et al. 2017, section 3.2.2, doi 10.1109/CVPR.2017.632.
    """

    def __init__(
        self, grid: tuple[int, int, int], config: AutoencoderConfig, settings: TrainingConfig, fabric: Fabric
    ) -> None:
        layers = 3 if min(grid) >= 32 else 2 if min(grid) >= 16 else 1
        network = PatchDiscriminator(
            spatial_dims=3,
            channels=_DISCRIMINATOR_CHANNELS,
            in_channels=1,
            num_layers_d=layers,
            norm="INSTANCE",
        )
        self.start = int(config.adversarial_start * settings.max_steps)
        self.fabric = fabric
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.5 * settings.learning_rate, betas=(0.5, 0.9))
        self.bare = network
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self._pair: tuple[Tensor, Tensor] | None = None

    def judge(self, decoded: Tensor, image: Tensor) -> Tensor:
        """Return how far `decoded` is from passing as real, mean (D(x) - 1)^2, and keep the pair for `update`."""
        self._pair = (decoded.detach().float(), image.detach())
        self.bare.requires_grad_(False)
        with torch.autocast(decoded.device.type, enabled=False):
            return (self.bare(decoded.float())[-1] - 1.0).square().mean()

    def update(self) -> None:
        """Teach the discriminator the pair of this step; nothing before the term has begun."""
        if self._pair is None:
            return
        decoded, image = self._pair
        self._pair = None
        self.bare.requires_grad_(True)
        with torch.autocast(image.device.type, enabled=False):
            real, fake = self.bare(image)[-1], self.bare(decoded)[-1]
            loss = 0.5 * ((real - 1.0).square().mean() + fake.square().mean())
        self.fabric.backward(loss)
        for parameter in self.bare.parameters():
            if parameter.grad is not None:
                processes.average(parameter.grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the discriminator's weights and its optimiser's state."""
        return {"network": self.bare.state_dict(), "optimizer": self.optimizer.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.bare.load_state_dict(state["network"])
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
