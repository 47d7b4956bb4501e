"""Serves many requests with one model: decoder threads, a queue, and one thread that runs the model on batches.

A request is decoded by a pool of threads, waits in the queue, and is answered by the model thread. Between any two
steps of text generation, that thread takes the first request and all others that can share its work: the recordings of
new texts are encoded together, and their searches join the running ones (continuous batching). At each of these steps,
requests whose caller is gone are dropped. A timeline of a long recording lets other requests in between its windows.

The queue is fair: requests leave it in the order in which they would end if the model worked on all waiting requests at
the same rate, measured by their cost (:mod:`pengi.serving.costs`). So a short request passes long ones that came before
it, but not for ever.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePath
from typing import Any, Protocol, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from pengi.audio.decode import stream
from pengi.audio.sources import AudioSource, ReadingOptions, Waveform
from pengi.calls import AskOptions, ClassifyOptions, DescribeOptions, Vector
from pengi.decoding import SearchGroup
from pengi.encoding import Encoded, OnError
from pengi.errors import PengiError
from pengi.generation import OnText
from pengi.results import Answer, Classification, Description, Timeline, with_notes
from pengi.serving import queries
from pengi.serving.costs import TokenCounter, cost_of
from pengi.serving.metrics import Metrics
from pengi.serving.queries import TEXT_METHODS, EngineMethod, Query
from pengi.serving.running_calls import AbandonedError, QueuedRequest, RunningCall, RunningCalls
from pengi.serving.settings import ServingSettings
from pengi.timelines import TimelineOptions

log = logging.getLogger(__name__)

DECODERS = 2
BATCH_TOKENS = 1600
"""Maximum cost of the requests that begin together, unless a single request costs more; 160 s of audio."""
INITIAL_TOKEN_S = 0.005
"""Assumed time of the model for a token, in seconds, before any request was timed."""
TIMED_TOKENS = 2000
"""Number of tokens whose time replaces all earlier measurements."""

R = TypeVar("R")


class Engine(TokenCounter, Protocol):
    """The methods of :class:`pengi.engine.Pengi` that the server uses."""

    name: str

    @property
    def sample_rate(self) -> int: ...

    def encode(self, audio: Sequence[Waveform], *, on_error: OnError) -> list[Encoded | PengiError]: ...

    def answering(
        self, method: str, audio: Sequence[Waveform | Encoded], /, **options: object
    ) -> Coroutine[SearchGroup[object], None, list[object]]: ...


class BusyError(PengiError):
    """The server is busy; the request may be sent again after ``retry_after_s``."""

    def __init__(self, retry_after_s: int, message: str = "the server is busy") -> None:
        super().__init__(f"{message}; try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


class ClosingError(PengiError):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class DeadlineError(PengiError):
    """The model had started, but did not answer within the time limit."""


class InferenceWorker:
    """The engine for many callers. The engine's methods that the page uses are also here, for one recording; they block
    until the answer is there.

    Args:
        engine: the loaded model.
        settings: of these, ``max_requests``, ``batch_size``, ``gather_s``, ``max_seconds`` and ``timeout_s`` are used.
        metrics: of the server; by default new ones.
    """

    def __init__(self, engine: Engine, settings: ServingSettings, metrics: Metrics | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._accepted: set[QueuedRequest[Any]] = set()
        self._waiting: list[QueuedRequest[Any]] = []
        self._calls = RunningCalls(self._on_end, self.metrics.step_rows.observe)
        self._closing = False
        self._served = 0.0
        """Tokens that every waiting request would have got if the model worked on all at the same rate."""
        self._token_s = INITIAL_TOKEN_S
        self._spent_s, self._done = 0.0, 0
        """Seconds of work and tokens of the requests that ended since ``_token_s`` was last updated."""
        # Not `decode_ahead`: requests come at any time, end in any order, and wait for what can share a call with them.
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="pengi-decoder")
        self._model = threading.Thread(target=self._run, name="pengi-model", daemon=True)
        self._model.start()
        self.metrics.watch("pengi_jobs", "Requests that are not answered yet.", lambda: len(self._accepted))
        self.metrics.watch("pengi_queue", "Decoded requests that wait for the model.", lambda: len(self._waiting))
        self.metrics.watch("pengi_tokens", "Tokens of the requests that are not answered yet.", self._held_tokens)
        self.metrics.watch("pengi_queue_audio_seconds", "Decoded audio that is held.", self._held_seconds)

    @property
    def name(self) -> str:
        """The model's name for clients: the last part of a folder, not its path on this machine."""
        return PurePath(self.engine.name).name or self.engine.name

    @property
    def has_tagger(self) -> bool:
        """Whether the model detects tags."""
        return self.engine.has_tagger

    @property
    def alive(self) -> bool:
        """Whether requests are accepted."""
        return self._model.is_alive() and not self._closing

    def describe(self, audio: AudioSource, **options: Unpack[DescribeOptions]) -> Description:
        """See :meth:`pengi.engine.Pengi.describe`; raises the errors of :meth:`wait`."""
        return self.wait(audio, queries.describe(**options))

    def ask(self, audio: AudioSource, question: str, **options: Unpack[AskOptions]) -> Answer:
        """See :meth:`pengi.engine.Pengi.ask`; raises the errors of :meth:`wait`."""
        return self.wait(audio, queries.ask(question, **options))

    def classify(self, audio: AudioSource, labels: Sequence[str], **options: Unpack[ClassifyOptions]) -> Classification:
        """See :meth:`pengi.engine.Pengi.classify`; raises the errors of :meth:`wait`."""
        return self.wait(audio, queries.classify(labels, **options))

    def embed(self, audio: AudioSource, **options: Unpack[ReadingOptions]) -> Vector:
        """See :meth:`pengi.engine.Pengi.embed`; raises the errors of :meth:`wait`."""
        return self.wait(audio, queries.embed(**options))

    def timeline(self, audio: AudioSource, **options: Unpack[TimelineOptions]) -> Timeline:
        """See :meth:`pengi.engine.Pengi.timeline`; raises the errors of :meth:`wait`."""
        return self.wait(audio, queries.timeline(**options))

    def wait(self, audio: AudioSource, query: Query[R]) -> R:
        """The answer to a query, for a blocking caller.

        Raises:
            AudioError, InputError: as the engine does, and for a recording longer than ``max_seconds``.
            BusyError: if there is no room, or the model did not start within ``timeout_s``.
            ClosingError: if the server is shutting down.
            DeadlineError: if the model did not finish within ``timeout_s``; the work ends soon after.
        """
        request = self.submit(audio, query)
        try:
            return request.future.result(self.settings.timeout_s)
        except TimeoutError as error:
            request.future.cancel()
            raise self._out_of_time(request) from error

    async def answer(self, request: QueuedRequest[R]) -> R:
        """The answer to a request, for an event loop; if it is cancelled, the work ends soon after.

        Raises:
            AudioError, InputError, BusyError, DeadlineError: as :meth:`wait`.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await asyncio.wrap_future(request.future)
        except TimeoutError as error:
            raise self._out_of_time(request) from error

    def submit(self, audio: AudioSource, query: Query[R], on_text: OnText | None = None) -> QueuedRequest[R]:
        """Queue a request.

        Args:
            audio: the recording.
            query: the query about it.
            on_text: called on another thread; see :class:`pengi.calls.WritingOptions`.

        Raises:
            BusyError, ClosingError: as :meth:`wait`.
        """
        request = QueuedRequest(query, audio, on_text)
        with self._changed:
            if not self.alive:
                raise ClosingError
            if len(self._accepted) >= self.settings.max_requests:
                raise BusyError(self.retry_after_s())
            self._accepted.add(request)
        request.future.add_done_callback(self._on_done)
        self._decoders.submit(self._decode, request)
        return request

    def retry_after_s(self) -> int:
        """Seconds until about half of the accepted requests are answered, from 1 to 60."""
        return min(60, max(1, round(self._held_tokens() * self._token_s / 2)))

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
            return DeadlineError(f"there was no answer within {self.settings.timeout_s:g} seconds")
        return BusyError(self.retry_after_s())

    def _on_done(self, future: Future[Any]) -> None:
        """Free the request's room at once if the caller has cancelled it."""
        if future.cancelled():
            with self._changed:
                self._remove_abandoned()

    def _held_seconds(self) -> float:
        return sum(request.seconds for request in list(self._accepted))

    def _held_tokens(self) -> int:
        return sum(request.cost.total for request in list(self._accepted))

    def _decode(self, request: QueuedRequest[Any]) -> None:
        try:
            self._check(request)
            samples = self._samples(request)
            request.audio, request.source = Waveform(samples, self.engine.sample_rate), None
            request.seconds = len(samples) / self.engine.sample_rate
            request.cost = cost_of(request.query, request.seconds, self.engine)
            self._queue(request)
        except Exception as error:  # noqa: BLE001 - every error is the caller's
            self._finish(request, error=error)

    def _queue(self, request: QueuedRequest[Any]) -> None:
        """Put a decoded request into the queue.

        Raises:
            BusyError: if too much audio is held, or the requests before it would take longer than ``timeout_s``.
        """
        with self._changed:
            request.finish = self._served + request.cost.total
            # A running call is not counted: texts can be joined, and a timeline lets other requests in between.
            before = sum(other.cost.total for other in self._waiting if other.finish <= request.finish)
            if self._held_seconds() > self.settings.held_seconds or before * self._token_s > self.settings.timeout_s:
                raise BusyError(self.retry_after_s())
            request.queued_at = time.monotonic()
            bisect.insort(self._waiting, request, key=lambda waiting: waiting.finish)
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
            raise AbandonedError

    @torch.inference_mode()
    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            begun = time.monotonic()
            self._serve(batch)
            self._calls.step()
            self._spent_s += time.monotonic() - begun
            if self._done:
                weight = min(1.0, self._done / TIMED_TOKENS)
                self._token_s += weight * (self._spent_s / self._done - self._token_s)
                self._spent_s, self._done = 0.0, 0

    def _next_batch(self) -> list[QueuedRequest[Any]] | None:
        """The first request and those that share its call, once the batch is full or ``gather_s`` has passed.

        An empty list, without waiting, while texts are being generated; None when the server closes and all requests
        are answered.
        """
        with self._changed:
            while True:
                self._remove_abandoned()
                batch = self._compatible()
                if self._calls:
                    return self._dequeue(batch)
                if batch:
                    left_s = batch[0].queued_at + self.settings.gather_s - time.monotonic()
                    if left_s <= 0 or self._closing or len(batch) == self._max_batch(batch[0]):
                        return self._dequeue(batch)
                    self._changed.wait(left_s)
                elif self._closing and not self._accepted:
                    return None
                else:
                    self._changed.wait()

    def _pause(self, request: QueuedRequest[Any]) -> None:
        """Serve one batch of other queries between two windows of a timeline."""
        self._check(request)
        with self._changed:
            self._remove_abandoned()
            batch = self._dequeue(self._compatible(excluded="timeline"))
        self._serve(batch)
        while self._calls:
            self._calls.step()

    def _remove_abandoned(self) -> None:
        for request in [request for request in self._waiting if request.future.cancelled()]:
            self._waiting.remove(request)
            self._finish(request, error=AbandonedError())

    def _compatible(self, excluded: EngineMethod | None = None) -> list[QueuedRequest[Any]]:
        """The first waiting request and those that can share its work, as many as there is room for."""
        batch: list[QueuedRequest[Any]] = []
        tokens = 0
        for request in self._waiting:
            if request.query.method == excluded:
                continue
            first = batch[0] if batch else request
            if len(batch) >= self._max_batch(first):
                break
            if not _share_work(request.query, first.query):
                continue
            if batch and tokens + request.cost.total > BATCH_TOKENS:
                break
            batch.append(request)
            tokens += request.cost.total
        return batch

    def _max_batch(self, first: QueuedRequest[Any]) -> int:
        room = self.settings.batch_size - len(self._calls)
        # The engine processes timelines and transcripts one after the other, so batching them saves nothing.
        return min(1, room) if first.query.method in ("timeline", "transcribe") else room

    def _dequeue(self, batch: list[QueuedRequest[Any]]) -> list[QueuedRequest[Any]]:
        if batch:
            self._served += sum(request.cost.total for request in batch) / len(self._waiting)
        for request in batch:
            self._waiting.remove(request)
        return batch

    def _serve(self, batch: Sequence[QueuedRequest[Any]]) -> None:
        """Start the work on a batch."""
        begun = time.monotonic()
        for request in batch:
            request.begun = True
            self.metrics.waited_seconds.labels(request.query.method).observe(begun - request.queued_at)
        if batch and batch[0].query.method in TEXT_METHODS:
            self._encode(batch)
        elif batch:
            self._start(batch)

    def _encode(self, batch: Sequence[QueuedRequest[Any]]) -> None:
        """Encode recordings together, and start the text about each."""
        begun = time.monotonic()
        try:
            audio: list[Any] = [request.audio for request in batch]
            encoded = self.engine.encode(audio, on_error="return")
        except Exception as error:  # noqa: BLE001 - every error is the callers'
            self._fail(batch, error, self._encode)
            return
        self._observe("encode", len(batch), begun)
        for request, outcome in zip(batch, encoded, strict=True):
            if isinstance(outcome, PengiError):
                self._finish(request, error=outcome)
            else:
                request.audio = outcome
                self._start([request])

    def _start(self, batch: Sequence[QueuedRequest[Any]]) -> None:
        """Start a call of the engine."""
        query = batch[0].query
        options = dict(query.options)
        if query.method == "ask":
            options["question"] = [request.query.question for request in batch]
        if query.method == "timeline":
            options["progress"] = lambda _: self._pause(batch[0])
        if batch[0].on_text is not None:
            options["on_text"] = batch[0].on_text
        audio: list[Any] = [request.audio for request in batch]
        work = self.engine.answering(query.method, audio, **options)
        self._calls.resume(RunningCall(batch, work))

    def _on_end(self, call: RunningCall, outcome: list[Any] | Exception) -> None:
        if isinstance(outcome, Exception):
            self._fail(call.batch, outcome, self._start)
        else:
            self._deliver(call, outcome)

    def _deliver(self, call: RunningCall, answers: Sequence[Any]) -> None:
        task = call.batch[0].query.method
        self._observe(task, len(call.batch), call.begun)
        self.metrics.audio_seconds.labels(task).inc(sum(request.seconds for request in call.batch))
        for request, answer in zip(call.batch, answers, strict=True):
            if isinstance(answer, PengiError):
                self._finish(request, error=answer)
            else:
                self._finish(request, with_notes(answer, request.notes))

    def _fail(
        self, batch: Sequence[QueuedRequest[Any]], error: Exception, again: Callable[[list[QueuedRequest[Any]]], None]
    ) -> None:
        """End a request with an error. Requests of a batch are tried again alone, so that only the bad one fails."""
        for request in batch:
            if len(batch) == 1 or isinstance(error, AbandonedError):
                self._finish(request, error=error)
            else:
                again([request])

    def _observe(self, task: str, recordings: int, begun: float) -> None:
        self.metrics.batch_size.labels(task).observe(recordings)
        self.metrics.engine_seconds.labels(task).observe(time.monotonic() - begun)

    def _finish(self, request: QueuedRequest[Any], answer: Any = None, *, error: Exception | None = None) -> None:
        """End a request, with its answer or an error."""
        request.audio = request.source = None
        if request.begun:
            self._done += request.cost.total
        with self._changed:
            self._accepted.discard(request)
            self._changed.notify_all()
        if not request.future.set_running_or_notify_cancel():
            self.metrics.dropped.inc()
        elif error is None:
            request.future.set_result(answer)
        else:
            if not isinstance(error, PengiError):
                log.error("A %s failed", request.query.method, exc_info=error)
            request.future.set_exception(error)


def _share_work(one: Query[Any], other: Query[Any]) -> bool:
    """Whether two queries can be in the same batch: both generate texts, or they have the same method and options."""
    if one.method in TEXT_METHODS:
        return other.method in TEXT_METHODS
    return (one.method, one.options) == (other.method, other.options)
