"""Waveforms joined and laid over one another at the loudness that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import RATE, noise, tone
from pengi.data import mixing
from pengi.errors import AudioError


def silence(seconds: float) -> mixing.Samples:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


def test_loudness_of_a_tone_is_its_weighted_power() -> None:
    """At 1 kHz the weighting is 0 dB; at 100 Hz it is -5.6 dB (ANSI S1.4)."""
    assert mixing.loudness_db(tone(1.0, 1000.0, 0.5), RATE) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)
    difference = mixing.loudness_db(tone(1.0, 1000.0), RATE) - mixing.loudness_db(tone(1.0, 100.0), RATE)
    assert difference == pytest.approx(5.65, abs=0.3)


def test_silence_around_a_sound_does_not_make_it_softer() -> None:
    alone = tone(0.5, 1000.0)
    padded = np.concatenate([silence(1.0), alone, silence(3.0)])
    assert mixing.loudness_db(padded, RATE) == pytest.approx(mixing.loudness_db(alone, RATE), abs=0.3)
    with pytest.raises(AudioError, match="silent"):
        mixing.loudness_db(silence(1.0), RATE)


@settings(max_examples=20, deadline=None)
@given(st.floats(-20, 10), st.floats(0.05, 1.0), st.integers(0, 100))
def test_a_part_is_brought_to_its_level(level_db: float, seconds: float, seed: int) -> None:
    brought = mixing.set_loudness(noise(seconds, seed), RATE, level_db)
    assert mixing.loudness_db(brought, RATE) == pytest.approx(mixing.REFERENCE_DB + level_db, abs=0.01)
    assert abs(brought[0]) < abs(brought).max() / 10


def test_trimming_leaves_the_sound() -> None:
    sound = noise(0.5)
    trimmed = mixing.trim_silence(np.concatenate([silence(0.4), sound, silence(0.7)]), RATE)
    assert np.array_equal(trimmed, sound)
    assert len(mixing.trim_silence(silence(0.1), RATE)) == len(silence(0.1))


def test_the_loudest_stretch() -> None:
    samples = np.concatenate([noise(1.0, level=0.01), tone(0.5, 800.0), noise(1.0, level=0.01)])
    cut = mixing.loudest_excerpt(samples, RATE // 2, RATE)
    assert len(cut) == RATE // 2
    assert np.square(cut).sum() > 0.99 * np.square(tone(0.5, 800.0)).sum()
    assert mixing.loudest_excerpt(samples, len(samples) + 1, RATE) is samples


def test_pauses_are_cut_down_to_a_tenth_of_a_second() -> None:
    knock = noise(0.2)
    samples = np.concatenate([knock, silence(1.0), knock, silence(0.06), knock])
    kept = mixing.shorten_pauses(samples, RATE)
    assert len(kept) / RATE == pytest.approx(0.6 + 0.1 + 0.06, abs=0.03)
    assert np.array_equal(mixing.shorten_pauses(knock, RATE), knock)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.data())
def test_concatenated_parts_follow_their_gaps(lengths: list[int], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(0, 20), min_size=len(lengths) + 1, max_size=len(lengths) + 1))
    parts = [np.full(length, index + 1.0, dtype=np.float32) for index, length in enumerate(lengths)]
    samples = mixing.concatenate(parts, tuple(gap / 1000 for gap in gaps), 1000)
    assert len(samples) == sum(lengths) + sum(gaps)
    start = 0
    for index, (gap, length) in enumerate(zip(gaps, lengths, strict=False)):
        assert not samples[start : start + gap].any()
        assert (samples[start + gap : start + gap + length] == index + 1).all()
        start += gap + length


def test_a_background_is_repeated_or_cut_to_the_foreground() -> None:
    foreground = np.zeros(5, dtype=np.float32)
    assert mixing.add_background(foreground, np.array([1, 2], dtype=np.float32)).tolist() == [1, 2, 1, 2, 1]
    assert mixing.add_background(foreground, np.arange(9, dtype=np.float32)).tolist() == [0, 1, 2, 3, 4]


def test_only_what_exceeds_full_scale_is_made_softer() -> None:
    quiet, loud = tone(0.1, level=0.3), tone(0.1, level=3.0)
    assert mixing.limit_peak(quiet) is quiet
    assert np.abs(mixing.limit_peak(loud)).max() == pytest.approx(mixing.PEAK, abs=1e-4)
