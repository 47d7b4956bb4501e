"""Cuts events out of recordings as clips, and lists the clips in a table whose labels can be corrected.

Training can read the table, ``review.csv`` (:func:`pengi.data.sources.manifest_of`). An empty label means that nothing
is to be detected in the clip.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from pengi.audio.decode import probe, stream
from pengi.errors import AudioError, InputError, PengiError
from pengi.exports import Row
from pengi.results import SILENCE
from pengi.writing import new_folder, writing

REVIEW_FILE = "review.csv"
REVIEW_COLUMNS = ("path", "label", "confidence", "recording", "start_s", "end_s")
MIN_RECORDINGS = 5
"""Minimum number of recordings for the column ``group``, which keeps the clips of one recording in the same split."""
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


@dataclass(frozen=True)
class Choice:
    """Which events are cut out, and how.

    Attributes:
        labels: choose only these; by default all except silence.
        min_confidence: lowest confidence; events without a confidence are always chosen.
        max_confidence: highest confidence.
        padding_s: seconds before and after the event.
        limit: maximum number of clips of each label, the most confident first.

    Raises:
        InputError: for a padding that is negative or not finite, a limit below 1, or an empty range of confidences.
    """

    labels: tuple[str, ...] | None = None
    min_confidence: float = -math.inf
    max_confidence: float = math.inf
    padding_s: float = 0.0
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.padding_s < math.inf:
            raise InputError(f"the padding must be 0 seconds or more, not {self.padding_s:g}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit must be 1 clip of each label or more, not {self.limit}")
        if not self.min_confidence <= self.max_confidence:
            raise InputError(
                f"the lowest confidence {self.min_confidence:g} is above the highest confidence {self.max_confidence:g}"
            )

    def chosen(self, rows: Iterable[Row]) -> list[Row]:
        """The rows to cut out, in their order."""
        found = [row for row in rows if row.start_s is not None and row.end_s is not None and self._fits(row)]
        if self.limit is None:
            return found
        counts: Counter[str] = Counter()
        kept: set[int] = set()
        for index in sorted(range(len(found)), key=lambda index: -(found[index].confidence or 0.0)):
            counts[found[index].label] += 1
            if counts[found[index].label] <= self.limit:
                kept.add(index)
        return [row for index, row in enumerate(found) if index in kept]

    def _fits(self, row: Row) -> bool:
        if row.label == SILENCE if self.labels is None else row.label not in self.labels:
            return False
        return row.confidence is None or self.min_confidence <= row.confidence <= self.max_confidence


@dataclass
class Extraction:
    """The clips that were cut, and the recordings that could not be read.

    Attributes:
        clips: path of each clip below the folder, and its row.
        errors: recording -> why it cannot be read.
    """

    clips: list[tuple[str, Row]] = field(default_factory=list)
    errors: dict[str, PengiError] = field(default_factory=dict)


def extract(rows: Sequence[Row], out: Path, choice: Choice, folders: Sequence[Path] = ()) -> Extraction:
    """Cut events out of their recordings into a new folder, and write the table for the review.

    Clips are mono WAV files at the recording's own rate. A recording that cannot be read gives an error, and the other
    recordings are processed. Memory holds the clips that are being read.

    Args:
        rows: events and their recordings.
        out: the folder; it must not exist, or be empty.
        choice: which rows are cut out, and how.
        folders: further folders for relative paths of recordings, besides the working directory.

    Raises:
        InputError: if no row is chosen, or the folder cannot be written.
    """
    chosen = choice.chosen(rows)
    if not chosen:
        raise InputError(f"none of the {len(rows)} rows match the given labels and confidences")
    by_recording: defaultdict[str, list[Row]] = defaultdict(list)
    for row in chosen:
        by_recording[row.path].append(row)
    found = Extraction()
    names: set[str] = set()
    with new_folder(out) as work:
        for recording, its_rows in by_recording.items():
            try:
                clips = _cut_out(_existing(recording, folders), its_rows, work, choice.padding_s, names)
                found.clips += clips
            except PengiError as error:
                found.errors[recording] = error
        if not found.clips:
            raise next(iter(found.errors.values()))
        _write_review(work / REVIEW_FILE, found.clips)
    return found


def _existing(recording: str, folders: Sequence[Path]) -> Path:
    candidates = [Path(recording), *(folder / recording for folder in folders)]
    for path in candidates:
        if os.path.exists(path):  # noqa: PTH110 - False where it may not be looked at
            return path
    raise AudioError(f"no recording at '{recording}'; run the command where the table was made, or give --root")


def _cut_out(
    recording: Path, rows: Sequence[Row], out: Path, padding_s: float, names: set[str]
) -> list[tuple[str, Row]]:
    info = probe(recording)
    rate = info.sample_rate
    spans = [(max(0.0, (row.start_s or 0.0) - padding_s), (row.end_s or 0.0) + padding_s) for row in rows]
    samples = [(round(start_s * rate), round(end_s * rate)) for start_s, end_s in spans]
    clips: dict[int, str] = {}
    for index, samples_S in cut(stream(recording, rate), samples):
        name = _clip_name(rows[index], names)
        names.add(name)
        with writing(out / name):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(out / name, samples_S, rate, "PCM_16")
        clips[index] = name
    return [(clips[index], row) for index, row in enumerate(rows) if index in clips]


def cut(
    blocks: Iterable[NDArray[np.float32]], spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Cut stretches, which may overlap, out of a waveform that arrives in blocks.

    Args:
        blocks: ``float32[S]`` each.
        spans: first sample of each stretch, and the sample after its last.

    Yields:
        ``(index of the span, float32[S])`` once the stretch has been read. A stretch is shorter if the waveform ends in
        it, and left out if it begins after the end.
    """
    waiting = sorted(range(len(spans)), key=lambda index: spans[index], reverse=True)
    being_read: dict[int, list[NDArray[np.float32]]] = {}
    end = 0
    for block in blocks:
        start, end = end, end + len(block)
        while waiting and spans[waiting[-1]][0] < end:
            being_read[waiting.pop()] = []
        for index in list(being_read):
            first, behind = spans[index]
            being_read[index].append(block[max(0, first - start) : behind - start].copy())
            if behind <= end:
                yield index, np.concatenate(being_read.pop(index))
    for index, parts in being_read.items():
        yield index, np.concatenate(parts)


def _clip_name(row: Row, taken: set[str]) -> str:
    """A path that no other clip has: a folder named after the label, and a file named after the recording and the
    time."""
    stem = f"{Path(row.path).stem}_{row.start_s:.2f}-{row.end_s:.2f}"
    base = f"{as_file_name(row.label)}/{as_file_name(stem)}"
    name, number = f"{base}.wav", 1
    while name in taken:
        number += 1
        name = f"{base}_{number}.wav"
    return name


def as_file_name(text: str) -> str:
    """A text as a valid name of a folder or file on any system."""
    return _UNSAFE.sub("_", text).strip(" .")[:80] or "_"


def _write_review(path: Path, clips: Sequence[tuple[str, Row]]) -> None:
    is_grouped = len({row.path for _, row in clips}) >= MIN_RECORDINGS
    columns = (*REVIEW_COLUMNS, "group") if is_grouped else REVIEW_COLUMNS
    with writing(path), path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for name, row in clips:
            writer.writerow(_review_row(name, row))


def _review_row(name: str, row: Row) -> Mapping[str, object]:
    confidence = "" if row.confidence is None else row.confidence
    return {**asdict(row), "path": name, "confidence": confidence, "recording": row.path, "group": row.path}
