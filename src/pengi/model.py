"""Pengi: audio and a prompt become a prefix, which a frozen language model continues. No I/O.

    a = audio_encoder(x)            -> m1(a)   audio prefix
    g = text_encoder(prompt)        -> m2(g)   text prefix
    p = concat(m1(a), m2(g))
    loss = - mean_j log P(c_j | p, c_<j)       over the tokens of a target only (paper, equation 2), then over targets

An audio branch is one encoder with its mapper; the prefixes of several branches are concatenated. A model with a chat
template reads evidence about the clip as text after them (:mod:`pengi.conditioning.prefix`).

Shape suffixes: A clips, E examples (several may ask about one clip), B rows, S samples, T tokens, P prefix embeddings,
N target tokens of all examples, D language-model embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pengi.conditioning.mapper import Mapper, build_mapper
from pengi.conditioning.pooling import masked_mean
from pengi.conditioning.prefix import CHAT_END, embed_rows, embed_texts, join, own_text, pack, shared_text
from pengi.conditioning.tagger import Tagger
from pengi.conditioning.vocabulary import Vocabulary
from pengi.config import AudioBranchConfig, ModelConfig, TransformerMapperConfig
from pengi.encoders import AudioEncoder
from pengi.encoders.base import Augment, Masked
from pengi.errors import ConfigError
from pengi.language_model import LanguageModel
from pengi.projection import Projection
from pengi.text_encoder import TextEncoder


@dataclass(frozen=True)
class Batch:
    """Training examples: the inputs of A clips, and E prompts and targets about them.

    Attributes:
        features: for each branch the frozen features of the clips; empty where only the evidence is read.
        clip_E: ``int64[E]``, the clip that each example is about.
        prompts: E of them; in a chat each begins with a line about the queried tags.
        targets: E of them.
        evidence: for each clip the evidence as text; None for a model without evidence.
    """

    features: tuple[Masked, ...]
    clip_E: Tensor
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    evidence: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Loss:
    """Negative log-likelihood of targets.

    Attributes:
        mean: mean over the examples of the mean over each example's target tokens, so that a "yes" counts as much as a
            caption.
        token_losses_N: ``float32[N]``: loss of each target token.
        example_N: ``int64[N]``: the example that each target token belongs to.
    """

    mean: Tensor
    token_losses_N: Tensor
    example_N: Tensor


def limit_tokens(tokens_BTD: Tensor, mask_BT: Tensor, max_tokens: int) -> Masked:
    """Average longer rows in time to ``max_tokens`` tokens, each over an equal share of the row."""
    if tokens_BTD.shape[1] <= max_tokens:
        return tokens_BTD, mask_BT
    rows, masks = [], []
    for tokens_TD, mask_T in zip(tokens_BTD, mask_BT, strict=True):
        real_TD = tokens_TD[mask_T]
        if len(real_TD) > max_tokens:
            real_TD = functional.adaptive_avg_pool1d(real_TD.T[None], max_tokens)[0].T
        rows.append(functional.pad(real_TD, (0, 0, 0, max_tokens - len(real_TD))))
        masks.append(torch.arange(max_tokens, device=mask_T.device) < len(real_TD))
    return torch.stack(rows), torch.stack(masks)


class AudioBranch(nn.Module):
    """An audio encoder with its mapper, which branches for the tagger lack, and in the paper a projection between."""

    def __init__(self, config: AudioBranchConfig, encoder: AudioEncoder, lm: LanguageModel) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projection = Projection(config.projection, encoder.dim) if config.projection else None
        width = config.projection.width if config.projection else encoder.dim
        self.mapper: Mapper | None = build_mapper(config.mapper, width, lm.dim) if config.mapper else None

    def tokens(self, features: Masked, augment: Augment | None = None) -> Masked:
        """Audio tokens of frozen features."""
        values, mask = features
        if self.config.trained:
            return self.encoder.tokens(values, mask, augment), mask
        with torch.no_grad():
            return self.encoder.tokens(values, mask), mask

    def limited(self, tokens: Masked) -> Masked:
        """Tokens averaged in time to ``max_tokens`` at most."""
        return limit_tokens(*tokens, self.config.max_tokens)

    def embeddings(self, tokens: Masked) -> Masked:
        """The mapper's input: audio tokens, projected if there is a projection.

        If the mapper takes one vector, tokens are pooled before the projection: ``float[B, 1, I]``.
        """
        values, mask = tokens
        mapper = self.config.mapper
        if isinstance(mapper, TransformerMapperConfig) and mapper.input == "pooled":
            values, mask = masked_mean(values, mask)[:, None], mask.new_ones(len(mask), 1)
        return (values if self.projection is None else self.projection(values)), mask

    def prefix(self, tokens: Masked) -> Masked:
        """m1: ``float[B, P, D]`` of audio tokens, which are averaged in time if there are more than ``max_tokens``."""
        assert self.mapper is not None, "a branch without a mapper gives no prefix"
        mapped: Masked = self.mapper(*self.embeddings(self.limited(tokens)))
        return mapped


class PengiModel(nn.Module):
    """The whole network; the language model and the text encoder inside are frozen.

    Attributes:
        tagger: scores tags in every frame of the frozen audio tokens; None until :meth:`set_vocabulary`.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoders: Sequence[AudioEncoder],
        text_encoder: TextEncoder | None,
        language_model: LanguageModel,
    ) -> None:
        super().__init__()
        self.config = config
        self.language_model = language_model
        self.text_encoder = text_encoder
        dim = language_model.dim
        branches = zip(config.audio.values(), encoders, strict=True)
        self.audio = nn.ModuleList(AudioBranch(branch, encoder, language_model) for branch, encoder in branches)
        self.tagger: Tagger | None = None
        if config.language_model.chat:
            language_model.set_end(CHAT_END)
        if config.text.projection is not None and text_encoder is None:
            raise ConfigError("a text projection needs a text encoder")
        text_dim = text_encoder.dim if text_encoder else dim
        self.text_projection = Projection(config.text.projection, text_dim) if config.text.projection else None
        text_dim = config.text.projection.width if config.text.projection else text_dim
        self.text_mapper = build_mapper(config.text.mapper, text_dim, dim)

    @property
    def branches(self) -> dict[str, AudioBranch]:
        """The audio branches by name, in the order of the prefix."""
        return {name: cast(AudioBranch, branch) for name, branch in zip(self.config.audio, self.audio, strict=True)}

    @property
    def device(self) -> torch.device:
        """The device of the language model and the trained parts."""
        return self.language_model.device

    def set_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Add a tagger for the tags of a vocabulary. Its weights are random until they are fitted or loaded.

        Raises:
            ConfigError: if the configuration has no tagger.
        """
        if self.config.tagger is None:
            raise ConfigError(f"the configuration of '{self.config.name}' has no tagger")
        dims = [self.branches[name].encoder.dim for name in self.config.tagger.branches]
        self.tagger = Tagger(vocabulary, dims).to(self.device)

    def tag_scores(self, tokens: Sequence[Masked]) -> Masked:
        """The tagger's scores of every frame, ``float32[A, T, K]``, of the audio tokens of all branches."""
        assert self.config.tagger is not None, "the model has no tagger"
        assert self.tagger is not None, "the model has no vocabulary yet"
        tokens_of = dict(zip(self.branches, tokens, strict=True))
        scores: Masked = self.tagger([tokens_of[name] for name in self.config.tagger.branches])
        return scores

    def audio_tokens(self, features: Sequence[Masked], augment: Augment | None = None) -> list[Masked]:
        """Audio tokens of every branch from their frozen features; none where there are no features."""
        if not features:
            return []
        return [branch.tokens(values, augment) for branch, values in zip(self.branches.values(), features, strict=True)]

    def encode(self, waveform_BS: Tensor, lengths_B: Tensor) -> list[Masked]:
        """Audio tokens of every branch of waveforms; arguments as for :meth:`AudioEncoder.features`."""
        features = [branch.encoder.features(waveform_BS, lengths_B) for branch in self.branches.values()]
        return self.audio_tokens(features)

    def map_audio(self, tokens: Sequence[Masked]) -> list[Masked]:
        """m1 of every branch with a mapper: ``float[A, P_i, D]`` of its audio tokens."""
        pairs = zip(self.branches.values(), tokens, strict=True)
        return [branch.prefix(masked) for branch, masked in pairs if branch.mapper is not None]

    def audio_prefix(self, tokens: Sequence[Masked]) -> Masked:
        """m1: the audio prefix ``float[A, P, D]``, padded on the left, of the audio tokens of all branches.

        Raises:
            ConfigError: if no branch has a mapper.
        """
        mapped = self.map_audio(tokens)
        if not mapped:
            raise ConfigError(f"'{self.config.name}' has no audio prefix: none of its audio branches has a mapper")
        return join(mapped, padding="left")

    def shared_prefix(self, tokens: Sequence[Masked], evidence: Sequence[str] | None = None) -> Masked:
        """The part of the prefix that all questions about a clip share, padded on the left: m1 and, in a chat, its
        start with the evidence.

        Args:
            tokens: audio tokens of every branch; none where only the evidence is read.
            evidence: one text for each of A clips, in a chat.
        """
        mapped = self.map_audio(tokens) if tokens else []
        if not self.config.language_model.chat:
            return join(mapped, padding="left")
        clips = len(evidence) if evidence is not None else len(tokens[0][0])
        texts = [shared_text(text) for text in evidence or [""] * clips]
        return join([*mapped, embed_texts(self.language_model, texts)], padding="left")

    def prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        """Input of m2 for prompts: a sentence embedding, projected if there is a projection, or token embeddings."""
        if self.text_encoder is None:
            return embed_rows(self.language_model, [self.prompt_ids(prompt) for prompt in prompts])
        sentence_BTI = self.text_encoder.embed(prompts).to(self.device)[:, None]
        if self.text_projection is not None:
            sentence_BTI = self.text_projection(sentence_BTI)
        return sentence_BTI, torch.ones(sentence_BTI.shape[:2], dtype=torch.bool, device=self.device)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt for a model without a text encoder; in a chat up to where the answer begins."""
        if self.config.language_model.chat:
            return self.language_model.encode(own_text(prompt))
        config = self.config.text
        ids = self.language_model.encode(prompt + config.suffix)[: config.max_tokens]
        return ids if config.pad_token is None else ids + [config.pad_token] * (config.max_tokens - len(ids))

    def text_prefix(self, prompts: Sequence[str]) -> Masked:
        """m2: the text prefix ``float[B, P, D]`` of prompts."""
        prefix: Masked = self.text_mapper(*self.prompt_embeddings(prompts))
        return prefix

    def prefix(
        self,
        tokens: Sequence[Masked],
        text: Masked,
        evidence: Sequence[str] | None = None,
        extra: Sequence[str] = (),
    ) -> Masked:
        """p = concat(m1(a), m2(g)), padded on the left: ``float[B, P, D]`` for one prompt per clip.

        Args:
            tokens: audio tokens of every branch.
            text: see :meth:`text_prefix`.
            evidence: see :meth:`shared_prefix`.
            extra: one text for each of B prompts, which the answer continues, or none.
        """
        return join([self.shared_prefix(tokens, evidence), self.own_prefix(text, extra)], padding="left")

    def own_prefix(self, text: Masked, extra: Sequence[str] = ()) -> Masked:
        """The part of the prefix after :meth:`shared_prefix`, padded on the left; arguments as for :meth:`prefix`."""
        parts = [text, embed_texts(self.language_model, extra)] if any(extra) else [text]
        return join(parts, padding="left")

    def target_ids(self, target: str) -> list[int]:
        """Token ids of an answer, the end token last."""
        config = self.config.language_model
        ids = self.language_model.encode(config.target_prefix + target.strip())
        return [*ids[: config.target_tokens - 1], self.language_model.end_id]

    def forward(self, batch: Batch, augment: Augment | None = None) -> Loss:
        """The paper's loss. Gradients pass through the frozen language model into mappers and audio encoders.

        All examples about a clip are in one row after their shared prefix, and none attends to another. So the language
        model reads the shared part once, and there is little padding.
        """
        tokens = self.audio_tokens(batch.features, augment)
        ids = [self.target_ids(target) for target in batch.targets]
        text = self.text_prefix(batch.prompts)
        examples = join([text, embed_rows(self.language_model, [row[:-1] for row in ids])], padding="right")
        packed = pack(self.shared_prefix(tokens, batch.evidence), examples, batch.clip_E)
        hidden_ATD = self.language_model.hidden(packed.values_ATD, packed.attention_mask_ATT)
        example_N, position_N = self._target_positions((packed.start_E + text[1].sum(1)).tolist(), ids)
        logits_NV = self.language_model.logits(hidden_ATD[batch.clip_E[example_N], position_N])
        expected_N = torch.tensor([token for row in ids for token in row], device=logits_NV.device)
        token_losses_N = functional.cross_entropy(logits_NV, expected_N, reduction="none")
        per_token_N = example_N.bincount()[example_N].reciprocal() / len(ids)
        return Loss(token_losses_N @ per_token_N, token_losses_N.detach(), example_N)

    def _target_positions(self, begins: Sequence[int], ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Example of every target token, and the position in its row of the hidden state that predicts the token.

        Args:
            begins: where in its row the target of each example begins.
            ids: target tokens of each example.
        """
        pairs = [
            (example, begin - 1 + step)
            for example, (begin, row) in enumerate(zip(begins, ids, strict=True))
            for step in range(len(row))
        ]
        example_N, position_N = torch.tensor(pairs, device=self.device).unbind(1)
        return example_N, position_N
