"""The engine: recordings and questions in, text out. Training, evaluation, commands and servers all call this.

A recording of any length is read window by window. Each window goes through the audio encoders; its audio tokens are
kept, and what is detected, said and measured in it. The evidence of all windows is put together. m1 reads the tokens of
a longer recording averaged in time to as many as the model was trained on.

Shape suffixes: B rows, S samples, T audio tokens, P prefix embeddings, D features.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pengi import checkpoint, templates
from pengi.audio.decode import AudioSource, stream
from pengi.audio.level import SILENCE_DB, sound_level_db
from pengi.audio.sources import Waveform, listed
from pengi.audio.windows import sliding
from pengi.conditioning.evidence import strength
from pengi.conditioning.transcript import Transcriber
from pengi.decoding import DecodeOptions
from pengi.encoders.base import Masked
from pengi.encoding import Encoded, OnError, RecordingEncoder, batched
from pengi.errors import ConfigError, InputError, PengiError, checked_text, no_such
from pengi.generation import TextGenerator, Written, padded, probability_of
from pengi.labelling import (
    METHODS,
    LabelChooser,
    check_method,
    check_top,
    checked_labels,
    silent_classification,
)
from pengi.model import PengiModel
from pengi.prompting import Prompting, shown
from pengi.results import (
    SILENCE,
    Answer,
    Classification,
    Description,
    Event,
    Explanation,
    Generation,
    Result,
    ScoredText,
    Segment,
    Tags,
    TagScore,
    Timeline,
    with_notes,
)
from pengi.timelines import detected_segments, in_order, named_segments

DEFAULT_MODEL = "pengi-mini"
DESCRIBE = DecodeOptions(beams=1, max_tokens=40)
ANSWER = DecodeOptions(beams=1, max_tokens=30)
GENERATE = DecodeOptions(beams=5, max_tokens=30)
TIMELINE = DecodeOptions(beams=1, max_tokens=24)
ROWS = 16  # prefixes in one call of the language model
SILENT_CAPTION, SILENT_ANSWER = "Silence.", "The recording is silent."
MIN_EVENT_CONFIDENCE = 0.1  # of every reported event but the most probable one
MIN_TOP_EVENT_CONFIDENCE = 0.005  # of the most probable event: below it the percentage would be 0 %
WINDOW_S, HOP_S = 5.0, 5.0
MIN_TAG_PROBABILITY = 0.1  # of a tag in a recording
MIN_FRAME_PROBABILITY = 0.5  # of a tag in a stretch of a timeline
MAX_EVENTS = 8

Style = Literal["caption", "paper"]
STYLES: dict[Style, tuple[str, ...]] = {"caption": ("caption", "events"), "paper": ("caption", "metadata", "events")}
"""The prompts of each style of description; the last asks for events."""
R = TypeVar("R", bound=Result)
E = TypeVar("E", Description, Answer, Generation, Classification)
T = TypeVar("T")


@dataclass(frozen=True)
class _Detecting:
    """A timeline of detected tags: index -> what it is called, and the lowest probability."""

    labels: dict[int, str]
    threshold: float


@dataclass(frozen=True)
class _Naming:
    """A timeline of windows that are named one by one."""

    window_s: float
    hop_s: float


class Pengi:
    """A loaded model that answers about recordings.

    Every method takes one recording (a path, bytes, a binary file object, ``(samples, rate)``, or what else
    :data:`pengi.audio.sources.AudioSource` lists) and gives one result, or a list of recordings and gives a list. With
    ``on_error="return"`` a recording that cannot be read gives its :class:`PengiError` in its place; by default the
    error is raised. For a silent recording (:data:`pengi.audio.level.SILENCE_DB`) every answer says that it is silent.
    ``track`` chooses one of several sound tracks, counted from 1. With ``partial`` a damaged recording is read up to
    the damage. A result's ``notes`` are sentences about how its recording was read.
    """

    def __init__(self, model: PengiModel, name: str, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.name = name
        self.device = device
        self._prompting = Prompting(self.model)
        self._generator = self._build_generator()
        self._labels = LabelChooser(self.model, self._prompting, self._generator)
        self._encoder = self._build_encoder()

    def _build_generator(self) -> TextGenerator:
        return TextGenerator(self.model, self._prompting)

    def _build_encoder(self) -> RecordingEncoder:
        return RecordingEncoder(self.model, self.device, lambda: self._transcriber)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path = DEFAULT_MODEL, *, device: str = "auto") -> Self:
        """Load a model by name or a checkpoint folder.

        Args:
            name_or_path: e.g. "pengi-mini", or the folder that a training run or an import wrote.
            device: "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".

        Raises:
            CheckpointError, ConfigError, WeightsError: if the model cannot be loaded; one sentence says why.
        """
        chosen = device_of(device)
        return cls(checkpoint.load(checkpoint.model_folder(name_or_path)), str(name_or_path), chosen)

    def describe(
        self,
        audio: Any,
        *,
        style: Style = "caption",
        options: DecodeOptions | None = None,
        explain: bool = False,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What is in a recording: a text and the sound events, as :class:`Description`. A model with a tagger takes the
        events from its tags.

        Args:
            audio: one recording or a list.
            style: of the text. "caption" is one caption; "paper" joins caption, metadata and events as the paper's
                authors do, and asks the model about silence, too.
            options: how to search.
            explain: whether the result says what it was given from (:class:`pengi.results.Explanation`).
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: for an unknown style.
        """
        if style not in STYLES:
            raise InputError(f"there is no style '{style}'; choose one of {', '.join(STYLES)}")
        prompts = [templates.PROMPTS[task][0] for task in STYLES[style]]
        if by_tags := style == "caption" and self.model.tagger is not None:
            prompts = prompts[:1]

        def answer(encoded: Sequence[Encoded]) -> list[Description]:
            rows = [recording for recording in encoded for _ in prompts]
            texts = self._generator.write(rows, prompts * len(encoded), options or DESCRIBE)
            found = []
            for row, recording in enumerate(encoded):
                answers = texts[row * len(prompts) : (row + 1) * len(prompts)]
                events = self._tagged_events(recording) if by_tags else _events(answers[-1])
                written = [beams[0].text for beams in answers]
                text = templates.joined_description(*written) if style == "paper" else written[0]
                found.append(Description(text, events, recording.duration_s))
            return self._explained(found, encoded, prompts[:1] * len(encoded)) if explain else found

        def silent(recording: Encoded) -> Description:
            return Description(SILENT_CAPTION, (Event(SILENCE, 1.0),), recording.duration_s, _unasked(explain))

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
        """The sound events alone, as a tuple of :class:`Event`: those of :meth:`describe`, at half its cost or, by the
        tags of a tagger, without the language model."""
        prompt = templates.PROMPTS["events"][0]
        by_tags = self.model.tagger is not None

        def answer(encoded: Sequence[Encoded]) -> list[tuple[Event, ...]]:
            if by_tags:
                return [self._tagged_events(recording) for recording in encoded]
            found = self._generator.write(encoded, [prompt] * len(encoded), options or DESCRIBE)
            return [_events(texts) for texts in found]

        def silent(_: Encoded) -> tuple[Event, ...]:
            return (Event(SILENCE, 1.0),)

        return self._each(audio, answer, on_error, track, partial, silent, for_text=not by_tags)

    def generate(
        self,
        audio: Any,
        prompts: str | Sequence[str],
        *,
        extra_text: str | Sequence[str] = "",
        options: DecodeOptions | None = None,
        explain: bool = False,
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
            explain: whether the result says what it was given from (:class:`pengi.results.Explanation`).
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: if there are not as many prompts or extra texts as recordings, or one is no valid text.
        """
        count = _count(audio)
        asked, extra = _for_each("prompts", prompts, count), self._extra_texts(extra_text, count)

        def answer(encoded: Sequence[Encoded]) -> list[Generation]:
            rows = [asked[recording.place] for recording in encoded]
            behind = [extra[recording.place] for recording in encoded]
            found = self._generator.generate(encoded, rows, options or GENERATE, extra=behind)
            written = [
                Generation(prompt, self._generator.scored(beams)) for prompt, beams in zip(rows, found, strict=True)
            ]
            return self._explained(written, encoded, rows, extra=behind) if explain else written

        def silent(recording: Encoded) -> Generation:
            return Generation(asked[recording.place], (ScoredText(SILENT_ANSWER, 0.0),), _unasked(explain))

        return self._each(audio, answer, on_error, track, partial, silent)

    def ask(
        self,
        audio: Any,
        question: str | Sequence[str],
        *,
        options: DecodeOptions | None = None,
        explain: bool = False,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Answer a question in free text, as :class:`Answer`.

        Args:
            audio: one recording or a list.
            question: one for all recordings, or one for each.
            options: how to search.
            explain: whether the result says what it was given from (:class:`pengi.results.Explanation`).
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
        prompts = [self.question_prompt(asked) for asked in questions]
        for prompt in dict.fromkeys(prompts):
            self._check_length(prompt, "question")

        def answer(encoded: Sequence[Encoded]) -> list[Answer]:
            rows = [prompts[item.place] for item in encoded]
            found = self._generator.generate(encoded, rows, options or ANSWER)
            answers = [
                Answer(questions[item.place], self._generator.text(best), probability_of(best))
                for item, (best, *_) in zip(encoded, found, strict=True)
            ]
            return self._explained(answers, encoded, rows) if explain else answers

        def silent(recording: Encoded) -> Answer:
            return Answer(questions[recording.place], SILENT_ANSWER, 1.0, _unasked(explain))

        return self._each(audio, answer, on_error, track, partial, silent)

    def classify(
        self,
        audio: Any,
        labels: Sequence[str],
        *,
        method: str = METHODS[0],
        prompt: str | None = None,
        top: int | None = None,
        explain: bool = False,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Choose among labels of one's own, as :class:`Classification`.

        Args:
            audio: one recording or a list.
            labels: any words; repeated ones count once.
            method: "likelihood" (mean log-probability of the label's tokens; of a model with a tagger fused with the
                probabilities of the tags that labels name), "generate" (the model may write
                nothing but labels), "match" (the model writes freely, the nearest label in the sentence encoder's space
                wins, as in the paper).
            prompt: what the labels answer; "this is a sound of" if not given.
            top: keep only so many labels.
            explain: whether the result says what it was given from (:class:`pengi.results.Explanation`).
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: no labels, one that is empty or no valid text, an unknown method, ``top`` below 1, a prompt too
                long to be read.
        """
        check_method(method)
        names = checked_labels(labels)
        check_top(top)
        prompt = checked_text(prompt or templates.PROMPTS["events"][0], "the prompt")
        self._check_length(prompt, "prompt")
        is_asked = method != "likelihood" or self._labels.needs_likelihood(names)
        named = shown(names) if method == "likelihood" else ()

        def answer(encoded: Sequence[Encoded]) -> list[Classification]:
            found = [
                replace(item, scores=item.scores[:top]) for item in self._labels.choose(method, encoded, names, prompt)
            ]
            asked = [prompt if is_asked else None] * len(encoded)
            return self._explained(found, encoded, asked, labels=named) if explain else found

        def silent(_: Encoded) -> Classification:
            return replace(silent_classification(method, names, top), explanation=_unasked(explain))

        return self._each(audio, answer, on_error, track, partial, silent, for_text=is_asked or explain)

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
        branch: str | None = None,
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
            branch: name of the audio branch in the configuration; the first one if not given.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: if there is no such branch.
        """
        names = list(self.model.branches)
        name = branch or names[0]
        if name not in names:
            raise InputError(no_such("audio branch", name, names))
        chosen, index = self.model.branches[name], names.index(name)

        def answer(encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
            tokens = padded([recording.tokens[index] for recording in encoded])
            return _rows(chosen.embeddings(chosen.limited(tokens)))

        return self._each(audio, answer, on_error, track, partial, for_text=False)

    def audio_prefix(
        self, audio: Any, *, on_error: OnError = "raise", track: int | None = None, partial: bool = False
    ) -> Any:
        """m1(a), what the language model reads of a recording: ``float32[P, D]``, for ``pengi-base`` ``[40, 768]``."""

        def answer(encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
            return _rows(self._generator.audio_prefix(encoded))

        return self._each(audio, answer, on_error, track, partial, for_text=False)

    @torch.inference_mode()
    def prompt_embeddings(self, prompts: str | Sequence[str]) -> Any:
        """What m2 reads of a prompt: ``float32[T, D]``; a list of prompts gives a list.

        With a text encoder T is 1 (``pengi-base``: the projected sentence embedding, ``[1, 1024]``); without one these
        are the language model's token embeddings (``pengi-base-no-text-enc``: ``[40, 768]``, padding included).
        """
        rows = _rows(self._generator.prompt_embeddings(_for_each("prompts", prompts, _count(prompts))))
        return rows if listed(prompts) is not None else rows[0]

    @torch.inference_mode()
    def prompt_prefix(self, prompts: str | Sequence[str]) -> Any:
        """m2(g), what the language model reads of a prompt: ``float32[P, D]``, for ``pengi-base`` ``[40, 768]``; a list
        of prompts gives a list."""
        rows = _rows(self._generator.prompt_prefix(_for_each("prompts", prompts, _count(prompts))))
        return rows if listed(prompts) is not None else rows[0]

    def tags(
        self,
        audio: Any,
        *,
        threshold: float | None = None,
        top: int | None = None,
        labels: Sequence[str] | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """Which tags are in a recording and when, as :class:`Tags`; the language model is not run.

        Args:
            audio: one recording or a list.
            threshold: lowest probability; 0.1 if not given, or 0 where labels are given.
            top: keep only so many of the likeliest.
            labels: only these tags, called so.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: if the model has no tagger, for a label that is none of its tags, and for a threshold or ``top``
                that makes no sense.
        """
        named = self._named_tags(labels)
        lowest = _checked_threshold(threshold, MIN_TAG_PROBABILITY if labels is None else 0.0)
        check_top(top)

        def answer(encoded: Sequence[Encoded]) -> list[Tags]:
            found = []
            for recording in encoded:
                scores = (self._tag_score(recording, index, label) for index, label in named.items())
                likely = sorted((tag for tag in scores if tag.probability >= lowest), key=lambda tag: -tag.probability)
                found.append(Tags(tuple(likely[:top]), recording.duration_s))
            return found

        def silent(recording: Encoded) -> Tags:
            if labels is None:
                whole = ((0.0, recording.duration_s),)
                return Tags((TagScore(SILENCE, "sound", 1.0, strength(1.0), whole),), recording.duration_s)
            return answer([recording])[0]

        return self._each(audio, answer, on_error, track, partial, silent, for_text=False)

    def timeline(
        self,
        audio: Any,
        *,
        threshold: float | None = None,
        labels: Sequence[str] | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        progress: Callable[[float], None] | None = None,
        on_error: OnError = "raise",
        track: int | None = None,
        partial: bool = False,
    ) -> Any:
        """What happens when, for audio of any length in bounded memory, as :class:`Timeline`.

        A model with a tagger gives the stretches in which tags are detected; they may overlap. With ``window_s`` or
        ``hop_s``, or without a tagger, the language model names one window after the other.

        Args:
            audio: one recording or a list.
            threshold: lowest probability of a tag in a stretch; 0.5 if not given.
            labels: only these tags, called so; all if not given.
            window_s: length of the windows that are named on their own, in seconds; 5 if not given.
            hop_s: time from the start of one to the start of the next, at most ``window_s``; 5 if not given.
            progress: called every few windows with the seconds read so far; what it raises ends the work.
            on_error: see the class.
            track: see the class.
            partial: see the class.

        Raises:
            InputError: for a window or hop that is not positive or leaves gaps; for a threshold or labels where windows
                are named, and for a label that is none of the model's tags.
        """
        options = self._timeline_options(threshold, labels, window_s, hop_s)

        def one(source: AudioSource) -> Timeline:
            notes: list[str] = []
            read_s = [0.0]

            def reached(seconds: float) -> None:
                read_s[0] = seconds
                if progress is not None:
                    progress(seconds)

            segments = in_order(self._segments(source, options, reached, track, partial, notes))
            return Timeline(tuple(segments), read_s[0], notes=tuple(notes))

        return _map(audio, one, on_error)

    def segments(
        self,
        audio: AudioSource,
        *,
        threshold: float | None = None,
        labels: Sequence[str] | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        progress: Callable[[float], None] | None = None,
        track: int | None = None,
        partial: bool = False,
        notes: list[str] | None = None,
    ) -> Iterator[Segment]:
        """The segments of :meth:`timeline` of one recording, each as soon as it has ended.

        Args:
            audio: one recording.
            threshold: see :meth:`timeline`.
            labels: see :meth:`timeline`.
            window_s: see :meth:`timeline`.
            hop_s: see :meth:`timeline`.
            progress: see :meth:`timeline`; the last call is with the length of the recording.
            track: see the class.
            partial: see the class.
            notes: gets the sentences about the reading added.

        Raises:
            InputError: as :meth:`timeline`.
            AudioError: if the recording cannot be read, while iterating: the segments before the damage come first.
        """
        options = self._timeline_options(threshold, labels, window_s, hop_s)
        return self._segments(audio, options, progress or (lambda _: None), track, partial, notes)

    def _timeline_options(
        self, threshold: float | None, labels: Sequence[str] | None, window_s: float | None, hop_s: float | None
    ) -> _Detecting | _Naming:
        if self.model.tagger is not None and window_s is None and hop_s is None:
            return _Detecting(self._named_tags(labels), _checked_threshold(threshold, MIN_FRAME_PROBABILITY))
        if threshold is not None or labels is not None:
            why = "goes without windows" if self.model.tagger is not None else f"'{self.name}' does not have"
            raise InputError(f"a threshold or labels need the tagger, which {why}")
        naming = _Naming(WINDOW_S if window_s is None else window_s, HOP_S if hop_s is None else hop_s)
        self._check_windows(naming.window_s, naming.hop_s)
        return naming

    def _segments(
        self,
        audio: AudioSource,
        options: _Detecting | _Naming,
        progress: Callable[[float], None],
        track: int | None,
        partial: bool,
        notes: list[str] | None,
    ) -> Iterator[Segment]:
        if isinstance(options, _Detecting):
            assert self.model.tagger is not None
            windows = self._encoder.windows(audio, track=track, partial=partial, notes=notes)
            labels, threshold = options.labels, options.threshold
            return detected_segments(windows, self._encoder, self.model.tagger, labels, threshold, progress)
        rate = self.sample_rate
        blocks = stream(audio, rate, track=track, partial=partial, notes=notes)
        cut = sliding(blocks, round(options.window_s * rate), round(options.hop_s * rate))
        return named_segments(cut, self._name, rate, progress)

    def _named_tags(self, labels: Sequence[str] | None) -> dict[int, str]:
        """Index of each tag that is asked for -> what it is called.

        Raises:
            InputError: if the model has no tagger, or for a label that is none of its tags.
        """
        if self.model.tagger is None:
            raise InputError(f"'{self.name}' has no tagger; describe, ask and classify go without one")
        vocabulary = self.model.tagger.vocabulary
        if labels is None:
            return {index: tag.text for index, tag in enumerate(vocabulary.tags)}
        names = checked_labels(labels)
        found: dict[int, str] = {}
        for name, index in zip(names, vocabulary.label_indices(names), strict=True):
            if index is None:
                near = vocabulary.nearest(name)
                hint = f"the nearest are {', '.join(map(repr, near))}; " if near else ""
                raise InputError(f"there is no tag '{name}'; {hint}classify takes any label")
            found.setdefault(index, name)
        return found

    def _tag_score(self, recording: Encoded, index: int, label: str | None = None) -> TagScore:
        """What is known of a tag in a recording."""
        assert self.model.tagger is not None
        assert recording.probability_K is not None
        assert recording.evidence is not None
        tag = self.model.tagger.vocabulary.tags[index]
        probability = float(recording.probability_K[index])
        spans = next((found.spans for found in recording.evidence.tags if found.text == tag.text), ())
        return TagScore(label or tag.text, tag.group, probability, strength(probability), spans)

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

    @property
    def has_tagger(self) -> bool:
        """Whether it detects tags, so that :meth:`tags` works and a timeline needs no windows."""
        return self.model.tagger is not None

    @property
    def sample_rate(self) -> int:
        """In Hz, what every recording is resampled to."""
        return self._encoder.sample_rate

    def question_prompt(self, question: str) -> str:
        """The prompt by which :meth:`ask` asks a question."""
        return self._prompting.question(question)

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
            elif silent is not None and self._is_silent(item):
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

    def _is_silent(self, recording: Encoded) -> bool:
        """Whether a recording is answered about without the model."""
        return recording.is_silent

    def _extra_texts(self, given: str | Sequence[str], count: int) -> list[str]:
        """What the language model reads behind the prompt of each of ``count`` recordings."""
        return _for_each("extra texts", given, count)

    def _embedding(self, recording: Encoded) -> NDArray[np.float32]:
        parts = [torch.nn.functional.normalize(tokens_TD.mean(0), dim=0) for tokens_TD in recording.tokens]
        vector_D: NDArray[np.float32] = (torch.cat(parts) / math.sqrt(len(parts))).cpu().numpy()
        return vector_D

    def _check_length(self, prompt: str, what: str) -> None:
        """Refuse what would be cut: an answer to half a question is worse than none."""
        most = self.model.config.text.max_tokens
        if self.model.text_encoder is None and len(self.model.language_model.encode(prompt)) > most:
            raise InputError(f"the {what} is too long; about {most // 2} words can be read")

    def _explained(
        self,
        results: Sequence[E],
        encoded: Sequence[Encoded],
        prompts: Sequence[str | None],
        *,
        extra: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> list[E]:
        """Results with what they were given from; see :meth:`pengi.prompting.Prompting.explanation`."""
        behind = extra or [""] * len(encoded)
        return [
            replace(result, explanation=self._prompting.explanation(recording, prompt, extra=more, labels=labels))
            for result, recording, prompt, more in zip(results, encoded, prompts, behind, strict=True)
        ]

    def _tagged_events(self, recording: Encoded) -> tuple[Event, ...]:
        """The likeliest tags as events."""
        assert recording.evidence is not None
        likely = [tag for tag in recording.evidence.tags if tag.probability >= MIN_EVENT_CONFIDENCE]
        return tuple(Event(tag.text, tag.probability) for tag in likely[:MAX_EVENTS])

    @torch.inference_mode()
    def _name(self, windows: Sequence[NDArray[np.float32]]) -> list[tuple[str, float]]:
        """The events in each window, with their confidence; the model is not asked about silent windows."""
        named = [(SILENCE, 1.0)] * len(windows)
        loud = [place for place, window in enumerate(windows) if sound_level_db(window) >= SILENCE_DB]
        if loud:
            encoded: list[Encoded] = self.encode([Waveform(windows[place], self.sample_rate) for place in loud])
            texts = self._generator.generate(encoded, [templates.PROMPTS["events"][0]] * len(loud), TIMELINE)
            for place, best in zip(loud, texts, strict=True):
                named[place] = (self._generator.text(best[0]), probability_of(best[0]))
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


def _events(texts: Sequence[Written]) -> tuple[Event, ...]:
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


def _unasked(explain: bool) -> Explanation | None:
    """The explanation of an answer about silence."""
    return Explanation() if explain else None


def _checked_threshold(threshold: float | None, default: float) -> float:
    if threshold is None:
        return default
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must be a probability from 0 to 1, not {threshold:g}")
    return threshold
