"""Runs a job on Ray Data (extra ``cluster``): one model for each actor, on one machine or a cluster.

Ray distributes the names, keeps the actors busy and restarts them when a machine is lost. Each actor runs
:mod:`pengi.jobs.pipeline` on its share. The rows come back to this process, and only this process writes them.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pengi.checkpoint import model_hash
from pengi.data.arrow import arrow
from pengi.engine import Pengi
from pengi.errors import CheckpointError, InputError, PengiError, how_to_install
from pengi.jobs.inputs import JobInput
from pengi.jobs.pipeline import Pipeline
from pengi.jobs.tasks import Job
from pengi.json_lines import Row

log = logging.getLogger(__name__)

BATCHES_PER_CALL = 4
"""Batches in one call of an actor; later ones are decoded while the model works on the first."""
BLOCKS_OF_ONE_SIZE = 1_000
MAX_BLOCK_ROWS = 4_096
_ROW, _ERROR = "row", "error"


@dataclass(frozen=True)
class Actors:
    """Where the models run."""

    address: str | None = None
    """Address of a running cluster, or ``auto``; by default a cluster is started on this machine for the job."""
    count: int | None = None
    """Number of actors; by default as many as the cluster has room for."""
    cpus: float = 2.0
    """Processors for each actor; also the number of threads that a model on a CPU uses."""
    gpus: float = 0.0
    """GPUs for each actor; with 0.5 two actors share a GPU."""

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise InputError(f"there must be at least 1 actor, not {self.count}")
        if not self.cpus > 0 or self.gpus < 0:
            raise InputError(
                f"an actor needs more than 0 CPUs and at least 0 GPUs, not {self.cpus:g} CPUs and {self.gpus:g} GPUs"
            )


@dataclass(frozen=True)
class ActorSettings:
    """Arguments of an :class:`Actor`."""

    job: Job
    model: str
    model_sha256: str
    device: str
    folder: str
    """The folder that relative paths start from."""
    batch_size: int
    workers: int


class Actor:
    """A callable for Ray Data. It is called with a table of names, and yields a table of rows for each batch."""

    def __init__(self, work: ActorSettings) -> None:
        self._error: str | None = None
        if Path(work.folder).is_dir():
            os.chdir(work.folder)
        try:
            if model_hash(work.model) != work.model_sha256:
                raise CheckpointError(f"a machine of the cluster has a different model '{work.model}' from this one")
            engine = Pengi.from_pretrained(work.model, device=work.device)
            self._pipeline = Pipeline(engine, work.job, batch_size=work.batch_size, workers=work.workers)
        except PengiError as error:
            # Ray would restart an actor whose constructor raises again and again.
            self._error = str(error)

    def __call__(self, names: Any) -> Iterator[Any]:
        pa = arrow()
        try:
            if self._error is not None:
                raise PengiError(self._error)
            for rows in self._pipeline.rows(map(_item, names.to_pylist())):
                yield pa.table({_ROW: [json.dumps(row) for row in rows], _ERROR: pa.nulls(len(rows), pa.string())})
        except PengiError as error:
            yield pa.table({_ROW: pa.nulls(1, pa.string()), _ERROR: [str(error)]})


def cluster_rows(items: Iterable[JobInput], work: ActorSettings, actors: Actors) -> Iterator[list[Row]]:
    """The rows of the recordings, in the order in which they come back.

    Raises:
        InputError: if Ray is not installed, there is no cluster at the address, or this machine has too few resources.
        PengiError: as :meth:`pengi.jobs.pipeline.Pipeline.rows`, and if a machine does not have the model.
    """
    with _connected(actors) as ray:
        count = _count(actors, ray.cluster_resources())
        blocks = [ray.put(block) for block in _blocks(items, work.batch_size, count)]
        count = min(count, len(blocks))
        log.info("%d actors, each with %g CPUs and %g GPUs", count, actors.cpus, actors.gpus)
        names = ray.data.from_arrow_refs(blocks)
        answered = names.map_batches(
            Actor,
            batch_size=BATCHES_PER_CALL * work.batch_size,
            batch_format="pyarrow",
            concurrency=count,
            num_cpus=actors.cpus,
            num_gpus=actors.gpus or None,
            fn_constructor_args=(work,),
        )
        for block in answered.iter_batches(batch_size=None, batch_format="pyarrow"):
            error = next((sentence for sentence in block[_ERROR].to_pylist() if sentence is not None), None)
            if error is not None:
                raise PengiError(error)
            yield [json.loads(row) for row in block[_ROW].to_pylist()]


def _blocks(items: Iterable[JobInput], batch_size: int, count: int) -> Iterator[Any]:
    """Tables of names, one for each Ray task.

    The rows of a task come back when it ends, and a kill loses the tasks that are running. So tables are small at
    first. In a long list they become larger, because Ray is slow with tens of thousands of tasks. A short list is
    divided evenly among the actors.
    """
    pa = arrow()
    # A path may be any bytes, but Arrow's strings must be UTF-8.
    schema = pa.schema([("name", pa.string()), ("location", pa.binary()), ("error", pa.string())])
    waiting = iter(items)
    size = BATCHES_PER_CALL * batch_size
    first = list(islice(waiting, count * size))
    waiting = chain(first, waiting)
    if len(first) < count * size:
        size = max(1, math.ceil(len(first) / count))
    made = 0
    while block := [vars(item) | {"location": os.fsencode(item.location)} for item in islice(waiting, size)]:
        yield pa.Table.from_pylist(block, schema=schema)
        made += 1
        if made % BLOCKS_OF_ONE_SIZE == 0:
            size = max(size, min(2 * size, MAX_BLOCK_ROWS))


def _item(row: dict[str, Any]) -> JobInput:
    return JobInput(row["name"], os.fsdecode(row["location"]), row["error"])


def _count(actors: Actors, resources: dict[str, float]) -> int:
    """The number of actors."""
    room = int(resources.get("CPU", 0.0) / actors.cpus)
    if actors.gpus:
        room = min(room, int(resources.get("GPU", 0.0) / actors.gpus))
    # A cluster at an address may grow on demand.
    if actors.address is None and room < (actors.count or 1):
        raise InputError(
            f"{actors.count or 1} actors with {actors.cpus:g} CPUs and {actors.gpus:g} GPUs each are more than this "
            f"machine's {resources.get('CPU', 0.0):g} CPUs and {resources.get('GPU', 0.0):g} GPUs"
        )
    return actors.count or max(1, room)


@contextmanager
def _connected(actors: Actors) -> Iterator[Any]:
    """The connected module ``ray``; a cluster that was started here is stopped at the end."""
    # Otherwise Ray sends usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # At lower levels its core writes internal messages to stderr.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"this needs Ray; {how_to_install('cluster')}") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if actors.address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address=actors.address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"there is no Ray cluster at '{actors.address}'") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield ray
    finally:
        ray.shutdown()
