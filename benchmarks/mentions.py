"""How well what is told of mentioned words answers questions, before any language model reads it.

    pengi data compose --manifest ../shared/data/manifest.jsonl --split val --count 300 --out runs/composed-val
    python benchmarks/mentions.py --manifest ../shared/data/manifest.jsonl \
        --composed runs/composed-val/manifest.jsonl --out results/mentions.json

Of composed recordings: the area under the curve of a word's log-share in the whole, for sounds that are there against
as many that are not; the shares of yes-or-no questions about the order and, where levels are told, the loudness of two
sounds that the signs of "later" and of "louder" answer; and the share of the sounds that the list of likeliest words
names. Of labelled clips: the share of right labels by their likelihood and what is heard of them, at several weights of
the latter; the recipe's was chosen on these.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from pengi import Pengi
from pengi.data.manifest import Clip, read_manifest
from pengi.engine import Encoded
from pengi.evaluation.benchmarks import benchmark
from pengi.evaluation.items import items_of
from pengi.mapper import WordsMapper
from pengi.mentions import WHEN, Mentions, louder, measured
from pengi.templates import NO, YES

BENCHMARKS = ("val-esc50", "val-philharmonia", "val-keyboardia")
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0)
CLIPS_PER_CALL = 16


def encoded(model: Pengi, paths: list[Path]) -> Iterator[Encoded]:
    """Audio tokens of each recording."""
    for start in range(0, len(paths), CLIPS_PER_CALL):
        yield from model.encode(paths[start : start + CLIPS_PER_CALL])


@torch.inference_mode()
def composed(model: Pengi, mentions: Mentions, clips: list[Clip], root: Path) -> dict[str, Any]:
    """What is told of words in composed recordings."""
    branch = model.model.branches[mentions.config.branch]
    assert isinstance(branch.mapper, WordsMapper)
    place = mentions.vocabulary.place
    every = sorted({event for clip in clips for event in clip.events if place(event) is not None})
    rng = random.Random(0)
    there, shares, named, ordered, compared = [], [], [], [], []
    both = torch.ones(1, 2, dtype=torch.bool)
    for clip, recording in zip(clips, encoded(model, [root / clip.audio for clip in clips]), strict=True):
        tokens = [(values[None], torch.ones(1, len(values), dtype=torch.bool)) for values in recording.tokens]
        heard = model.model.listen(tokens)
        assert heard is not None
        share_BK, best_BK = branch.mapper.likeliest(*tokens[mentions.config.branch])
        told = {int(word) for word in best_BK[0][share_BK[0].isfinite()]}
        own = [event for event in clip.events if event in every]
        absent = rng.sample([event for event in every if event not in clip.events], len(own))
        for event in (*own, *absent):
            there.append(event in own)
            shares.append(float(heard.whole_AV[0, place(event)]))
        named += [place(event) in told for event in own]
        for asked in clip.qa:
            words = mentions.vocabulary.mentioned(asked.question, mentions.config.most)
            about_order = re.search(r" before |first and then| (after) ", asked.question)
            if len(words) != 2 or asked.answer not in (YES, NO):
                continue
            if about_order:
                _, when_BKF = measured(heard, torch.tensor([words]), both)
                later = float(when_BKF[0, 0, WHEN.index("later")]) > 0
                ordered.append((later == bool(about_order[1])) == (asked.answer == YES))
            elif "louder" in asked.question and heard.level_AT is not None:
                first = float(louder(heard, torch.tensor([words]), both)[0, 0]) > 0
                compared.append(first == (asked.answer == YES))
    found: dict[str, Any] = {
        "presence": {"words": len(there), "area under the curve": round(float(roc_auc_score(there, shares)), 3)},
        "order": {"questions": len(ordered), "right by the sign of later": round(float(np.mean(ordered)), 3)},
        "list": {"sounds": len(named), "named": round(float(np.mean(named)), 3)},
    }
    if compared:
        found["loudness"] = {
            "questions": len(compared),
            "right by the sign of louder": round(float(np.mean(compared)), 3),
        }
    return found


def labelled(model: Pengi, mentions: Mentions, manifest: Path, name: str) -> dict[str, Any]:
    """Share of right labels at every weight."""
    items = items_of(benchmark(name), manifest)
    recordings = list(encoded(model, [manifest.parent / item.audio for item in items]))
    right: dict[str, Any] = {"n": len(items)}
    for weight in WEIGHTS:
        mentions.config = mentions.config.model_copy(update={"labels": weight})
        found = model.classify(recordings, items[0].labels, prompt=items[0].prompt)
        right[f"{weight:g}"] = round(
            float(np.mean([best.label in item.answers for best, item in zip(found, items, strict=True)])), 3
        )
    return right


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
    clips = [clip for clip in read_manifest(options.composed) if not {"count"} & clip.attributes.keys()]
    report = {"composed": composed(model, mentions, clips, options.composed.parent), "labels": {}}
    for name in BENCHMARKS:
        report["labels"][name] = labelled(model, mentions, options.manifest, name)
    text = json.dumps(report, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
