# A string is also a sequence of strings, so mypy finds that overloads for a path and for a list of paths overlap.
# mypy: disable-error-code="overload-overlap"
"""The engine: recordings and questions in, text out. Training, evaluation, commands and servers all call this.

A recording of any length is read and encoded window by window. The audio tokens, tags, transcripts and measurements of
all windows are combined. For m1, the tokens of a long recording are averaged in time to the number that the model was
trained on.

Shape suffixes: S samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar, Unpack, overload

import torch

from pengi import checkpoint
from pengi.audio.sources import recordings_of
from pengi.batching import batched
from pengi.caching import RecentCache
from pengi.calls import (
    Ask,
    AskOptions,
    Call,
    Classify,
    ClassifyOptions,
    Describe,
    DescribeOptions,
    DetectTags,
    Embed,
    EmbedOptions,
    EncodeOptions,
    Events,
    EventsOptions,
    Generate,
    GenerateOptions,
    Parts,
    TagsOptions,
    Vector,
)
from pengi.decoding import run
from pengi.encoding import Encoded, OnError, Recording, RecordingEncoder, Recordings
from pengi.errors import CheckpointError, ConfigError, InputError, PengiError
from pengi.generation import TextGenerator
from pengi.labelling import LabelChooser, tags_and_others
from pengi.model import PengiModel
from pengi.prompting import Prompting
from pengi.results import Answer, Classification, Description, Event, Generation, Tags, with_notes
from pengi.runtime import Runtime, chosen_runtime
from pengi.similarity import SimilarityMixin
from pengi.streaming import Outcome, StreamingMixin, check_on_error

DEFAULT_MODEL = "pengi-mini"
ROWS = 16  # prefixes in one call of the language model

Audio: TypeAlias = Recording | Recordings
Texts: TypeAlias = str | Sequence[str]
R = TypeVar("R")


class Pengi(SimilarityMixin, StreamingMixin):
    """A loaded model that answers about recordings.

    Every method takes one recording (a path, bytes, a binary file object, ``(samples, rate)``, or another
    :data:`pengi.audio.sources.AudioSource`) and gives one result, or a list of recordings and gives a list. With
    ``on_error="return"`` a recording that cannot be read gives its :class:`PengiError` in its place; by default the
    error is raised. Descriptions, answers and tags of a silent recording (:data:`pengi.audio.level.SILENCE_DB`) say so.
    ``track`` chooses one of several sound tracks, counted from 1. With ``partial`` a damaged recording is read up to
    the damage. With ``explain`` a result says what it is based on (:class:`pengi.results.Explanation`). A result's
    ``notes`` are sentences about how its recording was read. The other options of a method are those of its class in
    :mod:`pengi.calls`, which also says what is refused with an :class:`InputError`.
    """

    def __init__(self, model: PengiModel, name: str, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.name = name
        self.device = device
        self.folder: Path | None = None
        """Folder of the checkpoint, if the model was loaded from one."""
        self._generator = self._build_generator()
        self._parts = Parts(name, self._generator, LabelChooser(self._generator))
        self._encoder = self._build_encoder()

    def _build_generator(self) -> TextGenerator:
        return TextGenerator(self.model, Prompting(self.model))

    def _build_encoder(self) -> RecordingEncoder:
        return RecordingEncoder(self.model, self.device, lambda: self._transcriber)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        runtime: Runtime | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a model by name, from a checkpoint folder or from the Hugging Face hub.

        Args:
            name_or_path: e.g. "pengi-mini", the folder that a training run or an import wrote, or a repository of the
                hub, "user/model" or "user/model@revision".
            device: "auto" (CUDA, then Apple's MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".
            runtime: what runs the language model: "torch", "onnx" (onnxruntime, on the CPU) or "auto" (onnxruntime
                where it can run it, else torch). If not given, the environment variable ``PENGI_RUNTIME`` decides,
                else :data:`pengi.runtime.DEFAULT_RUNTIME`.
            revision: of the hub's repository: a branch, a tag or a commit.
            local_files_only: use only what was fetched from the hub before, without a network.

        Raises:
            CheckpointError, ConfigError, WeightsError: if the model cannot be loaded; one sentence says why.
        """
        chosen = device_of(device)
        folder = checkpoint.model_folder(name_or_path, revision=revision, local_files_only=local_files_only)
        engine = cls(checkpoint.load(folder, runtime=chosen_runtime(runtime, chosen)), str(name_or_path), chosen)
        engine.folder = folder
        return engine

    def push_to_hub(
        self, repo: str, *, private: bool = False, revision: str | None = None, message: str | None = None
    ) -> str:
        """Upload the model's checkpoint to the Hugging Face hub, and return the address of the commit.

        Args:
            repo: "user/model", which is created if it does not exist.
            private: whether a new repository is private.
            revision: branch to commit to; the main one if not given.
            message: of the commit.

        Raises:
            CheckpointError: if the model was not loaded from a checkpoint, or needs folders of this machine.
            WeightsError: if the hub refuses, or cannot be reached.
        """
        if self.folder is None:
            raise CheckpointError("the model was not loaded from a checkpoint; save it and load it from there")
        return checkpoint.push(self.folder, repo, private=private, revision=revision, message=message)

    @overload
    def describe(self, audio: Recording, **options: Unpack[DescribeOptions]) -> Description: ...
    @overload
    def describe(self, audio: Recordings, **options: Unpack[DescribeOptions]) -> list[Description]: ...
    @overload
    def describe(
        self, audio: Recording, *, on_error: OnError, **options: Unpack[DescribeOptions]
    ) -> Description | PengiError: ...
    @overload
    def describe(
        self, audio: Recordings, *, on_error: OnError, **options: Unpack[DescribeOptions]
    ) -> list[Description | PengiError]: ...
    def describe(
        self, audio: Audio, *, on_error: OnError = "raise", **options: Unpack[DescribeOptions]
    ) -> Outcome[Description]:
        """What is in a recording: a text and the sound events; options: :class:`pengi.calls.Describe`."""
        return self._answer(Describe(self._parts, **options), audio, on_error)

    @overload
    def events(self, audio: Recording, **options: Unpack[EventsOptions]) -> tuple[Event, ...]: ...
    @overload
    def events(self, audio: Recordings, **options: Unpack[EventsOptions]) -> list[tuple[Event, ...]]: ...
    @overload
    def events(
        self, audio: Recording, *, on_error: OnError, **options: Unpack[EventsOptions]
    ) -> tuple[Event, ...] | PengiError: ...
    @overload
    def events(
        self, audio: Recordings, *, on_error: OnError, **options: Unpack[EventsOptions]
    ) -> list[tuple[Event, ...] | PengiError]: ...
    def events(
        self, audio: Audio, *, on_error: OnError = "raise", **options: Unpack[EventsOptions]
    ) -> Outcome[tuple[Event, ...]]:
        """Only the sound events of :meth:`describe`; the language model is run only if there is no tagger. Options:
        :class:`pengi.calls.Events`."""
        return self._answer(Events(self._parts, **options), audio, on_error)

    @overload
    def generate(self, audio: Recording, prompts: Texts, **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def generate(self, audio: Recordings, prompts: Texts, **options: Unpack[GenerateOptions]) -> list[Generation]: ...
    @overload
    def generate(
        self, audio: Recording, prompts: Texts, *, on_error: OnError, **options: Unpack[GenerateOptions]
    ) -> Generation | PengiError: ...
    @overload
    def generate(
        self, audio: Recordings, prompts: Texts, *, on_error: OnError, **options: Unpack[GenerateOptions]
    ) -> list[Generation | PengiError]: ...
    def generate(
        self, audio: Audio, prompts: Texts, *, on_error: OnError = "raise", **options: Unpack[GenerateOptions]
    ) -> Outcome[Generation]:
        """Let the model continue any prompt: the paper's one call for every task.

        Args:
            audio: one recording or a list.
            prompts: one for all recordings, or one for each, e.g. "generate metadata".
            on_error: see the class.
            options: see :class:`pengi.calls.Generate`.
        """
        return self._answer(Generate(self._parts, _count(audio), prompts, **options), audio, on_error)

    @overload
    def ask(self, audio: Recording, question: Texts, **options: Unpack[AskOptions]) -> Answer: ...
    @overload
    def ask(self, audio: Recordings, question: Texts, **options: Unpack[AskOptions]) -> list[Answer]: ...
    @overload
    def ask(
        self, audio: Recording, question: Texts, *, on_error: OnError, **options: Unpack[AskOptions]
    ) -> Answer | PengiError: ...
    @overload
    def ask(
        self, audio: Recordings, question: Texts, *, on_error: OnError, **options: Unpack[AskOptions]
    ) -> list[Answer | PengiError]: ...
    def ask(
        self, audio: Audio, question: Texts, *, on_error: OnError = "raise", **options: Unpack[AskOptions]
    ) -> Outcome[Answer]:
        """Answer a question in free text.

        Args:
            audio: one recording or a list.
            question: one for all recordings, or one for each.
            on_error: see the class.
            options: see :class:`pengi.calls.Ask`.
        """
        return self._answer(Ask(self._parts, _count(audio), question, **options), audio, on_error)

    @overload
    def classify(
        self, audio: Recording, labels: Sequence[str], **options: Unpack[ClassifyOptions]
    ) -> Classification: ...
    @overload
    def classify(
        self, audio: Recordings, labels: Sequence[str], **options: Unpack[ClassifyOptions]
    ) -> list[Classification]: ...
    @overload
    def classify(
        self, audio: Recording, labels: Sequence[str], *, on_error: OnError, **options: Unpack[ClassifyOptions]
    ) -> Classification | PengiError: ...
    @overload
    def classify(
        self, audio: Recordings, labels: Sequence[str], *, on_error: OnError, **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PengiError]: ...
    def classify(
        self, audio: Audio, labels: Sequence[str], *, on_error: OnError = "raise", **options: Unpack[ClassifyOptions]
    ) -> Outcome[Classification]:
        """Choose among custom labels.

        Args:
            audio: one recording or a list.
            labels: any words; repeated ones count once.
            on_error: see the class.
            options: see :class:`pengi.calls.Classify`.
        """
        return self._answer(Classify(self._parts, labels, **options), audio, on_error)

    @overload
    def tags(self, audio: Recording, **options: Unpack[TagsOptions]) -> Tags: ...
    @overload
    def tags(self, audio: Recordings, **options: Unpack[TagsOptions]) -> list[Tags]: ...
    @overload
    def tags(self, audio: Recording, *, on_error: OnError, **options: Unpack[TagsOptions]) -> Tags | PengiError: ...
    @overload
    def tags(
        self, audio: Recordings, *, on_error: OnError, **options: Unpack[TagsOptions]
    ) -> list[Tags | PengiError]: ...
    def tags(self, audio: Audio, *, on_error: OnError = "raise", **options: Unpack[TagsOptions]) -> Outcome[Tags]:
        """Which tags are in a recording and when, without the language model; options:
        :class:`pengi.calls.DetectTags`."""
        return self._answer(DetectTags(self._parts, **options), audio, on_error)

    @overload
    def embed(self, audio: Recording, **options: Unpack[EmbedOptions]) -> Vector: ...
    @overload
    def embed(self, audio: Recordings, **options: Unpack[EmbedOptions]) -> list[Vector]: ...
    @overload
    def embed(self, audio: Recording, *, on_error: OnError, **options: Unpack[EmbedOptions]) -> Vector | PengiError: ...
    @overload
    def embed(
        self, audio: Recordings, *, on_error: OnError, **options: Unpack[EmbedOptions]
    ) -> list[Vector | PengiError]: ...
    def embed(self, audio: Audio, *, on_error: OnError = "raise", **options: Unpack[EmbedOptions]) -> Outcome[Vector]:
        """One vector for a recording, ``float32[D]`` of length 1, to compare with those of other recordings or, in the
        space "tags", with texts; options: :class:`pengi.calls.Embed`."""
        return self._answer(Embed(self._parts, **options), audio, on_error)

    @overload
    def encode(self, audio: Recording, **options: Unpack[EncodeOptions]) -> Encoded: ...
    @overload
    def encode(self, audio: Recordings, **options: Unpack[EncodeOptions]) -> list[Encoded]: ...
    @overload
    def encode(
        self, audio: Recording, *, on_error: OnError, **options: Unpack[EncodeOptions]
    ) -> Encoded | PengiError: ...
    @overload
    def encode(
        self, audio: Recordings, *, on_error: OnError, **options: Unpack[EncodeOptions]
    ) -> list[Encoded | PengiError]: ...
    def encode(
        self, audio: Audio, *, on_error: OnError = "raise", **options: Unpack[EncodeOptions]
    ) -> Outcome[Encoded]:
        """Encode a recording. Every method but ``timeline`` and ``transcribe`` takes the result in place of the
        recording, so that a recording is decoded and encoded only once for several questions.
        """
        check_on_error(on_error)
        sources, are_many = recordings_of(audio)
        found = self._encoder.encode(sources, on_error, **options)
        return found if are_many else found[0]

    def keep_recent(self, max_bytes: int) -> None:
        """Cache what is computed about recordings that are given as :class:`pengi.audio.sources.Waveform`. Further
        questions about one neither encode it again nor make the language model read its evidence again.

        Args:
            max_bytes: size of the cache; the least recently used recordings are dropped first. 0 turns it off.
        """
        share = max_bytes // 4  # a state of the language model is larger than audio tokens
        self._encoder.recent = RecentCache(share) if max_bytes else None
        self._generator.recent = RecentCache(max_bytes - share) if max_bytes else None

    @property
    def has_tagger(self) -> bool:
        """Whether it detects tags, so that :meth:`tags` works and a timeline needs no windows."""
        return self.model.tagger is not None

    def question_prompt(self, question: str) -> str:
        """The prompt that :meth:`ask` makes of a question."""
        return self._generator.prompting.question(question)

    def count_tokens(self, text: str) -> int:
        """Number of language-model tokens of a text."""
        return len(self.model.language_model.encode(text))

    def labels_without_tag(self, labels: Sequence[str]) -> list[str]:
        """The labels that name no tag, which only the language model can score.

        Raises:
            InputError: if there are none, or one is empty or not a text.
        """
        return tags_and_others(self.model.tagger, labels)[1]

    async def answering(self, method: str, audio: Recordings, /, **options: object) -> list[object]:
        """Run a method as a coroutine with ``on_error="return"``, so that a caller can run several at a time.

        The coroutine awaits only :class:`pengi.decoding.SearchGroup` objects. Its runner receives them, and can advance
        those of several coroutines together in a :class:`pengi.decoding.ContinuousBatch`. A timeline or a transcript is
        made without awaiting anything.

        Args:
            method: name of a method for recordings, such as "ask".
            audio: a list of recordings.
            options: the other arguments of the method.
        """
        count = _count(audio)
        calls: dict[str, Callable[..., Call[Any]]] = {
            "describe": Describe,
            "ask": partial(Ask, count=count),
            "classify": Classify,
            "tags": DetectTags,
            "embed": Embed,
        }
        if method not in calls:
            return list(getattr(self, method)(audio, **options, on_error="return"))
        return await self._answers(calls[method](self._parts, **options), recordings_of(audio)[0], "return")

    def _answer(self, call: Call[R], audio: Audio, on_error: OnError) -> Outcome[R]:
        check_on_error(on_error)
        sources, are_many = recordings_of(audio)
        results = run(self._answers(call, sources, on_error))
        return results if are_many else results[0]

    async def _answers(
        self, call: Call[R], sources: Sequence[Recording], on_error: OnError
    ) -> list[R] | list[R | PengiError]:
        """Encode all recordings, and answer those that could be read, in batches; the others have errors as results."""
        if call.on_text is not None and len(sources) != 1:
            raise InputError(f"on_text works with one recording, not with {len(sources)}")
        encoded = self._encoder.encode(sources, on_error, for_text=call.for_text, **call.reading)
        results: dict[int, R | PengiError] = {}
        asked: list[Encoded] = []
        for index, item in enumerate(encoded):
            if isinstance(item, PengiError):
                results[index] = item
            elif self._is_silent(item) and (silent := call.silent(item)) is not None:
                results[index] = with_notes(silent, item.notes)
            else:
                asked.append(item)
        for batch in batched(asked, ROWS):
            answers = await call.answer(batch)
            results |= {item.index: with_notes(answer, item.notes) for item, answer in zip(batch, answers, strict=True)}
        return [results[index] for index in range(len(sources))]

    def _is_silent(self, recording: Encoded) -> bool:
        """Whether questions about a recording are answered without the model."""
        return recording.is_silent


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


def _count(audio: Audio) -> int:
    return len(recordings_of(audio)[0])
