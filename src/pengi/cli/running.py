"""``run``: one task on thousands of recordings, with one row for each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from pengi.audio.formats import skipped_files_note
from pengi.cli.console import EXIT_USER, announced, guarded, print_error, print_note, print_result
from pengi.cli.exporting import check_target
from pengi.cli.options import (
    Beams,
    CommonOptions,
    MaxTokens,
    TrackOptions,
    chosen_labels,
    optional_labels,
    parsed_shard,
    parsed_threshold,
)
from pengi.cli.session import load_model
from pengi.errors import InputError, PengiError
from pengi.progress import bar_on_stderr
from pengi.readable import clock

if TYPE_CHECKING:
    from pengi.exports import Target
    from pengi.jobs.cluster import Actors
    from pengi.jobs.inputs import Listing
    from pengi.jobs.runner import Execution, JobCounts
    from pengi.jobs.tasks import Job

_REDRAW_S = 0.1
_PACE_BATCHES = 32
_NOTE_S = 60.0
"""Seconds between lines of progress if stderr is not a terminal, such as in the log of a job."""


@dataclass(frozen=True)
class JobOptions:
    """Options of the tasks, named as those of :class:`pengi.jobs.tasks.Job`; None stands for the engine's default."""

    panel: ClassVar = "Options of the tasks"

    question: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Task ask: what to ask about each recording.")
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar='"A, B, ..."',
            help="Labels, separated by commas. Task classify: to choose from; tags and timeline: only these.",
        ),
    ] = None
    labels_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As --labels, from a text file with one label per line.")
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Task classify: how labels are scored: likelihood, generate or match (see `pengi classify --help`).",
            show_default="likelihood",
        ),
    ] = None
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Tasks classify and tags: keep only the N most probable labels.", show_default="all"),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Task classify: prompt that the labels answer, such as 'this is a sound of {}'.",
            show_default="this is a sound of {}",
        ),
    ] = None
    none: Annotated[
        float | None,
        typer.Option(
            "--none-threshold",
            metavar="P",
            help="Task classify: add 'none of these', which wins if no label has an independent probability of at "
            "least P.",
            show_default="not added",
        ),
    ] = None
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help='Tasks tags and timeline: lowest probability, of all labels or of each, as "0.5, siren=0.7".',
            show_default="0.1 for tags, 0.5 for timeline",
        ),
    ] = None
    min_duration_s: Annotated[
        float | None,
        typer.Option(
            "--min-duration",
            metavar="SECONDS",
            help="Task timeline: leave out shorter events.",
            show_default="none left out",
        ),
    ] = None
    merge_gap_s: Annotated[
        float | None,
        typer.Option(
            "--merge-gap",
            metavar="SECONDS",
            help="Task timeline: join events of one label with a shorter pause between them.",
            show_default="0.5",
        ),
    ] = None
    window_s: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            help="Task timeline: describe windows of this length with the language model, instead of detecting tags.",
            show_default="5 without a tagger",
        ),
    ] = None
    hop_s: Annotated[
        float | None,
        typer.Option(
            "--hop",
            metavar="SECONDS",
            help="Task timeline: time from the start of a window to the start of the next, in seconds.",
            show_default="5 without a tagger",
        ),
    ] = None
    beams: Beams = None
    max_tokens: MaxTokens = None

    def job(self, task: str, reading: TrackOptions) -> Job:
        """The job of ``task`` with these options.

        Raises:
            InputError: for options of another task, or values out of range.
        """
        from pengi.jobs.tasks import Job

        options = asdict(self) | asdict(reading) | {"threshold": parsed_threshold(self.threshold)}
        given = (options.pop("labels"), options.pop("labels_file"))
        labels = chosen_labels(*given) if task == "classify" else optional_labels(*given)
        return Job(task, labels=None if labels is None else tuple(labels), **options)


@dataclass(frozen=True)
class ExportOptions:
    """In which other format the rows are also written."""

    panel: ClassVar = "Output"

    export: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="At the end also write the rows for other programs: to a file, or to a folder with a file for each "
            "recording.",
            show_default=False,
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Format of --export: csv, jsonl, parquet, audacity, raven, vtt, srt or rttm.",
            show_default="by its suffix",
        ),
    ] = None

    def target(self, task: str) -> Target | None:
        """The target of the rows; None without ``--export``.

        Raises:
            InputError: for a format without a file, an unknown format, or one that does not suit the rows of the task.
        """
        from pengi.exports import Target
        from pengi.job_exports import check_task

        if self.export is None and self.format is not None:
            raise InputError("--format needs --export, which names the file or folder")
        target = None if self.export is None else Target.of(self.format, self.export)
        if target is not None:
            check_task(task, target)
        return target


@dataclass(frozen=True)
class WorkOptions:
    """Which recordings are read, and how."""

    panel: ClassVar = "Execution"

    batch_size: Annotated[int, typer.Option(min=1, help="Number of recordings in one call of the model.")] = 16
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that decode recordings ahead of the model.",
            show_default="one for each processor, at most 8",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first N recordings.", show_default="all")] = (
        None
    )
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, so that N machines share the recordings; each needs its own --out.",
        ),
    ] = "1/1"
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again the recordings whose row has an error.")
    ] = False


@dataclass(frozen=True)
class RayOptions:
    """On which processes and machines the models run."""

    panel: ClassVar = "On a cluster"

    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE", help="local: work in this process; ray: in several processes or machines, with Ray Data."
        ),
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray: address of a running cluster; auto finds the one of this machine.",
            show_default="a new one on this machine",
        ),
    ] = None
    actors: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --engine ray: number of processes that each load the model.", show_default="all that fit"
        ),
    ] = None
    cpus_per_actor: Annotated[
        float | None, typer.Option(metavar="N", help="With --engine ray: processors for each actor.", show_default="2")
    ] = None
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="With --engine ray: GPUs for each actor, such as 1, or 0.5 if two share one.",
            show_default="0",
        ),
    ] = None

    def checked(self) -> Actors | None:
        """The actors of a cluster; None to work in this process.

        Raises:
            InputError: for an unknown engine, or options of another engine.
        """
        from pengi.jobs.cluster import Actors

        options = {
            "address": self.address,
            "count": self.actors,
            "cpus": self.cpus_per_actor,
            "gpus": self.gpus_per_actor,
        }
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if self.engine == "ray":
            return Actors(**given)
        if self.engine != "local":
            raise InputError(f"there is no engine '{self.engine}'; choose local or ray")
        if given:
            raise InputError("--address, --actors, --cpus-per-actor and --gpus-per-actor need --engine ray")
        return None


InputArgument = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A folder of recordings at any depth, a pattern in quotes, a manifest (.jsonl), or - for paths of "
        "recordings on standard input, one per line.",
        show_default=False,
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        metavar="TASK",
        help="What to do with each recording: describe, events, ask, classify, tags, embed, timeline or transcribe.",
        show_default=False,
    ),
]
RowsFile = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="File of results, .jsonl or .parquet. If it exists, the job continues from its last row.",
        show_default=False,
    ),
]


@guarded
def run(
    given: InputArgument,
    task: TaskName,
    out: RowsFile,
    *,
    options: JobOptions,
    export: ExportOptions,
    work: WorkOptions,
    ray: RayOptions,
    reading: TrackOptions,
    common: CommonOptions,
) -> None:
    """Do one task on every recording of a collection and write a row for each. After a stop the same command continues
    the job.

    Rows have the columns input, text, scores, seconds, error and notes, and those of the task: duration_s (describe,
    tags, timeline, transcribe), generated (classify), tags (tags), vector (embed), segments (timeline), transcript
    (transcribe).

    Examples:
        pengi run recordings/ --task describe --out captions.jsonl
        pengi run "tapes/**/*.flac" --task tags --threshold 0.3 --out tags.parquet
        pengi run tapes/ --task tags --out tags.jsonl --export tags.csv
        find . -name "*.wav" | pengi run - --task embed --out vectors.jsonl
    """
    check_target(out)
    with announced("Starting"):
        from pengi.jobs.inputs import Listing
        from pengi.jobs.runner import Execution
    execution = Execution(
        model=common.model,
        device=common.device,
        batch_size=work.batch_size,
        workers=work.workers,
        actors=ray.checked(),
        retry_errors=work.retry_errors,
    )
    job = options.job(task, reading)
    target = export.target(task)
    with announced("Reading the list"):
        listing = Listing(given, shard=parsed_shard(work.shard), limit=work.limit)
    _run(listing, job, out, execution, common.json, target)


def _run(listing: Listing, job: Job, out: Path, execution: Execution, json: bool, target: Target | None) -> None:
    from pengi.jobs import runner

    started = time.monotonic()
    try:
        with _reporting(listing) as report:
            counts = runner.run(listing, job, out, execution, load=load_model, report=report)
    except KeyboardInterrupt:
        print_note("stopped; the rows so far are saved, and the same command continues from there")
        raise
    if target is not None:
        _export(out, job, execution.model, target)
    value = {"out": str(out), **asdict(counts), "seconds": round(time.monotonic() - started, 3)}
    print_result(value, f"{out}: {counts.rows} rows, {counts.written} of them new", as_json=json)
    if counts.skipped:
        print_note(skipped_files_note(counts.skipped, listing.given))
    if counts.failed:
        print_error(f"{counts.failed} of {counts.rows} recordings could not be used; the column 'error' says why")
        raise typer.Exit(EXIT_USER)


def _export(out: Path, job: Job, model: str, target: Target) -> None:
    from pengi import __version__
    from pengi.checkpoint import model_hash
    from pengi.exports import write_settings
    from pengi.job_exports import export_job

    export_job(out, job.task, target)
    about = {"pengi": __version__, "model": model, "model_sha256": model_hash(model)}
    write_settings(target, {**about, "settings": {"command": "run", **job.settings()}, "rows": str(out)})


class Pace:
    """The rate of a job over its last batches, and the time that is left.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._past: deque[tuple[float, int]] = deque(maxlen=_PACE_BATCHES)
        self.total: int | None = None
        """Recordings of the list, once they are counted."""

    def note(self, counts: JobCounts) -> None:
        """Store the current time and number of rows."""
        if counts.written and (not self._past or self._past[-1][1] != counts.written):
            self._past.append((self._clock(), counts.written))

    def text(self, counts: JobCounts) -> str:
        """Rate and remaining time, if they are known, and the number of unusable recordings."""
        parts = []
        if len(self._past) > 1:
            (then_s, before), (now_s, now) = self._past[0], self._past[-1]
            rate = (now - before) / max(now_s - then_s, 1e-9)
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
            if self.total is not None:
                left = max(0, self.total - counts.known - counts.written)
                parts.append(f"{clock(left / rate, tenths=False)} left")
        if counts.failed:
            parts.append(f"{counts.failed} not usable")
        return ", ".join(parts)


@contextmanager
def _reporting(listing: Listing) -> Iterator[Callable[[JobCounts], None]]:
    """Reports the progress of a job on stderr: a bar if it is a terminal, otherwise a line every minute."""
    pace = Pace()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}", markup=False))
    bar = bar_on_stderr(*columns)
    task = bar.add_task("Reading", total=None, pace="")
    shown = time.monotonic()

    def report(counts: JobCounts) -> None:
        nonlocal shown
        pace.note(counts)
        now = time.monotonic()
        if bar.disable:
            if now - shown > _NOTE_S:
                shown = now
                of_all = "" if pace.total is None else f" of {pace.total}"
                done = f"{counts.known + counts.written}{of_all} recordings"
                print_note(", ".join(filter(None, (done, pace.text(counts)))))
        elif now - shown > _REDRAW_S:
            shown = now
            # Started after the messages about loading the model.
            bar.start()
            bar.update(task, completed=counts.known + counts.written, total=pace.total, pace=pace.text(counts))

    # Counting a large folder on a slow disk takes long, so the work does not wait for it.
    Thread(target=_count, args=(listing, pace), daemon=True).start()
    try:
        yield report
    finally:
        bar.stop()


def _count(listing: Listing, pace: Pace) -> None:
    try:
        pace.total = listing.count()
    except PengiError:  # reported by the job itself, which reads the same list
        pace.total = None
