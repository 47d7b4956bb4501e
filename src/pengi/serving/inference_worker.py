"""Many requests in few calls of the engine: decoders, a queue, and one thread that runs the model on batches.

A request is decoded by a pool of threads, waits in the queue, and is answered by the model thread. That thread takes
the oldest request and all others that can share its call. A request whose caller has gone is dropped at each of these
steps. A timeline of a long recording lets other requests in between its windows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import stream
from pengi.audio.sources import AudioSource, ReadingOptions, Waveform
from pengi.calls import AskOptions, ClassifyOptions, DescribeOptions, TagsOptions
from pengi.encoding import OnError
from pengi.errors import PengiError
from pengi.results import Answer, Classification, Description, Tags, Timeline, Transcript, with_notes
from pengi.serving import queries
from pengi.serving.metrics import Metrics
from pengi.serving.queries import EngineMethod, Query
from pengi.serving.settings import ServingSettings
from pengi.timelines import TimelineOptions

log = logging.getLogger(__name__)

DECODERS = 2
BATCH_SECONDS = 160.0
"""Maximum of audio in one call of the engine, in seconds, unless a single recording is longer."""
FIRST_GUESS_S = 0.5
"""Seconds of the model for a request, before any has been timed."""

R = TypeVar("R")
Vector = NDArray[np.float32]


class Engine(Protocol):
    """What a server needs of :class:`pengi.engine.Pengi`."""

    name: str

    @property
    def sample_rate(self) -> int: ...

    @property
    def has_tagger(self) -> bool: ...

    def count_tokens(self, text: str) -> int: ...

    def describe(
        self, audio: Sequence[Waveform], *, on_error: OnError, **options: Unpack[DescribeOptions]
    ) -> list[Description | PengiError]: ...

    def ask(
        self,
        audio: Sequence[Waveform],
        question: Sequence[str],
        *,
        on_error: OnError,
        **options: Unpack[AskOptions],
    ) -> list[Answer | PengiError]: ...

    def classify(
        self, audio: Sequence[Waveform], labels: Sequence[str], *, on_error: OnError, **options: Unpack[ClassifyOptions]
    ) -> list[Classification | PengiError]: ...

    def tags(
        self, audio: Sequence[Waveform], *, on_error: OnError, **options: Unpack[TagsOptions]
    ) -> list[Tags | PengiError]: ...

    def embed(
        self, audio: Sequence[Waveform], *, on_error: OnError, **options: Unpack[ReadingOptions]
    ) -> list[Vector | PengiError]: ...

    def timeline(
        self, audio: Sequence[Waveform], *, on_error: OnError, **options: Unpack[TimelineOptions]
    ) -> list[Timeline | PengiError]: ...

    def transcribe(self, audio: Sequence[Waveform], *, on_error: OnError) -> list[Transcript | PengiError]: ...


class BusyError(PengiError):
    """There is no room for another request; it may be sent again after ``retry_after_s``."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the server is busy; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class ClosingError(PengiError):
    """The server is shutting down."""


class LateError(PengiError):
    """The model had begun, but did not answer within the time limit."""


class _GoneError(Exception):
    """The caller of this request is gone."""


@dataclass(eq=False)
class QueuedRequest(Generic[R]):
    """A query about one recording; a caller that needs no answer any more cancels the future."""

    query: Query[R]
    source: AudioSource | None
    future: Future[R] = field(default_factory=Future)
    waveform: Waveform | None = None
    seconds: float = 0.0
    queued_at: float = 0.0
    begun: bool = False
    """Whether the model has begun with it."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the reading of its recording."""


class InferenceWorker:
    """The engine for many callers: it has the engine's methods, each for one recording, and blocks until the answer.

    Args:
        engine: the loaded model.
        settings: ``max_requests``, ``batch_size``, ``gather_s``, ``max_seconds`` and ``timeout_s`` matter here.
        metrics: of the server; new ones if not given.
    """

    def __init__(self, engine: Engine, settings: ServingSettings, metrics: Metrics | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._inside: set[QueuedRequest[Any]] = set()
        self._waiting: list[QueuedRequest[Any]] = []
        self._closing = False
        self._request_s = FIRST_GUESS_S
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="pengi-decoder")
        self._model = threading.Thread(target=self._run, name="pengi-model", daemon=True)
        self._model.start()
        self.metrics.watch("pengi_jobs", "Requests that are not answered yet.", lambda: len(self._inside))
        self.metrics.watch("pengi_queue", "Decoded requests that wait for the model.", lambda: len(self._waiting))
        self.metrics.watch("pengi_queue_audio_seconds", "Decoded audio that is held.", self._held_seconds)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.engine.name

    @property
    def has_tagger(self) -> bool:
        """Whether the model detects tags."""
        return self.engine.has_tagger

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._model.is_alive() and not self._closing

    def describe(self, audio: AudioSource, **options: Unpack[DescribeOptions]) -> Description:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.describe(**options))

    def ask(self, audio: AudioSource, question: str, **options: Unpack[AskOptions]) -> Answer:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.ask(question, **options))

    def classify(self, audio: AudioSource, labels: Sequence[str], **options: Unpack[ClassifyOptions]) -> Classification:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.classify(labels, **options))

    def tags(self, audio: AudioSource, **options: Unpack[TagsOptions]) -> Tags:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.tags(**options))

    def embed(self, audio: AudioSource, **options: Unpack[ReadingOptions]) -> Vector:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.embed(**options))

    def timeline(self, audio: AudioSource, **options: Unpack[TimelineOptions]) -> Timeline:
        """As the engine's; errors: see :meth:`wait`."""
        return self.wait(audio, queries.timeline(**options))

    def wait(self, audio: AudioSource, query: Query[R]) -> R:
        """The answer to a query, for a blocking caller.

        Raises:
            AudioError, InputError: as the engine does, and for a recording longer than ``max_seconds``.
            BusyError: if there is no room, or the model did not begin within ``timeout_s``.
            ClosingError: if the server is shutting down.
            LateError: if the model did not finish within ``timeout_s``; the work ends soon after.
        """
        request = self.submit(audio, query)
        try:
            return request.future.result(self.settings.timeout_s)
        except TimeoutError as error:
            request.future.cancel()
            raise self._out_of_time(request) from error

    async def answer(self, audio: AudioSource, query: Query[R]) -> R:
        """The answer to a query, for an event loop; once cancelled, the work ends soon after.

        Raises:
            AudioError, InputError, BusyError, ClosingError, LateError: as :meth:`wait`.
        """
        request = self.submit(audio, query)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await asyncio.wrap_future(request.future)
        except TimeoutError as error:
            raise self._out_of_time(request) from error

    def submit(self, audio: AudioSource, query: Query[R]) -> QueuedRequest[R]:
        """Queue a request.

        Raises:
            BusyError, ClosingError: as :meth:`wait`.
        """
        request = QueuedRequest(query, audio)
        with self._changed:
            if not self.alive:
                raise ClosingError("the server is shutting down")
            expected_s = len(self._inside) * self._request_s
            if len(self._inside) >= self.settings.max_requests or expected_s > self.settings.timeout_s:
                raise BusyError(self.retry_after_s())
            self._inside.add(request)
        request.future.add_done_callback(self._drop_cancelled)
        self._decoders.submit(self._decode, request)
        return request

    def retry_after_s(self) -> int:
        """Seconds until about half of the accepted requests are answered, from 1 to 60."""
        return min(60, max(1, round(len(self._inside) * self._request_s / 2)))

    def close(self) -> None:
        """Accept no more requests, answer the accepted ones, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._decoders.shutdown(wait=True)
        with self._changed:
            self._changed.notify_all()
        self._model.join()

    def _out_of_time(self, request: QueuedRequest[Any]) -> PengiError:
        if request.begun:
            return LateError(f"there was no answer within {self.settings.timeout_s:g} seconds")
        return BusyError(self.retry_after_s())

    def _drop_cancelled(self, future: Future[Any]) -> None:
        """Make room at once if a caller is gone."""
        if future.cancelled():
            with self._changed:
                self._drop_gone()

    def _held_seconds(self) -> float:
        return sum(request.seconds for request in list(self._inside))

    def _decode(self, request: QueuedRequest[Any]) -> None:
        try:
            self._check(request)
            assert request.source is not None
            samples = self._samples(request)
            request.waveform, request.source = Waveform(samples, self.engine.sample_rate), None
            request.seconds = len(samples) / self.engine.sample_rate
            if self._held_seconds() > self.settings.held_seconds:
                raise BusyError(self.retry_after_s())
        except Exception as error:  # noqa: BLE001 - every error is the caller's
            self._finish(request, error=error)
            return
        with self._changed:
            request.queued_at = time.monotonic()
            self._waiting.append(request)
            self._changed.notify_all()

    def _samples(self, request: QueuedRequest[Any]) -> NDArray[np.float32]:
        assert request.source is not None
        blocks = []
        limit_s = self.settings.max_seconds
        for block in stream(request.source, self.engine.sample_rate, longest_s=limit_s, notes=request.notes):
            self._check(request)
            blocks.append(block)
        return np.concatenate(blocks)

    def _check(self, request: QueuedRequest[Any]) -> None:
        if request.future.cancelled():
            raise _GoneError

    def _run(self) -> None:
        while batch := self._next():
            self._serve(batch)

    def _next(self) -> list[QueuedRequest[Any]]:
        """The oldest request and those that share its call, once the batch is full or ``gather_s`` has passed; empty
        when the server closes and all requests are answered."""
        with self._changed:
            while True:
                self._drop_gone()
                batch = self._alike()
                if batch:
                    left_s = batch[0].queued_at + self.settings.gather_s - time.monotonic()
                    if left_s <= 0 or self._closing or len(batch) == self._max_batch(batch[0]):
                        return self._take(batch)
                    self._changed.wait(left_s)
                elif self._closing and not self._inside:
                    return []
                else:
                    self._changed.wait()

    def _serve_one_batch(self) -> None:
        """Serve one batch of other queries in the middle of a timeline."""
        with self._changed:
            self._drop_gone()
            batch = self._take(self._alike(but="timeline"))
        if batch:
            self._serve(batch)

    def _drop_gone(self) -> None:
        for request in [request for request in self._waiting if request.future.cancelled()]:
            self._waiting.remove(request)
            self._finish(request, error=_GoneError())

    def _alike(self, but: EngineMethod | None = None) -> list[QueuedRequest[Any]]:
        """The oldest waiting request and those that can share its call, within the limits of a batch."""
        batch: list[QueuedRequest[Any]] = []
        seconds = 0.0
        for request in self._waiting:
            if request.query.method == but:
                continue
            first = batch[0] if batch else request
            if (request.query.method, request.query.options) != (first.query.method, first.query.options):
                continue
            if batch and seconds + request.seconds > BATCH_SECONDS:
                break
            batch.append(request)
            seconds += request.seconds
            if len(batch) == self._max_batch(first):
                break
        return batch

    def _max_batch(self, first: QueuedRequest[Any]) -> int:
        # The engine handles timelines and transcripts one after the other, so a batch of them saves nothing.
        return 1 if first.query.method in ("timeline", "transcribe") else self.settings.batch_size

    def _take(self, batch: list[QueuedRequest[Any]]) -> list[QueuedRequest[Any]]:
        for request in batch:
            self._waiting.remove(request)
        return batch

    def _serve(self, batch: Sequence[QueuedRequest[Any]]) -> None:
        """Answer a batch; if it fails, each request has its own call, so that only the bad one fails."""
        task = batch[0].query.method
        begun = time.monotonic()
        for request in batch:
            request.begun = True
            self.metrics.waited_seconds.labels(task).observe(begun - request.queued_at)
        try:
            answers = self._call(batch)
        except Exception as error:  # noqa: BLE001 - every error is the callers'
            if len(batch) > 1:
                for request in batch:
                    self._serve([request])
            else:
                self._finish(batch[0], error=error)
            return
        spent_s = time.monotonic() - begun
        self._request_s += 0.2 * (spent_s / len(batch) - self._request_s)
        self.metrics.batch_size.labels(task).observe(len(batch))
        self.metrics.engine_seconds.labels(task).observe(spent_s)
        self.metrics.audio_seconds.labels(task).inc(sum(request.seconds for request in batch))
        for request, answer in zip(batch, answers, strict=True):
            if isinstance(answer, PengiError):
                self._finish(request, error=answer)
            else:
                self._finish(request, with_notes(answer, request.notes))

    def _call(self, batch: Sequence[QueuedRequest[Any]]) -> list[Any]:
        query = batch[0].query
        audio = [request.waveform for request in batch]
        options = dict(query.options)
        if query.method == "ask":
            options["question"] = [request.query.question for request in batch]
        if query.method == "timeline":
            options["progress"] = lambda _: self._pause(batch[0])
        method: Callable[..., list[Any]] = getattr(self.engine, query.method)
        return method(audio, **options, on_error="return")

    def _pause(self, request: QueuedRequest[Any]) -> None:
        self._check(request)
        self._serve_one_batch()

    def _finish(self, request: QueuedRequest[Any], answer: Any = None, *, error: Exception | None = None) -> None:
        """End a request, with its answer or an error."""
        request.waveform = request.source = None
        with self._changed:
            self._inside.discard(request)
            self._changed.notify_all()
        if not request.future.set_running_or_notify_cancel():
            self.metrics.dropped.inc()
        elif error is None:
            request.future.set_result(answer)
        else:
            if not isinstance(error, PengiError):
                log.error("A %s failed", request.query.method, exc_info=error)
            request.future.set_exception(error)
