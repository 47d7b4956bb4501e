"""``timeline``: the events of recordings of any length, with their times."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.audio.formats import is_regular
from pengi.cli.console import Waiting, guarded, percentage, print_note, print_text
from pengi.cli.exporting import Output, OutputOptions, check_target, opened_output
from pengi.cli.inputs import InputFile, InputFiles, InputSource, read_arguments
from pengi.cli.options import (
    CommonOptions,
    Files,
    LabelsFile,
    TrackOptions,
    optional_labels,
    parsed_threshold,
)
from pengi.cli.session import Report, load_model
from pengi.errors import InputError, PengiError
from pengi.readable import clock, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from pengi.engine import Pengi
    from pengi.results import Segment, Timeline

    _Show: TypeAlias = Callable[[Iterator[Segment], "_Position"], None]


@dataclass(frozen=True)
class EventOptions:
    """How events are detected; None stands for the engine's default."""

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help='Probability that an event reaches, such as 0.7, or of single labels, such as "0.5, siren=0.7".',
            show_default="0.5",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar='"A, B, ..."',
            help="Detect only these, separated by commas: tags, or any words, which the language model looks for.",
            show_default="all tags",
        ),
    ] = None
    labels_file: LabelsFile = None
    min_duration: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Leave out shorter events.", show_default="none left out"),
    ] = None
    merge_gap: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Join events of one label with a shorter pause between them.", show_default="0.5"
        ),
    ] = None
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Describe windows of this length with the language model, instead of detecting tags.",
            show_default="5 without a tagger",
        ),
    ] = None
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time from the start of a window to the start of the next, in seconds; at most --window.",
            show_default="5 without a tagger",
        ),
    ] = None

    def engine_options(self) -> dict[str, Any]:
        """Keywords of :meth:`pengi.engine.Pengi.segments`.

        Raises:
            InputError: for an invalid number of seconds or threshold, or if no label is given.
        """
        for name, seconds in (("--window", self.window), ("--hop", self.hop)):
            if seconds is not None and not seconds > 0:
                raise InputError(f"{name} must be more than 0 seconds, not {seconds:g}")
        return {
            "threshold": parsed_threshold(self.threshold),
            "labels": optional_labels(self.labels, self.labels_file),
            "min_duration_s": self.min_duration,
            "merge_gap_s": self.merge_gap,
            "window_s": self.window,
            "hop_s": self.hop,
        }


Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="PATH",
        help="Also draw waveform, spectrogram and events: a picture (.png, .svg, .pdf), or a folder of them.",
        show_default=False,
        rich_help_panel="Output",
    ),
]


@guarded
def timeline(
    files: Files,
    *,
    events: EventOptions,
    output: OutputOptions,
    plot: Plot = None,
    reading: TrackOptions,
    common: CommonOptions,
) -> None:
    """List what happens when, in recordings of any length: events, which may overlap. An event is printed once it and
    all events that began before it have ended.

    Examples:
        pengi timeline night.ogg
        pengi timeline night.ogg --labels "dog barking, siren" --threshold 0.5
        pengi timeline recordings/ --format audacity --out labels
        pengi timeline night.ogg --plot night.png
        pengi timeline night.ogg --window 2 --hop 1 --json
    """
    options = events.engine_options()
    tenths = any(seconds is not None and not seconds.is_integer() for seconds in (events.window, events.hop))
    target = output.target(as_json=common.json)
    recordings = read_arguments(files)
    pictures = _pictures(recordings, plot)
    engine = load_model(common.model, common.device)
    # Notes and errors about the options are printed once, and not for each recording.
    remarks = engine.timeline_remarks(**options, **vars(reading))
    for remark in remarks:
        print_note(remark)
    settings = {"command": "timeline", **options, **asdict(reading)}
    with opened_output(target, recordings.names, settings, common.model) as rows:
        report = Report(recordings, as_json=common.json, output=rows, printed=remarks)
        for recording in recordings.items:
            try:
                if rows is not None:
                    show: _Show = partial(_write, recording.name, rows)
                elif common.json:
                    show = _consume
                else:
                    show = partial(_print, recording.name, report, tenths)
                found = _read_timeline(engine, recording, options, reading, show)
                report.result(recording.name, found)
                if pictures:
                    _plot(recording, found, pictures[recording.name])
            except PengiError as error:
                report.error(recording.name, error)
        report.close()


def _pictures(recordings: InputFiles, plot: Path | None) -> dict[str, Path]:
    """The picture of each recording; none without ``--plot``.

    Raises:
        InputError: for several recordings and one picture, a recording that cannot be read twice, or without
            matplotlib.
    """
    if plot is None:
        return {}
    from pengi.audio.formats import STDIN
    from pengi.exports import file_names
    from pengi.plots import check_plotting

    check_plotting()
    if STDIN in recordings.names:
        raise InputError("--plot reads a recording twice, and standard input can be read once; give a file")
    if plot.suffix and not plot.is_dir():
        if recordings.many:
            raise InputError("a picture shows one recording; give a folder with --plot")
        if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise InputError(f"--plot must end in .png, .svg or .pdf, and '{plot}' does not")
        check_target(plot)
        return {recordings.names[0]: plot}
    return {name: plot / file for name, file in file_names(recordings.names, ".png").items()}


def _plot(recording: InputFile, found: Timeline, path: Path) -> None:
    from pengi.plots import plot_timeline
    from pengi.writing import writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    plot_timeline(recording.source, found, path, recording.name)


def _read_timeline(
    engine: Pengi, recording: InputFile, options: dict[str, Any], reading: TrackOptions, show: _Show
) -> Timeline:
    """Read a timeline, with a percentage on stderr; ``show`` gets the events as they are found.

    Raises:
        PengiError: if the recording cannot be read; events before the damage are still shown.
    """
    from pengi.results import Timeline

    if recording.error is not None:
        raise recording.error
    segments: list[Segment] = []
    notes: list[str] = []
    with percentage("Reading") as waiting:
        position = _Position(waiting, recording.source, reading)

        def events() -> Iterator[Segment]:
            for segment in engine.segments(
                recording.source, progress=position.reach, notes=notes, **options, **vars(reading)
            ):
                segments.append(segment)
                yield segment

        show(events(), position)
    return Timeline(tuple(segments), position.seconds, notes=tuple(notes))


def _consume(events: Iterator[Segment], position: _Position) -> None:
    for _ in events:
        pass


def _print(name: str, report: Report, tenths: bool, events: Iterator[Segment], position: _Position) -> None:
    """Print events for people."""
    is_first = True
    for segment in events:
        with position.waiting.hidden():
            if is_first:
                report.heading(name)
            print_text(_row(segment, tenths=tenths))
        is_first = False
    if is_first:
        report.heading(name)
        print_note("no event was detected")


def _write(name: str, output: Output, events: Iterator[Segment], position: _Position) -> None:
    """Write events as rows."""
    from pengi.exports import segment_row

    rows = (segment_row(name, event.to_dict()) for event in events)
    with position.waiting.hidden() if output.is_printed else nullcontext():
        output.add(name, rows, lambda: position.seconds)


class _Position:
    """The position in a recording, in seconds, on a progress bar."""

    def __init__(self, waiting: Waiting, source: InputSource, reading: TrackOptions) -> None:
        from pengi.audio.decode import stated_duration

        self.waiting = waiting
        # A pipe can be read only once, and standard input may be one.
        is_file = isinstance(source, str) and is_regular(source)
        self._total_s = stated_duration(source, **vars(reading)) if is_file else None
        self.reach(0.0)

    def reach(self, seconds: float) -> None:
        self.seconds = seconds
        of_total = f" of {clock(self._total_s, tenths=False)}" if self._total_s else ""
        self.waiting.reach(seconds, self._total_s, clock(seconds, tenths=False) + of_total)


def _row(segment: Segment, *, tenths: bool) -> Text:
    """A segment as a line; times have tenths of a second if ``tenths`` is set."""
    tenths = tenths or not (segment.start_s.is_integer() and segment.end_s.is_integer())
    time = f"{clock(segment.start_s, tenths=tenths)} - {clock(segment.end_s, tenths=tenths)}"
    return Text.assemble((f"{time:<13}", "bold"), (f"  {percent(segment.confidence):>4}", "dim"), f"  {segment.text}")
