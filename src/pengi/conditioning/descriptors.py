"""What is measured in a recording, as finished sentences: level, notes, tempo, separate bursts of sound.

The sentence functions are the only place where the wording is, so that training text can be drawn with them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Course = Literal["steady", "swelling", "fading", "louder at the start", "louder in the middle", "louder at the end"]
"""How the level changes; ``None`` where nothing is clear."""
MAX_LISTED = 6
"""More notes or bursts than these are counted, not listed."""


def level_sentence(level_db: float, course: Course | None = None) -> str:
    """``Level -23 dBFS, louder at the start.``; the level is RMS in dBFS, rounded to whole decibels."""
    return f"Level {round(level_db)} dBFS." if course is None else f"Level {round(level_db)} dBFS, {course}."


def note_sentence(names: Sequence[str], hz: float | None = None) -> str:
    """``Note C4 (262 Hz).`` or ``Notes C4, E4, G4.``, in the order they are played.

    Args:
        names: one or more, in scientific pitch notation with sharps; A4 is 440 Hz.
        hz: the pitch of a single note.
    """
    if len(names) == 1:
        return f"Note {names[0]}." if hz is None else f"Note {names[0]} ({round(hz)} Hz)."
    return f"Notes {', '.join(names)}."


def bursts_sentence(spans: Sequence[tuple[float, float]]) -> str:
    """``3 separate bursts: 0.2-0.6, 1.1-1.5 and 2.0-2.4 s.``, ``1 burst: 0.3-0.8 s.``, or with the times of the whole
    only: ``9 separate bursts between 0.2 and 8.1 s.``

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
