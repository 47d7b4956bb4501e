# A string is also a sequence of strings, so mypy finds that overloads for a path and for a list of paths overlap.
# mypy: disable-error-code="overload-overlap"
"""The methods of the engine that need no more memory for a longer recording: for hours of audio, and for streams.

Shape suffixes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TypeAlias, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.sources import AudioSource, Many, ReadingOptions, recordings_of
from pengi.calls import Parts
from pengi.conditioning.transcript import Transcriber
from pengi.encoding import OnError, RecordingEncoder
from pengi.errors import InputError, PengiError
from pengi.model import PengiModel
from pengi.results import Segment, Timeline, Transcript
from pengi.timelines import TimelineOptions, timeline_reader
from pengi.watching import Moment, Watcher, WatchOptions

R = TypeVar("R")
S = TypeVar("S")
Outcome: TypeAlias = R | PengiError | list[R] | list[R | PengiError]
"""The result of a method; its overloads say which of these it is for which arguments."""


class StreamingMixin:
    """Methods of :class:`pengi.engine.Pengi` that read a recording window by window and keep none of it."""

    model: PengiModel
    name: str
    device: torch.device
    _parts: Parts
    _encoder: RecordingEncoder

    @property
    def sample_rate(self) -> int:
        """Rate in Hz that every recording is resampled to."""
        return self._encoder.sample_rate

    def windows(
        self, source: AudioSource, *, notes: list[str] | None = None, **reading: Unpack[ReadingOptions]
    ) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """A recording of any length cut as the model encodes it, in bounded memory: start in seconds, and
        ``float32[S]`` at :attr:`sample_rate`. Sentences about the reading are added to ``notes``.

        Raises:
            AudioError, InputError: as :func:`pengi.audio.decode.stream`, while iterating.
        """
        return self._encoder.windows(source, notes=notes, **reading)

    @overload
    def timeline(self, audio: AudioSource, **options: Unpack[TimelineOptions]) -> Timeline: ...
    @overload
    def timeline(self, audio: Many[AudioSource], **options: Unpack[TimelineOptions]) -> list[Timeline]: ...
    @overload
    def timeline(
        self, audio: AudioSource, *, on_error: OnError, **options: Unpack[TimelineOptions]
    ) -> Timeline | PengiError: ...
    @overload
    def timeline(
        self, audio: Many[AudioSource], *, on_error: OnError, **options: Unpack[TimelineOptions]
    ) -> list[Timeline | PengiError]: ...
    def timeline(
        self, audio: AudioSource | Many[AudioSource], *, on_error: OnError = "raise", **options: Unpack[TimelineOptions]
    ) -> Outcome[Timeline]:
        """What happens when, for audio of any length in bounded memory.

        A model with a tagger gives the stretches in which tags, or custom labels, are detected; they may overlap.
        With ``window_s`` or ``hop_s``, or without a tagger and labels, the language model describes one window after
        the other.

        Args:
            audio: one recording or a list.
            on_error: see :class:`pengi.engine.Pengi`.
            options: see :class:`pengi.timelines.TimelineOptions`.

        Raises:
            InputError: as :func:`pengi.timelines.timeline_reader`.
        """
        reader = timeline_reader(self.name, self._encoder, self._parts.chooser, **options)
        return _one_by_one(audio, reader.read, on_error)

    def timeline_remarks(self, **options: Unpack[TimelineOptions]) -> tuple[str, ...]:
        """Sentences about how the labels of a timeline are detected, as in the notes of :meth:`timeline`.

        Raises:
            InputError: as :meth:`timeline`.
        """
        return timeline_reader(self.name, self._encoder, self._parts.chooser, **options).remarks

    def segments(
        self, audio: AudioSource, *, notes: list[str] | None = None, **options: Unpack[TimelineOptions]
    ) -> Iterator[Segment]:
        """The segments of :meth:`timeline` of one recording. A segment is yielded once it and all that began before it
        have ended.

        Args:
            audio: one recording.
            notes: sentences about the reading are added to it.
            options: as for :meth:`timeline`; the last call of ``progress`` gets the length of the recording.

        Raises:
            InputError: as :meth:`timeline`.
            AudioError: if the recording cannot be read, while iterating: the segments before the damage come first.
        """
        return timeline_reader(self.name, self._encoder, self._parts.chooser, **options).segments(audio, notes)

    @overload
    def transcribe(self, audio: AudioSource, **options: Unpack[ReadingOptions]) -> Transcript: ...
    @overload
    def transcribe(self, audio: Many[AudioSource], **options: Unpack[ReadingOptions]) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, audio: AudioSource, *, on_error: OnError, **options: Unpack[ReadingOptions]
    ) -> Transcript | PengiError: ...
    @overload
    def transcribe(
        self, audio: Many[AudioSource], *, on_error: OnError, **options: Unpack[ReadingOptions]
    ) -> list[Transcript | PengiError]: ...
    def transcribe(
        self, audio: AudioSource | Many[AudioSource], *, on_error: OnError = "raise", **options: Unpack[ReadingOptions]
    ) -> Outcome[Transcript]:
        """Transcribe English speech, for audio of any length in bounded memory; empty if nobody speaks."""
        return _one_by_one(audio, lambda source: self._transcriber.transcribe(source, **options), on_error)

    @cached_property
    def _transcriber(self) -> Transcriber:
        branches = self.model.branches.values()
        stock = {branch.config.encoder: branch.encoder for branch in branches if not branch.config.trained}
        return Transcriber.from_pretrained(self.device, stock)

    def watch(self, blocks: Iterable[NDArray[np.float32]], options: WatchOptions | None = None) -> Iterator[Moment]:
        """What is detected in a stream without end, window by window, as it happens.

        Args:
            blocks: the stream as it comes, ``float32[S]`` at :attr:`sample_rate`.
            options: what counts as detected.

        Raises:
            InputError: for a model without a tagger, or a label that is not one of its tags.
        """
        tagger = self.model.tagger
        if tagger is None:
            raise InputError(f"'{self.name}' has no tagger, which detects what happens in a stream")
        return Watcher(self._encoder, tagger, options or WatchOptions()).watch(blocks)


def check_on_error(on_error: str) -> None:
    """Check the option ``on_error``.

    Raises:
        InputError: if it is neither "raise" nor "return".
    """
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error must be 'raise' or 'return', not {on_error!r}")


def _one_by_one(
    audio: AudioSource | Many[AudioSource], read: Callable[[AudioSource], R], on_error: OnError
) -> Outcome[R]:
    """What ``read`` gives for each recording, or its error."""
    check_on_error(on_error)
    sources, are_many = recordings_of(audio)
    results = [attempt(read, source, on_error) for source in sources]
    return results if are_many else results[0]


def attempt(read: Callable[[S], R], source: S, on_error: OnError = "return") -> R | PengiError:
    """What ``read`` gives for a recording; its error is returned, or raised if ``on_error`` says so."""
    try:
        return read(source)
    except PengiError as error:
        if on_error == "raise":
            raise
        return error
