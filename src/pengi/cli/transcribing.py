"""``transcribe``: transcribes speech; no language model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text

from pengi.cli.console import announced, guarded, print_note, print_text
from pengi.cli.exporting import OutputOptions, opened_output
from pengi.cli.inputs import InputSource, read_arguments
from pengi.cli.options import AUTO, Device, Files, Json, TrackOptions
from pengi.cli.session import over_files
from pengi.readable import clock

if TYPE_CHECKING:
    from pengi.errors import PengiError
    from pengi.results import Transcript


@guarded
def transcribe(
    files: Files,
    *,
    output: OutputOptions,
    reading: TrackOptions,
    json: Json = False,
    device: Device = AUTO,
) -> None:
    """Transcribe English speech, with times. No language model is loaded.

    Examples:
        pengi transcribe interview.wav
        pengi transcribe interviews/ --format srt --out subtitles
        pengi transcribe interviews/ --json
    """
    target = output.target(as_json=json)
    recordings = read_arguments(files)
    with announced("Loading whisper-tiny.en"):
        from pengi.conditioning.transcript import Transcriber
        from pengi.engine import device_of
        from pengi.streaming import attempt

        transcriber = Transcriber.from_pretrained(device_of(device))

    def work(part: Sequence[InputSource]) -> list[Transcript | PengiError]:
        return [attempt(partial(transcriber.transcribe, **vars(reading)), source) for source in part]

    settings = {"command": "transcribe", "transcriber": "whisper-tiny.en", **asdict(reading)}
    with opened_output(target, recordings.names, settings) as rows:
        over_files(recordings, work, _show, as_json=json, output=rows)


def _show(transcript: Transcript) -> None:
    for segment in transcript.segments:
        time = f"{clock(segment.start_s)} - {clock(segment.end_s)}"
        print_text(Text.assemble((time, "bold"), f"  {segment.text}"))
    if not transcript.segments:
        print_note("no speech was found")
