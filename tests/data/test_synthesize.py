"""Rendered instruments: what is drawn, how it becomes MIDI, and, where FluidSynth is installed, how it sounds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pengi.cli import app
from pengi.conditioning.notes import detect_notes
from pengi.data.manifest import read_labels, read_manifest
from pengi.data.synthesize import (
    SOUNDFONTS,
    Score,
    Stroke,
    Synthesized,
    Voice,
    find_soundfont,
    license_of,
    midi_file,
    read_voices,
    render,
    synthesize,
    write_synthesized,
)
from pengi.errors import AudioError, InputError

RATE = 16_000
needs_fluidsynth = pytest.mark.skipif(
    shutil.which("fluidsynth") is None or not any(Path(path).is_file() for path in SOUNDFONTS),
    reason="FluidSynth or its soundfont is not installed (apt install fluidsynth fluid-soundfont-gm)",
)


def example_of(label: str, kind: str) -> Synthesized:
    return next(
        example
        for example in synthesize("FluidR3_GM", "MIT", 0, 3000)
        if example.clip.events == (label,) and example.score.kind == kind and example.score.reverb is None
    )


def test_every_voice_is_drawn_as_often_as_the_others() -> None:
    voices = read_voices()
    examples = synthesize("FluidR3_GM", "MIT", 0, 2 * len(voices))
    drawn = [(example.clip.events[0], example.score.voice.program) for example in examples]
    assert sorted(drawn, key=str) == sorted(2 * [(v.instrument.label, v.program) for v in voices], key=str)


def test_an_example_depends_on_seed_and_number_only() -> None:
    few, many = synthesize("FluidR3_GM", "MIT", 3, 20), synthesize("FluidR3_GM", "MIT", 3, 200)
    assert many[:20] == few
    assert [one.score for one in synthesize("FluidR3_GM", "MIT", 4, 20)] != [one.score for one in few]
    assert few[17].clip.id == "synthesized-fluidr3_gm-3-000017"


def test_notes_are_within_what_the_instrument_plays() -> None:
    for example in synthesize("FluidR3_GM", "MIT", 0, 1000):
        instrument = example.score.voice.instrument
        keys = {stroke.key for stroke in example.score.strokes}
        if example.score.voice.program is None:
            assert keys <= set(instrument.drum_keys)
        else:
            assert all(instrument.lowest <= key <= instrument.highest for key in keys), example.clip.id
        assert instrument.chords or example.score.kind != "chord"


def test_single_notes_have_their_pitch_and_melodies_their_notes_as_attributes() -> None:
    note = example_of("clarinet", "note")
    assert note.clip.attributes == {
        "instrument": "clarinet",
        "pitch": note.clip.attributes["pitch"],
        "midi": note.score.strokes[0].key,
    }
    melody = example_of("clarinet", "melody")
    assert len(str(melody.clip.attributes["notes"]).split(", ")) == len(melody.score.strokes)
    assert "pitch" not in melody.clip.attributes
    assert note.clip.group.startswith("general-midi:FluidR3_GM:71:")


def test_only_permissive_soundfonts_may_ship() -> None:
    assert license_of(Path("MuseScore_General_Full.sf3")) == "MIT"
    assert [license_of(Path("mine.sf2")), license_of(Path("TimGM6mb.sf2"))] == ["", "GPL-2.0-only"]
    ship = {name: synthesize("any", name, 0, 1)[0].clip.ship for name in ("MIT", "CC0-1.0", "GPL-2.0-only", "")}
    assert ship == {"MIT": True, "CC0-1.0": True, "GPL-2.0-only": False, "": False}


def test_a_score_becomes_a_midi_file() -> None:
    voice = Voice(read_voices()[0].instrument, 71)
    strokes = (Stroke(60, 90, 0.0, 0.2), Stroke(60, 80, 0.2, 0.3))
    content = midi_file(Score(voice, "melody", strokes, None, 0.0))
    assert content[:14] == b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xf4"
    assert content[22:] == bytes.fromhex(
        "00c047"  # program 71
        "00903c5a"  # pressed
        "8148803c00"  # released after 200 ticks
        "00903c50"
        "64803c00"
        "9738ff2f00"  # the end, 3000 ticks later
    )


def test_without_fluidsynth_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["data", "synthesize", "--count", "1", "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "apt install fluidsynth fluid-soundfont-gm" in " ".join(result.stderr.split())
    assert not (tmp_path / "new").exists()


@needs_fluidsynth
def test_what_is_no_soundfont_is_refused(tmp_path: Path) -> None:
    (tmp_path / "song.sf2").write_bytes(b"RIFF1234WAVE")
    with pytest.raises(InputError, match="is not a soundfont"):
        find_soundfont(tmp_path / "song.sf2")
    with pytest.raises(InputError, match="no soundfont at"):
        find_soundfont(tmp_path / "absent.sf2")


@needs_fluidsynth
def test_instruments_are_rendered_as_a_corpus(tmp_path: Path) -> None:
    arguments = ["data", "synthesize", "--count", "3", "--seed", "5", "--out", str(tmp_path / "new"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    manifest = Path(json.loads(result.stdout)["manifest"])
    clips = read_manifest(manifest)
    assert [clip.id for clip in clips] == [f"synthesized-fluidr3_gm-5-00000{number}" for number in range(3)]
    assert all(clip.ship and clip.split == "train" and clip.license == "MIT" for clip in clips)
    assert set(read_labels(tmp_path / "new" / "labels.jsonl")) == {clip.events[0] for clip in clips}
    again = write_synthesized(tmp_path / "again", count=3, seed=5)
    digests = [
        [hashlib.sha256((folder.parent / clip.audio).read_bytes()).hexdigest() for clip in clips]
        for folder in (manifest, again)
    ]
    assert digests[0] == digests[1]


@needs_fluidsynth
def test_a_rendered_note_sounds_as_its_label_says(tmp_path: Path) -> None:
    example = example_of("clarinet", "note")
    samples = render(example, find_soundfont(None), RATE).samples
    assert [note.name for note in detect_notes(samples, RATE)] == [example.clip.attributes["pitch"]]


@needs_fluidsynth
def test_a_soundfont_without_the_instrument_is_an_error_not_another_instrument(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sf2"
    empty.write_bytes(b"RIFF\x04\x00\x00\x00sfbk")
    with pytest.raises(AudioError, match=r"empty\.sf2"):
        render(example_of("clarinet", "note"), empty, RATE)
