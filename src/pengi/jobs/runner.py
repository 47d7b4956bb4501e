"""Runs a job: reads the list of recordings and writes the file of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from pengi import __version__
from pengi.audio.formats import no_recordings
from pengi.checkpoint import model_hash
from pengi.engine import Pengi
from pengi.errors import InputError
from pengi.jobs import cluster
from pengi.jobs.cluster import Actors
from pengi.jobs.inputs import JobInput, Listing
from pengi.jobs.ledger import Ledger
from pengi.jobs.pipeline import Pipeline
from pengi.jobs.tasks import Job
from pengi.json_lines import Row
from pengi.writing import printable

BATCH_SIZE = 16
MAX_WORKERS = 8


@dataclass(frozen=True)
class Execution:
    """Where and how a job runs. Only the model affects the answers."""

    model: str
    device: str = "auto"
    batch_size: int = BATCH_SIZE
    """Number of recordings in one call of the model."""
    workers: int | None = None
    """Number of threads that decode; by default one for each processor, at most ``MAX_WORKERS``."""
    actors: Actors | None = None
    """Actors on Ray; None to work in this process."""
    retry_errors: bool = False
    """Whether recordings that could not be used before are tried again."""


@dataclass
class JobCounts:
    """Progress of a job."""

    listed: int = 0
    """Recordings that were listed so far."""
    known: int = 0
    """Listed recordings that have a row already, or were listed before."""
    written: int = 0
    """Rows of this run."""
    rows: int = 0
    """Rows of the file, including those of earlier runs."""
    failed: int = 0
    """Rows with an error."""
    skipped: int = 0
    """Files of the folder that are not recordings."""


Load = Callable[[str, str], Pengi]
JobProgress = Callable[[JobCounts], None]


def _load(model: str, device: str) -> Pengi:
    return Pengi.from_pretrained(model, device=device)


def run(
    listing: Listing,
    job: Job,
    out: Path,
    execution: Execution,
    *,
    load: Load = _load,
    report: JobProgress = lambda counts: None,
) -> JobCounts:
    """Run a job on every recording that has no row yet.

    It may be stopped at any moment, and continues when it is called again. The model is loaded only if there is a
    recording without a row.

    Args:
        listing: the recordings; each gets one row, even if it is listed several times.
        job: the task and its options.
        out: the file of rows, see :mod:`pengi.jobs.ledger`.
        execution: the model, and how it runs.
        load: loads the model in this process.
        report: called for every recording and every batch of rows.

    Raises:
        InputError: if there are no recordings, ``out`` belongs to another job, or the model does not support an option.
        ManifestError: if the list is a manifest with a bad row.
        WeightsError, CheckpointError, ConfigError: if the model cannot be loaded.
    """
    if execution.batch_size < 1 or (execution.workers is not None and execution.workers < 1):
        raise InputError("a batch needs at least 1 recording, and decoding at least 1 worker")
    settings = {**job.settings(), "model_sha256": model_hash(execution.model)}
    about = {"model": execution.model, "pengi": __version__, "begun": datetime.now(UTC).isoformat(timespec="seconds")}
    with Ledger.opened(out, settings, about, retry_errors=execution.retry_errors) as ledger:
        counts = JobCounts(rows=ledger.rows, failed=ledger.failed)
        new = _new_items(listing, ledger, counts, report)
        if (first := next(new, None)) is not None:
            with closing(_rows(chain([first], new), job, execution, settings["model_sha256"], load)) as answered:
                for rows in answered:
                    ledger.append(rows)
                    counts.written += len(rows)
                    counts.rows, counts.failed = ledger.rows, ledger.failed
                    report(counts)
        counts.skipped = listing.skipped
        if not counts.listed and not listing.is_shard:
            raise InputError(no_recordings(printable(listing.given), counts.skipped))
        ledger.finish()
        return counts


def _new_items(listing: Listing, ledger: Ledger, counts: JobCounts, report: JobProgress) -> Iterator[JobInput]:
    for found in listing:
        counts.listed += 1
        name = ledger.name_of(found.location)
        if ledger.claim(name):
            yield replace(found, name=name)
        else:
            counts.known += 1
            report(counts)


def _rows(items: Iterator[JobInput], job: Job, how: Execution, model_sha256: str, load: Load) -> Generator[list[Row]]:
    workers = how.workers or min(MAX_WORKERS, os.cpu_count() or 1)
    if how.actors is None:
        pipeline = Pipeline(load(how.model, how.device), job, batch_size=how.batch_size, workers=workers)
        yield from pipeline.rows(items)
        return
    device = "cpu" if how.device == "auto" and not how.actors.gpus else how.device
    work = cluster.ActorSettings(job, how.model, model_sha256, device, str(Path.cwd()), how.batch_size, workers)
    yield from cluster.cluster_rows(items, work, how.actors)
