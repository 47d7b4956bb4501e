"""Pengi: audio and a prompt become a prefix, and a frozen language model goes on from it. No I/O.

    a = audio_encoder(x)            -> m1(a)   audio prefix
    g = text_encoder(prompt)        -> m2(g)   text prefix
    p = concat(m1(a), m2(g))
    loss = - mean_j log P(c_j | p, c_<j)       over the tokens of the target only (paper, equation 2)

An audio branch is one encoder with its mapper; several branches simply stand one behind the other in the prefix, and
behind them what probes on the branches hear, told in words (:mod:`pengi.facts`).

Shape suffixes: A clips, F values of facts, E examples (several may ask about one clip), B rows, S samples, T tokens, P
prefix embeddings, X text and target embeddings, N target tokens of all examples, D language-model embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pengi.config import AudioBranchConfig, FactsConfig, MentionsConfig, ModelConfig
from pengi.encoders import AudioEncoder
from pengi.encoders.base import Augment
from pengi.errors import ConfigError
from pengi.facts import Facts
from pengi.language_model import DecoderState, LanguageModel
from pengi.mapper import Mapper, WordsMapper, build_mapper, masked_mean, near_maximum
from pengi.mentions import Heard, Mentions
from pengi.projection import Projection
from pengi.text_encoder import TextEncoder

EXAMPLES_READ_TOGETHER = 16

Masked = tuple[Tensor, Tensor]
"""A padded sequence ``[B, T, ...]`` and its mask ``bool[B, T]``."""

EditTokens = Callable[[list[Masked]], list[Masked]]
"""Changes the audio tokens of all branches during training: dropout of tokens, pseudo-labelled points."""


@dataclass(frozen=True)
class Batch:
    """Training examples: for each branch the frozen features of A clips, and E prompts and targets about them."""

    features: tuple[Masked, ...]
    clip_E: Tensor
    """int64[E]: the clip that each example is about."""
    prompts: tuple[str, ...]
    targets: tuple[str, ...]
    facts_AF: Tensor | None = None
    """What the probes of :mod:`pengi.facts` hear of each clip; the model hears for itself if there is none."""


@dataclass(frozen=True)
class Loss:
    """Mean negative log-likelihood per target token, and what it is the mean of."""

    mean: Tensor
    token_losses_N: Tensor
    example_N: Tensor
    """int64[N]: the example that each target token belongs to."""


def join(parts: Sequence[Masked], *, padding: str) -> Masked:
    """Put sequences one behind the other, each row's real tokens together and its padding at one side.

    Args:
        parts: ``[B, T_i, D]`` with masks.
        padding: "left" or "right". ``a a . | b .`` becomes ``. . a a b`` or ``a a b . .``, cut to the longest row.
    """
    values_BTD = torch.cat([values for values, _ in parts], 1)
    mask_BT = torch.cat([mask for _, mask in parts], 1)
    width = int(mask_BT.sum(1).max())
    order_BT = mask_BT.int().argsort(dim=1, descending=padding == "right", stable=True)
    order_BT = order_BT[:, :width] if padding == "right" else order_BT[:, mask_BT.shape[1] - width :]
    joined_BTD = values_BTD.gather(1, order_BT[..., None].expand(-1, -1, values_BTD.shape[-1]))
    return joined_BTD, mask_BT.gather(1, order_BT)


def limit_tokens(tokens_BTD: Tensor, mask_BT: Tensor, most: int) -> Masked:
    """Average rows of more than ``most`` tokens in time to ``most`` tokens, each over an equal share of the row."""
    if tokens_BTD.shape[1] <= most:
        return tokens_BTD, mask_BT
    rows, masks = [], []
    for tokens_TD, mask_T in zip(tokens_BTD, mask_BT, strict=True):
        real_TD = tokens_TD[mask_T]
        if len(real_TD) > most:
            real_TD = functional.adaptive_avg_pool1d(real_TD.T[None], most)[0].T
        rows.append(functional.pad(real_TD, (0, 0, 0, most - len(real_TD))))
        masks.append(torch.arange(most, device=mask_T.device) < len(real_TD))
    return torch.stack(rows), torch.stack(masks)


class AudioBranch(nn.Module):
    """An audio encoder and the mapper behind it, in the paper with a projection between them."""

    def __init__(self, config: AudioBranchConfig, encoder: AudioEncoder, lm: LanguageModel) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projection = Projection(config.projection, encoder.dim) if config.projection else None
        self.mapper: Mapper = build_mapper(
            config.mapper, config.projection.width if config.projection else encoder.dim, lm.dim, lm.spell
        )

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

    def summary(self, tokens: Masked) -> Tensor:
        """One vector ``float[B, I]`` for a row of tokens: their mean, or of class logits those near their maximum."""
        return near_maximum(*tokens) if isinstance(self.mapper, WordsMapper) else masked_mean(*tokens)

    @property
    def sequential(self) -> bool:
        """Whether probes read a sequence of its tokens: of words, and where a window is one token, they do not."""
        return self.encoder.token_s < self.config.window_s and not isinstance(self.mapper, WordsMapper)

    def probed(self, tokens: Masked) -> Masked:
        """What probes read of audio tokens: the tokens, averaged in time to ``max_tokens`` at most, or one summary."""
        if self.sequential:
            return self.limited(tokens)
        return self.summary(tokens)[:, None], tokens[1].any(1, keepdim=True)

    def embeddings(self, tokens: Masked) -> Masked:
        """What the mapper reads: audio tokens, projected if there is a projection.

        In front of a mapper that takes one vector the tokens are pooled before the projection: ``float[B, 1, I]``.
        """
        values, mask = tokens
        if self.config.mapper.input == "pooled":
            values, mask = masked_mean(values, mask)[:, None], mask.new_ones(len(mask), 1)
        return (values if self.projection is None else self.projection(values)), mask

    def prefix(self, tokens: Masked) -> Masked:
        """m1: ``float[B, P, D]`` of audio tokens."""
        mapped: Masked = self.mapper(*self.embeddings(tokens))
        return mapped


class PengiModel(nn.Module):
    """The whole network; the language model and the text encoder inside are frozen."""

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
        branches = zip(config.audio, encoders, strict=True)
        self.audio = nn.ModuleList(AudioBranch(branch, encoder, language_model) for branch, encoder in branches)
        self.facts = self._build_facts(config.facts) if config.facts else None
        self.mentions = self._build_mentions(config.mentions) if config.mentions else None
        if config.text.projection is not None and text_encoder is None:
            raise ConfigError("a text projection needs a text encoder")
        text_dim = text_encoder.dim if text_encoder else dim
        self.text_projection = Projection(config.text.projection, text_dim) if config.text.projection else None
        text_dim = config.text.projection.width if config.text.projection else text_dim
        self.text_mapper = build_mapper(config.text.mapper, text_dim, dim)

    def _build_facts(self, config: FactsConfig) -> Facts:
        branches = self.branches
        for place in config.branches:
            if not 0 <= place < len(branches) or branches[place].config.trained:
                raise ConfigError(f"facts are read from branch {place}, but there is no frozen audio branch there")
        read = [branches[place] for place in config.branches]
        return Facts(
            config,
            [branch.encoder.dim for branch in read],
            [branch.sequential for branch in read],
            self.language_model.spell,
        )

    def _build_mentions(self, config: MentionsConfig) -> Mentions:
        mapper = self._mapper_of_words(config)
        if config.levels is not None:
            words, levels = self.config.audio[config.branch], self.config.audio[config.levels : config.levels + 1]
            # Tokens of both stand beside one another.
            same = [(branch.window_s, branch.max_tokens) for branch in (words, *levels)]
            if [branch.encoder for branch in levels] != ["level"] or same[0] != same[1]:
                raise ConfigError(
                    f"mentions.levels is {config.levels}, but there is no branch of the encoder 'level' with the "
                    f"window_s and max_tokens of branch {config.branch}"
                )
        return Mentions(config, mapper, self.language_model.spell)

    def _mapper_of_words(self, config: MentionsConfig) -> WordsMapper:
        """The mapper that knows the words which prompts mention."""
        mapper = self.branches[config.branch].mapper if config.branch < len(self.branches) else None
        if not isinstance(mapper, WordsMapper):
            raise ConfigError(f"mentions are listened for by branch {config.branch}, but there is no branch of words")
        return mapper

    def add_branches(self, audio: Sequence[AudioBranchConfig], encoders: Sequence[AudioEncoder]) -> None:
        """Hear by further audio branches, too, behind those that there are; their mappers are untrained.

        Args:
            audio: configurations of the new branches.
            encoders: theirs.

        Raises:
            ConfigError: for a mapper that does not fit its encoder.
        """
        for branch, encoder in zip(audio, encoders, strict=True):
            self.audio.append(AudioBranch(branch, encoder, self.language_model).to(self.device))
        self.config = self.config.model_copy(update={"audio": (*self.config.audio, *audio)})

    def tell(self, config: FactsConfig) -> None:
        """Tell other facts from now on, by probes that are still to be fitted; how a share is told stays as it is.

        Raises:
            ConfigError: if they do not fit the audio branches.
        """
        before, self.facts = self.facts, self._build_facts(config).to(self.device)
        if before is not None:
            self.facts.share_2D = before.share_2D
        self.config = self.config.model_copy(update={"facts": config})

    def say(self, config: ModelConfig) -> None:
        """Choose among other words from now on, in branches of words and where prompts mention them, and listen for
        other phrases; how much each word counts is still to be fitted, how they are told stays as it is.

        Args:
            config: the model's, with other words and phrases.
        """
        for branch, chosen in zip(self.branches, config.audio, strict=True):
            if isinstance(before := branch.mapper, WordsMapper):
                lm = self.language_model
                mapper = WordsMapper(chosen.mapper, len(before.mean_I), lm.spell).to(self.device)
                mapper.share_2D, mapper.when_2D = before.share_2D, before.when_2D
                branch.mapper, branch.config = mapper, chosen
        if self.mentions is not None:
            assert config.mentions is not None, "the words are others, and nothing else is"
            told, self.mentions = self.mentions, self._build_mentions(config.mentions).to(self.device)
            self.mentions.load_state_dict(told.state_dict())
        self.config = config

    @property
    def branches(self) -> list[AudioBranch]:
        """The audio branches in the order of the prefix."""
        return [branch for branch in self.audio if isinstance(branch, AudioBranch)]

    @property
    def device(self) -> torch.device:
        """Where the trained parts are."""
        return next(self.text_mapper.parameters(), torch.empty(0)).device

    def audio_tokens(self, features: Sequence[Masked], augment: Augment | None = None) -> list[Masked]:
        """Audio tokens of every branch from their frozen features."""
        return [branch.tokens(values, augment) for branch, values in zip(self.branches, features, strict=True)]

    def hear(self, waveform_BS: Tensor, lengths_B: Tensor) -> list[Masked]:
        """Audio tokens of every branch of waveforms; arguments as for :meth:`AudioEncoder.features`.

        Where one encoder builds on another one that is a branch before it, or is the first layers of another one, the
        other one is not run twice.
        """
        branches = self.branches
        stock = {branch.config.encoder: place for place, branch in enumerate(branches) if not branch.config.trained}
        hosts = [stock.get(branch.encoder.inner_of or "") for branch in branches]
        heard: dict[int, Masked] = {}
        for place, branch in enumerate(branches):
            before = heard.get(stock.get(branch.encoder.builds_on or "", -1))
            if before is not None:
                heard[place] = branch.encoder.follow(*before), before[1]
            elif hosts[place] is None:
                run = [place, *(inner for inner, host in enumerate(hosts) if host == place)]
                features = branch.encoder.features_along(
                    waveform_BS, lengths_B, [branches[inner].encoder for inner in run[1:]]
                )
                for own, (values, mask) in zip(run, features, strict=True):
                    heard[own] = branches[own].encoder.tokens(values, mask), mask
        return [heard[place] for place in range(len(branches))]

    def map_audio(self, tokens: Sequence[Masked]) -> list[Masked]:
        """What the mapper of each branch makes of its audio tokens: ``float[A, P_i, D]``.

        Of audio longer than a branch was made for, the tokens are averaged in time to ``max_tokens``. Words are found
        in all of them: an average would hide what is short.
        """
        return [
            branch.prefix(masked if isinstance(branch.mapper, WordsMapper) else branch.limited(masked))
            for branch, masked in zip(self.branches, tokens, strict=True)
        ]

    def fact_logits(self, tokens: Sequence[Masked]) -> Tensor:
        """What the probes of :attr:`facts`, which there must be, hear in the audio tokens of all branches."""
        assert self.facts is not None
        places = self.facts.config.branches
        return self.facts.logits([self.branches[place].probed(tokens[place]) for place in places])

    def tell_facts(self, tokens: Sequence[Masked], heard_AF: Tensor | None = None) -> list[Masked]:
        """The prefix of :attr:`facts`, or nothing if the model has none; ``heard_AF`` takes the place of its probes."""
        if self.facts is None:
            return []
        return [self.facts(self.fact_logits(tokens) if heard_AF is None else heard_AF)]

    def audio_prefix(self, tokens: Sequence[Masked]) -> Masked:
        """m1: the audio prefix ``float[A, P, D]``, padded on the left, of the audio tokens of all branches."""
        return join([*self.map_audio(tokens), *self.tell_facts(tokens)], padding="left")

    def prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        """What m2 reads of prompts: a sentence embedding, projected if there is a projection, or token embeddings."""
        if self.text_encoder is None:
            return self._embed_rows([self.prompt_ids(prompt) for prompt in prompts])
        sentence_BTI = self.text_encoder.embed(prompts).to(self.device)[:, None]
        if self.text_projection is not None:
            sentence_BTI = self.text_projection(sentence_BTI)
        return sentence_BTI, torch.ones(sentence_BTI.shape[:2], dtype=torch.bool, device=self.device)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt for the form without a text encoder."""
        config = self.config.text
        ids = self.language_model.encode(prompt + config.suffix)[: config.max_tokens]
        return ids if config.pad_token is None else ids + [config.pad_token] * (config.max_tokens - len(ids))

    def text_prefix(self, prompts: Sequence[str]) -> Masked:
        """m2: the text prefix ``float[B, P, D]`` of prompts."""
        prefix: Masked = self.text_mapper(*self.prompt_embeddings(prompts))
        return prefix

    def listen(self, tokens: Sequence[Masked]) -> Heard | None:
        """How much of every word that a prompt may mention is heard; none if the model does not listen for them."""
        if self.mentions is None:
            return None
        config = self.mentions.config
        level_AT = None
        if config.levels is not None:
            level_AT = self.branches[config.levels].limited(tokens[config.levels])[0][..., 0]
        limited = self.branches[config.branch].limited(tokens[config.branch])
        return self.mentions.listen(self._mapper_of_words(config), tokens[config.branch], limited, level_AT)

    def tell_mentions(self, heard: Heard | None, prompts: Sequence[str]) -> list[Masked]:
        """What stands in front of prompts, one for each recording; nothing if the model listens for no words."""
        if self.mentions is None or heard is None:
            return []
        return [self.mentions(self._mapper_of_words(self.mentions.config), heard, prompts)]

    def labels_heard(self, tokens: Sequence[Masked], labels: Sequence[str]) -> Tensor | float:
        """What is added to the scores of labels for what is heard of them, ``float32[B, L]``: 0 if nothing is."""
        found: Tensor | float = 0.0
        if self.mentions is not None and self.mentions.config.labels:
            heard = self.listen(tokens)
            assert heard is not None
            found = found + self.mentions.labels_heard(heard, labels)
        if self.facts is not None and self.facts.config.labels:
            found = found + self.facts.labels_heard(self.fact_logits(tokens), labels)
        return found

    def texts_heard(self, tokens: Sequence[Masked], texts: Sequence[Sequence[str]]) -> list[list[float]] | None:
        """What is added to the log-probabilities of texts about recordings for what is heard of the words in them: none
        if nothing is, see :meth:`pengi.mentions.Mentions.texts_heard`."""
        heard = self.listen(tokens)
        if self.mentions is None or heard is None or not self.mentions.config.texts:
            return None
        return self.mentions.texts_heard(self._mapper_of_words(self.mentions.config), heard, texts)

    def prefix(self, tokens: Sequence[Masked], prompts: Sequence[str]) -> Masked:
        """p = concat(m1(a), m2(g)), padded on the left: ``float[B, P, D]`` for one prompt per clip."""
        told = self.tell_mentions(self.listen(tokens), prompts)
        return join([self.audio_prefix(tokens), *told, self.text_prefix(prompts)], padding="left")

    def target_ids(self, target: str) -> list[int]:
        """Token ids of an answer, the end token last."""
        config = self.config.language_model
        ids = self.language_model.encode(config.target_prefix + target.strip())
        return [*ids[: config.target_tokens - 1], self.language_model.end_id]

    def loss(self, batch: Batch, augment: Augment | None = None, edit: EditTokens | None = None) -> Loss:
        """The paper's loss. Gradients pass through the frozen language model into mappers and audio encoders."""
        tokens = self.audio_tokens(batch.features, augment)
        edited = edit(tokens) if edit else tokens
        mapped = [*self.map_audio(edited), *self.tell_facts(tokens, batch.facts_AF)]
        return self.target_loss(mapped, batch, self.listen(tokens))

    def target_loss(self, mapped: Sequence[Masked], batch: Batch, heard: Heard | None = None) -> Loss:
        """The paper's loss behind the parts of the audio prefix, and what is heard of the words that prompts mention.

        The language model reads the audio prefix of a clip once for all examples about it, and the examples in groups
        of like length, which saves padding.
        """
        _, state = self.language_model.remember(*join(mapped, padding="left"))
        ids = [self.target_ids(target) for target in batch.targets]
        order = sorted(range(len(ids)), key=lambda example: len(batch.prompts[example]) + len(batch.targets[example]))
        hidden, expected, examples = [], [], []
        for start in range(0, len(order), EXAMPLES_READ_TOGETHER):
            group = order[start : start + EXAMPLES_READ_TOGETHER]
            rows = [ids[example] for example in group]
            clips_G = batch.clip_E[torch.tensor(group)]
            prompts = [batch.prompts[example] for example in group]
            told = self.tell_mentions(heard.of(clips_G) if heard else None, prompts)
            text = join([*told, self.text_prefix(prompts)], padding="right")
            hidden.append(self._target_hidden(text, rows, self.language_model.select(state, clips_G)))
            expected += [token for row in rows for token in row]
            examples += [example for example, row in zip(group, rows, strict=True) for _ in row]
        logits_NV = self.language_model.logits(torch.cat(hidden))
        token_losses_N = functional.cross_entropy(
            logits_NV, torch.tensor(expected, device=logits_NV.device), reduction="none"
        )
        return Loss(token_losses_N.mean(), token_losses_N.detach(), torch.tensor(examples))

    def _target_hidden(self, text: Masked, ids: Sequence[Sequence[int]], state: DecoderState) -> Tensor:
        """Hidden states ``[N, D]`` that predict the target tokens of one group of examples, row after row."""
        embeds_EXD, mask_EX = join([text, self._embed_rows([row[:-1] for row in ids])], padding="right")
        hidden_EXD, _ = self.language_model.extend(embeds_EXD, mask_EX, state)
        example_N, position_N = self._target_positions(text[1].sum(1).tolist(), ids)
        return hidden_EXD[example_N, position_N]

    def _target_positions(self, text_lengths: Sequence[int], ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Example and position of every hidden state that predicts a target token: from the last text embedding on."""
        pairs = [
            (example, length - 1 + step)
            for example, (length, row) in enumerate(zip(text_lengths, ids, strict=True))
            for step in range(len(row))
        ]
        example_N, position_N = torch.tensor(pairs, device=self.device).unbind(1)
        return example_N, position_N

    def _embed_rows(self, rows: Sequence[Sequence[int]]) -> Masked:
        """Language-model embeddings of token rows, padded on the right."""
        lengths_B = torch.tensor([len(row) for row in rows], device=self.device)
        width = max(1, int(lengths_B.max()))
        padded = [[*row, *[self.language_model.end_id] * (width - len(row))] for row in rows]
        ids_BT = torch.tensor(padded, device=self.device)
        mask_BT = torch.arange(width, device=self.device) < lengths_B[:, None]
        return self.language_model.embed(ids_BT), mask_BT
