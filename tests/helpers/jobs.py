"""A stand-in for the model that jobs ask, and what reads their rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pengi.audio.decode import load
from pengi.audio.sources import Waveform
from pengi.errors import PengiError
from pengi.results import (
    Answer,
    Classification,
    Description,
    Event,
    LabelScore,
    Segment,
    Tags,
    TagScore,
    Timeline,
    Transcript,
    TranscriptSegment,
)

RATE = 8_000
Rows = list[dict[str, Any]]


class Encoded(Waveform):
    """What the fake keeps of a recording."""

    notes: tuple[str, ...] = ()


class FakeEngine:
    """The interface of :class:`pengi.engine.Pengi` that jobs use; ``calls`` holds how many recordings each call had."""

    sample_rate = RATE

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.paths: list[Path] = []

    def encode(self, source: Any, **options: Any) -> Any:
        self.paths += [source] if isinstance(source, Path) else []
        try:
            return Encoded(load(source, RATE, track=options["track"], partial=options["partial"]), RATE)
        except PengiError as error:
            return error

    def describe(self, audio: Sequence[Any], **options: Any) -> list[Any]:
        return self._each(audio, lambda s: Description(f"{s:.3f} seconds", (Event("tone", 0.123456789),), s))

    def events(self, audio: Sequence[Any], **options: Any) -> list[Any]:
        return self._each(audio, lambda s: (Event("tone", 0.75), Event("hum", 0.25)))

    def ask(self, audio: Sequence[Any], question: str, **options: Any) -> list[Any]:
        return self._each(audio, lambda s: Answer(question, f"{s:.3f}", 0.5))

    def classify(
        self, audio: Sequence[Any], labels: Sequence[str], *, method: str, top: int | None = None, **_: Any
    ) -> Any:
        scores = tuple(LabelScore(label, 1 / len(labels)) for label in labels[:top])
        return self._each(audio, lambda s: Classification(method, scores, "a tone" if method == "match" else None))

    def tags(self, audio: Sequence[Any], **options: Any) -> list[Any]:
        tag = TagScore("rain", "sound", 0.123456789, "maybe", ((0.0, 0.48123), (1.0, 2.0)))
        return self._each(audio, lambda s: Tags((tag,), s))

    def embed(self, audio: Sequence[Any], **options: Any) -> list[Any]:
        return self._each(audio, lambda s: np.array([0.6, 0.8], np.float32))

    def timeline(self, audio: Sequence[Any], *, window_s: float = 5.0, **options: Any) -> list[Any]:
        segments = (Segment(0.0, window_s, "rain", 0.25), Segment(window_s, 9.0, "siren", 0.5),
                    Segment(9.0, 10.0, "rain", 0.75))  # fmt: skip
        return self._each(audio, lambda s: Timeline(segments, 10.0))

    def transcribe(self, audio: Sequence[Any], **options: Any) -> list[Any]:
        segments = (TranscriptSegment(0.01234, 0.1, "Come here."),)
        return self._each(audio, lambda s: Transcript("Come here.", segments, s))

    def _each(self, audio: Sequence[Any], answer: Callable[[float], Any]) -> list[Any]:
        self.calls.append(len(audio))
        self.paths += [source for source in audio if isinstance(source, Path)]
        answers: list[Any] = []
        for source in audio:
            try:
                answers.append(answer(len(load(source, RATE)) / RATE))
            except PengiError as error:
                answers.append(error)
        return answers


def write_tone(path: Path, seconds: float) -> None:
    """A recording of so many seconds."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time_s), RATE)


def rows_of(path: Path) -> Rows:
    """The rows of a file in either format."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (pengi[jobs])")
        found: Rows = parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def timeless(rows: Rows) -> Rows:
    """Rows without what differs from run to run, in one order."""
    return sorted(({**row, "seconds": None} for row in rows), key=lambda row: row["input"])
