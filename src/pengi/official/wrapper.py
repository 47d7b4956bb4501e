# A string is also a sequence of strings, so the type checker takes a path for a list of paths.
# mypy: disable-error-code="overload-overlap"
"""The engine with the official wrapper's quirks, built from subclasses of the engine's parts.

Shape suffixes: B rows, T tokens, D features, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.sources import AudioSource, ReadingOptions, listed
from pengi.calls import Call, Parts, for_each
from pengi.conditioning.transcript import Transcriber
from pengi.decoding import Constraint, DecodeOptions, Hypothesis
from pengi.encoders.base import Masked
from pengi.encoding import Encoded, OnError, Recording, RecordingEncoder, Recordings
from pengi.engine import Audio, Pengi
from pengi.errors import InputError, PengiError, no_such
from pengi.generation import OnText, TextGenerator, padded
from pengi.model import PengiModel
from pengi.official import quirks as reference
from pengi.official.quirks import ReferenceQuirks
from pengi.official.search import ReferenceOptions
from pengi.prompting import Prompting
from pengi.results import ScoredText
from pengi.runtime import Runtime
from pengi.streaming import Outcome

DEFAULT_MODEL = "pengi-base"
Vectors = NDArray[np.float32]
"""``float32[T, D]``."""
ALL_QUIRKS = ReferenceQuirks.all()


class OfficialPengi(Pengi):
    """The engine with all quirks of the authors' wrapper, or with the given ones."""

    def __init__(
        self, model: PengiModel, name: str, device: torch.device, quirks: ReferenceQuirks = ALL_QUIRKS
    ) -> None:
        self.quirks = quirks
        super().__init__(model, name, device)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        runtime: Runtime | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        quirks: ReferenceQuirks = ALL_QUIRKS,
    ) -> Self:
        """Load a model that follows the quirks of the official wrapper, by default all of them.

        The other arguments are those of :meth:`pengi.engine.Pengi.from_pretrained`.
        """
        plain = Pengi.from_pretrained(
            name_or_path, device=device, runtime=runtime, revision=revision, local_files_only=local_files_only
        )
        engine = cls(plain.model, plain.name, plain.device, quirks)
        engine.folder = plain.folder
        return engine

    @overload
    def audio_embeddings(
        self, audio: Recording, *, branch: str | None = ..., **reading: Unpack[ReadingOptions]
    ) -> Vectors: ...
    @overload
    def audio_embeddings(
        self, audio: Recordings, *, branch: str | None = ..., **reading: Unpack[ReadingOptions]
    ) -> list[Vectors]: ...
    @overload
    def audio_embeddings(
        self, audio: Recordings, *, on_error: OnError, branch: str | None = ..., **reading: Unpack[ReadingOptions]
    ) -> list[Vectors | PengiError]: ...
    def audio_embeddings(
        self, audio: Audio, *, on_error: OnError = "raise", branch: str | None = None, **reading: Unpack[ReadingOptions]
    ) -> Outcome[Vectors]:
        """The audio embeddings that m1 reads for a recording, ``float32[T, D]``.

        For ``pengi-base`` this is the projected audio embedding of length one, ``[1, 1024]``, so that
        ``np.concatenate`` of a list's results is the paper's ``[N, 1024]``. For encoders that give a sequence, T grows
        with the length of the recording, up to the branch's ``max_tokens``.

        Args:
            audio: one recording or a list.
            on_error: see :class:`pengi.engine.Pengi`.
            branch: name of the audio branch in the configuration; by default the first one.
            reading: how recordings are read.

        Raises:
            InputError: if there is no such branch.
        """
        return self._answer(AudioEmbeddings(self._parts, branch, **reading), audio, on_error)

    @overload
    def audio_prefix(self, audio: Recording, **reading: Unpack[ReadingOptions]) -> Vectors: ...
    @overload
    def audio_prefix(self, audio: Recordings, **reading: Unpack[ReadingOptions]) -> list[Vectors]: ...
    @overload
    def audio_prefix(
        self, audio: Recordings, *, on_error: OnError, **reading: Unpack[ReadingOptions]
    ) -> list[Vectors | PengiError]: ...
    def audio_prefix(
        self, audio: Audio, *, on_error: OnError = "raise", **reading: Unpack[ReadingOptions]
    ) -> Outcome[Vectors]:
        """The audio prefix m1(a) that the language model reads, ``float32[P, D]``; ``[40, 768]`` for ``pengi-base``."""
        return self._answer(AudioPrefix(self._parts, **reading), audio, on_error)

    @overload
    def prompt_embeddings(self, prompts: str) -> Vectors: ...
    @overload
    def prompt_embeddings(self, prompts: Sequence[str]) -> list[Vectors]: ...
    @torch.inference_mode()
    def prompt_embeddings(self, prompts: str | Sequence[str]) -> Vectors | list[Vectors]:
        """The embeddings that m2 reads for a prompt, ``float32[T, D]``; a list of prompts gives a list.

        With a text encoder T is 1 (``pengi-base``: the projected sentence embedding, ``[1, 1024]``); without one these
        are the language model's token embeddings (``pengi-base-no-text-enc``: ``[40, 768]``, padding included).
        """
        rows = _rows(self._generator.prompt_embeddings(_listed_prompts(prompts)))
        return rows if listed(prompts) is not None else rows[0]

    @overload
    def prompt_prefix(self, prompts: str) -> Vectors: ...
    @overload
    def prompt_prefix(self, prompts: Sequence[str]) -> list[Vectors]: ...
    @torch.inference_mode()
    def prompt_prefix(self, prompts: str | Sequence[str]) -> Vectors | list[Vectors]:
        """The prompt prefix m2(g) that the language model reads, ``float32[P, D]``; ``[40, 768]`` for ``pengi-base``. A
        list of prompts gives a list."""
        rows = _rows(self._generator.prompt_prefix(_listed_prompts(prompts)))
        return rows if listed(prompts) is not None else rows[0]

    def _build_generator(self) -> TextGenerator:
        return OfficialGenerator(self.model, Prompting(self.model), self.quirks)

    def _build_encoder(self) -> RecordingEncoder:
        return OfficialEncoder(self.model, self.device, lambda: self._transcriber, self.quirks)

    def _is_silent(self, recording: Encoded) -> bool:
        return super()._is_silent(recording) and not self.quirks.ask_about_silence


class AudioEmbeddings(Call[Vectors]):
    """The embeddings that m1 reads; see :meth:`OfficialPengi.audio_embeddings`."""

    for_text = False

    def __init__(self, parts: Parts, branch: str | None, **reading: Unpack[ReadingOptions]) -> None:
        super().__init__(parts, **reading)
        names = list(parts.model.branches)
        name = names[0] if branch is None else branch
        if name not in names:
            raise InputError(no_such("audio branch", name, names))
        self._index, self._branch = names.index(name), parts.model.branches[name]

    async def answer(self, encoded: Sequence[Encoded]) -> list[Vectors]:
        tokens = padded([recording.tokens[self._index] for recording in encoded])
        return _rows(self._branch.embeddings(self._branch.limited(tokens)))


class AudioPrefix(Call[Vectors]):
    """The prefixes of recordings; see :meth:`OfficialPengi.audio_prefix`."""

    for_text = False

    async def answer(self, encoded: Sequence[Encoded]) -> list[Vectors]:
        return _rows(self.parts.generator.audio_prefix(encoded))


def _listed_prompts(prompts: str | Sequence[str]) -> list[str]:
    texts = listed(prompts)
    return for_each("prompts", prompts, 1 if texts is None else len(texts))


def _rows(masked: Masked) -> list[Vectors]:
    """The real tokens ``float32[T, D]`` of each row."""
    values_BTD, mask_BT = masked
    return [values_TD[mask_T].float().cpu().numpy() for values_TD, mask_T in zip(values_BTD, mask_BT, strict=True)]


class OfficialEncoder(RecordingEncoder):
    """Encodes recordings with the quirks ``random_crop``, ``flat_channels`` and ``keep_offset``."""

    def __init__(
        self, model: PengiModel, device: torch.device, transcriber: Callable[[], Transcriber], quirks: ReferenceQuirks
    ) -> None:
        super().__init__(model, device, transcriber)
        self._quirks = quirks

    def blocks(
        self, source: AudioSource, *, notes: list[str] | None = None, **reading: Unpack[ReadingOptions]
    ) -> Iterator[NDArray[np.float32]]:
        """The recording in blocks ``float32[S]``, or only the part that the official wrapper encodes."""
        if not (self._quirks.random_crop or self._quirks.flat_channels):
            yield from super().blocks(source, notes=notes, **reading)
            return
        rate = self.sample_rate
        window = round(self.window_s * rate)
        yield reference.read(source, rate, window, self._quirks, notes=notes, **reading)

    def prepared(self, window_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """A window ``float32[S]`` with or without its constant offset."""
        return window_S if self._quirks.keep_offset else super().prepared(window_S)


class OfficialGenerator(TextGenerator):
    """Generates texts with the quirks of prompt embeddings, search and scores."""

    def __init__(self, model: PengiModel, prompting: Prompting, quirks: ReferenceQuirks) -> None:
        super().__init__(model, prompting)
        self._quirks = quirks

    @property
    def stop_ids(self) -> list[int]:
        """The end token, or the first token of `` <|endoftext|>``."""
        if not self._quirks.stop_at_space:
            return super().stop_ids
        lm = self.model.language_model
        return lm.encode(f" {lm.tokenizer.id_to_token(lm.end_id)}")[:1]

    def prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        """The embeddings that m2 reads for prompts, ``float[B, T, D]``, scaled to length one or not."""
        model = self.model
        if not self._quirks.raw_prompt_embedding or model.text_encoder is None or model.text_projection is None:
            return super().prompt_embeddings(prompts)
        raw_BTD = model.text_projection.project(model.text_encoder.embed(prompts).to(model.device)[:, None])
        return raw_BTD, torch.ones(raw_BTD.shape[:2], dtype=torch.bool, device=model.device)

    async def generate(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        options: DecodeOptions,
        constraint: Constraint | None = None,
        extra: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> list[list[Hypothesis]]:
        """The best texts for each recording and prompt; with a constraint the default search is used."""
        if self._quirks.reference_search and constraint is None:
            options = ReferenceOptions.like(options)
        return await super().generate(encoded, prompts, options, constraint, extra, on_text)

    def extra_texts(self, texts: Sequence[str]) -> Sequence[str]:
        """The extra texts, or one character of each."""
        return reference.by_character(texts) if self._quirks.extra_text_by_character else texts

    def scored(self, beams: Sequence[Hypothesis]) -> tuple[ScoredText, ...]:
        """The texts of a search with their scores; with the quirk, sorted texts with scores in the order of the
        search."""
        if not self._quirks.scores_out_of_order:
            return super().scored(beams)
        texts = super().scored(sorted(beams, key=lambda beam: beam.score, reverse=True))
        return tuple(replace(text, score=beam.score) for text, beam in zip(texts, beams, strict=True))
