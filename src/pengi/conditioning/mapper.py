"""Mapping networks: from embeddings of audio or text to a prefix in the language model's embedding space.

These are m1 and m2 of the paper's equation 1. Every mapper takes and returns a sequence with a mask, so the paper's
transformer can read one pooled vector or many audio tokens.

Shape suffixes: B rows, T input tokens, P prefix embeddings, I input width, D language-model embedding width, W
width inside the transformer, C learned constants, K tokens and constants together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pengi.conditioning.pooling import masked_mean
from pengi.config import IdentityMapperConfig, MapperConfig, TransformerMapperConfig
from pengi.encoders.base import Masked
from pengi.errors import ConfigError

# About the standard deviation of a language model's input embeddings, so that training starts near them.
CONSTANT_STD = 0.1


class Mapper(nn.Module):
    """Base of the mapping networks."""

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> Masked:
        """Map ``float[B, T, I]`` with its mask ``bool[B, T]`` to ``float[B, P, D]`` with its mask ``bool[B, P]``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")


def build_mapper(config: MapperConfig, input_dim: int, output_dim: int) -> Mapper:
    """The mapper that a configuration names.

    Raises:
        ConfigError: if the heads do not divide the width, or an identity mapper would have to change the width.
    """
    if isinstance(config, TransformerMapperConfig):
        return TransformerMapper(config, input_dim, output_dim)
    if input_dim != output_dim:
        raise ConfigError(f"an identity mapper cannot turn width {input_dim} into {output_dim}")
    return IdentityMapper(config, output_dim)


class _Constants(nn.Module):
    """Learned embeddings in front of a sequence, as in prompt tuning of a frozen language model."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.value_CD = nn.Parameter(torch.randn(count, dim) * CONSTANT_STD, requires_grad=count > 0)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Masked:
        if not len(self.value_CD):  # an empty parameter must not make the result require gradients
            return tokens_BTD, mask_BT
        constants_BCD = self.value_CD.expand(len(tokens_BTD), -1, -1)
        ones_BC = mask_BT.new_ones(len(mask_BT), len(self.value_CD))
        return torch.cat([constants_BCD, tokens_BTD], 1), torch.cat([ones_BC, mask_BT], 1)


class IdentityMapper(Mapper):
    """Puts learned constants in front of language-model embeddings, which stay unchanged."""

    def __init__(self, config: IdentityMapperConfig, dim: int) -> None:
        super().__init__()
        self.constants = _Constants(config.constants, dim)

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> Masked:
        prefix: Masked = self.constants(tokens_BTI, mask_BT)
        return prefix


class TransformerMapper(Mapper):
    """The paper's mapper: a transformer over tokens and learned constants. Its outputs at the constants are the prefix.

    One linear layer expands a pooled vector to ``tokens`` embeddings. A sequence enters unchanged if it has the
    transformer's width (the "no text encoder" form); otherwise each token goes through a linear layer.
    """

    def __init__(self, config: TransformerMapperConfig, input_dim: int, output_dim: int) -> None:
        super().__init__()
        width = config.width or output_dim
        if width % config.heads:
            raise ConfigError(f"{config.heads} attention heads do not divide the mapper's width {width}")
        self.count = config.tokens if config.input == "pooled" else 0
        self.positions = config.positions
        self.linear: nn.Module = nn.Identity()
        if self.count:
            self.linear = nn.Linear(input_dim, self.count * width)
        elif input_dim != width:
            self.linear = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, width))
        self.constants_CW = nn.Parameter(torch.randn(config.constants or config.tokens, width))
        self.layers = nn.ModuleList(_Layer(width, config.heads, config.dropout) for _ in range(config.layers))
        self.output: nn.Module = nn.Identity()
        if width != output_dim:
            self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, output_dim))

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> Masked:
        if self.count:
            pooled_BI = masked_mean(tokens_BTI, mask_BT)
            tokens_BTW = self.linear(pooled_BI).unflatten(1, (self.count, -1))
            mask_BT = mask_BT.new_ones(tokens_BTW.shape[:2])
        else:
            tokens_BTW = self.linear(tokens_BTI)
        if self.positions:
            tokens_BTW = tokens_BTW + sinusoids(tokens_BTW.shape[1], tokens_BTW.shape[2]).to(tokens_BTW)
        rows, count = len(tokens_BTW), len(self.constants_CW)
        x = torch.cat([tokens_BTW, self.constants_CW.expand(rows, -1, -1)], 1)
        ones_BC = mask_BT.new_ones(rows, count)
        mask_BK = torch.cat([mask_BT, ones_BC], 1)
        for layer in self.layers:
            x = layer(x, mask_BK)
        return self.output(x[:, -count:]), ones_BC


def sinusoids(length: int, width: int) -> Tensor:
    """Sine and cosine position embeddings ``float32[T, W]`` (Vaswani et al. 2017, section 3.5)."""
    rates_W = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles_TW = torch.arange(length)[:, None] * rates_W
    return torch.stack([angles_TW.sin(), angles_TW.cos()], -1).flatten(1)[:, :width]


class _Layer(nn.Module):
    """Pre-norm transformer layer: attention without query, key and value biases, ReLU MLP of twice the width."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.to_queries = nn.Linear(dim, dim, bias=False)
        self.to_keys_values = nn.Linear(dim, 2 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.fc2 = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask_BK: Tensor) -> Tensor:
        x = x + self._attend(self.norm1(x), mask_BK)
        out: Tensor = x + self.dropout(self.fc2(functional.relu(self.fc1(self.norm2(x)))))
        return out

    def _attend(self, x: Tensor, mask_BK: Tensor) -> Tensor:
        queries = self.to_queries(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.to_keys_values(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask_BK[:, None, None])
        out: Tensor = self.dropout(self.project(mixed.transpose(1, 2).flatten(2)))
        return out
