"""What descriptions name, by how many beams are searched and how much what is heard of their words weighs.

    pengi data compose --manifest ../shared/data/manifest.jsonl --split val --count 300 --out runs/composed-val
    python benchmarks/writing.py --manifest ../shared/data/manifest.jsonl \
        --composed runs/composed-val/manifest.jsonl --out results/writing.json

Of labelled clips: the share whose most probable event is a right label, word for word, and the share whose caption
names one. Of composed recordings: precision, recall and F1 of the words that captions name, against those of their true
captions, means over recordings. Number of beams and weight were chosen on these very recordings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from pengi import Pengi
from pengi.data.manifest import read_manifest
from pengi.decoding import DecodeOptions
from pengi.engine import DESCRIBE
from pengi.evaluation.benchmarks import benchmark
from pengi.evaluation.items import items_of
from pengi.mentions import Mentions

BENCHMARKS = ("val-esc50", "val-philharmonia")
BEAMS = (3, 4, 5)
UNWEIGHED = 4  # beams of the search beside which nothing is weighed
COMPOSED = 120  # recordings


def overlap(said: set[int], true: set[int]) -> tuple[float, float, float]:
    """Precision, recall and F1 of the words that a caption names."""
    both = len(said & true)
    return both / max(1, len(said)), both / len(true), 2 * both / (len(said) + len(true))


class Recordings:
    """The recordings of all measurements and what is right about them."""

    def __init__(self, model: Pengi, mentions: Mentions, manifest: Path, composed: Path) -> None:
        self.model = model
        self.named = mentions.vocabulary.mentioned
        self.labelled = {}
        for name in BENCHMARKS:
            items = items_of(benchmark(name), manifest)
            heard = model.encode([manifest.parent / item.audio for item in items])
            self.labelled[name] = (heard, [{answer.casefold() for answer in item.answers} for item in items])
        true = [
            (clip, {word for text in clip.captions for word in self.named(text)}) for clip in read_manifest(composed)
        ]
        some = [(composed.parent / clip.audio, words) for clip, words in true if words][:COMPOSED]
        self.composed = (model.encode([path for path, _ in some]), [words for _, words in some])

    def measure(self, options: DecodeOptions) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, (heard, right) in self.labelled.items():
            described = self.model.describe(heard, options=options)
            events = [one.events[0].label.casefold() in answers for one, answers in zip(described, right, strict=True)]
            words = [{word for answer in answers for word in self.named(answer)} for answers in right]
            captions = [bool(words_ & set(self.named(one.text))) for one, words_ in zip(described, words, strict=True)]
            found[name] = {
                "n": len(heard),
                "event": round(float(np.mean(events)), 3),
                "caption": round(float(np.mean(captions)), 3),
            }
        heard, words = self.composed
        described = self.model.describe(heard, options=options)
        scores = [overlap(set(self.named(one.text)), true) for one, true in zip(described, words, strict=True)]
        means = [round(float(value), 3) for value in np.mean(scores, 0)]
        found["composed"] = {"n": len(heard), **dict(zip(("precision", "recall", "f1"), means, strict=True))}
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--composed", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = Pengi.from_pretrained(options.model, device="cpu")
    mentions = model.model.mentions
    if mentions is None:
        parser.error(f"'{options.model}' does not listen for what prompts mention")
    recordings = Recordings(model, mentions, options.manifest, options.composed)
    chosen = mentions.config.texts
    tried = [(beams, chosen) for beams in BEAMS] + [(UNWEIGHED, 0.0)]
    result = []
    for beams, weight in tried:
        mentions.config = mentions.config.model_copy(update={"texts": weight})
        search = DecodeOptions(beams=beams, max_tokens=DESCRIBE.max_tokens)
        result.append({"beams": beams, "weight": weight, **recordings.measure(search)})
        print(json.dumps(result[-1]), flush=True)
    options.out.write_text(json.dumps({"model": options.model, "tried": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
