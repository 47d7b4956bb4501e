"""Notes of steady pitch in a recording, found with SwiftF0; none if no single pitch prevails.

SwiftF0 is a small network that gives a pitch and a confidence every 16 ms, between 47 and 2094 Hz. Playing a recording
at twice the speed raises its pitch by an octave, so that the range becomes 23 to 1047 Hz at half the cost; at half the
speed the range is 94 to 4188 Hz. The recording's spectrum decides which speeds are tried.

    waveform -> pitch and confidence -> notes (swift_f0.segment_notes) -> steady, harmonic, prevailing notes

Speech glides, so it has no steady notes. Chords and noise put too little of their energy at the multiples of one pitch.
The bounds were chosen on training recordings; ``benchmarks/descriptors.py`` measures them.

Shape suffixes: S samples, F frequencies of a spectrum, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

SAMPLE_RATE = 16_000
"""Sample rate of SwiftF0's input, in Hz."""
NOTE_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FRAME_S = 256 / SAMPLE_RATE
_HOLD_MS = 80.0
"""A pitch must last this long to be a separate note; the library's default."""
_MAX_STRETCHES = 12
_MARGIN_S = 0.05
_SHORT_S = 0.6
_TONAL_SHARE = 0.8
"""A sound is tonal if the strongest tenth of its frequencies has at least this share of its energy. Other sounds, such
as noise, are not analysed at the slower speeds, which cost more."""
MIN_DURATION_S = 0.09
LONG_S = 0.5
MAX_DEVIATION = 0.13
"""Mean deviation from the note's pitch, in semitones; spoken vowels deviate more."""
MAX_DEVIATION_LONG = 0.3
"""The same for notes of at least ``LONG_S``: vibrato."""
MIN_HARMONIC = 0.65
"""Lowest share of the energy, while the note lasts, that is at multiples of its pitch."""
MIN_COVERAGE = 0.5
"""Lowest share of the recording's energy in notes, if all have the same name. It is low because the attack of a
plucked string belongs to no note."""
MIN_COVERAGE_MELODY = 0.8
"""The same for notes with different names."""
MIN_ENERGY = 0.03
"""Lowest energy of a note relative to the strongest note, and of a frame of a moving pitch relative to the strongest
frame."""
MIN_CONFIDENCE = 0.8
"""Lowest confidence of SwiftF0 in frames of a moving pitch."""
MIN_VOICED_S = 0.15
"""Lowest total length of such frames."""


def note_name(midi: int) -> str:
    """A MIDI number in scientific pitch notation with sharps: 61 is ``C#4``."""
    octave, step = divmod(midi, 12)
    return f"{NOTE_NAMES[step]}{octave - 1}"


@dataclass(frozen=True)
class Note:
    """One note: start and end in seconds, and its pitch as a fractional MIDI number (A4, 440 Hz, is 69)."""

    start_s: float
    end_s: float
    pitch: float
    energy: float
    """Share of the recording's energy."""

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def hz(self) -> float:
        """Frequency of its pitch."""
        return float(440.0 * 2.0 ** ((self.pitch - 69.0) / 12.0))

    @property
    def name(self) -> str:
        """The nearest note of equal temperament at A4 = 440 Hz, such as ``C#4``."""
        return note_name(round(self.pitch))


def detect_notes(
    samples_S: NDArray[np.float32],
    rate: int,
    stretches: Sequence[tuple[float, float]] = (),
) -> tuple[Note, ...]:
    """The notes of a recording that has one steady pitch at a time, in order; empty for any other recording.

    Args:
        samples_S: ``float32[S]``, mono.
        rate: in Hz.
        stretches: start and end of sounds with silence between them, in seconds, in order. Each is analysed by itself;
            fewer than two or more than ``_MAX_STRETCHES`` mean the recording as a whole.
    """
    samples_S = samples_S if rate == SAMPLE_RATE else soxr.resample(samples_S, rate, SAMPLE_RATE)
    notes: list[Note] = []
    energies = {True: 0.0, False: 1e-30}
    for start, end in _cuts(stretches, len(samples_S)):
        cut_S = samples_S[start:end]
        found = _notes_of(cut_S)
        energies[bool(found)] += float(np.dot(cut_S, cut_S))
        offset_s = start / SAMPLE_RATE
        notes += [replace(note, start_s=note.start_s + offset_s, end_s=note.end_s + offset_s) for note in found]
    return tuple(notes) if energies[True] >= MIN_COVERAGE_MELODY * sum(energies.values()) else ()


def moving_pitch(samples_S: NDArray[np.float32], rate: int) -> float | None:
    """The median pitch of voiced frames in Hz, such as a voice's; None if there are few.

    Args:
        samples_S: ``float32[S]``, mono.
        rate: in Hz.
    """
    samples_S = samples_S if rate == SAMPLE_RATE else soxr.resample(samples_S, rate, SAMPLE_RATE)
    if not len(samples_S):
        return None
    track = _detector().detect(samples_S, SAMPLE_RATE)
    energy_T = 10.0 ** (track.loudness_db / 10.0)
    voiced_T = (track.confidence >= MIN_CONFIDENCE) & (energy_T >= MIN_ENERGY * energy_T.max())
    if voiced_T.sum() * _FRAME_S < MIN_VOICED_S:
        return None
    return float(np.median(track.pitch_hz[voiced_T]))


def _cuts(stretches: Sequence[tuple[float, float]], samples: int) -> list[tuple[int, int]]:
    """Start and end of each stretch in samples, with a margin of ``_MARGIN_S``; or those of the whole recording."""
    if not 1 < len(stretches) <= _MAX_STRETCHES:
        return [(0, samples)]
    return [
        (max(0, round((start_s - _MARGIN_S) * SAMPLE_RATE)), min(samples, round((end_s + _MARGIN_S) * SAMPLE_RATE)))
        for start_s, end_s in stretches
    ]


def _notes_of(samples_S: NDArray[np.float32]) -> list[Note]:
    """The notes of one sound or melody."""
    for speed in _speeds(samples_S):
        if found := _prevailing(_steady(samples_S, speed)):
            return found
    return []


def _speeds(samples_S: NDArray[np.float32]) -> tuple[float, ...]:
    """Speeds at which to analyse a sound, the fastest first. A note has no energy below its pitch, so energy at low
    frequencies rules out high pitches; a short note needs finer frames."""
    power_F = np.abs(np.fft.rfft(samples_S)) ** 2
    hz_F = np.fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE)
    power_F[hz_F < 20.0] = 0.0
    total = float(power_F.sum())
    if total <= 0.0:
        return ()
    below_950, below_1900 = (float(power_F[hz_F < hz].sum()) / total for hz in (950.0, 1900.0))
    tenth = len(power_F) // 10
    tonal = float(np.partition(power_F, -tenth)[-tenth:].sum()) >= _TONAL_SHARE * total if tenth else True
    short = len(samples_S) < _SHORT_S * SAMPLE_RATE
    chosen = {2.0: below_950 >= 0.05, 1.0: tonal and (below_950 < 0.3 or short), 0.5: tonal and below_1900 < 0.3}
    return tuple(speed for speed, wanted in chosen.items() if wanted)


@cache
def _detector() -> SwiftF0:
    # Imported here, because onnxruntime takes a while to load; one thread, for the same result everywhere.
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1)


def _steady(samples_S: NDArray[np.float32], speed: float) -> list[Note]:
    """Steady and harmonic notes that SwiftF0 finds in the recording played at a speed."""
    from swift_f0 import segment_notes

    played_S = samples_S if speed == 1.0 else soxr.resample(samples_S, SAMPLE_RATE, round(SAMPLE_RATE / speed))
    if not len(played_S):
        return []
    track = _detector().detect(played_S, SAMPLE_RATE)
    pitch_T = _midi(np.maximum(track.pitch_hz / speed, 1.0))
    energy_T = 10.0 ** (track.loudness_db / 10.0)
    notes = []
    for found in segment_notes(track, pitch_hold_ms=_HOLD_MS / speed):
        frames = slice(round(found.start / _FRAME_S), round(found.end / _FRAME_S))
        pitch = float(_midi(found.pitch_hz / speed))
        weight_T = track.confidence[frames] * np.sqrt(energy_T[frames]) + 1e-12
        deviation = np.average(np.minimum(np.abs(pitch_T[frames] - pitch), 2.0), weights=weight_T)
        note = Note(found.start * speed, found.end * speed, pitch, energy_T[frames].sum() / energy_T.sum())
        bound = MAX_DEVIATION if note.duration_s < LONG_S else MAX_DEVIATION_LONG
        if note.duration_s >= MIN_DURATION_S and deviation <= bound:
            notes.append(note)
    if sum(note.energy for note in notes) < MIN_COVERAGE:
        return []
    return [note for note in notes if _harmonic_share(samples_S, note) >= MIN_HARMONIC]


def _midi(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(69.0 + 12.0 * np.log2(np.asarray(hz) / 440.0))


def _harmonic_share(samples_S: NDArray[np.float32], note: Note) -> float:
    """The share of the energy, while a note lasts, that is at multiples of its pitch."""
    cut_S = samples_S[round(note.start_s * SAMPLE_RATE) : round(note.end_s * SAMPLE_RATE)]
    size = 1 << max(13, (len(cut_S) - 1).bit_length())
    power_F = np.abs(np.fft.rfft(cut_S * np.hanning(len(cut_S)), size)) ** 2
    multiple_F = np.fft.rfftfreq(size, 1 / SAMPLE_RATE) / note.hz
    nearest_F = np.maximum(np.round(multiple_F), 1.0)
    resolution = 2.25 * SAMPLE_RATE / len(cut_S) / note.hz  # the window's main lobe
    tolerance_F = np.maximum(np.minimum(0.03 * nearest_F, 0.25), resolution)
    audible_F = multiple_F * note.hz > 25.0
    near_F = audible_F & (np.abs(multiple_F - nearest_F) < tolerance_F)
    return float(power_F[near_F].sum() / max(power_F[audible_F].sum(), 1e-30))


def _prevailing(notes: Sequence[Note]) -> list[Note]:
    """The notes without the weakest ones; empty if all notes together have too little of the energy."""
    strongest = max((note.energy for note in notes), default=0.0)
    kept = _joined([note for note in notes if note.energy >= MIN_ENERGY * strongest])
    one_name = len({note.name for note in kept}) == 1
    needed = MIN_COVERAGE if one_name else MIN_COVERAGE_MELODY
    return kept if sum(note.energy for note in notes) >= needed else []


def _joined(notes: Sequence[Note]) -> list[Note]:
    """Merge notes that belong to the note before: the same note again, a slide into it, or an overtone of it."""
    kept: list[Note] = []
    for note in notes:
        if kept and note.start_s - kept[-1].end_s < 0.06 and (whole := _one_note(kept[-1], note)):
            kept[-1] = whole
        else:
            kept.append(note)
    return kept


def _one_note(first: Note, second: Note) -> Note | None:
    """Two adjoining notes merged into one, or ``None`` if they are different notes."""
    long, short = sorted((first, second), key=lambda note: -note.duration_s)
    strong, weak = sorted((first, second), key=lambda note: -note.energy)
    slide = abs(long.pitch - short.pitch) < 1.3 and short.duration_s < long.duration_s / 3
    if slide or first.name == second.name:
        return Note(first.start_s, second.end_s, long.pitch, first.energy + second.energy)
    multiple = 2.0 ** ((weak.pitch - strong.pitch) / 12.0)
    overtone = multiple > 1.5 and abs(multiple / round(multiple) - 1.0) < 0.025
    return strong if overtone and weak.energy < 0.3 * strong.energy else None
