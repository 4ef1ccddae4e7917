"""A small diffusion transformer whose tokens are the cells of a 3D latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthmed import processes

_MLP_RATIO = 4


def grid_positions(shape: tuple[int, int, int], width: int) -> Tensor:
    """Return sine and cosine features of each cell's indices.

    Parameters
    ----------
    shape : tuple of int, (i, j, k)
    width : int
        Length of a feature vector; a third goes to each axis and what is left over stays 0.

    Returns
    -------
    Tensor, shape (i * j * k, width)

    References
    ----------
    Vaswani et al. 2017, section 3.5, arXiv:1706.03762, on each of three axes.
    """
    half = width // 6
    rates = 100.0 ** (-torch.arange(half) / max(half, 1))
    cells = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in shape)).view(-1, 3)
    angles = cells[:, :, None] * rates
    features = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return functional.pad(features, (0, width - features.shape[1]))


class Attention(nn.Module):
    """Multi-head self-attention with normalised queries and keys (Dehghani et al. 2023, arXiv:2302.05442)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(width, 3 * width)
        self.query_scale = nn.Parameter(torch.ones(width // num_heads))
        self.key_scale = nn.Parameter(torch.ones(width // num_heads))
        self.merge = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (B, T, W)."""
        heads = self.project(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        query, key = _normalise(query, self.query_scale), _normalise(key, self.key_scale)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.merge(mixed.transpose(1, 2).flatten(2))


def _normalise(heads: Tensor, scale: Tensor) -> Tensor:
    """Give every head vector a root mean square of `scale`."""
    power = heads.float().square().mean(dim=-1, keepdim=True)
    return heads * ((power + 1e-6).rsqrt() * scale).to(heads)


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn for the batch of all processes, of which each takes its share."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop from a share of a batch, shape (B, ...), what would be dropped from the whole."""
        if not self.training or not self.p or processes.world() == 1:
            return super().forward(input)
        whole = input.new_ones(processes.world() * len(input), *input.shape[1:])
        return input * super().forward(whole)[processes.share()]


class Block(nn.Module):
    """A depthwise convolution, then attention and MLP, these scaled, shifted and gated by the embedding.

    The gates start at 0 (adaLN-Zero). The convolution tells a cell of its neighbours, whose edges it has to meet,
    which attention alone learns slowly.

    References
    ----------
    Peebles, Xie 2023, section 3.2, doi 10.1109/ICCV51070.2023.00387; Chu et al. 2021, arXiv:2102.10882, equation 2.
    """

    def __init__(self, cells: tuple[int, int, int], width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.cells = cells
        self.neighbours = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = Attention(width, num_heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, _MLP_RATIO * width),
            nn.GELU(approximate="tanh"),
            Dropout(dropout),
            nn.Linear(_MLP_RATIO * width, width),
        )
        self.dropout = Dropout(dropout)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        """Update tokens (B, T, W) by the embedding (B, W)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        grid = tokens.transpose(1, 2).unflatten(2, self.cells)
        tokens = tokens + self.neighbours(grid).flatten(2).transpose(1, 2)
        mixed = self.attention(self.norm(tokens) * (1 + scale_a) + shift_a)
        tokens = tokens + gate_a * self.dropout(mixed)
        return tokens + gate_m * self.mlp(self.norm(tokens) * (1 + scale_m) + shift_m)


class LatentTransformer(nn.Module):
    """Predict on a noisy latent, one token a cell.

    Parameters
    ----------
    latent_shape : tuple of int, (C, i, j, k)
    width, depth : int
        Width of a token and number of blocks.
    num_head_channels : int
        Channels of an attention head; divides `width`.
    dropout : float
    """

    def __init__(
        self, latent_shape: tuple[int, int, int, int], width: int, depth: int, num_head_channels: int, dropout: float
    ) -> None:
        super().__init__()
        channels, i, j, k = latent_shape
        self.embedding_width = width
        self.read = nn.Linear(channels, width)
        self.positions = nn.Parameter(grid_positions((i, j, k), width))
        self.blocks = nn.ModuleList(Block((i, j, k), width, width // num_head_channels, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Linear(width, 2 * width)
        self.write = nn.Linear(width, channels)
        self.skip = nn.Linear(width, channels)
        for layer in (self.modulation, self.write, self.skip):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map a latent (B, C, i, j, k) and an embedding (B, W) to a prediction of the latent's shape."""
        tokens = self.read(x.flatten(2).transpose(1, 2)) + self.positions
        embedding = functional.silu(embedding)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        out = self.write(self.norm(tokens) * (1 + scale) + shift).transpose(1, 2).reshape(x.shape)
        # The best linear prediction of a channel is a multiple of its input that depends on the time alone.
        return out + self.skip(embedding)[:, :, None, None, None] * x
