"""How often the words that a model is told a tagger hears are right, before any language model reads them.

    python benchmarks/words.py --manifest ../shared/data/manifest.jsonl --out results/words.json

For each benchmark of labelled clips: the share whose likeliest word of all is a right label, whose likeliest word among
the benchmark's labels is (labels that are no words cannot be), and for which a right label is among the words told;
with 95 % intervals from resampling groups.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from pengi import Pengi
from pengi.evaluation.benchmarks import benchmark
from pengi.evaluation.items import items_of
from pengi.evaluation.statistics import share_right
from pengi.mapper import WordsMapper
from pengi.progress import track

BENCHMARKS = ("val-esc50", "val-keyboardia", "val-philharmonia")
CLIPS_PER_CALL = 16


@torch.inference_mode()
def told(model: Pengi, manifest: Path, name: str) -> dict[str, Any]:
    """The shares of one benchmark."""
    (place, mapper), *_ = [
        (place, branch.mapper)
        for place, branch in enumerate(model.model.branches)
        if isinstance(branch.mapper, WordsMapper)
    ]
    items = items_of(benchmark(name), manifest)
    right: dict[str, list[bool]] = {"first of all": [], "first of the labels": [], "told": []}
    labels = [word for word, label in enumerate(mapper.words) if label in items[0].labels]
    for start in track(range(0, len(items), CLIPS_PER_CALL), name):
        asked = items[start : start + CLIPS_PER_CALL]
        for item, recording in zip(asked, model.encode([manifest.parent / one.audio for one in asked]), strict=True):
            tokens_1TI = recording.tokens[place][None]
            mask_1T = torch.ones(tokens_1TI.shape[:2], dtype=torch.bool)
            u_V = mapper.word_logits(tokens_1TI, mask_1T)[0]
            share_1K, best_1K = mapper.likeliest(tokens_1TI, mask_1T)
            words = [mapper.words[word] for word in best_1K[0][share_1K[0].isfinite()].tolist()]
            right["first of all"].append(words[0] in item.answers)
            right["first of the labels"].append(mapper.words[max(labels, key=u_V.tolist().__getitem__)] in item.answers)
            right["told"].append(bool(set(words) & set(item.answers)))
    groups = [item.group for item in items]
    found = {what: share_right(said, groups) for what, said in right.items()}
    shares = {what: [round(value, 3) for value in (one.value, one.low, one.high)] for what, one in found.items()}
    return {"n": len(items), "labels": len(items[0].labels), "that are words": len(labels), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = Pengi.from_pretrained(options.model, device="cpu")
    text = json.dumps({name: told(model, options.manifest, name) for name in BENCHMARKS}, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
