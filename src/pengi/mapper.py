"""Mapping networks: from embeddings of audio or text to a prefix in the language model's embedding space.

m1 and m2 of the paper's equation 1. Every mapper takes a sequence with a mask and gives a sequence with a mask, so that
the paper's transformer over one pooled vector and a plain adaptor over many audio tokens stand in the same place.

Shape suffixes: B rows, T input tokens, P prefix embeddings, I input width, D language-model embedding width, W
width inside the transformer, C learned constants, K tokens and constants together (of WordsMapper: likeliest words), V
words, L tokens of a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pengi.config import MapperConfig
from pengi.errors import ConfigError

# About the spread of a language model's input embeddings, so that training starts within reach of them.
CONSTANT_STD = 0.1
LEAST_DEVIATION = 1e-3
UNHEARD = -math.inf  # logit of a class whose words are not to be told
LOWEST_SHARE = -30.0  # of a word whose embeddings are there, but masked
EARLIEST, LATEST = " first", " last"  # what the embeddings that tell when start between


Spell = Callable[[str], Tensor]
"""The language model's embeddings ``float[L, D]`` of a text."""


class Mapper(nn.Module):
    """Base of the mapping networks."""

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``float[B, T, I]`` with its mask ``bool[B, T]`` to ``float[B, P, D]`` with its mask ``bool[B, P]``."""
        raise NotImplementedError(f"{type(self).__name__} maps nothing")


def build_mapper(config: MapperConfig, input_dim: int, output_dim: int, spell: Spell | None = None) -> Mapper:
    """The mapper that a configuration names; ``spell`` is what ``words`` needs, which stands behind an audio encoder.

    Raises:
        ConfigError: if heads do not divide the width, ``identity`` is asked to change the width, or ``words`` has too
            few of them, stands behind a text encoder or names a class that the encoder does not have.
    """
    if config.kind == "words":
        if spell is None:
            raise ConfigError("a mapper of kind 'words' reads the classes of an audio encoder, not a prompt")
        return WordsMapper(config, input_dim, spell)
    if config.kind == "transformer":
        return TransformerMapper(config, input_dim, output_dim)
    if config.kind == "mlp":
        return MlpMapper(config, input_dim, output_dim)
    if config.kind == "none":
        return NoMapper(output_dim)
    if input_dim != output_dim:
        raise ConfigError(f"an identity mapper cannot turn width {input_dim} into {output_dim}")
    return IdentityMapper(config, output_dim)


def masked_mean(tokens_BTI: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of each row's real tokens, ``float[B, I]``."""
    weights_BT1 = mask_BT[..., None].to(tokens_BTI.dtype)
    mean_BI: Tensor = (tokens_BTI * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1.0)
    return mean_BI


def near_maximum(logits_BTC: Tensor, mask_BT: Tensor) -> Tensor:
    """Pool logits over time to ``float32[B, C]``: the logarithm of the mean of e to the logit over real tokens.

    Near the maximum, yet independent of the length. A plain mean would drown a sound that fills one second of five in
    the silence around it. A row without tokens has zeros.
    """
    counts_B1 = mask_BT.sum(1, keepdim=True)
    # Of a row without tokens nothing is hidden: all at minus infinity would have no gradient.
    hidden_BT = ~mask_BT & (counts_B1 > 0)
    pooled_BC = logits_BTC.float().masked_fill(hidden_BT[..., None], -math.inf).logsumexp(1)
    return torch.where(counts_B1 > 0, pooled_BC - counts_B1.clamp(min=1).log(), 0.0)


def spread_in_time(shares_BTK: Tensor, mask_BT: Tensor) -> Tensor:
    """Which part of each word falls on every token, ``float32[B, T, K]`` with sum 1 over time, by its log-shares."""
    return shares_BTK.masked_fill(~mask_BT[..., None], 2 * LOWEST_SHARE).softmax(1)


def when_heard(shares_BTK: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """When words are heard, from their log-shares at every token relative to those at the others.

    Returns:
        The middle ``float32[B, K]``, -0.5 at the start of the recording and 0.5 at its end, and the spread about it;
        of a row without tokens, numbers without meaning.
    """
    counts_B11 = mask_BT.sum(1)[:, None, None].clamp(min=1)
    when_BT1 = (mask_BT.cumsum(1) - 0.5)[..., None] / counts_B11 - 0.5
    weight_BTK = spread_in_time(shares_BTK, mask_BT)
    middle_BK = (weight_BTK * when_BT1).sum(1)
    return middle_BK, (weight_BTK * (when_BT1 - middle_BK[:, None]).square()).sum(1).sqrt()


class _Constants(nn.Module):
    """Learned embeddings in front of a sequence: they tell a frozen language model what form of answer is wanted."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.value_CD = nn.Parameter(torch.randn(count, dim) * CONSTANT_STD)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        constants_BCD = self.value_CD.expand(len(tokens_BTD), -1, -1)
        ones_BC = mask_BT.new_ones(len(mask_BT), len(self.value_CD))
        return torch.cat([constants_BCD, tokens_BTD], 1), torch.cat([ones_BC, mask_BT], 1)


class IdentityMapper(Mapper):
    """Language-model embeddings as they are, behind learned constants."""

    def __init__(self, config: MapperConfig, dim: int) -> None:
        super().__init__()
        self.constants = _Constants(config.constants, dim)

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Mapper`."""
        prefix: tuple[Tensor, Tensor] = self.constants(tokens_BTI, mask_BT)
        return prefix


class NoMapper(Mapper):
    """No prefix, ``[B, 0, D]``: the encoder is there for the probes that read it (:mod:`pengi.facts`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Mapper`."""
        return tokens_BTI.new_zeros(len(tokens_BTI), 0, self.dim), mask_BT[:, :0]


class MlpMapper(Mapper):
    """Each token through LayerNorm, a hidden layer and GELU, behind learned constants."""

    def __init__(self, config: MapperConfig, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.pooled = config.input == "pooled"
        self.norm = nn.LayerNorm(input_dim)
        self.expand = nn.Linear(input_dim, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(config.hidden, output_dim)
        self.constants = _Constants(config.constants, output_dim)

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Mapper`."""
        if self.pooled:
            tokens_BTI = masked_mean(tokens_BTI, mask_BT)[:, None]
            mask_BT = mask_BT.new_ones(len(mask_BT), 1)
        hidden = functional.gelu(self.expand(self.norm(tokens_BTI)))
        prefix: tuple[Tensor, Tensor] = self.constants(self.project(self.dropout(hidden)), mask_BT)
        return prefix


class TransformerMapper(Mapper):
    """The paper's mapper: tokens and learned constants through a transformer; the constants' places are the prefix.

    A pooled vector is expanded to ``tokens`` embeddings by one linear layer; a sequence of that width enters as it is
    (the "no text encoder" form), one of another width through a linear layer for each token.
    """

    def __init__(self, config: MapperConfig, input_dim: int, output_dim: int) -> None:
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
        hidden = int(width * config.mlp_ratio)
        self.layers = nn.ModuleList(_Layer(width, config.heads, hidden, config.dropout) for _ in range(config.layers))
        self.output: nn.Module = nn.Identity()
        if width != output_dim:
            self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, output_dim))

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Mapper`."""
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


class WordsMapper(Mapper):
    """What a classifier hears, told in words: its likeliest words, spelled in the language model's own embeddings.

    A frozen language model has read such lists all its life, so it can repeat a word that no training clip stood for.
    Class logits, pooled over the tokens to near their maximum and standardised to z, are weighed for each word on its
    own:

        u_v = sharpness * (scale_v * z_class(v) + bias_v)        scale and bias are fitted

    The prefix is, for the ``tokens`` words of the highest u, the likeliest first: the word's tokens, and one embedding
    that tells the logarithm of its share in the softmax over all words, and when it is heard. Words of a class whose
    logit is ``UNHEARD`` have no share, and those with less than ``least`` of the first one's share are left out. What
    u depends on is fitted before the training (:mod:`pengi.training.words`) and stays as it is.
    """

    classes_V: Tensor
    spelled_VLD: Tensor
    spelled_VL: Tensor
    mean_I: Tensor
    deviation_I: Tensor
    scale_V: Tensor
    bias_V: Tensor

    def __init__(self, config: MapperConfig, input_dim: int, spell: Spell) -> None:
        super().__init__()
        self.words = tuple(config.words)
        if len(self.words) < config.tokens:
            raise ConfigError(f"a mapper of kind 'words' takes {config.tokens} words and is given {len(self.words)}")
        if not all(0 <= index < input_dim for index in config.words.values()):
            raise ConfigError(f"a word belongs to a class beyond the {input_dim} that the encoder has")
        self.count = config.tokens
        self.sharpness = config.sharpness
        self.least = config.least
        rows = [spell(" " + word).float() for word in self.words]
        mask_VL = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
        separator_D = spell(",").float()[0]
        self.register_buffer("classes_V", torch.tensor(list(config.words.values())), persistent=False)
        self.register_buffer("spelled_VLD", nn.utils.rnn.pad_sequence(rows, batch_first=True), persistent=False)
        self.register_buffer("spelled_VL", mask_VL, persistent=False)
        self.register_buffer("mean_I", torch.zeros(input_dim))
        self.register_buffer("deviation_I", torch.ones(input_dim))
        self.register_buffer("scale_V", torch.ones(len(self.words)))
        self.register_buffer("bias_V", torch.zeros(len(self.words)))
        self.share_2D = nn.Parameter(torch.stack([separator_D, torch.zeros_like(separator_D)]))
        early_D, late_D = (spell(text).float().mean(0) for text in (EARLIEST, LATEST))
        self.when_2D = nn.Parameter(torch.stack([late_D - early_D, torch.zeros_like(early_D)]))

    def standardise(self, logits_NI: Tensor) -> None:
        """Take mean and deviation of every class from the pooled logits of N clips, at least two.

        A class whose logit is always the same tells nothing, and is never unusual.
        """
        self.mean_I.copy_(logits_NI.mean(0))
        self.deviation_I.copy_(logits_NI.std(0).clamp(min=LEAST_DEVIATION))

    def weigh(self, scale_V: Tensor, bias_V: Tensor) -> None:
        """Take the scale and the bias of every word."""
        self.scale_V.copy_(scale_V)
        self.bias_V.copy_(bias_V)

    def word_logits(self, tokens_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """u of every word, ``float32[B, V]``; of a row without tokens, zeros."""
        return torch.where(mask_BT.any(1, keepdim=True), self.weighed(near_maximum(tokens_BTI, mask_BT)), 0.0)

    def weighed(self, logits_xI: Tensor) -> Tensor:
        """u of every word, ``float32[..., V]``, of class logits, pooled ones or those of one token."""
        heard_xV = ((logits_xI.float() - self.mean_I) / self.deviation_I)[..., self.classes_V]
        u_xV = self.sharpness * (self.scale_V * heard_xV + self.bias_V)
        return u_xV.masked_fill(heard_xV == UNHEARD, -math.inf)

    @torch.no_grad()
    def likeliest(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The words that are told, see :func:`likeliest_words`."""
        return likeliest_words(self.word_logits(tokens_BTI, mask_BT), self.count, self.least)

    @torch.no_grad()
    def log_shares(self, logits_xI: Tensor) -> Tensor:
        """Log-shares of all words, ``float32[..., V]``, :data:`LOWEST_SHARE` at least, of class logits as above."""
        # Where no class is heard there are no shares, only zero over zero.
        return self.weighed(logits_xI).log_softmax(-1).nan_to_num(nan=LOWEST_SHARE).clamp(min=LOWEST_SHARE)

    def forward(self, tokens_BTI: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Mapper`; a row without tokens gives no prefix."""
        share_BK, best_BK = self.likeliest(tokens_BTI, mask_BT)
        places_BTK = best_BK[:, None].expand(-1, tokens_BTI.shape[1], -1)
        when_BK2 = torch.stack(when_heard(self.log_shares(tokens_BTI).gather(2, places_BTK), mask_BT), -1)
        told_BKD = self.share_2D[0] + share_BK.clamp(min=LOWEST_SHARE)[..., None] * self.share_2D[1]
        told_BKD = told_BKD + when_BK2 @ self.when_2D
        prefix_BKLD = torch.cat([self.spelled_VLD[best_BK], told_BKD[:, :, None]], 2)
        spelled_BKL = self.spelled_VL[best_BK]
        heard_BKL = torch.cat([spelled_BKL, spelled_BKL.new_ones(*best_BK.shape, 1)], 2)
        told_BK = (share_BK > -math.inf) & mask_BT.any(1, keepdim=True)
        return prefix_BKLD.flatten(1, 2), (heard_BKL & told_BK[..., None]).flatten(1)


def likeliest_words(logits_BV: Tensor, count: int, least: float) -> tuple[Tensor, Tensor]:
    """The ``count`` likeliest of V words: log-shares ``float32[B, K]`` and places ``int64[B, K]``, the likeliest first.

    A word with less than ``least`` of the first one's share has minus infinity: it is not told.
    """
    share_BK, best_BK = logits_BV.log_softmax(-1).topk(count)
    told_BK = share_BK >= share_BK[:, :1] + (math.log(least) if least else -math.inf)
    return share_BK.masked_fill(~told_BK, -math.inf), best_BK


def sinusoids(length: int, width: int) -> Tensor:
    """Sine and cosine positions ``float32[T, W]`` (Vaswani et al. 2017, section 3.5)."""
    rates_W = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles_TW = torch.arange(length)[:, None] * rates_W
    return torch.stack([angles_TW.sin(), angles_TW.cos()], -1).flatten(1)[:, :width]


class _Layer(nn.Module):
    """Pre-norm transformer layer: attention without query, key and value biases, ReLU MLP."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.to_queries = nn.Linear(dim, dim, bias=False)
        self.to_keys_values = nn.Linear(dim, 2 * dim, bias=False)
        self.project = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
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
