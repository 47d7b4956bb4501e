"""The engine with the official wrapper's quirks: the engine's own parts, with what the wrapper does otherwise.

Shape suffixes: B rows, T tokens, D features, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.decode import AudioSource
from pengi.conditioning.transcript import Transcriber
from pengi.decoding import DecodeOptions, Hypothesis, LabelTrie
from pengi.encoders.base import Masked
from pengi.encoding import Encoded, RecordingEncoder
from pengi.engine import Pengi
from pengi.generation import TextGenerator
from pengi.model import PengiModel
from pengi.official import quirks as reference
from pengi.official.quirks import ReferenceQuirks
from pengi.official.search import ReferenceOptions
from pengi.prompting import Prompting
from pengi.results import ScoredText

DEFAULT_MODEL = "pengi-base"
ALL_QUIRKS = ReferenceQuirks.all()


class OfficialPengi(Pengi):
    """The engine as the paper's authors run it: with all quirks of their wrapper, or with those that are given."""

    def __init__(
        self, model: PengiModel, name: str, device: torch.device, quirks: ReferenceQuirks = ALL_QUIRKS
    ) -> None:
        self.quirks = quirks
        super().__init__(model, name, device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = DEFAULT_MODEL, *, device: str = "auto", quirks: ReferenceQuirks = ALL_QUIRKS
    ) -> Self:
        """Load a model; see :meth:`pengi.engine.Pengi.from_pretrained`.

        Args:
            name_or_path: see there.
            device: see there.
            quirks: in which of its ways to follow the official wrapper.
        """
        plain = Pengi.from_pretrained(name_or_path, device=device)
        return cls(plain.model, plain.name, plain.device, quirks)

    def _build_generator(self) -> TextGenerator:
        return OfficialGenerator(self.model, self._prompting, self.quirks)

    def _build_encoder(self) -> RecordingEncoder:
        return OfficialEncoder(self.model, self.device, lambda: self._transcriber, self.quirks)

    def _is_silent(self, recording: Encoded) -> bool:
        return super()._is_silent(recording) and not self.quirks.ask_about_silence

    def _extra_texts(self, given: str | Sequence[str], count: int) -> list[str]:
        texts = super()._extra_texts(given, count)
        return reference.by_character(texts) if self.quirks.extra_text_by_character else texts


class OfficialEncoder(RecordingEncoder):
    """Encodes recordings with the quirks ``random_crop``, ``flat_channels`` and ``keep_offset``."""

    def __init__(
        self, model: PengiModel, device: torch.device, transcriber: Callable[[], Transcriber], quirks: ReferenceQuirks
    ) -> None:
        super().__init__(model, device, transcriber)
        self._quirks = quirks

    def blocks(
        self, source: AudioSource, *, track: int | None = None, partial: bool = False, notes: list[str] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """The recording, or what the wrapper encodes of it, in blocks ``float32[S]``."""
        if not (self._quirks.random_crop or self._quirks.flat_channels):
            yield from super().blocks(source, track=track, partial=partial, notes=notes)
            return
        rate = self.sample_rate
        window = round(self.window_s * rate)
        yield reference.read(source, rate, window, self._quirks, track=track, partial=partial, notes=notes)

    def prepared(self, window_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """A window with or without its constant offset."""
        return window_S if self._quirks.keep_offset else super().prepared(window_S)


class OfficialGenerator(TextGenerator):
    """Writes texts with the quirks of prompt embeddings, search and scores."""

    def __init__(self, model: PengiModel, prompting: Prompting, quirks: ReferenceQuirks) -> None:
        super().__init__(model, prompting)
        self._quirks = quirks

    @property
    def stop_ids(self) -> list[int]:
        """The end token, or the first token of `` <|endoftext|>``."""
        if not self._quirks.stop_at_space:
            return super().stop_ids
        lm = self._model.language_model
        return lm.encode(f" {lm.tokenizer.id_to_token(lm.end_id)}")[:1]

    def prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        """What m2 reads of prompts, ``float[B, T, D]``, of length one or not."""
        model = self._model
        if not self._quirks.raw_prompt_embedding or model.text_encoder is None or model.text_projection is None:
            return super().prompt_embeddings(prompts)
        raw_BTD = model.text_projection.project(model.text_encoder.embed(prompts).to(model.device)[:, None])
        return raw_BTD, torch.ones(raw_BTD.shape[:2], dtype=torch.bool, device=model.device)

    def generate(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        options: DecodeOptions,
        constraint: LabelTrie | None = None,
        extra: Sequence[str] = (),
    ) -> list[list[Hypothesis]]:
        """The best texts of each recording and its prompt; labels constrain the default search only."""
        if self._quirks.reference_search and constraint is None:
            options = ReferenceOptions.like(options)
        return super().generate(encoded, prompts, options, constraint, extra)

    def scored(self, beams: Sequence[Hypothesis]) -> tuple[ScoredText, ...]:
        """The texts of a search with their scores, or sorted beside the scores in the order of the search."""
        if not self._quirks.scores_out_of_order:
            return super().scored(beams)
        texts = super().scored(sorted(beams, key=lambda beam: beam.score, reverse=True))
        return tuple(replace(text, score=beam.score) for text, beam in zip(texts, beams, strict=True))
