"""``watch``: tags of a stream or of new files as they happen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pengi.audio.formats import STDIN, FolderWalk
from pengi.cli.console import guarded, print_error, print_json_line, print_note
from pengi.cli.options import (
    AUTO,
    DEFAULT_MODEL,
    Device,
    LabelsFile,
    Model,
    OnlyLabels,
    optional_labels,
    parsed_threshold,
)
from pengi.cli.session import load_model, with_name
from pengi.cli.streams import bar
from pengi.errors import InputError, PengiError
from pengi.progress import stderr
from pengi.readable import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pengi.engine import Pengi
    from pengi.watching import Moment, WatchOptions

_METER_DB, _METER_COLUMNS = 60.0, 30
_SHOWN_TAGS = 4
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class DetectionOptions:
    """What counts as detected."""

    labels: OnlyLabels = None
    labels_file: LabelsFile = None
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="P|LABEL=P",
            help='Lowest probability of a tag, or of certain labels, such as "0.5, siren=0.3"; it may be repeated.',
            show_default="0.5",
        ),
    ] = None
    hits: Annotated[
        int, typer.Option(metavar="N", help="Number of consecutive windows in which a tag must be detected.")
    ] = 2
    window: Annotated[float, typer.Option(metavar="SECONDS", help="Length of a window.")] = 2.0
    hop: Annotated[float, typer.Option(metavar="SECONDS", help="Time from one window to the next.")] = 1.0

    def options(self) -> WatchOptions:
        """The options as the engine takes them.

        Raises:
            InputError: if a value is out of range.
        """
        from pengi.watching import THRESHOLD, WatchOptions

        given = parsed_threshold(",".join(self.threshold)) if self.threshold else None
        single = given if isinstance(given, dict) else {"*": THRESHOLD if given is None else given}
        return WatchOptions(
            labels=optional_labels(self.labels, self.labels_file),
            threshold=single.pop("*", THRESHOLD),
            thresholds=single,
            min_hits=self.hits,
            window_s=self.window,
            hop_s=self.hop,
        )


@dataclass(frozen=True)
class StreamOptions:
    """The format of the samples on standard input."""

    rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate of standard input.")] = 16_000
    channels: Annotated[int, typer.Option(metavar="N", help="Number of channels of standard input.")] = 1
    encoding: Annotated[
        str, typer.Option(metavar="ENCODING", help="Sample format of standard input: s16le, s32le or f32le.")
    ] = "s16le"


@guarded
def watch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|-",
            help="Folder whose new recordings are watched, or - for raw PCM samples on standard input.",
            show_default=False,
        ),
    ],
    *,
    detection: DetectionOptions,
    stream: StreamOptions,
    model: Model = DEFAULT_MODEL,
    device: Device = AUTO,
) -> None:
    """Print tags as they begin and end, one JSON object per line. It can run for days. A terminal also shows the level.

    Examples:
        arecord -q -t raw -f S16_LE -r 16000 | pengi watch - --labels siren
        pengi watch incoming/ --threshold 0.6 --threshold "gunshot=0.3" --hits 1
    """
    from pengi.audio.pcm import PcmFormat, pcm_blocks

    options = detection.options()
    given = PcmFormat(stream.rate, stream.channels, stream.encoding)
    if source == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(
                "- reads raw samples from standard input; pipe them in, such as: arecord -t raw | pengi ..."
            )
    elif not os.path.isdir(source):  # noqa: PTH112 - as elsewhere: a name may be too long for pathlib
        raise InputError(f"there is no folder '{source}'; - stands for standard input")
    engine = load_model(model, device)
    with Meter() as meter:
        if source == STDIN:
            blocks = pcm_blocks(sys.stdin.buffer, given, engine.sample_rate)
            if _print_detections(engine.watch(blocks, options), {}, meter) == 0:
                print_note("standard input was empty")
        else:
            _watch_folder(engine, source, options, meter)


def _watch_folder(engine: Pengi, folder: str, options: WatchOptions, meter: Meter) -> None:
    """Watch the new recordings of a folder, one after the other, without end."""
    from pengi.audio.decode import stream
    from pengi.watching import file_arrivals

    print_note(f"waiting for new recordings in '{folder}' (Ctrl-C stops)")
    for arrived in file_arrivals(listings(folder), _listing(folder)):
        for path, state in arrived.items():
            if _state(path) != state:  # it grew while others were read; it arrives again once it is complete
                continue
            notes: list[str] = []
            try:
                blocks: Iterable[NDArray[np.float32]] = stream(path, engine.sample_rate, notes=notes)
                _print_detections(engine.watch(blocks, options), {"input": path}, meter)
            except PengiError as error:
                print_error(with_name(path, error))
                print_json_line({"time": _now(), "input": path, "error": str(error)})
            for note in notes:
                print_note(note)


def listings(folder: str) -> Iterator[dict[str, tuple[int, int]]]:
    """The listing of a folder, every second, without end."""
    while True:
        time.sleep(_LOOK_EVERY_S)
        yield _listing(folder)


def _listing(folder: str) -> dict[str, tuple[int, int]]:
    """Size in bytes and modification time of the recordings of a folder, by path."""
    states = ((item.path, _state(item.path)) for item in FolderWalk(folder) if item.error is None)
    return {path: state for path, state in states if state is not None}


def _state(path: str) -> tuple[int, int] | None:
    """Size in bytes and modification time of a file; None if it was deleted again."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _print_detections(moments: Iterable[Moment], about: dict[str, Any], meter: Meter) -> float:
    """Print the tags that begin and end; returns the number of seconds that were read."""
    end_s = 0.0
    for moment in moments:
        meter.clear()
        for detection in moment.detections:
            print_json_line({"time": _now(), **about, **detection.to_dict()})
        meter.show(moment)
        end_s = moment.end_s
    return end_s


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Meter:
    """A line on stderr with the level and the current tags; nothing if stderr is not a terminal."""

    _is_shown: bool = field(default_factory=lambda: sys.stderr.isatty())

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, moment: Moment) -> None:
        """Draw the line."""
        if self._is_shown:
            sys.stderr.write(meter_line(moment)[: stderr().width - 1] + "\r")
            sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line, so that a result can be printed in its place."""
        if self._is_shown:
            sys.stderr.write("\x1b[2K")
            sys.stderr.flush()


def meter_line(moment: Moment) -> str:
    """Level and tags as one line of text."""
    share = min(1.0, max(0.0, 1 + moment.level_db / _METER_DB))
    level = bar(share, _METER_COLUMNS, sys.stderr)
    tags = ", ".join(f"{label} {percent(probability)}" for label, probability in moment.present[:_SHOWN_TAGS])
    return f"{moment.level_db:6.1f} dBFS {level:<{_METER_COLUMNS}} {tags}"
