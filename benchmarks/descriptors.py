"""Measures how often descriptors are right, and how long they take.

    python benchmarks/descriptors.py --data ../shared/data --out results/descriptors.json

Notes: clips of one note of a known pitch, by source and split. A note is right if it is the only one named and its
name, octave included, is the label's; ``within a semitone`` also accepts its neighbours, because some recordings are
out of tune; ``several`` are phrases and trills whose label is a single note. The thresholds were chosen on train clips.
False notes: clips of other domains that get a note, including bells, sirens and singing, which really have one. Counts:
clips composed of train clips, as by ``pengi data compose``, with 1 to 5 words or notes; ``right`` is the share of all
clips, and the number of clips with a count is given, too. ``listed`` are composed notes without a background whose list
of notes has the right length. Tempo: clicks of a known tempo (``half_or_double`` also accepts half and double), and the
share of recordings of 6 s or more, by domain, that get a tempo. Seconds are processor time of one thread for 10 s of
audio.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run_record import run_record

from pengi.audio.decode import load
from pengi.conditioning.descriptors import describe_waveform, detect_bursts, detect_tempo
from pengi.conditioning.notes import detect_notes, note_name
from pengi.data.compose import Composer, render
from pengi.data.manifest import Clip, read_labels, read_manifest
from pengi.data.tasks import labels_of

RATE = 16_000
CLIPS_A_DOMAIN = 200
COMPOSED = 150
"""Number of examples of each kind."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "val"), action="append", help="default: both")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = read_manifest(args.data / "manifest.jsonl", check_audio=False)
    found: Row = run_record()
    for split in args.split or ("train", "val"):
        of_split = [clip for clip in clips if clip.split == split]
        found[split] = {"notes": notes_right(of_split, args.data), "false_notes": false_notes(of_split, args.data)}
        print(split, json.dumps(found[split], indent=1), flush=True)
    found["counts"] = counts_right([clip for clip in clips if clip.split == "train"], args.data)
    found["tempo"] = {"clicks": clicks_right(), "given_to": tempo_given(clips, args.data)}
    found["seconds_per_10_s"] = seconds(clips, args.data)
    print(json.dumps({key: found[key] for key in ("counts", "tempo", "seconds_per_10_s")}, indent=1))
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def notes_right(clips: Iterable[Clip], root: Path) -> Row:
    """Share of single notes that are named correctly, by source."""
    outcomes: defaultdict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for clip in clips:
        if "midi" not in clip.attributes:
            continue
        pitch = int(str(clip.attributes["midi"]))
        names = names_in(clip, root)
        near = {note_name(pitch + step) for step in (-1, 0, 1)}
        single = len(names) == 1
        phrase = clip.attributes.get("note_length") == "phrase" or "trill" in str(clip.attributes.get("articulation"))
        row = (names == {note_name(pitch)}, single and names <= near, bool(names))
        outcomes[f"{clip.source}, several" if phrase else str(clip.source)].append(row)
    names_of_shares = ("right", "within_a_semitone", "any_note")
    return {
        source: {"clips": len(rows)} | dict(zip(names_of_shares, np.mean(rows, 0).round(3).tolist(), strict=True))
        for source, rows in sorted(outcomes.items())
    }


def false_notes(clips: Iterable[Clip], root: Path) -> Row:
    """Share of the clips without a known pitch that get a note, by domain, and their sounds."""
    by_domain: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if "midi" not in clip.attributes and clip.domain != "instrument":
            by_domain[str(clip.domain)].append(clip)
    found = {}
    for domain, members in sorted(by_domain.items()):
        drawn = random.Random(0).sample(members, min(CLIPS_A_DOMAIN, len(members)))
        noted = [clip for clip in drawn if names_in(clip, root)]
        events = sorted({event for clip in noted for event in clip.events})
        found[domain] = {"clips": len(drawn), "share": round(len(noted) / len(drawn), 3), "events": events}
    return found


def names_in(clip: Clip, root: Path) -> set[str]:
    """Names of the notes that are detected in a clip."""
    samples = load(root / clip.audio, RATE)
    return {note.name for note in detect_notes(samples, RATE, detect_bursts(samples, RATE))}


def counts_right(clips: list[Clip], root: Path) -> Row:
    """How many bursts are counted in composed words and notes, with and without a background."""
    composer = Composer(clips, labels_of(clips, read_labels(root / "labels.jsonl")), seed=7)
    outcomes: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    listed: list[bool] = []
    number = 0
    made = {"words": 0, "notes": 0}
    while min(made.values()) < COMPOSED:
        example = composer.example(number)
        number += 1
        composition = example.composition
        if composition.kind == "sounds":
            continue
        made[composition.kind] += 1
        samples = render(example, root, RATE).samples
        bursts = detect_bursts(samples, RATE)
        key = f"{composition.kind}, {'with a background' if composition.background else 'alone'}"
        outcomes[key].append((len(bursts) == len(composition.parts), bool(bursts)))
        if key == "notes, alone":
            listed.append(len(detect_notes(samples, RATE, bursts)) == len(composition.parts))
    found: Row = {
        key: {"clips": len(rows)} | dict(zip(("right", "counted"), np.mean(rows, 0).round(3).tolist(), strict=True))
        for key, rows in sorted(outcomes.items())
    }
    return found | {"notes, alone, listed": round(float(np.mean(listed)), 3)}


def clicks_right() -> Row:
    """Clicks of 25 ms at 40 tempos from 62 to 178 beats a minute, with and without noise 20 dB below."""
    rng = np.random.default_rng(0)
    found = {}
    for name, level in (("alone", 0.0), ("in_noise", 0.03)):
        ratios = []
        for bpm in np.linspace(62, 178, 40):
            samples = level * rng.normal(size=10 * RATE)
            for start in (np.arange(0.1, 9.9, 60 / bpm) * RATE).astype(int):
                samples[start : start + RATE // 40] += 0.3 * rng.normal(size=RATE // 40)
            ratios.append((detect_tempo(samples.astype(np.float32), RATE) or 0.0) / bpm)
        right = np.abs(np.array(ratios)[:, None] / [1.0, 0.5, 2.0] - 1.0) < 0.02
        found[name] = {
            "right": round(float(right[:, 0].mean()), 3),
            "half_or_double": round(float(right.any(1).mean()), 3),
        }
    return found


def tempo_given(clips: list[Clip], root: Path) -> Row:
    """Share of the recordings that get a tempo, by domain."""
    given: defaultdict[str, list[bool]] = defaultdict(list)
    long = [clip for clip in clips if (clip.duration_s or 0.0) >= 6.0 and clip.split in ("train", "val")]
    for clip in random.Random(0).sample(long, min(600, len(long))):
        given[str(clip.domain)].append(detect_tempo(load(root / clip.audio, RATE), RATE) is not None)
    return {
        domain: {"clips": len(rows), "share": round(float(np.mean(rows)), 3)} for domain, rows in sorted(given.items())
    }


def seconds(clips: list[Clip], root: Path) -> Row:
    """Processor time of all descriptors for 10 s of audio, by domain."""
    spent: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for clip in random.Random(0).sample(clips, 300):
        samples = load(root / clip.audio, RATE)
        begun = time.process_time()
        describe_waveform(samples, RATE)
        spent[str(clip.domain)].append((time.process_time() - begun, len(samples) / RATE))
    return {
        domain: round(10.0 * sum(row[0] for row in rows) / sum(row[1] for row in rows), 3)
        for domain, rows in sorted(spent.items())
    }


if __name__ == "__main__":
    main()
