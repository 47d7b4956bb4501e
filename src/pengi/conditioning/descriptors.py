"""Measures level, separate bursts of sound, notes and tempo of a recording, and writes them as sentences.

Only the functions ``*_sentence`` contain the wording; they also write the evidence of simulated scenes.
Uncertain measurements are left out: a number of bursts that depends on the threshold, notes of speech or of a chord.
``benchmarks/descriptors.py`` measures how often the sentences are right.

Shape suffixes: S samples, T frames of 10 ms, F frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pengi.audio.level import SILENCE_DB, rms_db, sound_level_db, without_offset
from pengi.conditioning.notes import Note, detect_notes, moving_pitch

Course = Literal["steady", "swelling", "fading", "louder at the start", "louder in the middle", "louder at the end"]
"""How the level changes."""
VERSION = 3
"""Raise it with every change of a sentence or of the transcriber: training clips are then measured again."""
MAX_LISTED = 6
"""Maximum number of notes or bursts that a sentence lists one by one."""
_HOP_S = 0.01
_WINDOW_S = 0.032
_MIN_TEMPO_S = 6.0
_MIN_REGULARITY = 0.3


def describe_waveform(samples_S: NDArray[np.float32], rate: int) -> tuple[str, ...]:
    """The sentences of all :data:`DESCRIBERS` about a short recording; none about a silent one.

    Args:
        samples_S: ``float32[S]``, mono, finite.
        rate: in Hz.

    Returns:
        Sentences about level, separate bursts, notes or a moving pitch, and tempo, in this order; unclear ones are
        left out.
    """
    if not len(samples_S) or sound_level_db(samples_S) < SILENCE_DB:
        return ()
    samples_S = without_offset(samples_S)
    return tuple(sentence for describer in DESCRIBERS for sentence in describer(samples_S, rate))


def _level(samples_S: NDArray[np.float32], rate: int) -> Iterator[str]:
    yield level_sentence(rms_db(samples_S), level_course(samples_S, rate))


def _bursts_and_pitch(samples_S: NDArray[np.float32], rate: int) -> Iterator[str]:
    if bursts := detect_bursts(samples_S, rate):
        yield bursts_sentence(bursts)
    if notes := detect_notes(samples_S, rate, bursts):
        yield note_sentence(*_played(notes))
    elif (pitch := moving_pitch(samples_S, rate)) is not None:
        yield pitch_sentence(pitch)


def _tempo(samples_S: NDArray[np.float32], rate: int) -> Iterator[str]:
    if (tempo := detect_tempo(samples_S, rate)) is not None:
        yield tempo_sentence(tempo)


Describer = Callable[[NDArray[np.float32], int], Iterable[str]]
"""Takes a recording ``float32[S]`` without a constant offset, and its rate in Hz; returns sentences about it."""
DESCRIBERS: list[Describer] = [_level, _bursts_and_pitch, _tempo]
"""All functions that measure the waveform, in the order of their sentences."""


def level_sentence(level_db: float, course: Course | None = None) -> str:
    """``Level -23 dBFS, louder at the start.``; the level is RMS in dBFS, rounded to whole decibels."""
    return f"Level {round(level_db)} dBFS." if course is None else f"Level {round(level_db)} dBFS, {course}."


def note_sentence(names: Sequence[str], hz: float | None = None) -> str:
    """``Note C4 (262 Hz).``, ``Notes C4, E4, G4.`` or ``Notes C4, D4, E4, F4, G4, A4 and 9 more.``

    Args:
        names: one or more, in the order they are played, in scientific pitch notation with sharps; A4 is 440 Hz.
        hz: the pitch of a single note.
    """
    if len(names) == 1:
        return f"Note {names[0]}." if hz is None else f"Note {names[0]} ({round(hz)} Hz)."
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"Notes {', '.join(names[:MAX_LISTED])}{more}."


def pitch_sentence(hz: float) -> str:
    """``Pitch about 120 Hz, moving.``: the median of an unsteady pitch, such as a voice's, rounded to 10 Hz."""
    return f"Pitch about {10 * round(hz / 10)} Hz, moving."


def bursts_sentence(spans: Sequence[tuple[float, float]]) -> str:
    """``3 separate bursts: 0.2-0.6, 1.1-1.5 and 2.0-2.4 s.``, ``1 burst: 0.3-0.8 s.``, or, for more than
    :data:`MAX_LISTED`, ``9 separate bursts between 0.2 and 8.1 s.``

    Args:
        spans: one or more, start and end in seconds, in order.
    """
    times = [f"{start_s:.1f}-{end_s:.1f}" for start_s, end_s in spans]
    if len(times) == 1:
        return f"1 burst: {times[0]} s."
    if len(times) > MAX_LISTED:
        return f"{len(times)} separate bursts between {spans[0][0]:.1f} and {spans[-1][1]:.1f} s."
    return f"{len(times)} separate bursts: {', '.join(times[:-1])} and {times[-1]} s."


def tempo_sentence(bpm: float) -> str:
    """``Tempo about 120 beats a minute.``"""
    return f"Tempo about {round(bpm)} beats a minute."


def level_course(samples_S: NDArray[np.float32], rate: int) -> Course | None:
    """How the level changes; ``None`` if that is unclear, or the recording is shorter than a second."""
    if len(samples_S) < rate:
        return None
    level_9 = np.array([max(SILENCE_DB, rms_db(part)) for part in np.array_split(samples_S, 9)])
    slope, offset = np.polyfit(np.arange(9), level_9, 1)
    residual = float(np.std(level_9 - slope * np.arange(9) - offset))
    if np.ptp(level_9) < 3.0:
        return "steady"
    if abs(8 * slope) > 8.0 and residual < 0.15 * abs(8 * slope):
        return "swelling" if slope > 0 else "fading"
    third_3 = [rms_db(part) for part in np.array_split(samples_S, 3)]
    names: tuple[Course, ...] = ("louder at the start", "louder in the middle", "louder at the end")
    loudest = int(np.argmax(third_3))
    others = [level for part, level in enumerate(third_3) if part != loudest]
    return names[loudest] if third_3[loudest] - max(others) >= 6.0 else None


def detect_bursts(samples_S: NDArray[np.float32], rate: int) -> tuple[tuple[float, float], ...]:
    """Stretches of sound with clear dips between, in seconds, in order.

    Empty if nothing stands out from the background, or if a stricter threshold would give another number of bursts.
    """
    level_T = _envelope_db(samples_S, rate)
    top = float(level_T.max())
    floor = float(np.quantile(np.maximum(level_T, top - 60.0), 0.2))
    depth = top - floor
    if depth < 8.0:
        return ()
    runs = _runs(level_T > floor + 0.4 * depth, shortest_s=0.06, shortest_gap_s=0.12)
    peaks = [float(level_T[start:end].max()) for start, end in runs]
    loose, strict = (
        [run for run, peak in zip(runs, peaks, strict=True) if peak >= floor + share * depth] for share in (0.6, 0.75)
    )
    if len(loose) != len(strict):
        return ()
    return tuple((start * _HOP_S, min(end * _HOP_S, len(samples_S) / rate)) for start, end in strict)


def _envelope_db(samples_S: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Level every 10 ms, in dB relative to an arbitrary reference. Only frequencies above 90 Hz count, because rumble
    would hide the dips."""
    power_TF = _spectrogram(samples_S, rate) ** 2
    power_T = power_TF[:, round(90.0 * _WINDOW_S) :].sum(axis=1, dtype=np.float64)
    return 10.0 * np.log10(np.convolve(power_T, np.ones(3) / 3, "same") + 1e-9)


def _spectrogram(samples_S: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Magnitudes ``float32[T, F]`` every 10 ms."""
    size, hop = round(_WINDOW_S * rate), round(_HOP_S * rate)
    window = np.hanning(size).astype(np.float32)
    frame_TS = sliding_window_view(np.pad(samples_S, size // 2), size)[::hop] * window
    return np.abs(np.fft.rfft(frame_TS))


def _runs(on_T: NDArray[np.bool_], *, shortest_s: float, shortest_gap_s: float) -> list[tuple[int, int]]:
    """First frame and end of each run of ``True``. Runs with a gap below ``shortest_gap_s`` are joined; then those
    shorter than ``shortest_s`` are dropped."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on_T.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if runs and (start - runs[-1][1]) * _HOP_S < shortest_gap_s:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [run for run in runs if (run[1] - run[0]) * _HOP_S >= shortest_s]


def _played(notes: Sequence[Note]) -> tuple[list[str], float | None]:
    """The names to list, and the pitch if all notes have the same name."""
    names = [note.name for note in notes]
    if len(set(names)) > 1:
        return names, None
    return names[:1], max(notes, key=lambda note: note.energy).hz


def detect_tempo(samples_S: NDArray[np.float32], rate: int) -> float | None:
    """Tempo in beats a minute, about 60 to 180, of a recording with a steady beat; it may be half or twice the tempo
    that a person taps. ``None`` if onsets do not repeat, or repeat at different rates in the two halves."""
    if len(samples_S) < _MIN_TEMPO_S * rate:
        return None
    onset_T = _onsets(samples_S, rate)
    half = len(onset_T) // 2
    (bpm, regularity), (first, _), (second, _) = map(_pace, (onset_T, onset_T[:half], onset_T[half:]))
    if regularity < _MIN_REGULARITY or max(abs(first / bpm - 1), abs(second / bpm - 1)) > 0.03:
        return None
    return bpm


def _onsets(samples_S: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Onset strength of each frame: the mean increase of 24 bands since the frame before, above its mean over half a
    second."""
    magnitude_TF = _spectrogram(samples_S, rate)
    edges = np.unique(np.round(np.geomspace(2, magnitude_TF.shape[1] - 1, 25)).astype(int))
    band_TF = np.log1p(100.0 * np.add.reduceat(magnitude_TF, edges[:-1], axis=1))
    rise_T = np.maximum(np.diff(band_TF, axis=0), 0.0).mean(axis=1)
    return np.asarray(np.maximum(rise_T - np.convolve(rise_T, np.ones(50) / 50, "same"), 0.0))


def _pace(onset_T: NDArray[np.float64]) -> tuple[float, float]:
    """Tempo in beats a minute at the highest autocorrelation of the onsets, weighted towards 120, and that
    autocorrelation."""
    centred_T = onset_T - onset_T.mean()
    correlation_T = np.fft.irfft(np.abs(np.fft.rfft(centred_T, 2 * len(onset_T))) ** 2)[: len(onset_T)]
    correlation_T /= max(correlation_T[0], 1e-12) * (1.0 - np.arange(len(onset_T)) / len(onset_T))
    lags = np.arange(33, 101)  # frames: 60 to 180 beats a minute
    preference = np.exp(-0.5 * (np.log2(60.0 / (lags * _HOP_S) / 120.0) / 0.8) ** 2)
    lag = int(lags[np.argmax(correlation_T[lags] * preference)])
    precise = float(lag)
    for count in (2, 4):  # over several beats the lag gives a more precise tempo
        near = np.arange(round(count * (precise - 1)), round(count * (precise + 1)) + 1)
        if near[-1] < len(onset_T) // 2:
            precise = int(near[np.argmax(correlation_T[near])]) / count
    return 60.0 / (precise * _HOP_S), float(correlation_T[lag])
