"""From trained models to volumes on disk: one seed a volume, decoded one by one, resumable after a kill.

A volume is a function of the models, the settings, the run's seed and its own index; one that is out of the real
cohort's range is drawn again, from a seed of its own. Latents are drawn in chunks aligned on the index (0 .. b-1,
b .. 2b-1, ...), always whole, so that a volume's arithmetic, and therefore its bytes, are the same however many are
asked for and wherever an earlier run stopped, and however many processes share the chunks. Another `batch_size`
changes the order of floating-point sums, and so the last bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from synthmed import processes
from synthmed.config import SamplingConfig
from synthmed.diffusion.process import PATHS, guided_denoiser, start_time
from synthmed.diffusion.samplers import SAMPLERS, draw_noise, time_grid
from synthmed.errors import ConfigError, TrainingDiverged
from synthmed.files import sha256_json
from synthmed.models.checkpoint import LoadedAutoencoder, LoadedDenoiser, load_autoencoder, load_denoiser
from synthmed.models.devices import resolve_device
from synthmed.models.tiling import decode_pieces
from synthmed.prepare.space import Space, from_network, label_from_network
from synthmed.sampling.generated import (
    Row,
    append_row,
    begin,
    finished_rows,
    read_rows,
    volume_name,
    write_pair,
    write_table,
)
from synthmed.volume import Volume

Condition = Mapping[str, Any]
_FINISH_STREAM = 1


@dataclass(frozen=True)
class Order:
    """What to draw: everything that decides a volume apart from the models' weights.

    Attributes
    ----------
    sampling : SamplingConfig
    seed : int
        Of the run; `volume_seed` derives each volume's own.
    conditions : sequence of mappings, or None
        Taken in turn and repeated; None draws one a volume from the model's `Conditioning`.
    """

    sampling: SamplingConfig
    seed: int
    conditions: Sequence[Condition] | None = None


def volume_seed(seed: int, index: int, redraw: int = 0) -> int:
    """Return the seed of volume `index`, 63 bits, from the run's seed and how often the volume was drawn before."""
    key = (index, redraw) if redraw else (index,)
    state = np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@torch.inference_mode()
def sample_latents(
    denoiser: LoadedDenoiser, seeds: Sequence[int], conditions: Sequence[Condition] | None, sampling: SamplingConfig
) -> Tensor:
    """Draw one latent a seed.

    Parameters
    ----------
    denoiser : LoadedDenoiser
    seeds : sequence of int
        One a volume: it decides x_T and the ancestral noise, whatever else is in the batch.
    conditions : sequence of mappings, or None
        One a volume; None, or a model without covariates, samples unconditionally.
    sampling : SamplingConfig

    Returns
    -------
    Tensor, shape (len(seeds), C, i, j, k)
        Latents in the autoencoder's units, ready to decode, on the denoiser's device.

    Raises
    ------
    ConfigError
        If a condition does not fit the model's `Conditioning`.
    """
    device = denoiser.latent_mean.device
    encoded = None if conditions is None else denoiser.conditioning.encode(conditions)
    condition = None if encoded is None else encoded.to(device)
    path, prediction = PATHS[denoiser.diffusion.path], denoiser.diffusion.prediction
    times = time_grid(sampling.num_inference_steps, sampling.timestep_shift, start_time(path, prediction))
    # Drawn on the CPU, so that a seed means the same noise on every device.
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    x_T = draw_noise((len(seeds), *denoiser.latent_shape), generators) * float(path.sigma(times[:1]))
    denoise = guided_denoiser(denoiser.model, path, prediction, condition, sampling.guidance_scale)
    latent = SAMPLERS[sampling.sampler](denoise, x_T.to(device), path, times, generators=generators)
    return latent * denoiser.latent_std + denoiser.latent_mean


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample on the networks' scale.

    Attributes
    ----------
    image : ndarray, shape (1, I, J, K), float32 in [-1, 1] once finished
    classes : ndarray, shape (1, I, J, K), uint8 class index; or None for a model without labels
    """

    image: NDArray[np.float32]
    classes: NDArray[np.uint8] | None

    def volumes(self, space: Space) -> tuple[Volume, Volume | None]:
        """Return image and label map in the release's units and values, on the canonical affine."""
        image = Volume(from_network(self.image, space), space.affine)
        if self.classes is None:
            return image, None
        return image, Volume(label_from_network(self.classes, space), space.affine)


@torch.inference_mode()
def decode_latent(autoencoder: LoadedAutoencoder, latent: Tensor, seed: int, sampling: SamplingConfig) -> Drawn:
    """Decode one latent and finish it.

    Parameters
    ----------
    autoencoder : LoadedAutoencoder
    latent : Tensor, shape (C, i, j, k)
    seed : int
        Of the volume; it decides the noise that `Finish` adds.
    sampling : SamplingConfig
        Its `finish`, without which the volume is left as the decoder gave it, and `whole_voxels`.
    """
    grid = (1, *(side * autoencoder.model.downsampling for side in latent.shape[1:]))
    image = np.empty(grid, np.float32)
    classes = np.empty(grid, np.uint8) if autoencoder.space.num_classes > 1 else None
    for box, part, logits in decode_pieces(autoencoder.model, latent[None], whole_voxels=sampling.whole_voxels):
        image[(..., *box)] = part[0].float().cpu().numpy()
        if logits is not None and classes is not None:
            classes[(..., *box)] = logits[0].argmax(0).cpu().numpy()
    if not sampling.finish:
        return Drawn(image, classes)
    rng = np.random.default_rng([seed, _FINISH_STREAM])
    finished = autoencoder.finish.image(image, rng)
    return Drawn(finished, None if classes is None else autoencoder.finish.labels(classes))


def generate(
    autoencoder_dir: Path,
    denoiser_dir: Path,
    out: Path,
    *,
    sampling: SamplingConfig,
    seed: int,
    num_samples: int | None = None,
    conditions: Sequence[Condition] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Draw volumes and stream them to `out`; a second call goes on where the first was stopped.

    Writes ``images/<name>.nii.gz``, with labels also ``labels/<name>.nii.gz``, ``samples.csv`` (name, seed,
    condition as JSON, digests) and ``generation.json`` (models' digests and settings). Finished volumes whose digests
    match are kept; a missing or altered one is drawn again, to the same bytes.

    Parameters
    ----------
    num_samples : int, optional
        Default: one a condition where conditions are given, else ``sampling.num_samples``.
    conditions : sequence of mappings, optional
        Covariates to ask for, taken in turn; by default drawn as in training (`Conditioning.draw`).
    device : {"auto", "cpu", "cuda", "mps"}

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ConfigError
        If the models do not belong together, a condition does not fit, or `out` was begun with another model or
        other settings.
    TrainingDiverged
        If a volume stays out of the real cohort's range after `sampling.redraws` further draws.
    StorageError
        If the disk is full; a second call resumes.
    """
    if num_samples is not None and num_samples < 1:
        raise ConfigError("Too few volumes were asked for", found=str(num_samples), expected="at least 1")
    processes.join()
    autoencoder, denoiser = _load(autoencoder_dir, denoiser_dir, resolve_device(device))
    order = Order(sampling, seed, conditions or None)
    count = num_samples or (len(conditions) if conditions else sampling.num_samples)
    return generate_volumes(autoencoder, denoiser, Path(out), order, count, progress=progress)


def generate_volumes(
    autoencoder: LoadedAutoencoder, denoiser: LoadedDenoiser, out: Path, order: Order, count: int, *, progress: bool
) -> Path:
    """Do what `generate` says with models that are already loaded."""
    denoiser.conditioning.check_request(order.conditions or ())

    def start() -> set[str]:
        begin(out, _record(autoencoder, denoiser, order))
        rows = finished_rows(out, autoencoder.space.num_classes > 1, count)
        write_table(out, rows.values())
        return set(rows)

    done = processes.from_first(start)
    missing = _share([index for index in range(count) if volume_name(index) not in done], order.sampling.batch_size)
    with _bar(len(done), len(missing), progress) as bar:
        for index, latent in _latents(denoiser, order, missing):
            name, condition = volume_name(index), _condition(denoiser, order, index)
            seed, drawn = _in_range(autoencoder, denoiser, order, index, latent)
            digests = write_pair(out, name, *drawn.volumes(autoencoder.space), autoencoder.space)
            text = json.dumps(condition, sort_keys=True, ensure_ascii=False)
            append_row(out, Row(name, seed, text, *digests))
            bar.update()
    processes.gather(None)
    processes.from_first(lambda: write_table(out, read_rows(out).values()))
    return out


def _share(missing: Sequence[int], size: int) -> list[int]:
    """Return those of `missing` volumes that are this process's: whole chunks, dealt in turn."""
    mine = set(sorted({index // size for index in missing})[processes.share()])
    return [index for index in missing if index // size in mine]


def _bar(done: int, missing: int, progress: bool) -> tqdm:
    disable = not progress or processes.rank() > 0  # of many processes the first shows its own share
    return tqdm(total=done + missing, initial=done, desc="generate", unit="volume", disable=disable)


def _in_range(
    autoencoder: LoadedAutoencoder, denoiser: LoadedDenoiser, order: Order, index: int, latent: Tensor
) -> tuple[int, Drawn]:
    """Return the first draw of a volume that passes the screen, with its seed; each redraw is sampled by itself."""
    settings, space, reason = order.sampling, autoencoder.space, ""
    for redraw in range(settings.redraws + 1):
        seed = volume_seed(order.seed, index, redraw)
        if redraw:
            latent = sample_latents(denoiser, [seed], [_condition(denoiser, order, index)], settings)[0]
        drawn = decode_latent(autoencoder, latent, seed, settings)
        structures = [space.structure(value) for value in space.label_values[1:]]
        classes = None if drawn.classes is None else drawn.classes[0]
        reason = autoencoder.screen.outside(drawn.image[0], classes, structures) if settings.redraws else ""
        if not reason:
            return seed, drawn
    raise TrainingDiverged(
        f"No draw of {volume_name(index)} is in the range of real scans",
        found=f"after {settings.redraws + 1} draws: {reason}",
        next_step="Train longer, or set sampling.redraws=0 to take every draw as it is",
    )


def _load(autoencoder_dir: Path, denoiser_dir: Path, device: str) -> tuple[LoadedAutoencoder, LoadedDenoiser]:
    autoencoder, denoiser = load_autoencoder(autoencoder_dir, device), load_denoiser(denoiser_dir, device)
    if denoiser.autoencoder_digest != autoencoder.digest:
        raise ConfigError(
            f"The denoiser in {denoiser_dir} was trained on the latents of another autoencoder",
            found=autoencoder.digest[:12],
            expected=denoiser.autoencoder_digest[:12],
        )
    return autoencoder, denoiser


def _latents(denoiser: LoadedDenoiser, order: Order, missing: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the latents of `missing` volumes, sampling whole aligned chunks."""
    size = order.sampling.batch_size
    wanted = set(missing)
    for chunk in sorted({index // size for index in wanted}):
        indices = range(chunk * size, (chunk + 1) * size)
        seeds = [volume_seed(order.seed, index) for index in indices]
        conditions = [_condition(denoiser, order, index) for index in indices]
        latents = sample_latents(denoiser, seeds, conditions, order.sampling)
        yield from ((i, latent) for i, latent in zip(indices, latents, strict=True) if i in wanted)


def _condition(denoiser: LoadedDenoiser, order: Order, index: int) -> Condition:
    if order.conditions:
        return order.conditions[index % len(order.conditions)]
    return denoiser.conditioning.draw(volume_seed(order.seed, index))


def _record(autoencoder: LoadedAutoencoder, denoiser: LoadedDenoiser, order: Order) -> dict[str, Any]:
    """Everything that decides the volumes, apart from how many there are."""
    asked = [dict(condition) for condition in order.conditions or ()]
    return {
        "autoencoder": autoencoder.digest,
        "denoiser": denoiser.digest,
        "path": denoiser.diffusion.path,
        "prediction": denoiser.diffusion.prediction,
        **order.sampling.model_dump(mode="json", exclude={"num_samples"}),
        "seed": order.seed,
        "conditions": sha256_json(asked) if asked else "drawn",
        "space": autoencoder.space.to_json(),
        "appearance": sha256_json([autoencoder.finish.to_json(), autoencoder.screen.to_json()]),
    }
