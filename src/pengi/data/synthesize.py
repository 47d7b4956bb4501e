"""Synthesizes training data of instruments: notes, melodies, chords and strokes of a General MIDI soundfont.

FluidSynth (a program, not a Python package) plays a MIDI file of each example. The score is a function of the
soundfont's name, the seed and the example's number, all of which the id contains: ``synthesized-fluidr3_gm-0-000017``.
"""

from __future__ import annotations

import math
import random
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from pydantic import Field

from pengi.conditioning.notes import note_name
from pengi.data import mixing
from pengi.data.examples import Rendered, write_examples
from pengi.data.manifest import Clip, Label
from pengi.data.tolerance import MAX_BAD_SHARE
from pengi.errors import AudioError, InputError

INSTRUMENTS = Path(__file__).resolve().parents[1] / "assets" / "general-midi.jsonl"
SOUNDFONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/soundfonts/FluidR3_GM.sf2")
"""Where Linux distributions install the default soundfont."""
LICENSES = {"FluidR3_GM": "MIT", "FluidR3_GS": "MIT", "MuseScore_General": "MIT", "TimGM6mb": "GPL-2.0-only"}
"""Beginning of the soundfont's file name -> its licence."""
MAY_SHIP = ("MIT", "CC0-1.0")
SOURCE = "general-midi"
_RENDER_RATE = 48_000
_DRUM_CHANNEL = 9
_TAIL_S = 3.0
_MAX_S = 10.0
_MAJOR = (0, 2, 4, 5, 7, 9, 11)

ScoreKind = Literal["note", "melody", "chord", "strokes"]


class Instrument(Label):
    """A label and its programs or drum keys in General MIDI."""

    programs: tuple[int, ...] = Field((), description="numbers of the programs, from 0")
    lowest: int = Field(0, description="MIDI number of the lowest note that the real instrument plays")
    highest: int = Field(127, description="the same of the highest")
    chords: bool = Field(False, description="whether it plays several notes at once")
    pitched: bool = Field(True, description="whether a note sounds at the pitch of its number")
    drum_keys: tuple[int, ...] = Field((), description="keys of the drum channel")

    @property
    def label_row(self) -> Label:
        """The label alone."""
        return Label.model_validate(self.model_dump(include=set(Label.model_fields)))


@dataclass(frozen=True)
class Voice:
    """An instrument as one program, or, where that is ``None``, as keys of the drum channel."""

    instrument: Instrument
    program: int | None


@dataclass(frozen=True)
class Stroke:
    """One key, its velocity, and when it is pressed and released, in seconds from the start."""

    key: int
    velocity: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Score:
    """The strokes of an example and how they are rendered."""

    voice: Voice
    kind: ScoreKind
    strokes: tuple[Stroke, ...]
    reverb: tuple[float, float] | None
    """Room size and level, 0 to 1, or no reverberation."""
    level_db: float
    """Loudness, as for :func:`pengi.data.mixing.set_loudness`."""


@dataclass(frozen=True)
class Synthesized:
    """An example: its row of a manifest, without a length until it is rendered, and its score."""

    clip: Clip
    score: Score


def read_voices() -> list[Voice]:
    """Every program and drum of General MIDI that has a label."""
    rows = [Instrument.model_validate_json(line) for line in INSTRUMENTS.read_text(encoding="utf-8").splitlines()]
    pitched = [Voice(row, program) for row in rows for program in row.programs]
    return pitched + [Voice(row, None) for row in rows if row.drum_keys]


def find_soundfont(path: Path | None) -> Path:
    """The soundfont at a path, or the one that is installed.

    Raises:
        InputError: if there is none, or FluidSynth is not installed.
    """
    if shutil.which("fluidsynth") is None:
        raise InputError("FluidSynth is not installed; on Debian and Ubuntu: apt install fluidsynth fluid-soundfont-gm")
    if path is not None:
        if not path.is_file():
            raise InputError(f"there is no soundfont at '{path}'")
        with path.open("rb") as file:
            head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"sfbk":
            raise InputError(f"'{path}' is not a soundfont (SF2 or SF3)")
        return path.resolve()
    found = [Path(name) for name in SOUNDFONTS if Path(name).is_file()]
    if not found:
        raise InputError(
            "no General MIDI soundfont is installed; install one (on Debian and Ubuntu: apt install "
            "fluid-soundfont-gm) or name one with --soundfont"
        )
    return found[0].resolve()


def license_of(soundfont: Path) -> str:
    """The licence of a known soundfont, else ``""``."""
    return next((name for known, name in LICENSES.items() if soundfont.stem.startswith(known)), "")


def synthesize(soundfont: str, license_name: str, seed: int, count: int) -> list[Synthesized]:
    """The first ``count`` examples of a seed; each voice in turn.

    Args:
        soundfont: name of the soundfont, without folder and suffix.
        license_name: of the soundfont, and so of the examples.
        seed: another seed gives other examples.
    """
    voices = read_voices()
    prefix = f"synthesized-{soundfont.lower().replace(' ', '_')}-{seed}"
    examples = []
    for number in range(count):
        rng = random.Random(f"{prefix}:{number}")
        score = _score(voices[number % len(voices)], rng)
        examples.append(Synthesized(_clip(f"{prefix}-{number:06d}", score, soundfont, license_name), score))
    return examples


def _score(voice: Voice, rng: random.Random) -> Score:
    kind: ScoreKind = "strokes"
    if voice.program is not None:
        weights = (0.65, 0.2, 0.15 if voice.instrument.chords else 0.0)
        kind = rng.choices(("note", "melody", "chord"), weights)[0]
    make = {"note": _note, "melody": _melody, "chord": _chord, "strokes": _drum_strokes}[kind]
    strokes = make(voice.instrument, rng.randint(40, 120), rng)
    reverb = (round(rng.uniform(0.2, 0.9), 2), round(rng.uniform(0.2, 0.8), 2)) if rng.random() < 0.5 else None
    return Score(voice, kind, tuple(strokes), reverb, round(rng.uniform(-12.0, 8.0), 1))


def _length_s(rng: random.Random) -> float:
    return math.exp(rng.uniform(math.log(0.5), math.log(4.0)))


def _note(instrument: Instrument, velocity: int, rng: random.Random) -> list[Stroke]:
    return [Stroke(rng.randint(instrument.lowest, instrument.highest), velocity, 0.0, _length_s(rng))]


def _chord(instrument: Instrument, velocity: int, rng: random.Random) -> list[Stroke]:
    root = rng.randint(instrument.lowest, instrument.highest - 7)
    length_s = _length_s(rng)
    return [Stroke(root + step, velocity, 0.0, length_s) for step in (0, rng.choice((3, 4)), 7)]


def _melody(instrument: Instrument, velocity: int, rng: random.Random) -> list[Stroke]:
    """Three to six notes of a major scale, most of them near the one before."""
    tonic = rng.randrange(12)
    keys = [key for key in range(instrument.lowest, instrument.highest + 1) if (key - tonic) % 12 in _MAJOR]
    index, start_s = rng.randrange(len(keys)), 0.0
    strokes = []
    for _ in range(rng.randint(3, 6)):
        length_s = rng.uniform(0.2, 0.8)
        strokes.append(Stroke(keys[index], min(127, velocity + rng.randint(-8, 8)), start_s, start_s + length_s))
        start_s += length_s + rng.choice((0.0, 0.05, 0.2))
        index = min(len(keys) - 1, max(0, index + rng.choice((-3, -2, -1, -1, 1, 1, 2, 3))))
    return strokes


def _drum_strokes(instrument: Instrument, velocity: int, rng: random.Random) -> list[Stroke]:
    """One to four strokes at an even pace."""
    pace_s = rng.uniform(0.2, 0.7)
    starts = [number * pace_s for number in range(rng.choice((1, 1, 2, 3, 4)))]
    return [
        Stroke(rng.choice(instrument.drum_keys), min(127, velocity + rng.randint(-8, 8)), start, start + 0.9 * pace_s)
        for start in starts
    ]


def _clip(example_id: str, score: Score, soundfont: str, license_name: str) -> Clip:
    voice, keys = score.voice, [stroke.key for stroke in score.strokes]
    attributes: dict[str, str | int | float | bool] = {"instrument": voice.instrument.label}
    pitched = voice.program is not None and voice.instrument.pitched
    if pitched and score.kind == "note":
        attributes |= {"pitch": note_name(keys[0]), "midi": keys[0]}
    elif pitched:
        attributes |= {"notes": ", ".join(map(note_name, keys)), "note_length": "phrase"}
    program = "drums" if voice.program is None else str(voice.program)
    return Clip(
        id=example_id,
        audio=f"audio/{example_id}.flac",
        split="train",
        group=f"{SOURCE}:{soundfont}:{program}:{'+'.join(map(str, sorted(set(keys))))}",
        source=SOURCE,
        license=license_name,
        ship=license_name in MAY_SHIP,
        domain="instrument",
        events=(voice.instrument.label,),
        attributes=attributes,
    )


def write_synthesized(
    out: Path,
    *,
    count: int,
    seed: int,
    soundfont: Path | None = None,
    license_name: str | None = None,
    rate: int = 16_000,
    workers: int = 1,
) -> Path:
    """Write examples as a corpus: ``manifest.jsonl``, ``labels.jsonl`` and FLAC files in ``audio``.

    Args:
        out: a new folder; it appears complete or not at all.
        count: number of examples; the voices take turns.
        seed: another seed gives other examples.
        soundfont: an SF2 or SF3 file; None: the one that is installed.
        license_name: SPDX name of the soundfont's licence; None: that of a known soundfont. Clips may ship only with
            one of ``MAY_SHIP``.
        rate: of the files, in Hz.
        workers: processes that render; their number changes nothing.

    Returns:
        The manifest.

    Raises:
        InputError: as :func:`find_soundfont`, or if ``out`` exists or cannot be written.
        ManifestError: if more than a few examples fail.
    """
    path = find_soundfont(soundfont)
    examples = synthesize(path.stem, license_of(path) if license_name is None else license_name, seed, count)
    instruments = {example.score.voice.instrument.label: example.score.voice.instrument for example in examples}
    return write_examples(
        examples,
        partial(render, soundfont=path, rate=rate),
        [instruments[label].label_row for label in sorted(instruments)],
        out,
        rate=rate,
        workers=workers,
        max_bad_share=MAX_BAD_SHARE,
        extras=lambda example: {"score": score_row(example.score, path.stem)},
    )


def score_row(score: Score, soundfont: str) -> dict[str, Any]:
    """A score as a manifest shows it: for each stroke key, velocity, start and end in seconds."""
    return {
        "soundfont": soundfont,
        "program": score.voice.program,
        "kind": score.kind,
        "strokes": [[s.key, s.velocity, round(s.start_s, 3), round(s.end_s, 3)] for s in score.strokes],
        "reverb": score.reverb,
        "level_db": score.level_db,
    }


def render(example: Synthesized, soundfont: Path, rate: int) -> Rendered:
    """The waveform of an example.

    Returns:
        ``float32[S]`` within full scale, without the silence around it, ``_MAX_S`` seconds at most.

    Raises:
        AudioError: if FluidSynth fails, or the soundfont does not have the program.
    """
    score = example.score
    played = soxr.resample(_played(score, soundfont), _RENDER_RATE, rate)
    if not np.abs(played).max(initial=0.0) > 1e-5:
        raise AudioError(f"'{soundfont.name}' gives no sound for {score_row(score, soundfont.stem)}")
    cut = mixing.trim_silence(played, rate)[: round(_MAX_S * rate)]
    return Rendered(mixing.limit_peak(mixing.set_loudness(cut, rate, score.level_db)))


def _played(score: Score, soundfont: Path) -> NDArray[np.float32]:
    """FluidSynth's rendering of a score, mono ``float32[S]`` at ``_RENDER_RATE``."""
    with tempfile.TemporaryDirectory(prefix="pengi-") as folder:
        midi, audio = Path(folder, "score.mid"), Path(folder, "played.wav")
        midi.write_bytes(midi_file(score))
        command = ["fluidsynth", "-q", "-n", "-i", "-F", str(audio), "-T", "wav", "-O", "float"]
        command += ["-r", str(_RENDER_RATE)]
        command += ["-C", "0", "-R", "1" if score.reverb else "0", "-o", "synth.dynamic-sample-loading=1"]
        if score.reverb:
            room_size, level = score.reverb
            command += ["-o", f"synth.reverb.room-size={room_size}", "-o", f"synth.reverb.level={level}"]
        done = subprocess.run([*command, str(soundfont), str(midi)], capture_output=True, text=True, check=False)
        # Only FluidSynth's messages show that it used another instrument or soundfont instead.
        replaced = "substituted" in done.stderr or "Failed to load" in done.stderr
        if done.returncode or not audio.is_file() or replaced:
            raise AudioError(f"FluidSynth cannot play it with '{soundfont.name}': {' '.join(done.stderr.split())}")
        samples, _ = soundfile.read(audio, dtype="float32", always_2d=True)
    return np.asarray(samples.mean(axis=1), dtype=np.float32)


def midi_file(score: Score) -> bytes:
    """A score as a MIDI file of one track, in ticks of a millisecond, with time for the last note to die away."""
    channel = _DRUM_CHANNEL if score.voice.program is None else 0
    events = [(0, bytes([0xC0 | channel, score.voice.program or 0]))]
    for stroke in score.strokes:
        events.append((round(1000 * stroke.start_s), bytes([0x90 | channel, stroke.key, stroke.velocity])))
        events.append((round(1000 * stroke.end_s), bytes([0x80 | channel, stroke.key, 0])))
    # A key that is pressed again as it is released has to be released first.
    events.sort(key=lambda event: (event[0], event[1][0] & 0xF0 == 0x90))
    events.append((events[-1][0] + round(1000 * _TAIL_S), b"\xff\x2f\x00"))
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + _track(events)


def _track(events: Sequence[tuple[int, bytes]]) -> bytes:
    content, before = b"", 0
    for tick, message in events:
        content += _variable_length(tick - before) + message
        before = tick
    return b"MTrk" + struct.pack(">I", len(content)) + content


def _variable_length(value: int) -> bytes:
    """A MIDI variable-length quantity: seven bits a byte, the first bit set in all bytes but the last."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.insert(0, value & 0x7F | 0x80)
    return bytes(digits)
