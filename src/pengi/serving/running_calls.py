"""Runs several calls of the engine on one thread; their searches share the steps of the language model."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pengi.audio.sources import AudioSource, Waveform
from pengi.decoding import BatchModel, ContinuousBatch, SearchGroup
from pengi.encoding import Encoded
from pengi.generation import OnText
from pengi.serving.costs import Cost
from pengi.serving.queries import Query

R = TypeVar("R")


class AbandonedError(Exception):
    """The caller of this request is gone."""


@dataclass(eq=False)
class QueuedRequest(Generic[R]):
    """A query about one recording; a caller that no longer needs the answer cancels the future."""

    query: Query[R]
    source: AudioSource | None
    on_text: OnText | None = None
    """Gets the text piece by piece, on the model thread."""
    future: Future[R] = field(default_factory=Future)
    audio: Waveform | Encoded | None = None
    """The recording, once it is decoded."""
    seconds: float = 0.0
    cost: Cost = field(default_factory=Cost)
    """Known once the recording is decoded."""
    finish: float = 0.0
    """Its position in the queue; see :mod:`pengi.serving.inference_worker`."""
    queued_at: float = 0.0
    begun: bool = False
    """Whether the model has started to work on it."""
    notes: list[str] = field(default_factory=list)
    """Notes about the reading of its recording."""


@dataclass(eq=False)
class RunningCall:
    """A call of the engine for a batch of requests."""

    batch: Sequence[QueuedRequest[Any]]
    work: Coroutine[SearchGroup[Any], None, list[Any]]
    """See :meth:`pengi.engine.Pengi.answering`."""
    begun: float = field(default_factory=time.monotonic)
    searches: SearchGroup[Any] | None = None
    """The searches that it waits for."""

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for any of its answers."""
        return all(request.future.cancelled() for request in self.batch)


class RunningCalls:
    """The running calls, which wait for searches.

    Args:
        on_end: called for each call when it has ended, with its answers or its error.
        on_step: called with the number of rows before each step of the language model.
    """

    def __init__(
        self, on_end: Callable[[RunningCall, list[Any] | Exception], None], on_step: Callable[[int], object]
    ) -> None:
        self._on_end, self._on_step = on_end, on_step
        self._calls: list[RunningCall] = []
        self._searches: ContinuousBatch[Any] | None = None
        """The searches of all calls; created for the first call."""

    def __len__(self) -> int:
        """Number of requests of the running calls."""
        return sum(len(call.batch) for call in self._calls)

    def resume(self, call: RunningCall) -> None:
        """Let a call run until it ends or waits for searches, which take part from the next step on."""
        try:
            searches = call.work.send(None)
            while searches.done:
                searches = call.work.send(None)
            if self._searches is None:
                # Only the transcriber's language model is not a BatchModel, and it is in none of these calls.
                self._searches = ContinuousBatch(cast("BatchModel[Any]", searches.lm))
            self._searches.add(searches)
        except StopIteration as end:
            self._on_end(call, end.value)
        except Exception as error:  # noqa: BLE001 - every error is the callers'
            call.work.close()
            self._on_end(call, error)
        else:
            call.searches = searches
            self._calls.append(call)

    def step(self) -> None:
        """End abandoned calls, make a step of all searches, and resume the calls whose searches are done."""
        for call in [call for call in self._calls if call.is_abandoned]:
            self._drop(call)
        if self._searches is None or not self._calls:
            return
        self._on_step(len(self._searches))
        self._searches.step()
        calls, self._calls = self._calls, []
        for call in calls:
            if call.searches is not None and call.searches.done:
                self.resume(call)
            else:
                self._calls.append(call)

    def _drop(self, call: RunningCall) -> None:
        assert self._searches is not None
        assert call.searches is not None
        self._calls.remove(call)
        self._searches.remove(call.searches)
        call.work.close()
        self._on_end(call, AbandonedError())
