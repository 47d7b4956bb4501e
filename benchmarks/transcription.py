"""Measures word error rate, time and invented text of transcripts, by the length of the window.

    python benchmarks/transcription.py --data ../shared/data --out results/transcription.json

Word error rate: English clips with a published transcript (prompts, spoken words, sentences and read speech; the
recogniser is frozen, so clips of the train split are fair). Words are compared after Whisper's own English normaliser,
with ``*`` and ``#`` read as "star" and "pound", as the prompts are spoken. Invented text: clips of the other domains in
which nobody speaks. ``gated`` is the default of the package, which transcribes only if the tagger detects speech;
``open`` is the decoder with only its other checks. Seconds are processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from run_record import run_record
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from pengi.audio.decode import load
from pengi.conditioning import transcript
from pengi.conditioning.transcript import Transcriber
from pengi.encoders.whisper import SAMPLE_RATE

SPOKEN = ("asterisk-prompts", "tuxpaint-speech", "artikulate", "ljspeech")
SILENT_DOMAINS = ("environment", "animal", "sfx", "instrument", "music")
WINDOWS_S = (transcript.WINDOW_S, 30.0)
SILENT_CLIPS = 300
"""Clips without speech of each split, drawn with a fixed seed."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="number of clips of each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in (args.data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    transcriber = Transcriber.from_pretrained()
    spoken = [row for row in rows if row["source"] in SPOKEN and row["attributes"].get("transcript")]
    english = [row for row in spoken if row["attributes"].get("language", "English") == "English"][: args.limit]
    found = {**run_record(), "clips": len(english)}
    found |= {"windows": {}, "invented": {}}
    for window_s in WINDOWS_S:
        transcript.WINDOW_S = window_s
        found["windows"][f"{window_s:g} s"] = word_errors(transcriber, english, args.data)
        print(window_s, found["windows"][f"{window_s:g} s"], flush=True)
    transcript.WINDOW_S = WINDOWS_S[0]
    for split in ("train", "val"):
        silent = without_speech(rows, split)[: args.limit]
        found["invented"][split] = invented(transcriber, silent, args.data)
        print(split, found["invented"][split], flush=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def word_errors(transcriber: Transcriber, rows: Sequence[Row], root: Path) -> Row:
    """Word error rate, overall and by source."""
    normalise = EnglishTextNormalizer({})  # type: ignore[no-untyped-call]
    errors: Counter[str] = Counter()
    words: Counter[str] = Counter()
    seconds = 0.0
    for row in rows:
        samples = load(root / row["audio"], SAMPLE_RATE)
        said = normalise(row["attributes"]["transcript"].replace("*", " star ").replace("#", " pound ")).split()
        begun = time.process_time()
        text = " ".join(segment.text for segment in transcriber.segments([samples]))
        seconds += time.process_time() - begun
        words[row["source"]] += len(said)
        errors[row["source"]] += distance(said, normalise(text).split())
    return {
        "word_error_rate": round(errors.total() / words.total(), 4),
        "by_source": {source: round(errors[source] / words[source], 4) for source in words},
        "words": words.total(),
        "seconds_per_clip": round(seconds / len(rows), 3),
    }


def without_speech(rows: Sequence[Row], split: str) -> list[Row]:
    """Clips of domains in which nobody speaks, taken evenly from the manifest."""
    silent = [row for row in rows if row["split"] == split and row["domain"] in SILENT_DOMAINS]
    return silent[:: max(1, len(silent) // SILENT_CLIPS)][:SILENT_CLIPS]


def invented(transcriber: Transcriber, rows: Sequence[Row], root: Path) -> Row:
    """Share of clips without speech that get a text, and the texts."""
    texts: dict[str, list[str]] = {"gated": [], "open": []}
    open_transcriber = Ungated(transcriber.encoder, transcriber.decoder, transcriber.tagger)
    for row in rows:
        samples = load(root / row["audio"], SAMPLE_RATE)
        for way, speaker in (("gated", transcriber), ("open", open_transcriber)):
            text = " ".join(segment.text for segment in speaker.segments([samples]))
            if text:
                texts[way].append(f"{', '.join(row['events'])}: {text}")
    shares = {way: round(len(found) / len(rows), 4) for way, found in texts.items()}
    return {"clips": len(rows), "share": shares, "gated_texts": texts["gated"]}


class Ungated(Transcriber):
    """The same transcriber without the tagger's check."""

    def _speech_probability(self, waveform_S: NDArray[np.float32]) -> float:
        return 1.0


def distance(said: Sequence[str], found: Sequence[str]) -> int:
    """The number of words to insert, delete or replace."""
    previous = list(range(len(found) + 1))
    for count, word in enumerate(said, start=1):
        current = [count]
        for index, other in enumerate(found, start=1):
            current.append(min(previous[index] + 1, current[-1] + 1, previous[index - 1] + (word != other)))
        previous = current
    return previous[-1]


if __name__ == "__main__":
    main()
