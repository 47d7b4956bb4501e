"""Files that real programs write, each of a kind that is easily read wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pengi.audio.decode import load, probe, stream
from pengi.errors import AudioError

RATE = 16_000
DURATIONS_S = {
    "vbr-no-xing.mp3": 3.0,
    "noise-then-silence-vbr.mp3": 20.0,
    "two-in-one.mp3": 6.0,
    "chained-vorbis.ogg": 6.0,
    "chained.opus": 6.0,
    "gsm610.wav": 3.0,
    "piped.aiff": 3.0,
    "piped.w64": 3.0,
    "gap.webm": 8.0,
    "late-sound.mp4": 4.0,
    "opposite-phase.flac": 3.0,
    "two-tracks.mp4": 3.0,
}


def level(samples: NDArray[np.float32], start_s: float, end_s: float) -> float:
    """RMS of a stretch; the sweep has 0.18."""
    part = samples[round(start_s * RATE) : round(end_s * RATE)]
    return float(np.sqrt(np.mean(part**2)))


@pytest.mark.parametrize("name", DURATIONS_S)
def test_length_is_right_and_the_same_however_it_is_read(name: str, shared_cases: Path) -> None:
    path = shared_cases / name
    whole = load(path, RATE)
    assert len(whole) / RATE == pytest.approx(DURATIONS_S[name], abs=0.065)
    info = probe(path)
    assert info.duration_s == pytest.approx(DURATIONS_S[name], abs=0.065)
    np.testing.assert_array_equal(np.concatenate(list(stream(path, RATE, block_s=0.3))), whole)
    own = load(path, info.sample_rate)
    start = round(1.3 * info.sample_rate)
    part = load(path, info.sample_rate, offset_s=1.3, duration_s=1.0)
    np.testing.assert_allclose(part, own[start : start + info.sample_rate], atol=1e-5)


@pytest.mark.parametrize("name", ["two-in-one.mp3", "chained-vorbis.ogg", "chained.opus"])
def test_what_follows_the_first_stream_is_heard(name: str, shared_cases: Path) -> None:
    samples = load(shared_cases / name, RATE)
    for start_s in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5):
        assert level(samples, start_s, start_s + 0.4) > 0.1


def test_noise_and_the_silence_behind_it_keep_their_lengths(shared_cases: Path) -> None:
    samples = load(shared_cases / "noise-then-silence-vbr.mp3", RATE)
    assert level(samples, 0, 9.9) > 0.1
    assert level(samples, 10.2, 20) < 1e-3


def test_gsm_keeps_its_rate(shared_cases: Path) -> None:
    assert probe(shared_cases / "gsm610.wav").sample_rate == 8_000


def test_a_pause_between_packets_is_silence(shared_cases: Path) -> None:
    notes: list[str] = []
    samples = load(shared_cases / "gap.webm", RATE, notes=notes)
    assert level(samples, 0.1, 1.5) > 0.1
    assert level(samples, 1.65, 6.55) == 0
    assert level(samples, 6.65, 7.9) > 0.1
    assert notes == [
        f"5.00 s of '{shared_cases / 'gap.webm'}' are missing, the first at 1.60 s; they are read as silence"
    ]


def test_sound_that_starts_late_starts_late(shared_cases: Path) -> None:
    notes: list[str] = []
    samples = load(shared_cases / "late-sound.mp4", RATE, notes=notes)
    assert level(samples, 0, 0.93) < 1e-3
    assert level(samples, 1.0, 3.9) > 0.1
    assert notes == []


def test_the_loudest_of_channels_that_cancel_is_used_and_said(shared_cases: Path) -> None:
    notes: list[str] = []
    samples = load(shared_cases / "opposite-phase.flac", RATE, notes=notes)
    assert level(samples, 0.2, 3) == pytest.approx(0.177, abs=0.01)
    assert len(notes) == 1
    assert "cancel each other out in 3.00 s" in notes[0]


def test_the_default_track_is_read_unless_another_is_chosen(shared_cases: Path) -> None:
    path = shared_cases / "two-tracks.mp4"
    notes: list[str] = []
    sweep = load(path, RATE, notes=notes)
    assert notes == [f"'{path}' has 2 sound tracks; track 2 is read"]
    np.testing.assert_array_equal(load(path, RATE, track=2), sweep)
    assert not np.allclose(load(path, RATE, track=1)[: len(sweep)], sweep[: len(sweep)], atol=0.05)
    for track in (0, 3):
        with pytest.raises(AudioError, match=f"has 2 sound tracks, so there is no track {track}"):
            load(path, RATE, track=track)


def test_one_track_is_track_1(shared_cases: Path) -> None:
    for name in ("piped.aiff", "chained.opus", "gap.webm"):
        assert probe(shared_cases / name, track=1) == probe(shared_cases / name)
        with pytest.raises(AudioError, match="has 1 sound track, so there is no track 2"):
            load(shared_cases / name, RATE, track=2)
    with pytest.raises(AudioError, match="no track 2"):
        load((np.ones(100, np.float32), RATE), RATE, track=2)
