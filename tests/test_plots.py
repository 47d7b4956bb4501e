"""Pictures of timelines, and small spectrograms for a terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import noise, tone
from pengi.errors import InputError
from pengi.plots import MAX_LANES, lanes_of, plot_timeline, terminal_spectrogram
from pengi.results import Segment, Timeline

pytest.importorskip("matplotlib", reason="plots need matplotlib (the extra 'plot')")
AUDIO = (np.concatenate([tone(2.0, 3000.0), noise(2.0, level=0.0001), tone(2.0, 200.0)]), 16_000)


def test_a_timeline_becomes_a_picture_in_the_format_of_its_suffix(tmp_path: Path) -> None:
    timeline = Timeline((Segment(0.0, 2.0, "whistle", 0.9), Segment(1.0, 6.0, "hum", 0.5)), 6.0)
    plot_timeline(AUDIO, timeline, tmp_path / "a.png", "a recording")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    plot_timeline(AUDIO, Timeline((), 6.0), tmp_path / "a.svg")
    assert "no event was detected" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="could not be written"):
        plot_timeline(AUDIO, timeline, tmp_path / "no/a.png")


def test_every_label_has_a_lane_and_of_too_many_the_longest_have() -> None:
    events = [Segment(float(number), number + 0.5 + number / 100, f"label {number}", 0.5) for number in range(60)]
    lanes = lanes_of([*events, Segment(70.0, 80.0, "label 59", 0.5)])
    assert list(lanes) == [f"label {number}" for number in range(60 - MAX_LANES, 60)]
    assert len(lanes["label 59"]) == 2


def test_a_picture_says_what_it_leaves_out_and_has_round_times(tmp_path: Path) -> None:
    events = [Segment(float(number), number + 1.0, f"label {number}", 0.5) for number in range(60)]
    plot_timeline((noise(241.0, level=0.01), 16_000), Timeline(tuple(events), 241.0), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert f"{MAX_LANES} of 60 labels, those with the longest events" in text
    assert "<!-- 1:00 -->" in text
    assert "<!-- time (min:s) -->" in text


def test_a_terminal_shows_where_it_is_loud() -> None:
    rows = terminal_spectrogram(AUDIO, 90)
    assert len(rows) == 7
    assert {len(row) for row in rows} == {90}

    def light(colour: str) -> int:
        return sum(int(colour[start : start + 2], 16) for start in (1, 3, 5))

    brightness = np.array([[max(light(upper), light(lower)) for upper, lower in row] for row in rows])
    high, low = brightness[1:3], brightness[-2:]
    assert high[:, :25].max() > high[:, 65:].max()
    assert low[:, 65:].max() > low[:, :25].max()
    assert brightness[:, 35:55].max() < brightness.max()
