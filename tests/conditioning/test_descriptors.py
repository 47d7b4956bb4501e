"""Measured descriptors: what the sentences say, and that they are true of the sound."""

from __future__ import annotations

from pengi.conditioning.descriptors import bursts_sentence, level_sentence, note_sentence, tempo_sentence


def test_a_level_is_said_with_its_course_where_one_is_clear() -> None:
    assert level_sentence(-23.4) == "Level -23 dBFS."
    assert level_sentence(-23.4, "louder at the start") == "Level -23 dBFS, louder at the start."


def test_one_note_is_said_with_its_frequency_and_several_in_order() -> None:
    assert note_sentence(["C4"], 261.6) == "Note C4 (262 Hz)."
    assert note_sentence(["C4", "E4", "G4"]) == "Notes C4, E4, G4."


def test_bursts_are_counted_and_a_few_are_listed() -> None:
    assert bursts_sentence([(0.3, 0.84)]) == "1 burst: 0.3-0.8 s."
    spans = [(0.2, 0.6), (1.1, 1.5), (2.0, 2.4)]
    assert bursts_sentence(spans) == "3 separate bursts: 0.2-0.6, 1.1-1.5 and 2.0-2.4 s."
    assert bursts_sentence([(i + 0.2, i + 0.5) for i in range(9)]) == "9 separate bursts between 0.2 and 8.5 s."


def test_a_tempo_is_said_in_whole_beats() -> None:
    assert tempo_sentence(119.6) == "Tempo about 120 beats a minute."
