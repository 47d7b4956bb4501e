"""Turns recordings into rows: threads decode ahead of the model, which answers batches in the order of the list.

The number of decoded recordings is limited, and so is their total length (``MAX_SAMPLES``). A recording for which there
is no room is not decoded ahead: the model reads it window by window.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pengi.audio.decode import stream
from pengi.audio.formats import is_regular
from pengi.audio.sources import Waveform
from pengi.batching import batched, decode_ahead
from pengi.data.recordings import recording
from pengi.engine import Pengi
from pengi.errors import PengiError, first_line
from pengi.jobs.inputs import JobInput
from pengi.jobs.tasks import JOB_TASKS, Job
from pengi.json_lines import Row

log = logging.getLogger(__name__)

MAX_SAMPLES = 2**25
"""Maximum number of samples of all recordings that wait for the model: 134 MB, or 35 minutes at 16 kHz."""
MAX_SAMPLES_EACH = 2**22
"""Maximum number of samples of one recording that waits for the model: 17 MB, or 4 minutes at 16 kHz."""
BATCHES_AHEAD = 2
MAX_INTERNAL_ERRORS = 8
"""Number of consecutive recordings with an internal error after which the job stops."""


@dataclass(frozen=True)
class _Decoded:
    item: JobInput
    source: Any
    """``(samples, rate)``, None if the recording is not decoded ahead, or the error."""
    seconds: float
    samples: int = 0
    notes: list[str] = field(default_factory=list)


class _SampleBudget:
    """The number of samples that may still be decoded ahead."""

    def __init__(self, samples: int) -> None:
        self._left = samples
        self._lock = threading.Lock()

    def reserve(self, samples: int) -> bool:
        """Reserve samples if there is room; returns whether there was.

        It never waits: the model takes recordings in the order of the list, and later ones may have used up the room.
        """
        with self._lock:
            if samples > self._left:
                return False
            self._left -= samples
            return True

    def release(self, samples: int) -> None:
        with self._lock:
            self._left += samples


class Pipeline:
    """Runs a job on recordings with a loaded model.

    Args:
        engine: the model.
        job: the task and its options.
        batch_size: number of recordings in one call of the model.
        workers: number of threads that decode.
    """

    def __init__(self, engine: Pengi, job: Job, *, batch_size: int, workers: int) -> None:
        self._engine = engine
        self._job = job
        self._batch_size = batch_size
        self._workers = workers
        self._budget = _SampleBudget(MAX_SAMPLES)
        self._internal_errors = 0

    def rows(self, items: Iterable[JobInput]) -> Iterator[list[Row]]:
        """The rows of the recordings in their order, a batch at a time.

        Raises:
            InputError: if the model does not support an option of the job.
        """
        ahead = BATCHES_AHEAD * self._batch_size
        with closing(decode_ahead(items, self._decode, workers=self._workers, ahead=ahead)) as decoded:
            yield from map(self._answer, batched(decoded, self._batch_size))

    def _decode(self, item: JobInput) -> _Decoded:
        started = time.perf_counter()
        source: Any
        taken = 0
        notes: list[str] = []
        try:
            if item.error is not None:
                raise PengiError(item.error)
            blocks = []
            content = recording(Path(), item.location)
            is_pipe = isinstance(content, Path) and not is_regular(str(content))
            for block in stream(content, self._engine.sample_rate, **self._job.reading, notes=notes):
                if taken + len(block) <= MAX_SAMPLES_EACH and self._budget.reserve(len(block)):
                    taken += len(block)
                elif not is_pipe:  # a pipe cannot be read again
                    self._budget.release(taken)
                    return _Decoded(item, None, time.perf_counter() - started)
                blocks.append(block)
            source = Waveform(np.concatenate(blocks), self._engine.sample_rate)
        except Exception as error:  # noqa: BLE001 - counted by the thread that writes the rows
            self._budget.release(taken)
            taken = 0
            # Only the message: a traceback would keep the decoded blocks in memory.
            source = PengiError(str(error)) if isinstance(error, PengiError) else error
        return _Decoded(item, source, time.perf_counter() - started, taken, notes)

    def _answer(self, group: Sequence[_Decoded]) -> list[Row]:
        answers: dict[int, tuple[Any, float]] = {}
        together = [index for index, decoded in enumerate(group) if isinstance(decoded.source, Waveform)]
        # A long recording has its own call, since memory for each of its windows is needed.
        alone = [[index] for index, decoded in enumerate(group) if decoded.source is None]
        for indices in [together, *alone] if together else alone:
            started = time.perf_counter()
            found = self._ask([group[index] for index in indices])
            seconds = (time.perf_counter() - started) / len(indices)
            answers |= {index: (answer, seconds) for index, answer in zip(indices, found, strict=True)}
        rows = []
        for index, decoded in enumerate(group):
            answer, seconds = answers.get(index, (decoded.source, 0.0))
            checked = self._checked(decoded, answer)
            rows.append(self._job.row(decoded.item.name, checked, decoded.seconds + seconds, decoded.notes))
        self._budget.release(sum(decoded.samples for decoded in group))
        return rows

    def _ask(self, group: Sequence[_Decoded]) -> list[Any]:
        """The answers of the model; if a batch fails, its recordings are tried one by one."""
        try:
            # Recordings that were not decoded ahead are opened only now.
            sources = [decoded.source or recording(Path(), decoded.item.location) for decoded in group]
        except PengiError as error:
            assert len(group) == 1
            return [error]
        try:
            if group[0].source is None and not JOB_TASKS[self._job.task].reads_windows:
                encoded = self._engine.encode(
                    sources[0], for_text=self._job.task not in ("tags", "embed"), on_error="return", **self._job.reading
                )
                if isinstance(encoded, PengiError):
                    return [encoded]
                group[0].notes.extend(encoded.notes)  # a vector, or a tuple of events, has no notes
                sources = [encoded]
            return self._job.answer(self._engine, sources)
        except PengiError:  # the options are wrong, not a recording
            raise
        except Exception as error:
            # One recording must not end a job; `_checked` counts these errors and ends it if the program keeps failing.
            log.debug("the model failed on %d recordings", len(group), exc_info=True)
            if len(group) == 1:
                return [error]
            return [answer for decoded in group for answer in self._ask([decoded])]

    def _checked(self, decoded: _Decoded, answer: Any) -> Any:
        """The answer, or an error about its recording; the internal error is raised if the program keeps failing."""
        if not isinstance(answer, Exception) or isinstance(answer, PengiError):
            self._internal_errors = 0
            return answer
        self._internal_errors += 1
        if self._internal_errors >= MAX_INTERNAL_ERRORS:
            raise answer
        kind = type(answer).__name__
        log.debug("internal error at '%s'", decoded.item.name, exc_info=answer)
        return PengiError(f"internal error at '{decoded.item.name}' ({kind}: {first_line(answer)})")
