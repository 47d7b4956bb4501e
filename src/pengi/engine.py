"""The engine: recordings and questions in, text out. Training, evaluation, commands and servers all call this.

A recording of any length is read window by window; each window goes through the audio encoders, and what is kept of it
are its audio tokens. A recording longer than the model's window is described by its tokens averaged in time to as many
as the model was trained on; ``timeline`` looks at every stretch on its own.

Shape suffixes: B rows, S samples, T audio tokens, P prefix embeddings, D features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pengi import checkpoint, reference, templates, weights
from pengi.audio.decode import AudioSource, stream
from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.audio.sources import Waveform, listed
from pengi.audio.windows import sliding
from pengi.conditioning.evidence import Evidence, evidence_text, queried_tags, queried_text
from pengi.conditioning.prefix import embed_texts, join
from pengi.conditioning.transcript import Transcriber
from pengi.decoding import DecodeOptions, Hypothesis, LabelTrie, generate, score_labels
from pengi.encoders.base import Masked
from pengi.encoding import MIN_SEGMENT_S, WINDOWS, Encoded, OnError, RecordingEncoder, batched
from pengi.errors import ConfigError, InputError, PengiError, checked_text
from pengi.model import PengiModel
from pengi.reference import ReferenceQuirks
from pengi.results import (
    SILENCE,
    Answer,
    Classification,
    Description,
    Event,
    Generation,
    LabelScore,
    Result,
    ScoredText,
    Segment,
    Timeline,
    with_notes,
)
from pengi.text_encoder import SentenceEncoder, TextEncoder

DEFAULT_MODEL = "pengi-mini"
METHODS = ("likelihood", "sum", "generate", "match")
DESCRIBE = DecodeOptions(beams=3, max_tokens=40)  # pengi-mini in less than a second on two cores
MATCH = DecodeOptions(beams=4, max_tokens=40)
ANSWER = DecodeOptions(beams=5, max_tokens=30)
GENERATE = DecodeOptions(beams=5, max_tokens=30)
TIMELINE = DecodeOptions(beams=1, max_tokens=24)
ROWS = 16  # prefixes in one call of the language model
MAX_SHOWN_LABELS = 5  # of so many labels the language model reads whether the tags that they name are detected
SILENT_CAPTION, SILENT_ANSWER = "Silence.", "The recording is silent."
SILENT_LABELS = ("silence", "silent")  # labels that are right for a silent recording
MIN_EVENT_CONFIDENCE = 0.1  # of every reported event but the most probable one
MIN_TOP_EVENT_CONFIDENCE = 0.005  # of the most probable event: below it the percentage would be 0 %
MATCH_SHARPNESS = 20.0  # cosine similarities to shares: exp(20 * cosine)
WINDOW_S, HOP_S = 5.0, 5.0
NO_QUIRKS = ReferenceQuirks()

Style = Literal["caption", "paper"]
STYLES: dict[Style, tuple[str, ...]] = {"caption": ("caption", "events"), "paper": ("caption", "metadata", "events")}
"""The prompts of each style of description; the last asks for events."""
R = TypeVar("R", bound=Result)
T = TypeVar("T")


@dataclass(frozen=True)
class _Written:
    """A text about a recording, and how probable it is."""

    text: str
    probability: float


class Pengi:
    """A loaded model that answers about recordings.

    Every method takes one recording (a path, bytes, a binary file object, ``(samples, rate)``, or what else
    :data:`pengi.audio.sources.AudioSource` lists) and gives one result, or a list of recordings and gives a list. With
    ``on_error="return"`` a recording that cannot be read gives its :class:`PengiError` in its place; by default the
    error is raised. For a silent recording (:data:`pengi.audio.level.SILENCE_DB`) every answer says that it is silent,
    unless the quirk ``ask_about_silence`` is on.
    ``track`` chooses one of several sound tracks, counted from 1. With ``partial`` a damaged recording is read up to
    the damage. A result's ``notes`` are sentences about how its recording was read.
    """

    def __init__(self, model: PengiModel, name: str, device: torch.device, quirks: ReferenceQuirks = NO_QUIRKS) -> None:
        self.model = model.to(device).eval()
        self.name = name
        self.device = device
        self.quirks = quirks
        self._encoder = RecordingEncoder(self.model, device, quirks, lambda: self._transcriber)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = DEFAULT_MODEL, *, device: str = "auto", quirks: ReferenceQuirks = NO_QUIRKS
    ) -> Self:
        """Load a model by name or a checkpoint folder.

        Args:
            name_or_path: e.g. "pengi-mini", or the folder that a training run or an import wrote.
            device: "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".
            quirks: in which of its ways to follow the paper's official wrapper; none unless given.

        Raises:
            CheckpointError, ConfigError, WeightsError: if the model cannot be loaded; one sentence says why.
        """
        chosen = device_of(device)
        return cls(checkpoint.load(checkpoint.model_folder(name_or_path)), str(name_or_path), chosen, quirks)

    def describe(
        self,
        audio: Any,
        *,
        style: Style = "caption",
        options: DecodeOptions | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What is heard: a text and the sound events, as :class:`Description`.

        Args:
            audio: one recording or a list.
            style: of the text. "caption" is one caption; "paper" joins caption, metadata and events as the paper's
                official wrapper does, and asks the model about silence, too.
            options: how to search.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: for an unknown style.
        """
        if style not in STYLES:
            raise InputError(f"there is no style '{style}'; choose one of {', '.join(STYLES)}")
        prompts = [templates.PROMPTS[task][0] for task in STYLES[style]]

        def answer(encoded: Sequence[Encoded]) -> list[Description]:
            rows = [recording for recording in encoded for _ in prompts]
            texts = self._write(rows, prompts * len(encoded), options or DESCRIBE)
            asked = len(prompts)
            return [
                self._description(recording, texts[row * asked : (row + 1) * asked], style)
                for row, recording in enumerate(encoded)
            ]

        def silent(recording: Encoded) -> Description:
            return Description(SILENT_CAPTION, (Event(SILENCE, 1.0),), recording.duration_s)

        return self._each(audio, answer, on_error, track, partial, silent if style == "caption" else None)

    def events(
        self,
        audio: Any,
        *,
        options: DecodeOptions | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """The sound events alone, as a tuple of :class:`Event`: those of :meth:`describe`, at half its cost."""
        prompt = templates.PROMPTS["events"][0]

        def answer(encoded: Sequence[Encoded]) -> list[tuple[Event, ...]]:
            found = self._write(encoded, [prompt] * len(encoded), options or DESCRIBE)
            return [_events(texts) for texts in found]

        return self._each(audio, answer, on_error, track, partial, lambda _: (Event(SILENCE, 1.0),))

    def generate(
        self,
        audio: Any,
        prompts: str | Sequence[str],
        *,
        extra_text: str | Sequence[str] = "",
        options: DecodeOptions | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Let the model write behind any prompt, as :class:`Generation`: the paper's one call for every task.

        Args:
            audio: one recording or a list.
            prompts: one for all recordings, or one for each, e.g. "generate metadata".
            extra_text: read by the language model behind the prompt, so that the answer goes on from it; one for all
                or one for each, empty for none.
            options: how to search.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: if there are not as many prompts or extra texts as recordings, or one is no valid text.
        """
        count = _count(audio)
        asked, extra = _for_each("prompts", prompts, count), _for_each("extra texts", extra_text, count)
        extra = [reference.extra_text(extra, place, self.quirks) for place in range(count)]

        def answer(encoded: Sequence[Encoded]) -> list[Generation]:
            rows = [asked[recording.place] for recording in encoded]
            texts = self._generate(encoded, rows, options or GENERATE, extra=[extra[item.place] for item in encoded])
            return [Generation(prompt, self._scored(beams)) for prompt, beams in zip(rows, texts, strict=True)]

        def silent(recording: Encoded) -> Generation:
            return Generation(asked[recording.place], (ScoredText(SILENT_ANSWER, 0.0),))

        return self._each(audio, answer, on_error, track, partial, silent)

    def ask(
        self,
        audio: Any,
        question: str | Sequence[str],
        *,
        options: DecodeOptions | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Answer a question in free text, as :class:`Answer`.

        Args:
            audio: one recording or a list.
            question: one for all recordings, or one for each.
            options: how to search.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: for an empty question, one longer than the model can read, one that is no valid text, or not as
                many as recordings.
        """
        questions = _for_each("questions", question, _count(audio))
        if not all(asked.strip() for asked in questions):
            raise InputError("the question is empty")
        prompts = [self._question_prompt(asked) for asked in questions]
        for prompt in dict.fromkeys(prompts):
            self._check_length(prompt, "question")

        def answer(encoded: Sequence[Encoded]) -> list[Answer]:
            texts = self._generate(encoded, [prompts[item.place] for item in encoded], options or ANSWER)
            return [
                Answer(questions[item.place], self._text(best[0]), _probability(best[0]))
                for item, best in zip(encoded, texts, strict=True)
            ]

        def silent(recording: Encoded) -> Answer:
            return Answer(questions[recording.place], SILENT_ANSWER, 1.0)

        return self._each(audio, answer, on_error, track, partial, silent)

    def classify(
        self,
        audio: Any,
        labels: Sequence[str],
        *,
        method: str = METHODS[0],
        prompt: str | None = None,
        top: int | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Choose among labels of one's own, as :class:`Classification`.

        Args:
            audio: one recording or a list.
            labels: any words; repeated ones count once.
            method: "likelihood" (mean log-probability of the label's tokens), "sum" (of the whole label), "generate"
                (the model may write nothing but labels), "match" (the model writes freely, the nearest label in the
                sentence encoder's space wins, as in the paper).
            prompt: what the labels answer; "this is a sound of" if not given.
            top: keep only so many labels.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: no labels, one that is empty or no valid text, an unknown method, ``top`` below 1, a prompt too
                long to be read.
        """
        names = _checked_labels(labels, method, top)
        prompt = checked_text(prompt or templates.PROMPTS["events"][0], "the prompt")
        self._check_length(prompt, "prompt")
        score: Callable[[Sequence[Encoded], list[str], str], list[Classification]] = {
            "likelihood": self._by_likelihood,
            "sum": self._by_sum,
            "generate": self._by_trie,
            "match": self._by_match,
        }[method]

        def answer(encoded: Sequence[Encoded]) -> list[Classification]:
            return [replace(found, scores=found.scores[:top]) for found in score(encoded, names, prompt)]

        return self._each(audio, answer, on_error, track, partial, lambda _: _silent_classification(method, names, top))

    def embed(self, audio: Any, *, on_error: OnError = "raise", track: int | None = None, partial: bool = False) -> Any:
        """One vector for a recording, ``float32[D]`` of length 1: the mean audio token of every branch, each of
        length 1, one behind the other."""

        def answer(encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
            return [self._embedding(recording) for recording in encoded]

        return self._each(audio, answer, on_error, track, partial, for_text=False)

    def encode(
        self,
        audio: Any,
        *,
        for_text: bool = True,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What is kept of a recording, as :class:`Encoded`; every method but ``timeline`` takes it in place of the
        recording, so that what is asked about several times is decoded and encoded once.

        Args:
            audio: one recording or a list.
            for_text: whether it is transcribed and its sound is measured, for methods that write text or choose labels.
            on_error: see the class.
            track: see the class.
            partial: see the class.
        """
        return self._each(audio, list, on_error, track, partial, for_text=for_text)

    def windows(
        self, source: AudioSource, *, track: int | None = None, partial: bool = False, notes: list[str] | None = None
    ) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """A recording of any length cut as the model encodes it, in bounded memory: start in seconds, and
        ``float32[S]`` at :attr:`sample_rate`. ``notes`` gets the sentences about the reading added.

        Raises:
            AudioError, InputError: as :func:`pengi.audio.decode.stream`, while iterating.
        """
        return self._encoder.windows(source, track=track, partial=partial, notes=notes)

    def audio_embeddings(
        self,
        audio: Any,
        *,
        branch: int = 0,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What m1 reads of a recording: ``float32[T, D]``.

        For ``pengi-base`` this is the projected audio embedding of length one, ``[1, 1024]``, so that
        ``np.concatenate`` of a list's results is the paper's ``[N, 1024]``. For encoders that give a sequence T grows
        with the recording, up to the branch's ``max_tokens``.

        Args:
            audio: one recording or a list.
            branch: which audio encoder, where there are several.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: if there is no such branch.
        """
        if not 0 <= branch < len(self.model.branches):
            raise InputError(f"'{self.name}' has {len(self.model.branches)} audio branches, so there is no {branch}")
        chosen = self.model.branches[branch]

        def answer(encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
            tokens = _padded([recording.tokens[branch] for recording in encoded])
            return _rows(chosen.embeddings(chosen.limited(tokens)))

        return self._each(audio, answer, on_error, track, partial, for_text=False)

    def audio_prefix(
        self, audio: Any, *, on_error: OnError = "raise", track: int | None = None, partial: bool = False
    ) -> Any:
        """m1(a), what the language model reads of a recording: ``float32[P, D]``, for ``pengi-base`` ``[40, 768]``."""

        def answer(encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
            return _rows(self._audio_prefix(encoded))

        return self._each(audio, answer, on_error, track, partial, for_text=False)

    @torch.inference_mode()
    def prompt_embeddings(self, prompts: str | Sequence[str]) -> Any:
        """What m2 reads of a prompt: ``float32[T, D]``; a list of prompts gives a list.

        With a text encoder T is 1 (``pengi-base``: the projected sentence embedding, ``[1, 1024]``); without one these
        are the language model's token embeddings (``pengi-base-no-text-enc``: ``[40, 768]``, padding included).
        """
        rows = _rows(self._prompt_embeddings(_for_each("prompts", prompts, _count(prompts))))
        return rows if listed(prompts) is not None else rows[0]

    @torch.inference_mode()
    def prompt_prefix(self, prompts: str | Sequence[str]) -> Any:
        """m2(g), what the language model reads of a prompt: ``float32[P, D]``, for ``pengi-base`` ``[40, 768]``; a list
        of prompts gives a list."""
        rows = _rows(self._prompt_prefix(_for_each("prompts", prompts, _count(prompts))))
        return rows if listed(prompts) is not None else rows[0]

    def timeline(
        self,
        audio: Any,
        *,
        window_s: float = WINDOW_S,
        hop_s: float = HOP_S,
        progress: Callable[[float], None] | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What happens when, for audio of any length in bounded memory, as :class:`Timeline`.

        Args:
            audio: one recording or a list.
            window_s: length of the stretches that are heard on their own, in seconds.
            hop_s: time from the start of one to the start of the next, at most ``window_s``.
            progress: called every few windows with the seconds heard so far; what it raises ends the work.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: for a window or hop that is not positive or leaves gaps.
        """
        self._check_windows(window_s, hop_s)

        def one(source: AudioSource) -> Timeline:
            notes: list[str] = []
            found = self.segments(
                source, window_s=window_s, hop_s=hop_s, progress=progress, track=track, partial=partial, notes=notes
            )
            segments = tuple(found)
            return Timeline(segments, segments[-1].end_s, notes=tuple(notes))

        return _map(audio, one, on_error)

    def segments(
        self,
        audio: AudioSource,
        *,
        window_s: float = WINDOW_S,
        hop_s: float = HOP_S,
        progress: Callable[[float], None] | None = None,
        track: int | None = None,
        partial: bool = False,
        notes: list[str] | None = None,
    ) -> Iterator[Segment]:
        """The segments of :meth:`timeline` of one recording, each as soon as the next one begins.

        Args:
            audio: one recording.
            window_s: see :meth:`timeline`.
            hop_s: see :meth:`timeline`.
            progress: see :meth:`timeline`.
            track: see the class.
            partial: see the class.
            notes: gets the sentences about the reading added.

        Raises:
            InputError: for a window or hop that is not positive or leaves gaps.
            AudioError: if the recording cannot be read, while iterating: the segments before the damage come first.
        """
        self._check_windows(window_s, hop_s)
        rate = self.sample_rate
        last: Segment | None = None
        blocks = stream(audio, rate, track=track, partial=partial, notes=notes)
        windows = sliding(blocks, round(window_s * rate), round(hop_s * rate))
        for batch in batched(windows, WINDOWS):
            for (start, window_S), (text, confidence) in zip(batch, self._name([w for _, w in batch]), strict=True):
                # Samples are added, not seconds: the end of one window is then the start of the next to the last digit.
                start_s, end_s = start / rate, (start + len(window_S)) / rate
                if last is not None and len(window_S) < MIN_SEGMENT_S * rate:
                    last = replace(last, end_s=end_s)
                    continue
                finished, last = _joined(last, Segment(start_s, end_s, text, confidence))
                if finished is not None:
                    yield finished
            if progress is not None:
                progress((batch[-1][0] + len(batch[-1][1])) / rate)
        if last is not None:
            yield last

    def transcribe(
        self, audio: Any, *, on_error: OnError = "raise", track: int | None = None, partial: bool = False
    ) -> Any:
        """What is said in English, for audio of any length in bounded memory, as :class:`Transcript`; nothing where
        nobody speaks.

        Args:
            audio: one recording or a list.
            on_error: see the class.
            track: see the class.
            partial: see the class.
        """
        return _map(audio, lambda source: self._transcriber.transcribe(source, track=track, partial=partial), on_error)

    @cached_property
    def _transcriber(self) -> Transcriber:
        return Transcriber.from_pretrained(self.device)

    def _check_windows(self, window_s: float, hop_s: float) -> None:
        if not 0 < hop_s <= window_s:
            raise InputError(f"hop ({hop_s} s) must be positive and no longer than window ({window_s} s)")
        if window_s > self._encoder.window_s:
            raise InputError(
                f"window ({window_s} s) is longer than the {self._encoder.window_s:g} s "
                f"that '{self.name}' encodes at once"
            )

    @cached_property
    def _matcher(self) -> TextEncoder:
        if self.model.text_encoder is not None:
            return self.model.text_encoder
        return SentenceEncoder.from_folder(weights.resolve("all-minilm-l6-v2")).to(self.device)

    @property
    def sample_rate(self) -> int:
        """In Hz, what every recording is brought to before it is heard."""
        return self._encoder.sample_rate

    def count_tokens(self, text: str) -> int:
        """How many tokens of the language model a text is."""
        return len(self.model.language_model.encode(text))

    def _each(
        self,
        audio: Any,
        answer: Callable[[Sequence[Encoded]], Sequence[T]],
        on_error: OnError,
        track: int | None,
        partial: bool,
        silent: Callable[[Encoded], T] | None = None,
        *,
        for_text: bool = True,
    ) -> Any:
        """Encode all recordings, answer those that could be read in batches, put errors in their places.

        Where there is an answer for silent recordings, the model is not asked about them.
        """
        _check_on_error(on_error)
        sources = listed(audio)
        encoded = self._encoder.encode(
            [audio] if sources is None else sources, on_error, track=track, partial=partial, for_text=for_text
        )
        results: dict[int, T | PengiError] = {}
        asked: list[Encoded] = []
        for place, item in enumerate(encoded):
            if isinstance(item, PengiError):
                results[place] = item
            elif silent is not None and item.is_silent and not self.quirks.ask_about_silence:
                results[place] = silent(item)
            else:
                asked.append(item)
        for batch in batched(asked, ROWS):
            with torch.inference_mode():
                results |= {item.place: result for item, result in zip(batch, answer(batch), strict=True)}
        for item in encoded:
            if isinstance(item, Encoded):
                results[item.place] = with_notes(results[item.place], item.notes)
        return results[0] if sources is None else [results[place] for place in range(len(sources))]

    def _embedding(self, recording: Encoded) -> NDArray[np.float32]:
        parts = [torch.nn.functional.normalize(tokens_TD.mean(0), dim=0) for tokens_TD in recording.tokens]
        vector_D: NDArray[np.float32] = (torch.cat(parts) / math.sqrt(len(parts))).cpu().numpy()
        return vector_D

    def _check_length(self, prompt: str, what: str) -> None:
        """Refuse what would be cut: an answer to half a question is worse than none."""
        most = self.model.config.text.max_tokens
        if self.model.text_encoder is None and len(self.model.language_model.encode(prompt)) > most:
            raise InputError(f"the {what} is too long; about {most // 2} words can be read")

    def _tokens(self, encoded: Sequence[Encoded]) -> list[Masked]:
        """Audio tokens of every branch, padded to those of the longest recording."""
        branches = range(len(self.model.branches))
        return [_padded([recording.tokens[index] for recording in encoded]) for index in branches]

    def _audio_prefix(self, encoded: Sequence[Encoded]) -> Masked:
        return self.model.audio_prefix(self._tokens(encoded))

    def _prompt_embeddings(self, prompts: Sequence[str]) -> Masked:
        model = self.model
        if not self.quirks.raw_prompt_embedding or model.text_encoder is None or model.text_projection is None:
            return model.prompt_embeddings(prompts)
        raw_BTD = model.text_projection.project(model.text_encoder.embed(prompts).to(self.device)[:, None])
        return raw_BTD, torch.ones(raw_BTD.shape[:2], dtype=torch.bool, device=self.device)

    def _prompt_prefix(self, prompts: Sequence[str]) -> Masked:
        prefix: Masked = self.model.text_mapper(*self._prompt_embeddings(prompts))
        return prefix

    def _question_prompt(self, question: str) -> str:
        """A question as the model was trained to read it: in a chat as it is, elsewhere in the paper's words."""
        return question.strip() if self.model.config.language_model.chat else templates.question_prompt(question)

    def _prefix(self, encoded: Sequence[Encoded], prompts: Sequence[str], extra: Sequence[str] = ()) -> Masked:
        """The prefix of each recording and its prompt, and behind it the language model's embeddings of extra text.

        Args:
            encoded: the recordings.
            prompts: one for each; see :meth:`_own_prompt`.
            extra: one text for each, or none.
        """
        shared = self.model.shared_prefix(self._tokens(encoded), self._evidence_texts(encoded))
        parts = [shared, self._prompt_prefix(prompts)]
        if any(extra):
            parts.append(embed_texts(self.model.language_model, extra))
        return join(parts, padding="left")

    def _own_prompt(self, recording: Encoded, prompt: str, labels: Sequence[str] = ()) -> str:
        """A prompt as the language model reads it: behind the evidence about the tags that it, or a label, names."""
        tagger = self.model.tagger
        if tagger is None or self.model.config.evidence is None or recording.evidence is None:
            return prompt
        named = [*queried_tags(recording.evidence, tagger.vocabulary, prompt)]
        for label in labels:
            named += queried_tags(recording.evidence, tagger.vocabulary, label)
        tags = {tag.text: tag for tag in named}
        return queried_text(tuple(tags.values()), recording.duration_s) + prompt

    def _evidence_texts(self, encoded: Sequence[Encoded]) -> list[str] | None:
        """The evidence about each recording as the language model reads it; None for a model without evidence."""
        config = self.model.config.evidence
        if config is None:
            return None
        return [evidence_text(item.evidence or Evidence(item.duration_s), config) for item in encoded]

    def _generate(
        self,
        encoded: Sequence[Encoded],
        prompts: Sequence[str],
        options: DecodeOptions,
        constraint: LabelTrie | None = None,
        extra: Sequence[str] = (),
    ) -> list[list[Hypothesis]]:
        own = [self._own_prompt(*pair) for pair in zip(encoded, prompts, strict=True)]
        prefix_BPD, mask_BP = self._prefix(encoded, own, extra)
        lm = self.model.language_model
        if self.quirks.reference_search and constraint is None:
            options = replace(options, search="reference")
        stops = lm.encode(f" {lm.tokenizer.id_to_token(lm.end_id)}")[:1] if self.quirks.stop_at_space else [lm.end_id]
        return generate(lm, prefix_BPD, mask_BP, options, stop_ids=stops, constraint=constraint)

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.model.language_model.decode(hypothesis.tokens).strip()

    def _scored(self, beams: Sequence[Hypothesis]) -> tuple[ScoredText, ...]:
        """The texts of a search with their scores, or with the scores that the official wrapper puts beside them."""
        scores = [beam.score for beam in beams]
        if self.quirks.scores_out_of_order:
            beams = sorted(beams, key=lambda beam: beam.score, reverse=True)
        return tuple(ScoredText(self._text(beam), score) for beam, score in zip(beams, scores, strict=True))

    def _write(
        self, encoded: Sequence[Encoded], prompts: Sequence[str], options: DecodeOptions
    ) -> list[list[_Written]]:
        """Texts about recordings, best first, each once."""
        found = self._generate(encoded, prompts, options)
        # Samples may come up with one text several times.
        rows = [{beam.tokens: beam for beam in beams}.values() for beams in found]
        return [[_Written(self._text(beam), _probability(beam)) for beam in row] for row in rows]

    def _description(self, recording: Encoded, answers: Sequence[Sequence[_Written]], style: Style) -> Description:
        """What the answers to the prompts of a style, each the texts of one, come to."""
        texts = [written[0].text for written in answers]
        text = templates.joined_description(*texts) if style == "paper" else texts[0]
        return Description(text, _events(answers[-1]), recording.duration_s)

    def _label_ids(self, labels: Sequence[str]) -> list[list[int]]:
        return [self.model.target_ids(label)[:-1] for label in labels]

    def _by_likelihood(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        mean_BL, _ = self._score(encoded, labels, prompt)
        return [_ranked("likelihood", labels, row) for row in mean_BL]

    def _by_sum(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        _, total_BL = self._score(encoded, labels, prompt)
        return [_ranked("sum", labels, row) for row in total_BL]

    def _score(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> tuple[Tensor, Tensor]:
        shown = labels if len(labels) <= MAX_SHOWN_LABELS else []
        own = [self._own_prompt(recording, prompt, shown) for recording in encoded]
        prefix_BPD, mask_BP = self._prefix(encoded, own)
        lm = self.model.language_model
        scores = score_labels(lm, prefix_BPD, mask_BP, self._label_ids(labels), end_id=lm.end_id)
        return scores.mean_BL, scores.total_BL

    def _by_trie(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        trie = LabelTrie(self._label_ids(labels), self.model.language_model.end_id)
        options = replace(ANSWER, beams=min(ANSWER.beams, len(labels)))
        found = []
        for hypotheses in self._generate(encoded, [prompt] * len(encoded), options, trie):
            total_L = torch.full((len(labels),), -math.inf)
            for hypothesis in hypotheses:
                total_L[trie.index(hypothesis.tokens)] = sum(hypothesis.log_probs)
            found.append(_ranked("generate", labels, total_L))
        return found

    def _by_match(self, encoded: Sequence[Encoded], labels: list[str], prompt: str) -> list[Classification]:
        texts = [best[0].text for best in self._write(encoded, [prompt] * len(encoded), MATCH)]
        text_BD, label_LD = (torch.nn.functional.normalize(self._matcher.embed(words)) for words in (texts, labels))
        cosine_BL = text_BD @ label_LD.T
        return [
            replace(_ranked("match", labels, MATCH_SHARPNESS * row), text=text)
            for text, row in zip(texts, cosine_BL, strict=True)
        ]

    @torch.inference_mode()
    def _name(self, windows: Sequence[NDArray[np.float32]]) -> list[tuple[str, float]]:
        """The events heard in each window, with their confidence; silent windows are not asked about."""
        named = [(SILENCE, 1.0)] * len(windows)
        loud = [place for place, window in enumerate(windows) if sound_level_db(window) >= SILENCE_DB]
        if loud:
            encoded: list[Encoded] = self.encode([Waveform(windows[place], self.sample_rate) for place in loud])
            texts = self._generate(encoded, [templates.PROMPTS["events"][0]] * len(loud), TIMELINE)
            for place, best in zip(loud, texts, strict=True):
                named[place] = (self._text(best[0]), _probability(best[0]))
        return named


def device_of(name: str) -> torch.device:
    """The device that ``--device`` names; see :meth:`Pengi.from_pretrained`.

    Raises:
        ConfigError: if it is not available here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device '{name}' is not available here; choose auto, cpu, cuda or mps") from error
    return device


def _count(given: Any) -> int:
    items = listed(given)
    return 1 if items is None else len(items)


def _check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error must be 'raise' or 'return', not {on_error!r}")


def _map(audio: Any, one: Callable[[AudioSource], R], on_error: OnError) -> Any:
    def guarded(source: AudioSource) -> R | PengiError:
        try:
            return one(source)
        except PengiError as error:
            if on_error == "raise":
                raise
            return error

    _check_on_error(on_error)
    sources = listed(audio)
    return guarded(audio) if sources is None else [guarded(source) for source in sources]


def _padded(rows: Sequence[Tensor]) -> Masked:
    lengths_B = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask_BT = torch.arange(int(lengths_B.max()), device=rows[0].device) < lengths_B[:, None]
    return pad_sequence(list(rows), batch_first=True), mask_BT


def _rows(masked: Masked) -> list[NDArray[np.float32]]:
    """The real tokens ``float32[T, D]`` of each row."""
    values_BTD, mask_BT = masked
    return [values_TD[mask_T].float().cpu().numpy() for values_TD, mask_T in zip(values_BTD, mask_BT, strict=True)]


def _for_each(what: str, given: str | Sequence[str], count: int) -> list[str]:
    """One string for each of ``count`` recordings; ``what`` is their plural."""
    texts = listed(given)
    if texts is None:
        return [checked_text(given, f"the {what.removesuffix('s')}")] * count
    if len(texts) != count:
        raise InputError(f"{len(texts)} {what} were given for {count} recordings; give one for all or one for each")
    return [checked_text(text, f"each of the {what}") for text in texts]


def _probability(hypothesis: Hypothesis) -> float:
    return math.exp(sum(hypothesis.log_probs))


def _events(texts: Sequence[_Written]) -> tuple[Event, ...]:
    """Events of all texts: an event is as probable as the texts that name it together.

    One that is written "french horn" and "French horn" is one event, in its likelier spelling.
    """
    spellings: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for written in texts:
        named: dict[str, str] = {}
        for label in templates.split_events(written.text):
            named.setdefault(label.casefold(), label)
        for name, label in named.items():
            spellings[name][label] += written.probability
    probability = {max(forms, key=lambda form: forms[form]): sum(forms.values()) for forms in spellings.values()}
    ranked = sorted(probability.items(), key=lambda item: -item[1])
    thresholds = [MIN_TOP_EVENT_CONFIDENCE, *[MIN_EVENT_CONFIDENCE] * len(ranked)]
    return tuple(
        Event(label, min(1.0, value))
        for (label, value), threshold in zip(ranked, thresholds, strict=False)
        if value >= threshold
    )


def _checked_labels(labels: Sequence[str], method: str, top: int | None) -> list[str]:
    if method not in METHODS:
        raise InputError(f"unknown method '{method}'; choose one of {', '.join(METHODS)}")
    if isinstance(labels, str):
        raise InputError("labels must be a list of strings, not one string")
    if not isinstance(labels, Iterable):
        raise InputError(f"labels must be a list of strings, not {type(labels).__name__}")
    names = list(dict.fromkeys(checked_text(label, "each label").strip() for label in labels))
    if not names or not all(names):
        raise InputError("give at least one label, and no empty ones")
    if top is not None and top < 1:
        raise InputError(f"top must be at least 1, not {top}")
    return names


def _silent_classification(method: str, labels: Sequence[str], top: int | None) -> Classification:
    """Probability 1 for the label that means silence; without such a label no label is detected."""
    right = next((label for label in labels if label.casefold().strip(" .") in SILENT_LABELS), None)
    ranked = sorted(labels, key=lambda label: label != right)
    scores = tuple(LabelScore(label, float(label == right)) for label in ranked[:top])
    return Classification(method, scores, detected=right is not None)


def _ranked(method: str, labels: Sequence[str], scores_L: Tensor) -> Classification:
    """Labels by score, the best first; equal ones stay in the order in which they were given."""
    share_L = scores_L.float().softmax(0)
    order = scores_L.argsort(descending=True, stable=True).tolist()
    return Classification(method, tuple(LabelScore(labels[index], float(share_L[index])) for index in order))


def _joined(last: Segment | None, new: Segment) -> tuple[Segment | None, Segment]:
    """The segment that ends where the next one begins, if the two differ, and the one that may still become longer.

    Where windows overlap the later one wins.
    """
    if last is None:
        return None, new
    last = replace(last, end_s=min(last.end_s, new.start_s))
    if last.text != new.text:
        return last, new
    spans = (last.end_s - last.start_s, new.end_s - new.start_s)
    confidence = (last.confidence * spans[0] + new.confidence * spans[1]) / max(sum(spans), 1e-9)
    return None, Segment(last.start_s, new.end_s, last.text, confidence)
