"""Measured descriptors: what the sentences say, and that they are true of the sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pengi.audio.decode import load
from pengi.conditioning.descriptors import (
    bursts_sentence,
    describe_waveform,
    detect_bursts,
    detect_tempo,
    level_sentence,
    note_sentence,
    tempo_sentence,
)
from pengi.conditioning.notes import detect_notes, note_name

RATE = 16_000


def tone(hz: float, duration_s: float, rate: int = RATE, level: float = 0.1) -> NDArray[np.float32]:
    """A note with overtones, as far as the rate holds them, that swells and dies within 20 ms."""
    time_S = np.arange(round(duration_s * rate)) / rate
    overtones = [number for number in range(1, 9) if number * hz < rate / 2]
    samples_S = sum(np.sin(2 * np.pi * number * hz * time_S) / number for number in overtones)
    ramp_S = np.minimum(1.0, np.minimum(time_S, duration_s - time_S) / 0.02)
    return (level * samples_S * ramp_S).astype(np.float32)


def noise(duration_s: float, level: float = 0.1) -> NDArray[np.float32]:
    samples_S: NDArray[np.float32] = np.random.default_rng(0).normal(0, level, round(duration_s * RATE)).astype("f4")
    return samples_S


def silence(duration_s: float) -> NDArray[np.float32]:
    return np.zeros(round(duration_s * RATE), np.float32)


def names(samples_S: NDArray[np.float32], rate: int = RATE) -> list[str]:
    return [note.name for note in detect_notes(samples_S, rate, detect_bursts(samples_S, rate))]


def test_a_level_is_said_with_its_course_where_one_is_clear() -> None:
    assert level_sentence(-23.4) == "Level -23 dBFS."
    assert level_sentence(-23.4, "louder at the start") == "Level -23 dBFS, louder at the start."


def test_one_note_is_said_with_its_frequency_and_several_in_order() -> None:
    assert note_sentence(["C4"], 261.6) == "Note C4 (262 Hz)."
    assert note_sentence(["C4", "E4", "G4"]) == "Notes C4, E4, G4."
    assert note_sentence(["C4", "D4", "E4", "F4", "G4", "A4", "B4", "C5"]) == "Notes C4, D4, E4, F4, G4, A4 and 2 more."


def test_bursts_are_counted_and_a_few_are_listed() -> None:
    assert bursts_sentence([(0.3, 0.84)]) == "1 burst: 0.3-0.8 s."
    spans = [(0.2, 0.6), (1.1, 1.5), (2.0, 2.4)]
    assert bursts_sentence(spans) == "3 separate bursts: 0.2-0.6, 1.1-1.5 and 2.0-2.4 s."
    assert bursts_sentence([(i + 0.2, i + 0.5) for i in range(9)]) == "9 separate bursts between 0.2 and 8.5 s."


def test_a_tempo_is_said_in_whole_beats() -> None:
    assert tempo_sentence(119.6) == "Tempo about 120 beats a minute."


def test_a_note_is_described_by_level_and_name() -> None:
    found = describe_waveform(np.concatenate([silence(0.3), tone(261.6, 1.0), silence(0.3)]), RATE)
    assert found == ("Level -23 dBFS.", "1 burst: 0.3-1.3 s.", "Note C4 (262 Hz).")


@pytest.mark.parametrize("midi", [23, 40, 69, 85, 97, 104])
def test_notes_from_the_contrabassoon_to_the_piccolo_are_named(midi: int) -> None:
    assert names(tone(440.0 * 2.0 ** ((midi - 69) / 12), 0.8)) == [note_name(midi)]


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_sample_rate_changes_no_note(rate: int) -> None:
    assert names(tone(440.0, 0.8, rate), rate) == ["A4"]


def test_notes_after_one_another_are_listed_in_order_even_if_far_apart() -> None:
    parts = [part for hz in (261.6, 2637.0, 65.4) for part in (tone(hz, 0.5), silence(0.3))]
    assert describe_waveform(np.concatenate([silence(0.2), *parts]), RATE)[1:] == (
        "3 separate bursts: 0.2-0.7, 1.0-1.5 and 1.8-2.3 s.",
        "Notes C4, E7, C2.",
    )


def test_a_legato_melody_is_listed_though_nothing_parts_its_notes() -> None:
    assert names(np.concatenate([tone(hz, 0.6) for hz in (392.0, 329.6, 261.6)])) == ["G4", "E4", "C4"]


def test_a_slide_has_no_note() -> None:
    time_S = np.arange(RATE) / RATE
    assert names((0.2 * np.sin(2 * np.pi * (200 * time_S + 200 * time_S**2))).astype(np.float32)) == []


def test_chords_and_noise_have_no_note() -> None:
    chord_S = tone(261.6, 1.0) + tone(329.6, 1.0) + tone(370.0, 1.0)
    assert names(chord_S) == []
    assert names(noise(2.0)) == []


@pytest.mark.parametrize("samples_S", [silence(2.0), silence(0.0), noise(1.0, 1e-5), silence(1.0) + np.float32(0.5)])
def test_silence_and_a_constant_have_no_description(samples_S: NDArray[np.float32]) -> None:
    assert describe_waveform(samples_S, RATE) == ()


@pytest.mark.parametrize("samples", [1, 10, 200, 600])
def test_very_short_sounds_are_described(samples: int) -> None:
    found = describe_waveform(np.resize(np.float32([0.5, -0.5]), samples), RATE)
    assert found in ((), ("Level -6 dBFS.",))


def test_clipping_does_not_hide_the_note() -> None:
    clipped_S = np.clip(20.0 * tone(220.0, 1.0), -1.0, 1.0)
    assert describe_waveform(clipped_S, RATE)[-1] == "Note A3 (220 Hz)."


def test_the_course_of_the_level_is_measured() -> None:
    steady_S = noise(3.0)
    ramp_S = np.linspace(-30.0, 0.0, len(steady_S))
    swelling_S = (steady_S * 10.0 ** (ramp_S / 20.0)).astype(np.float32)
    late_S = np.concatenate([0.05 * noise(2.0), noise(1.0)])
    assert describe_waveform(steady_S, RATE)[0] == "Level -20 dBFS, steady."
    assert describe_waveform(swelling_S, RATE)[0].endswith(", swelling.")
    assert describe_waveform(swelling_S[::-1].copy(), RATE)[0].endswith(", fading.")
    assert describe_waveform(late_S, RATE)[0].endswith(", louder at the end.")


def test_steady_noise_has_no_bursts() -> None:
    assert detect_bursts(noise(3.0), RATE) == ()


def test_bursts_over_a_background_are_counted() -> None:
    beeps_S = np.concatenate([part for _ in range(4) for part in (silence(0.3), tone(880.0, 0.25))] + [silence(0.3)])
    spans = detect_bursts(beeps_S + noise(len(beeps_S) / RATE, 0.01)[: len(beeps_S)], RATE)
    assert spans == pytest.approx(np.array([(0.3, 0.55), (0.85, 1.1), (1.4, 1.65), (1.95, 2.2)]), abs=0.03)


def clicks(bpm: float) -> NDArray[np.float32]:
    """Ten seconds of clicks, of which every third is louder."""
    samples_S = silence(10.0)
    for number, start_s in enumerate(np.arange(0.1, 9.8, 60.0 / bpm)):
        start = round(start_s * RATE)
        samples_S[start : start + 400] += (2.0 if number % 3 == 0 else 1.0) * noise(0.025)
    return samples_S


@pytest.mark.parametrize("bpm", [70.0, 96.0, 120.0, 140.0])
def test_the_tempo_of_a_clear_beat_is_given(bpm: float) -> None:
    assert detect_tempo(clicks(bpm), RATE) == pytest.approx(bpm, rel=0.01)
    assert describe_waveform(clicks(bpm) + noise(10.0, 0.005), RATE)[-1] == tempo_sentence(bpm)


def test_what_does_not_keep_its_pace_has_no_tempo() -> None:
    assert detect_tempo(np.concatenate([clicks(80.0)[: 5 * RATE], clicks(110.0)[: 5 * RATE]]), RATE) is None
    assert detect_tempo(noise(10.0), RATE) is None
    assert detect_tempo(tone(220.0, 10.0), RATE) is None
    assert detect_tempo(clicks(120.0)[: 5 * RATE], RATE) is None


def test_the_same_recording_has_the_same_description() -> None:
    samples_S = tone(440.0, 1.0) + 0.1 * noise(1.0)
    assert describe_waveform(samples_S, RATE) == describe_waveform(samples_S.copy(), RATE)


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        ("audio/philharmonia/philharmonia-05577.opus", "Note A4 (444 Hz)."),
        ("audio/philharmonia/philharmonia-05683.opus", "Note A#0 (30 Hz)."),
        ("audio/philharmonia/philharmonia-06015.opus", "Note C5 (518 Hz)."),
    ],
)
def test_notes_of_real_instruments_are_named(shared_data: Path, audio: str, sentence: str) -> None:
    assert describe_waveform(load(shared_data / audio, RATE), RATE)[-1] == sentence


@pytest.mark.parametrize("folder", ["librispeech", "nexuiz-music"])
def test_read_speech_and_music_of_many_voices_have_no_note(shared_data: Path, folder: str) -> None:
    for path in sorted((shared_data / "audio" / folder).iterdir())[:6]:
        assert names(load(path, RATE)) == []


def test_read_speech_has_no_tempo(shared_data: Path) -> None:
    for path in sorted((shared_data / "audio" / "librispeech").iterdir())[:6]:
        assert detect_tempo(load(path, RATE), RATE) is None
