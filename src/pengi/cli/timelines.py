"""``timeline``: the events of recordings of any length, with their times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pengi.audio.formats import is_regular
from pengi.cli.console import Waiting, guarded, percentage, print_note, print_text
from pengi.cli.inputs import InputFile, InputSource, read_arguments
from pengi.cli.options import CommonOptions, Files, Labels, LabelsFile, TrackOptions, chosen_labels
from pengi.cli.session import Report, clock, load_model, percent
from pengi.errors import InputError, PengiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pengi.engine import Pengi
    from pengi.results import Segment, Timeline


@dataclass(frozen=True)
class EventOptions:
    """How events are detected; None is the engine's own setting."""

    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, metavar="P", help="Lowest probability of a tag in an event.", show_default="0.5"
        ),
    ] = None
    labels: Labels = None
    labels_file: LabelsFile = None
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Length of windows that the language model names one by one, instead of detecting tags.",
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

    def given(self) -> dict[str, Any]:
        """Keywords of :meth:`pengi.engine.Pengi.segments`.

        Raises:
            InputError: seconds that are not above 0, or no labels.
        """
        for name, seconds in (("--window", self.window), ("--hop", self.hop)):
            if seconds is not None and not seconds > 0:
                raise InputError(f"{name} must be more than 0 seconds, not {seconds:g}")
        has_labels = self.labels is not None or self.labels_file is not None
        labels = chosen_labels(self.labels, self.labels_file) if has_labels else None
        found = {"threshold": self.threshold, "labels": labels, "window_s": self.window, "hop_s": self.hop}
        return {name: value for name, value in found.items() if value is not None}


@guarded
def timeline(files: Files, *, events: EventOptions, reading: TrackOptions, common: CommonOptions) -> None:
    """List what happens when, in recordings of any length: the events of detected tags, which may overlap. An event
    appears once it has ended.

    Examples:
        pengi timeline night.ogg
        pengi timeline night.ogg --labels "dog barking, siren" --threshold 0.5
        pengi timeline night.ogg --window 2 --hop 1 --json
    """
    options = events.given()
    tenths = any(seconds is not None and not seconds.is_integer() for seconds in (events.window, events.hop))
    recordings = read_arguments(files)
    engine = load_model(common.model, common.device)
    report = Report(recordings, as_json=common.json)
    show = None if common.json else lambda segment: print_text(_row(segment, tenths=tenths))
    for recording in recordings.items:
        try:
            report.result(recording.name, _read_timeline(engine, recording, options, reading, report, show))
        except PengiError as error:
            report.error(recording.name, error)
    report.close()


def _read_timeline(
    engine: Pengi,
    recording: InputFile,
    options: dict[str, Any],
    reading: TrackOptions,
    report: Report,
    show: Callable[[Segment], None] | None,
) -> Timeline:
    """A timeline, with a percentage on stderr on the way; ``show`` prints its rows as they come.

    Raises:
        PengiError: if the recording cannot be read; the rows before the damage are printed.
    """
    from pengi.results import Timeline

    if recording.error is not None:
        raise recording.error
    segments: list[Segment] = []
    notes: list[str] = []
    with percentage("Reading") as waiting:
        position = _Position(waiting, recording.source, reading)
        for segment in engine.segments(
            recording.source, progress=position.reach, notes=notes, **options, **vars(reading)
        ):
            if show is not None:
                with waiting.hidden():
                    if not segments:
                        report.heading(recording.name)
                    show(segment)
            segments.append(segment)
    if show is not None and not segments:
        report.heading(recording.name)
        print_note("no event was detected")
    ordered = sorted(segments, key=lambda segment: (segment.start_s, -segment.confidence))
    return Timeline(tuple(ordered), position.seconds, notes=tuple(notes))


class _Position:
    """How far a recording is read, in seconds, on a progress bar."""

    def __init__(self, waiting: Waiting, source: InputSource, reading: TrackOptions) -> None:
        from pengi.audio.decode import stated_duration

        self._waiting = waiting
        # A pipe can be read once only, and standard input may be one.
        is_file = isinstance(source, str) and is_regular(source)
        self._total_s = stated_duration(source, **vars(reading)) if is_file else None
        self.reach(0.0)

    def reach(self, seconds: float) -> None:
        self.seconds = seconds
        of_total = f" of {clock(self._total_s, tenths=False)}" if self._total_s else ""
        self._waiting.reach(seconds, self._total_s, clock(seconds, tenths=False) + of_total)


def _row(segment: Segment, *, tenths: bool) -> Text:
    """A segment as a line; times have tenths of a second where they need them."""
    tenths = tenths or not (segment.start_s.is_integer() and segment.end_s.is_integer())
    time = f"{clock(segment.start_s, tenths=tenths)} - {clock(segment.end_s, tenths=tenths)}"
    return Text.assemble((f"{time:<13}", "bold"), (f"  {percent(segment.confidence):>4}", "dim"), f"  {segment.text}")
