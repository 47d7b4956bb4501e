"""``run``: one question about thousands of recordings, one row for each."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.audio.formats import passed_over_note
from pengi.cli.console import EXIT_USER, announced, guarded, say, say_error, say_json, say_note, stderr
from pengi.cli.files import check_target
from pengi.cli.listening import chosen_labels
from pengi.cli.options import AUTO, DEFAULT_MODEL, Beams, Debug, Device, MaxTokens, Model, Partial, Track
from pengi.cli.session import clock, load_model
from pengi.errors import InputError, PengiError

if TYPE_CHECKING:
    from pengi.jobs.inputs import Listing
    from pengi.jobs.runner import Counts, Plan
    from pengi.jobs.tasks import Job

_TASK, _WORK, _RAY = "Options of the tasks", "How it is done", "On a cluster"
_LOCAL, _ON_RAY = "local", "ray"
_REDRAW_S = 0.1
_PACE_BATCHES = 32
_NOTE_S = 60.0
"""How often a line says how far it is where no bar can be seen, as in the log of a job that runs overnight."""


@guarded
def run(
    given: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder of recordings at any depth, a pattern in quotes, a manifest (.jsonl), or - for paths of "
            "recordings on standard input, one a line.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="What to do with each recording: describe, events, ask, classify, tags, embed or timeline.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="File of results, .jsonl or .parquet. If it exists, the job goes on from its last row.",
            show_default=False,
        ),
    ],
    question: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Task ask: what to ask about each recording.", rich_help_panel=_TASK),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar='"A, B, ..."',
            help="Labels, separated by commas. Task classify: to choose from; tags and timeline: only these tags.",
            rich_help_panel=_TASK,
        ),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same from a text file, one a line.", rich_help_panel=_TASK),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Task classify: how labels are scored: likelihood, generate or match (see `pengi classify --help`).",
            show_default="likelihood",
            rich_help_panel=_TASK,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks classify and tags: keep only the N most probable labels.",
            show_default="all",
            rich_help_panel=_TASK,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Tasks tags and timeline: lowest probability of a tag.",
            show_default="0.1 for tags, 0.5 for timeline",
            rich_help_panel=_TASK,
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Task timeline: let the language model name windows of so many seconds, instead of detecting tags.",
            show_default="5 without a tagger",
            rich_help_panel=_TASK,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Task timeline: time from the start of a window to the start of the next, in seconds.",
            show_default="5 without a tagger",
            rich_help_panel=_TASK,
        ),
    ] = None,
    beams: Beams = None,
    max_tokens: MaxTokens = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Number of recordings in one call of the model.", rich_help_panel=_WORK)
    ] = 16,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that decode recordings ahead of the model.",
            show_default="one for each processor",
            rich_help_panel=_WORK,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Read only the first N recordings.", show_default="all", rich_help_panel=_WORK),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Do only part I of N, so that N machines share the recordings; each needs its own --out.",
            rich_help_panel=_WORK,
        ),
    ] = "1/1",
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Read recordings again whose row is an error.", rich_help_panel=_WORK),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="local: work in this process; ray: in several processes or machines, with Ray Data.",
            rich_help_panel=_RAY,
        ),
    ] = _LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray: address of a running cluster; auto finds the one of this machine.",
            show_default="a new one on this machine",
            rich_help_panel=_RAY,
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --engine ray: number of processes that each load the model.",
            show_default="all that fit",
            rich_help_panel=_RAY,
        ),
    ] = None,
    cpus_per_actor: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="With --engine ray: processors for each actor.", show_default="2", rich_help_panel=_RAY
        ),
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="With --engine ray: GPUs for each actor, such as 1, or 0.5 if two share one.",
            show_default="0",
            rich_help_panel=_RAY,
        ),
    ] = None,
    track: Track = None,
    partial: Partial = False,
    model: Model = DEFAULT_MODEL,
    json: Annotated[
        bool, typer.Option("--json", help="Print the counts of the job as JSON on stdout.", rich_help_panel="Common")
    ] = False,
    device: Device = AUTO,
    debug: Debug = False,
) -> None:
    """Do one task on every recording of a collection and write a row for each. A job that was stopped goes on when the
    same command is given again.

    Rows have the columns input, text, scores, seconds, error and notes, and those of the task: duration_s (describe,
    tags, timeline), heard (classify), tags (tags), vector (embed), segments (timeline).

    Examples:
        pengi run recordings/ --task describe --out captions.jsonl
        pengi run "tapes/**/*.flac" --task tags --threshold 0.3 --out tags.parquet
        find . -name "*.wav" | pengi run - --task embed --out vectors.jsonl
    """
    check_target(out)
    on_ray = {"address": address, "count": actors, "cpus": cpus_per_actor, "gpus": gpus_per_actor}
    _check_engine(engine, on_ray)
    with announced("Starting"):
        from pengi.jobs.cluster import Actors
        from pengi.jobs.inputs import Listing
        from pengi.jobs.runner import Plan
        from pengi.jobs.tasks import Job
    job = Job(
        task=task,
        question=question,
        labels=tuple(chosen_labels(labels, labels_file)) if task == "classify" or labels or labels_file else None,
        method=method,
        top=top,
        threshold=threshold,
        window_s=window,
        hop_s=hop,
        beams=beams,
        max_tokens=max_tokens,
        track=track,
        partial=partial,
    )
    plan = Plan(
        model=model,
        device=device,
        batch=batch,
        workers=workers,
        actors=Actors(**_given_only(on_ray)) if engine == _ON_RAY else None,
        retry_errors=retry_errors,
    )
    with announced("Reading the list"):
        listing = Listing(given, shard=_shard(shard), limit=limit)
    _run(listing, job, out, plan, json)


def _given_only(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that the user left out."""
    return {name: value for name, value in options.items() if value is not None}


def _check_engine(engine: str, on_ray: dict[str, Any]) -> None:
    if engine not in (_LOCAL, _ON_RAY):
        raise InputError(f"there is no engine '{engine}'; there are {_LOCAL} and {_ON_RAY}")
    if engine == _LOCAL and _given_only(on_ray):
        raise InputError(f"--address, --actors, --cpus-per-actor and --gpus-per-actor need --engine {_ON_RAY}")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise InputError(f"--shard is I/N, such as 1/4, and not '{text}'")
    return int(found[1]), int(found[2])


def _run(listing: Listing, job: Job, out: Path, plan: Plan, json: bool) -> None:
    from pengi.jobs import runner

    started = time.monotonic()
    try:
        with _reporting(listing) as report:
            counts = runner.run(listing, job, out, plan, load=load_model, report=report)
    except KeyboardInterrupt:
        say_note("stopped; the rows so far are safe, and the same command goes on from there")
        raise
    if json:
        seconds = round(time.monotonic() - started, 3)
        say_json({"out": str(out), **asdict(counts), "seconds": seconds})
    else:
        say(Text(f"{out}: {counts.rows} rows, {counts.written} of them new"))
    if counts.passed_over:
        say_note(passed_over_note(counts.passed_over, listing.given))
    if counts.failed:
        say_error(f"{counts.failed} of {counts.rows} recordings could not be used; the column 'error' says why")
        raise typer.Exit(EXIT_USER)


class Pace:
    """How fast a job is, over its last batches, and how long it will take.

    Args:
        clock: seconds that go by.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._past: deque[tuple[float, int]] = deque(maxlen=_PACE_BATCHES)
        self.total: int | None = None
        """Recordings of the list, once they are counted."""

    def note(self, counts: Counts) -> None:
        """Remember when so many rows were written."""
        if counts.written and (not self._past or self._past[-1][1] != counts.written):
            self._past.append((self._clock(), counts.written))

    def said(self, counts: Counts) -> str:
        """Rate and remaining time, as far as they are known yet, and how many could not be used."""
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
def _reporting(listing: Listing) -> Iterator[Callable[[Counts], None]]:
    """What shows how far a job is: a bar on a terminal's stderr, elsewhere a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    pace = Pace()
    bar = Progress(
        TextColumn("Reading"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        console=stderr(),
        transient=True,
        redirect_stdout=False,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task("", total=None, pace="")
    shown = time.monotonic()

    def report(counts: Counts) -> None:
        nonlocal shown
        pace.note(counts)
        now = time.monotonic()
        if bar.disable:
            if now - shown > _NOTE_S:
                shown = now
                of_all = "" if pace.total is None else f" of {pace.total}"
                done = f"{counts.known + counts.written}{of_all} recordings"
                say_note(", ".join(filter(None, (done, pace.said(counts)))))
        elif now - shown > _REDRAW_S:
            shown = now
            # Not before: the model's own messages come first.
            bar.start()
            bar.update(task, completed=counts.known + counts.written, total=pace.total, pace=pace.said(counts))

    # A large folder on a slow disk takes long to count, and the work need not wait for it.
    Thread(target=_count, args=(listing, pace), daemon=True).start()
    try:
        yield report
    finally:
        bar.stop()


def _count(listing: Listing, pace: Pace) -> None:
    try:
        pace.total = listing.count()
    except PengiError:  # said by the job itself, which reads the same list
        pace.total = None
