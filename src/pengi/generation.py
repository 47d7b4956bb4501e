"""Texts about recordings: the prefix that the language model reads, and the search that continues it.

Shape suffixes: B rows, T audio or prompt tokens, P prefix embeddings, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pengi.caching import RecentCache
from pengi.conditioning.prefix import join
from pengi.decoding import Constraint, DecodeOptions, Hypothesis, SearchGroup
from pengi.encoders.base import Masked
from pengi.encoding import Encoded
from pengi.grammar import JsonSchemas
from pengi.language_model import DecoderState
from pengi.model import PengiModel
from pengi.prompting import Prompting
from pengi.results import ScoredText

OnText = Callable[[str], None]
"""Called with each new piece of a text while it is written."""


@dataclass(frozen=True)
class Written:
    """A text about a recording, and how probable it is."""

    text: str
    probability: float


class TextGenerator:
    """Writes texts about recordings.

    Args:
        model: its mappers and its language model are run.
        prompting: puts prompts and evidence into words.
    """

    def __init__(self, model: PengiModel, prompting: Prompting) -> None:
        self.model, self.prompting = model, prompting
        self.recent: RecentCache[DecoderState] | None = None
        """Cache of the language model's states after the shared prefixes of recordings, so that a further question
        about one continues from there; None for no cache."""

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a text."""
        return [self.model.language_model.end_id]

    def tokens(self, encoded: Sequence[Encoded]) -> list[Masked]:
        """Audio tokens of every branch, padded to those of the longest recording."""
        return [padded(rows) for rows in zip(*(recording.tokens for recording in encoded), strict=True)]

    def audio_prefix(self, encoded: Sequence[Encoded]) -> Masked:
        """m1: ``float[B, P, D]`` of each recording."""
        return self.model.audio_prefix(self.tokens(encoded))

    def prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        """Input of m2 for prompts, ``float[B, T, D]``."""
        return self.model.prompt_embeddings(prompts)

    def prompt_prefix(self, prompts: Sequence[str]) -> Masked:
        """m2: ``float[B, P, D]`` of prompts."""
        prefix: Masked = self.model.text_mapper(*self.prompt_embeddings(prompts))
        return prefix

    def prefix(self, encoded: Sequence[Encoded], prompts: Sequence[str], extra: Sequence[str] = ()) -> Masked:
        """The prefix of each recording and its prompt, followed by the language model's embeddings of extra text.

        Args:
            encoded: the recordings.
            prompts: one for each; see :meth:`pengi.prompting.Prompting.own`.
            extra: one text for each, or none.
        """
        evidence = self.prompting.evidence(encoded)
        if self.model.device.type != "cpu":
            return self.model.prefix(self.tokens(encoded), self.prompt_prefix(prompts), evidence, extra)
        # One by one, so that rounding, and with it the text, does not depend on the batch.
        rows = []
        for one in (slice(row, row + 1) for row in range(len(prompts))):
            shown = None if evidence is None else evidence[one]
            values_1TD, mask_1T = self.model.prefix(
                self.tokens(encoded[one]), self.prompt_prefix(prompts[one]), shown, extra[one]
            )
            rows.append(values_1TD[mask_1T])
        return join([padded(rows)], padding="left")

    def read(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], extra: Sequence[str] = ()
    ) -> tuple[Tensor, DecoderState]:
        """Let the language model read :meth:`prefix`: logits ``float32[B, V]`` of the next token, and its state."""
        if self.recent is not None and len(encoded) == 1 and encoded[0].key is not None:
            return self.read_shared(encoded, prompts, extra)
        return self.model.language_model.prefill(*self.prefix(encoded, prompts, extra))

    def read_shared(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], extra: Sequence[str] = ()
    ) -> tuple[Tensor, DecoderState]:
        """As :meth:`read`; the part that all prompts for a recording share is read once, or taken from the cache."""
        lm = self.model.language_model
        distinct = {id(recording): recording for recording in encoded}
        states = [self._shared_state(recording) for recording in distinct.values()]
        order = list(distinct)
        row_B = torch.tensor([order.index(id(recording)) for recording in encoded], device=self.model.device)
        state = lm.select(lm.concat(states) if len(states) > 1 else states[0], row_B)
        hidden_BTD, state = lm.extend(*self.model.own_prefix(self.prompt_prefix(prompts), extra), state)
        return lm.logits(hidden_BTD[:, -1]), state

    def _shared_state(self, recording: Encoded) -> DecoderState:
        """The state after the part that all prompts for a recording share."""
        state = None if self.recent is None or recording.key is None else self.recent.get(recording.key)
        if state is None:
            lm = self.model.language_model
            shared = self.model.shared_prefix(self.tokens([recording]), self.prompting.evidence([recording]))
            _, state = lm.prefill_hidden(*shared)
            if self.recent is not None and recording.key is not None:
                self.recent.put(recording.key, state, lm.state_bytes(state))
        return state

    async def generate(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        options: DecodeOptions,
        constraint: Constraint | None = None,
        extra: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> list[list[Hypothesis]]:
        """The best texts of each recording and its prompt, the best first.

        Args:
            encoded: the recordings.
            prompts: one for each.
            options: how to search.
            constraint: the only texts that may be written; any if not given.
            extra: one text for each, which the answer continues, or none.
            on_text: called with the first text while it is written, if there is only one beam.
        """
        full_prompts = [self.prompting.own(*pair) for pair in zip(encoded, prompts, strict=True)]
        on_tokens = None if on_text is None or options.beams > 1 else _Pieces(self, on_text).add
        return await SearchGroup(
            self.model.language_model,
            *self.read(encoded, full_prompts, extra),
            options,
            stop_ids=self.stop_ids,
            constraint=constraint,
            on_tokens=on_tokens,
        )

    @cached_property
    def json_schemas(self) -> JsonSchemas:
        """The compiler of JSON schemas to constraints."""
        lm = self.model.language_model
        return JsonSchemas(lm.tokenizer, lm.end_id)

    def extra_texts(self, texts: Sequence[str]) -> Sequence[str]:
        """The extra texts of a call as the language model reads them, one for each recording."""
        return texts

    def text(self, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis."""
        return self.text_of(hypothesis.tokens)

    def text_of(self, tokens: tuple[int, ...]) -> str:
        """The text of token ids."""
        return self.model.language_model.decode(tokens).strip()

    def scored(self, beams: Sequence[Hypothesis]) -> tuple[ScoredText, ...]:
        """The texts of a search with their scores."""
        return tuple(ScoredText(self.text(beam), beam.score) for beam in beams)

    async def write(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        options: DecodeOptions,
        on_text: OnText | None = None,
    ) -> list[list[Written]]:
        """Texts about recordings, best first, each once; arguments as for :meth:`generate`."""
        found = await self.generate(encoded, prompts, options, on_text=on_text)
        # Several samples may be the same text.
        rows = [{beam.tokens: beam for beam in beams}.values() for beams in found]
        return [[Written(self.text(beam), probability_of(beam)) for beam in row] for row in rows]


class _Pieces:
    """Cuts a growing text into pieces."""

    def __init__(self, generator: TextGenerator, on_text: OnText) -> None:
        self._generator, self._on_text = generator, on_text
        self._given = ""

    def add(self, tokens: tuple[int, ...]) -> None:
        """Pass the new part of the text to ``on_text``."""
        text = self._generator.text_of(tokens)
        # A character of several tokens decodes to a replacement character until its last token is there.
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and len(text) > len(self._given):
            self._on_text(text[len(self._given) :])
            self._given = text


def padded(rows: Sequence[Tensor]) -> Masked:
    """Rows ``[T, D]`` of several lengths as one tensor, padded on the right."""
    lengths_B = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask_BT = torch.arange(int(lengths_B.max()), device=rows[0].device) < lengths_B[:, None]
    return pad_sequence(list(rows), batch_first=True), mask_BT


def probability_of(hypothesis: Hypothesis) -> float:
    """The probability of exactly this text."""
    return math.exp(sum(hypothesis.log_probs))
