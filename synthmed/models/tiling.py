"""Encoding and decoding, whole or in tiles: the one way in which scans become latents and latents volumes.

A grid of at most `WHOLE_VOXELS` voxels goes through the network in one piece. A larger one goes through it block by
block, each map computed in tiles from the maps that are held (`synthmed.models.fields`). No tile sees an edge that is
not the volume's, and group norms have the whole map's statistics, so the two ways differ by the rounding of
floating-point sums alone and there is nothing to blend.

Whether there are tiles is decided by the grid and by a number in the configuration (`sampling.whole_voxels`), never by
how much memory happens to be free: the last bits of a volume must not depend on what else runs on the machine. At
the default, a whole decode takes about half a GiB with the networks of `benchmarks/memory.py`.

What is held: in every residual block the map between its two convolutions, and in its place what the block makes, where
a norm or an up-sampling follows; after a down-sampling the coarser map. All else is computed where it is read, some of
it twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from monai.networks.blocks import Convolution, Upsample
from monai.networks.nets.autoencoderkl import AEKLDownsample, AEKLResBlock
from torch import Tensor, nn

from synthmed.config import WHOLE_VOXELS
from synthmed.errors import ConfigError, InputError
from synthmed.models.fields import (
    TILE,
    Box,
    Field,
    Shape,
    added,
    coarser,
    finer,
    held,
    near,
    normalised,
    stored,
    tiles,
    voxels_of,
)
from synthmed.models.stem import haar, one_hot, stacked

if TYPE_CHECKING:
    from synthmed.models.autoencoder import LabelledAutoencoder

Piece = tuple[Box, Tensor, Tensor | None]


@torch.no_grad()
def encode_scans(
    model: LabelledAutoencoder, images: Tensor, labels: Tensor | None, *, whole_voxels: int = WHOLE_VOXELS
) -> Tensor:
    """Return the posterior's mean of scans, as `LabelledAutoencoder.encode` and without gradients.

    Parameters
    ----------
    model : LabelledAutoencoder
    images : Tensor, shape (B, 1, I, J, K), in [-1, 1]
    labels : Tensor, shape (B, 1, I, J, K), class index, or None without labels
    whole_voxels : int
        Voxels that go through the network at once; a grid that is larger by itself goes in tiles.

    Returns
    -------
    Tensor, shape (B, latent_channels, I/f, J/f, K/f)

    Raises
    ------
    InputError
        If a side of the grid is not divisible by the down-sampling, or labels are lacking or not expected.
    ConfigError
        If `whole_voxels` is below 1.
    """
    voxels, classes = math.prod(images.shape[2:]), model.num_classes
    _check_budget(whole_voxels)
    if voxels > whole_voxels:
        model.check_scans(images, 0 if labels is None else classes)
        one_by_one = (images.split(1), [None] * len(images) if labels is None else labels.split(1))
        return torch.cat([_encode_in_tiles(model, *case) for case in zip(*one_by_one, strict=True)])
    count = cases_at_once(voxels, len(images), whole_voxels)
    parts = []
    for start in range(0, len(images), count):
        onehot = None if labels is None else one_hot(labels[start : start + count], classes)
        parts.append(model.encode(images[start : start + count], onehot))
    return torch.cat(parts)


@torch.no_grad()
def decode_pieces(model: LabelledAutoencoder, latent: Tensor, *, whole_voxels: int = WHOLE_VOXELS) -> Iterator[Piece]:
    """Yield a decoded volume piece by piece, so that a caller need not hold the logits of all of it.

    Parameters
    ----------
    model : LabelledAutoencoder
    latent : Tensor, shape (B, latent_channels, i, j, k)
    whole_voxels : int
        Largest grid, in voxels, that is decoded as one piece.

    Yields
    ------
    box : tuple of slice
        Where the piece lies, in voxels; together the pieces cover the grid once.
    image : Tensor, shape (B, 1, ...), not clipped
    logits : Tensor, shape (B, num_classes, ...), or None without labels

    Raises
    ------
    InputError
        If the latent is not of the model's channels and three axes.
    ConfigError
        If `whole_voxels` is below 1.
    """
    _check_budget(whole_voxels)
    if latent.ndim != 5 or latent.shape[1] != model.latent_channels:
        raise InputError(
            "The latent does not fit the autoencoder",
            found=f"shape {tuple(latent.shape)}",
            expected=f"(batch, {model.latent_channels}, i, j, k)",
        )
    i, j, k = (side * model.downsampling for side in latent.shape[2:])
    if i * j * k <= whole_voxels:
        yield (slice(0, i), slice(0, j), slice(0, k)), *model.decode(latent)
        return
    bands = near(_decoded_bands(model, latent), model.refined, 2)
    for box in tiles(bands.shape):
        yield voxels_of(box), *model.outputs(bands.read(box))


@torch.no_grad()
def decode_scans(
    model: LabelledAutoencoder, latent: Tensor, *, whole_voxels: int = WHOLE_VOXELS
) -> tuple[Tensor, Tensor | None]:
    """Return image and logits as `LabelledAutoencoder.decode`, without gradients; see `decode_pieces`."""
    grid = [side * model.downsampling for side in latent.shape[2:]]
    count = cases_at_once(math.prod(grid), len(latent), whole_voxels)
    images, scores = [], []
    for cases in latent.split(count):
        image = latent.new_empty((len(cases), 1, *grid), dtype=torch.float32)
        shape = (len(cases), model.num_classes, *grid)
        logits = latent.new_empty(shape, dtype=torch.float32) if model.num_classes > 1 else None
        for box, part, score in decode_pieces(model, cases, whole_voxels=whole_voxels):
            image[(..., *box)] = part
            if logits is not None and score is not None:
                logits[(..., *box)] = score
        images.append(image)
        scores += [] if logits is None else [logits]
    return torch.cat(images), torch.cat(scores) if scores else None


def cases_at_once(voxels: int, most: int, whole_voxels: int = WHOLE_VOXELS) -> int:
    """Return how many grids of so many voxels make a batch: at most `most`, at least 1."""
    return max(1, min(most, whole_voxels // voxels))


def _decoded_bands(model: LabelledAutoencoder, latent: Tensor) -> Field:
    """Return the sub-bands that `LabelledAutoencoder.decode` refines."""
    first, *others = model.network.decoder.get_submodule("blocks").children()
    bands = _through(others, stored(near(held(model.network.post_quant_conv(latent)), first, 1)))
    if model.expand is None:
        return bands
    return added(bands, finer(held(latent), model.expand, model.downsampling // 2))


def _encode_in_tiles(model: LabelledAutoencoder, image: Tensor, labels: Tensor | None) -> Tensor:
    """Return the mean (1, C, i, j, k) of one scan."""
    bands = _bands(image, labels, model.num_classes)
    latent = near(
        _through(model.network.encoder.get_submodule("blocks").children(), bands), model.network.quant_conv_mu, 0
    )
    if model.project is not None:
        block = model.downsampling // 2
        linear = stored(coarser(bands, model.project, block), _shrunk(TILE, block))
        latent = added(latent, linear)
    mean = stored(latent)
    return mean.read((slice(None), slice(None), slice(None)))


def _bands(image: Tensor, labels: Tensor | None, num_classes: int) -> Field:
    """Return the Haar sub-bands of a scan and of its label's scaled one-hot channels."""

    def read(box: Box) -> Tensor:
        voxels = voxels_of(box)
        onehot = None if labels is None else one_hot(labels[(..., *voxels)], num_classes)
        return haar(stacked(image[(..., *voxels)], onehot))

    i, j, k = (side // 2 for side in image.shape[2:])
    return Field((i, j, k), read)


def _through(blocks: Iterable[nn.Module], field: Field) -> Field:
    """Return what the blocks of MONAI's encoder or decoder make of a field."""
    costly = False
    for block in blocks:
        if isinstance(block, AEKLResBlock):
            field = _residual(block, stored(field) if costly else field)
        elif isinstance(block, Upsample):
            field = finer(stored(field), block, 2)
        elif isinstance(block, AEKLDownsample):
            field = stored(coarser(field, block, 2, beyond=1), _shrunk(TILE, 2))
        elif isinstance(block, nn.GroupNorm):
            field = normalised(stored(field) if costly else field, block)
        elif isinstance(block, Convolution):
            field = near(field, block, 1)
        else:
            raise ConfigError(
                "This autoencoder cannot work in tiles",
                found=type(block).__name__,
                expected="convolutions and group norms alone",
                next_step="Set sampling.whole_voxels to the voxels of the grid or more",
            )
        costly = isinstance(block, AEKLResBlock)
    return field


def _residual(block: AEKLResBlock, field: Field) -> Field:
    hidden = stored(near(normalised(field, block.norm1, silu=True), block.conv1, 1))
    change = near(normalised(hidden, block.norm2, silu=True), block.conv2, 1)
    return added(change, near(field, block.nin_shortcut, 0), spare=hidden.values)


def _shrunk(edge: Shape, factor: int) -> Shape:
    i, j, k = (max(1, side // factor) for side in edge)
    return i, j, k


def _check_budget(whole_voxels: int) -> None:
    if whole_voxels < 1:
        raise ConfigError(
            "The voxels that are coded in one piece are too few", found=str(whole_voxels), expected="1 or more"
        )
