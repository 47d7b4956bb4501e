"""What is measured once per recording, whenever a run is killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import RATE, tone, write_clips
from pengi.data.manifest import Clip, read_manifest
from pengi.data.measured import Measured, cached_measurements
from pengi.errors import ManifestError


class Measure:
    """Names a recording by its length in samples; breaks after so many recordings."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.lengths: list[int] = []
        self.breaks_after = breaks_after

    def __call__(self, recordings: Sequence[NDArray[np.float32]]) -> list[Measured]:
        if self.breaks_after is not None and len(self.lengths) + len(recordings) > self.breaks_after:
            raise KeyboardInterrupt
        self.lengths += [len(samples) for samples in recordings]
        return [Measured(f"{len(samples)} samples", ("Level.", "Tone.")) for samples in recordings]


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    recordings = {f"clip-{n}": (tone(0.1 + 0.01 * n), {"split": "train", "events": ["hum"]}) for n in range(20)}
    return read_manifest(write_clips(tmp_path / "clips", recordings))


def measured(clips: Sequence[Clip], tmp_path: Path, measure: Measure, version: str = "1") -> dict[str, Measured]:
    return cached_measurements(clips, tmp_path / "clips", measure, version, RATE, 0.25)


def lines_file(pengi_home: Path) -> Path:
    (path,) = pengi_home.rglob("measured-*.jsonl")
    return path


def test_a_run_that_was_stopped_measures_only_what_is_left(clips: list[Clip], tmp_path: Path) -> None:
    first, second, third = Measure(breaks_after=10), Measure(), Measure()
    with pytest.raises(KeyboardInterrupt):
        measured(clips, tmp_path, first)
    found = measured(clips, tmp_path, second)
    assert len(first.lengths) == 8
    assert len(second.lengths) == 12
    assert found["clip-3"] == Measured(f"{round(0.13 * RATE)} samples", ("Level.", "Tone."))
    assert found["clip-19"].transcript == f"{round(0.25 * RATE)} samples"  # the beginning of what is longer
    assert measured(clips, tmp_path, third) == found
    assert not third.lengths
    assert len(measured(clips, tmp_path, third, version="2")) == 20
    assert len(third.lengths) == 20


@pytest.mark.parametrize("kept", [1, 40, -1], ids=["one byte", "half a line", "all but the end of the line"])
def test_a_last_line_that_was_cut_off_costs_no_other(
    kept: int, clips: list[Clip], tmp_path: Path, pengi_home: Path
) -> None:
    found = measured(clips, tmp_path, Measure())
    path = lines_file(pengi_home)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:kept])
    again, once_more = Measure(), Measure()
    assert measured(clips, tmp_path, again) == found
    assert measured(clips, tmp_path, once_more) == found
    assert len(again.lengths) <= 1
    assert not once_more.lengths


def test_a_damaged_line_is_measured_again(
    clips: list[Clip], tmp_path: Path, pengi_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = measured(clips, tmp_path, Measure())
    path = lines_file(pengi_home)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], b"\xff\xfe\n", b'["no", "object"]\n', b"{}\n", *lines[8:]]))
    again = Measure()
    with caplog.at_level(logging.WARNING):
        assert measured(clips, tmp_path, again) == found
    assert len(again.lengths) == 3
    assert "damaged" in caplog.text


def test_recordings_that_cannot_be_read_are_left_out_up_to_a_limit(clips: list[Clip], tmp_path: Path) -> None:
    (tmp_path / "clips/clip-4.wav").write_bytes(b"no recording")
    found = cached_measurements(clips, tmp_path / "clips", Measure(), "1", RATE, 0.25, max_bad_share=0.1)
    assert found.keys() == {clip.id for clip in clips} - {"clip-4"}
    with pytest.raises(ManifestError):
        cached_measurements(clips, tmp_path / "clips", Measure(), "1", RATE, 0.25, max_bad_share=0.0)
    only_bad = Measure()
    with pytest.raises(ManifestError):
        measured([clips[4]], tmp_path, only_bad)
    assert not only_bad.lengths


def test_copies_of_a_recording_are_measured_once(clips: list[Clip], tmp_path: Path) -> None:
    copy = clips[0].model_copy(update={"id": "copy"})
    measure = Measure()
    found = measured([clips[0], copy], tmp_path, measure)
    assert found["copy"] == found["clip-0"]
    assert len(measure.lengths) == 1
