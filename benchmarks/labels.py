"""What the choice among labels gains by what is heard of them, at several weights, from the answers of a run.

    pengi eval --suite local --manifest ../shared/data/manifest.jsonl --out runs/local
    python benchmarks/labels.py runs/local --manifest ../shared/data/manifest.jsonl --out results/labels.json

To the likelihood of a label are added what a branch of words hears of it (``model.mentions.labels``) and what a probe
does (``model.facts.labels``). A run holds their sum at the weights of its model; here each is heard anew, without the
language model, and the share of right answers is told for every pair of weights, the former's first. The recipe's were
chosen on these clips.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import headlines
from numpy.typing import NDArray

from pengi import Pengi
from pengi.evaluation.items import Item
from pengi.model import PengiModel
from pengi.progress import track

WORDS = (0.0, 0.75, 1.0, 1.5, 2.0, 3.0)
PROBES = (0.0, 1.0, 2.0, 3.0)
CLIPS_PER_CALL = 16


@torch.inference_mode()
def heard(model: Pengi, items: list[Item], root: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the branch of words and the probes hear of every label, ``float64[N, L]`` each, at a weight of 1."""
    inner: PengiModel = model.model
    assert inner.mentions is not None
    assert inner.facts is not None
    rows: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for start in range(0, len(items), CLIPS_PER_CALL):
        for recording in model.encode([root / item.audio for item in items[start : start + CLIPS_PER_CALL]]):
            tokens = [(values[None], torch.ones(1, len(values), dtype=torch.bool)) for values in recording.tokens]
            labels = items[start].labels
            rows[0].append(inner.mentions.labels_heard(inner.listen(tokens), labels))
            rows[1].append(inner.facts.labels_heard(inner.fact_logits(tokens), labels))
    words_NL, probes_NL = (torch.cat(found).double().numpy() for found in rows)
    return words_NL, probes_NL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of `pengi eval --suite local`")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini", help="the model of the run")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = Pengi.from_pretrained(options.model, device="cpu")
    mentions, facts = model.model.mentions, model.model.facts
    if mentions is None or facts is None:
        parser.error(f"'{options.model}' does not listen for mentions and for facts")
    weights = mentions.config.labels, facts.config.labels
    mentions.config = mentions.config.model_copy(update={"labels": 1.0})
    facts.config = facts.config.model_copy(update={"labels": 1.0})
    report: dict[str, Any] = {"weights of the run": weights, "benchmarks": {}}
    for title, (asked, systems) in track(list(headlines(options.run).items()), "benchmarks"):
        scored = systems["model"]
        if asked.modes[0] != "likelihood" or scored.scores_NL is None:
            continue
        items = list(scored.items)
        words_NL, probes_NL = heard(model, items, options.manifest.parent)
        likelihood_NL = scored.scores_NL - weights[0] * words_NL - weights[1] * probes_NL
        right: dict[str, Any] = {"n": len(items)}
        for words, probes in product(WORDS, PROBES):
            best_N = (likelihood_NL + words * words_NL + probes * probes_NL).argmax(1).tolist()
            said = [item.labels[best] for best, item in zip(best_N, items, strict=True)]
            share = np.mean([answer in item.answers for answer, item in zip(said, items, strict=True)])
            right[f"{words:g} {probes:g}"] = round(float(share), 3)
        report["benchmarks"][title] = right
    text = json.dumps(report, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
