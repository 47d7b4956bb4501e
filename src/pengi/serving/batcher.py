"""Many requests, few calls of the engine: decoding beside the model, one model thread, batches of what is alike.

A job goes through three stations: a pool of decoders (bytes to samples, within limits), the queue, and the model
thread, which takes the oldest job and with it all others that can share its call of the engine. Jobs whose caller has
gone are dropped at every station. A timeline of a long recording lets other jobs in between its windows.
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
"""Most audio in one call of the engine, in seconds, unless a single recording is longer."""
FIRST_GUESS_S = 0.5
"""Seconds that a job takes the model, before any has been timed."""

Task = Literal["describe", "ask", "classify", "tags", "embed", "timeline"]


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
    """Nobody waits for this job any more."""


@dataclass(frozen=True)
class Query:
    """What is asked about a recording. Queries with equal task and options share a call of the engine."""

    task: Task
    options: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the engine's method, hashable."""
    question: str = ""
    """Of "ask"; every recording of a call has its own."""

    @classmethod
    def of(cls, task: Task, question: str = "", **options: Any) -> Self:
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
class Job:
    """A query about one recording on its way; who does not want the answer any more cancels the future."""

    query: Query
    source: AudioSource | None
    future: Future[Any] = field(default_factory=Future)
    waveform: Waveform | None = None
    seconds: float = 0.0
    queued_at: float = 0.0
    begun: bool = False
    """Whether the model has heard of it."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the reading of its recording."""


class Listener:
    """The engine for many callers at once; it has the engine's methods, each for one recording and blocking.

    Args:
        engine: the loaded model.
        settings: ``queue``, ``batch``, ``gather_s``, ``max_seconds`` and ``timeout_s`` matter here.
        metrics: what to count in; its own if not given.
    """

    def __init__(self, engine: Engine, settings: ServingSettings, metrics: Metrics | None = None) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._inside: set[Job] = set()
        self._waiting: list[Job] = []
        self._closing = False
        self._job_s = FIRST_GUESS_S
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="pengi-decoder")
        self._model = threading.Thread(target=self._run, name="pengi-model", daemon=True)
        self._model.start()
        self.metrics.watch("pengi_jobs", "Jobs in the house.", lambda: len(self._inside))
        self.metrics.watch("pengi_queue", "Decoded jobs that wait for the model.", lambda: len(self._waiting))
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
        """Whether jobs are taken."""
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
        job = self.submit(audio, query)
        try:
            return job.future.result(self.settings.timeout_s)
        except TimeoutError as error:
            job.future.cancel()
            raise self._out_of_time(job) from error

    async def answer(self, audio: AudioSource, query: Query) -> Any:
        """The answer to a query, for an event loop; once cancelled, the work ends soon after.

        Raises:
            AudioError, InputError, BusyError, ClosingError, LateError: as :meth:`wait`.
        """
        job = self.submit(audio, query)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            raise self._out_of_time(job) from error

    def submit(self, audio: AudioSource, query: Query) -> Job:
        """Take a job in.

        Raises:
            BusyError, ClosingError: as :meth:`wait`.
        """
        job = Job(query, audio)
        with self._changed:
            if not self.alive:
                raise ClosingError("the server is shutting down")
            expected_s = len(self._inside) * self._job_s
            if len(self._inside) >= self.settings.queue or expected_s > self.settings.timeout_s:
                raise BusyError(self.retry_after_s())
            self._inside.add(job)
        job.future.add_done_callback(self._forget)
        self._decoders.submit(self._decode, job)
        return job

    def retry_after_s(self) -> int:
        """Seconds until about half of what is inside will be answered, from 1 to 60."""
        return min(60, max(1, round(len(self._inside) * self._job_s / 2)))

    def close(self) -> None:
        """Take no more jobs, answer those that are inside, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._decoders.shutdown(wait=True)
        with self._changed:
            self._changed.notify_all()
        self._model.join()

    def _out_of_time(self, job: Job) -> PengiError:
        if job.begun:
            return LateError(f"there was no answer within {self.settings.timeout_s:g} seconds")
        return BusyError(self.retry_after_s())

    def _forget(self, future: Future[Any]) -> None:
        """Make room at once for others if nobody waits for an answer any more."""
        if future.cancelled():
            with self._changed:
                self._drop_gone()

    def _held_seconds(self) -> float:
        return sum(job.seconds for job in list(self._inside))

    def _decode(self, job: Job) -> None:
        try:
            self._check(job)
            assert job.source is not None
            samples = self._samples(job)
            job.waveform, job.source = Waveform(samples, self.engine.sample_rate), None
            job.seconds = len(samples) / self.engine.sample_rate
            if self._held_seconds() > self.settings.held_seconds:
                raise BusyError(self.retry_after_s())
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            self._finish(job, error=error)
            return
        with self._changed:
            job.queued_at = time.monotonic()
            self._waiting.append(job)
            self._changed.notify_all()

    def _samples(self, job: Job) -> NDArray[np.float32]:
        assert job.source is not None
        blocks = []
        limit_s = self.settings.max_seconds
        for block in stream(job.source, self.engine.sample_rate, longest_s=limit_s, notes=job.notes):
            self._check(job)
            blocks.append(block)
        return np.concatenate(blocks)

    def _check(self, job: Job) -> None:
        if job.future.cancelled():
            raise _GoneError

    def _run(self) -> None:
        while batch := self._next():
            self._serve(batch)

    def _next(self) -> list[Job]:
        """The oldest job and those that share its call, once there are enough or none has come for a moment; empty
        when all is done and the server closes."""
        with self._changed:
            while True:
                self._drop_gone()
                batch = self._alike()
                if batch:
                    left_s = batch[0].queued_at + self.settings.gather_s - time.monotonic()
                    if left_s <= 0 or self._closing or len(batch) == self._most(batch[0]):
                        return self._take(batch)
                    self._changed.wait(left_s)
                elif self._closing and not self._inside:
                    return []
                else:
                    self._changed.wait()

    def _between(self) -> None:
        """Serve, in the middle of a timeline, one batch of anything else."""
        with self._changed:
            self._drop_gone()
            batch = self._take(self._alike(but="timeline"))
        if batch:
            self._serve(batch)

    def _drop_gone(self) -> None:
        for job in [job for job in self._waiting if job.future.cancelled()]:
            self._waiting.remove(job)
            self._finish(job, error=_GoneError())

    def _alike(self, but: Task | None = None) -> list[Job]:
        """Of the waiting jobs the oldest one and what can share its call, within the limits of a batch."""
        batch: list[Job] = []
        seconds = 0.0
        for job in self._waiting:
            if job.query.task == but:
                continue
            first = batch[0] if batch else job
            if (job.query.task, job.query.options) != (first.query.task, first.query.options):
                continue
            if batch and seconds + job.seconds > BATCH_SECONDS:
                break
            batch.append(job)
            seconds += job.seconds
            if len(batch) == self._most(first):
                break
        return batch

    def _most(self, first: Job) -> int:
        # The engine hears timelines one after the other, so that nothing is won by a batch of them.
        return 1 if first.query.task == "timeline" else self.settings.batch

    def _take(self, batch: list[Job]) -> list[Job]:
        for job in batch:
            self._waiting.remove(job)
        return batch

    def _serve(self, batch: Sequence[Job]) -> None:
        """Answer a batch; if it fails as a whole, one by one, so that only the job at fault fails."""
        task = batch[0].query.task
        begun = time.monotonic()
        for job in batch:
            job.begun = True
            self.metrics.waited_seconds.labels(task).observe(begun - job.queued_at)
        try:
            answers = self._call(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it
            if len(batch) > 1:
                for job in batch:
                    self._serve([job])
            else:
                self._finish(batch[0], error=error)
            return
        spent_s = time.monotonic() - begun
        self._job_s += 0.2 * (spent_s / len(batch) - self._job_s)
        self.metrics.batch_size.labels(task).observe(len(batch))
        self.metrics.engine_seconds.labels(task).observe(spent_s)
        self.metrics.audio_seconds.labels(task).inc(sum(job.seconds for job in batch))
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, PengiError):
                self._finish(job, error=answer)
            else:
                self._finish(job, with_notes(answer, job.notes))

    def _call(self, batch: Sequence[Job]) -> list[Any]:
        query = batch[0].query
        audio = [job.waveform for job in batch]
        options = dict(query.options)
        if query.task == "ask":
            options["question"] = [job.query.question for job in batch]
        if query.task == "timeline":
            options["progress"] = lambda _: self._look_up(batch[0])
        method: Callable[..., list[Any]] = getattr(self.engine, query.task)
        return method(audio, **options, on_error="return")

    def _look_up(self, job: Job) -> None:
        self._check(job)
        self._between()

    def _finish(self, job: Job, answer: Any = None, *, error: Exception | None = None) -> None:
        """Let a job leave the house, with its answer or an error."""
        job.waveform = job.source = None
        with self._changed:
            self._inside.discard(job)
            self._changed.notify_all()
        if not job.future.set_running_or_notify_cancel():
            self.metrics.dropped.inc()
        elif error is None:
            job.future.set_result(answer)
        else:
            if not isinstance(error, PengiError):
                log.error("A %s failed", job.query.task, exc_info=error)
            job.future.set_exception(error)
