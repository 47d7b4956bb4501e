"""Many requests, few calls of the engine: decoding beside the model, one model thread, batches of what is alike.

A request goes through three stations: a pool of decoders (bytes to samples, within limits), the queue, and the model
thread, which takes the oldest request and with it all others that can share its call of the engine. Requests whose
caller has gone are dropped at every station. A timeline of a long recording lets other requests in between its windows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pengi.audio.decode import AudioSource, stream
from pengi.audio.sources import Waveform
from pengi.errors import PengiError, checked_text
from pengi.results import Answer, Classification, Description, Tags, Timeline, with_notes
from pengi.serving.metrics import Metrics
from pengi.serving.settings import ServingSettings

log = logging.getLogger(__name__)

DECODERS = 2
BATCH_SECONDS = 160.0
"""Maximum of audio in one call of the engine, in seconds, unless a single recording is longer."""
FIRST_GUESS_S = 0.5
"""Seconds that a request takes the model, before any has been timed."""

EngineMethod = Literal["describe", "ask", "classify", "tags", "embed", "timeline"]


class Engine(Protocol):
    """What a server needs of :class:`pengi.engine.Pengi`."""

    name: str

    @property
    def sample_rate(self) -> int: ...

    @property
    def has_tagger(self) -> bool: ...

    def count_tokens(self, text: str) -> int: ...

    def describe(self, audio: Any, *, on_error: Literal["return"]) -> Any: ...

    def ask(self, audio: Any, question: Sequence[str], *, on_error: Literal["return"]) -> Any: ...

    def classify(self, audio: Any, labels: Sequence[str], *, on_error: Literal["return"]) -> Any: ...

    def tags(self, audio: Any, *, on_error: Literal["return"]) -> Any: ...

    def embed(self, audio: Any, *, on_error: Literal["return"]) -> Any: ...

    def timeline(self, audio: Any, *, progress: Callable[[float], None], on_error: Literal["return"]) -> Any: ...


class BusyError(PengiError):
    """There is no room for another request; ``retry_after_s`` says when there may be."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the server is busy; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class ClosingError(PengiError):
    """The server is shutting down."""


class LateError(PengiError):
    """The model had begun, but the answer took longer than the server waits."""


class _GoneError(Exception):
    """Nobody waits for this request any more."""


@dataclass(frozen=True)
class Query:
    """What is asked about a recording. Queries with equal task and options share a call of the engine."""

    task: EngineMethod
    options: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the engine's method, hashable."""
    question: str = ""
    """Of "ask"; every recording of a call has its own."""

    @classmethod
    def of(cls, task: EngineMethod, question: str = "", **options: Any) -> Self:
        """A query; options that are None are the engine's own defaults.

        Raises:
            InputError: for a question or label that is no valid text.
        """
        checked_text(question, "the question")
        for label in options.get("labels") or ():
            checked_text(label, "each label")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        return cls(task, tuple(sorted((name, value) for name, value in given.items() if value is not None)), question)


@dataclass(eq=False)
class QueuedRequest:
    """A query about one recording on its way; who does not want the answer any more cancels the future."""

    query: Query
    source: AudioSource | None
    future: Future[Any] = field(default_factory=Future)
    waveform: Waveform | None = None
    seconds: float = 0.0
    queued_at: float = 0.0
    begun: bool = False
    """Whether the model has begun with it."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the reading of its recording."""


class InferenceWorker:
    """The engine for many callers at once; it has the engine's methods, each for one recording and blocking.

    Args:
        engine: the loaded model.
        settings: ``max_requests``, ``batch_size``, ``gather_s``, ``max_seconds`` and ``timeout_s`` matter here.
        metrics: what to count in; its own if not given.
    """

    def __init__(self, engine: Engine, settings: ServingSettings, metrics: Metrics | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._inside: set[QueuedRequest] = set()
        self._waiting: list[QueuedRequest] = []
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

    def describe(self, audio: AudioSource, **options: Any) -> Description:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        description: Description = self.wait(audio, Query.of("describe", **options))
        return description

    def ask(self, audio: AudioSource, question: str, **options: Any) -> Answer:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        answer: Answer = self.wait(audio, Query.of("ask", question, **options))
        return answer

    def classify(self, audio: AudioSource, labels: Sequence[str], **options: Any) -> Classification:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        classification: Classification = self.wait(audio, Query.of("classify", labels=list(labels), **options))
        return classification

    def tags(self, audio: AudioSource, **options: Any) -> Tags:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        tags: Tags = self.wait(audio, Query.of("tags", **options))
        return tags

    def embed(self, audio: AudioSource) -> NDArray[np.float32]:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        vector_D: NDArray[np.float32] = self.wait(audio, Query.of("embed"))
        return vector_D

    def timeline(self, audio: AudioSource, **options: Any) -> Timeline:
        """As the engine's; see :meth:`wait` for what may go wrong."""
        timeline: Timeline = self.wait(audio, Query.of("timeline", **options))
        return timeline

    def wait(self, audio: AudioSource, query: Query) -> Any:
        """The answer to a query, for a thread of its own.

        Raises:
            AudioError, InputError: as the engine does, and for a recording longer than ``max_seconds``.
            BusyError: if there is no room, or the model did not get to it within ``timeout_s``.
            ClosingError: if there is soon no server.
            LateError: if the model did not finish within ``timeout_s``; the work ends soon after.
        """
        request = self.submit(audio, query)
        try:
            return request.future.result(self.settings.timeout_s)
        except TimeoutError as error:
            request.future.cancel()
            raise self._out_of_time(request) from error

    async def answer(self, audio: AudioSource, query: Query) -> Any:
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

    def submit(self, audio: AudioSource, query: Query) -> QueuedRequest:
        """Take a request in.

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
        """Seconds until about half of what is inside will be answered, from 1 to 60."""
        return min(60, max(1, round(len(self._inside) * self._request_s / 2)))

    def close(self) -> None:
        """Take no more requests, answer those that are inside, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._decoders.shutdown(wait=True)
        with self._changed:
            self._changed.notify_all()
        self._model.join()

    def _out_of_time(self, request: QueuedRequest) -> PengiError:
        if request.begun:
            return LateError(f"there was no answer within {self.settings.timeout_s:g} seconds")
        return BusyError(self.retry_after_s())

    def _drop_cancelled(self, future: Future[Any]) -> None:
        """Make room at once for others if nobody waits for an answer any more."""
        if future.cancelled():
            with self._changed:
                self._drop_gone()

    def _held_seconds(self) -> float:
        return sum(request.seconds for request in list(self._inside))

    def _decode(self, request: QueuedRequest) -> None:
        try:
            self._check(request)
            assert request.source is not None
            samples = self._samples(request)
            request.waveform, request.source = Waveform(samples, self.engine.sample_rate), None
            request.seconds = len(samples) / self.engine.sample_rate
            if self._held_seconds() > self.settings.held_seconds:
                raise BusyError(self.retry_after_s())
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must get it
            self._finish(request, error=error)
            return
        with self._changed:
            request.queued_at = time.monotonic()
            self._waiting.append(request)
            self._changed.notify_all()

    def _samples(self, request: QueuedRequest) -> NDArray[np.float32]:
        assert request.source is not None
        blocks = []
        limit_s = self.settings.max_seconds
        for block in stream(request.source, self.engine.sample_rate, longest_s=limit_s, notes=request.notes):
            self._check(request)
            blocks.append(block)
        return np.concatenate(blocks)

    def _check(self, request: QueuedRequest) -> None:
        if request.future.cancelled():
            raise _GoneError

    def _run(self) -> None:
        while batch := self._next():
            self._serve(batch)

    def _next(self) -> list[QueuedRequest]:
        """The oldest request and those that share its call, once there are enough or none has come for a moment; empty
        when all is done and the server closes."""
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
        """Serve, in the middle of a timeline, one batch of anything else."""
        with self._changed:
            self._drop_gone()
            batch = self._take(self._alike(but="timeline"))
        if batch:
            self._serve(batch)

    def _drop_gone(self) -> None:
        for request in [request for request in self._waiting if request.future.cancelled()]:
            self._waiting.remove(request)
            self._finish(request, error=_GoneError())

    def _alike(self, but: EngineMethod | None = None) -> list[QueuedRequest]:
        """Of the waiting requests the oldest one and what can share its call, within the limits of a batch."""
        batch: list[QueuedRequest] = []
        seconds = 0.0
        for request in self._waiting:
            if request.query.task == but:
                continue
            first = batch[0] if batch else request
            if (request.query.task, request.query.options) != (first.query.task, first.query.options):
                continue
            if batch and seconds + request.seconds > BATCH_SECONDS:
                break
            batch.append(request)
            seconds += request.seconds
            if len(batch) == self._max_batch(first):
                break
        return batch

    def _max_batch(self, first: QueuedRequest) -> int:
        # The engine handles timelines one after the other, so a batch of them gains nothing.
        return 1 if first.query.task == "timeline" else self.settings.batch_size

    def _take(self, batch: list[QueuedRequest]) -> list[QueuedRequest]:
        for request in batch:
            self._waiting.remove(request)
        return batch

    def _serve(self, batch: Sequence[QueuedRequest]) -> None:
        """Answer a batch; if it fails as a whole, one by one, so that only the request at fault fails."""
        task = batch[0].query.task
        begun = time.monotonic()
        for request in batch:
            request.begun = True
            self.metrics.waited_seconds.labels(task).observe(begun - request.queued_at)
        try:
            answers = self._call(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must get it
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

    def _call(self, batch: Sequence[QueuedRequest]) -> list[Any]:
        query = batch[0].query
        audio = [request.waveform for request in batch]
        options = dict(query.options)
        if query.task == "ask":
            options["question"] = [request.query.question for request in batch]
        if query.task == "timeline":
            options["progress"] = lambda _: self._pause(batch[0])
        method: Callable[..., list[Any]] = getattr(self.engine, query.task)
        return method(audio, **options, on_error="return")

    def _pause(self, request: QueuedRequest) -> None:
        self._check(request)
        self._serve_one_batch()

    def _finish(self, request: QueuedRequest, answer: Any = None, *, error: Exception | None = None) -> None:
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
                log.error("A %s failed", request.query.task, exc_info=error)
            request.future.set_exception(error)
