"""The paper's ablation in small: do captions gain from training on all tasks, against captions alone?

    pengi data compose --manifest ../shared/data/manifest.jsonl --ship-only --count 2400 --out runs/composed
    pengi train recipes/ablation-caption-only.yaml
    pengi train recipes/ablation-multitask.yaml
    python benchmarks/multitask.py runs/ablation-caption-only runs/ablation-multitask \
        --manifest ../shared/data/manifest.jsonl --out results/multitask.json

Both runs write captions for the same held-out clips, one greedy text each. Reported for either and for the difference,
with 95 % intervals from resampling groups: the loss per caption token, the share of captions that are right word for
word, CIDEr-D and the cosine to the reference in all-MiniLM-L6-v2's space. A caption is the sentence of a clip's label
where nobody has written another. Features of the recordings are those that training has kept.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pengi import checkpoint
from pengi.data.features import FeatureCache, cached_features
from pengi.data.loader import collate
from pengi.data.manifest import Clip, read_labels
from pengi.data.sources import manifest_of
from pengi.data.tasks import FAMILIES, Pair, Question, Wording, labels_of
from pengi.decoding import DecodeOptions, generate
from pengi.evaluation.captioning import caption_scores
from pengi.evaluation.statistics import bootstrap, mean_of, paired_bootstrap
from pengi.model import PengiModel

CLIPS_PER_CALL = 16
GREEDY = DecodeOptions(beams=1, max_tokens=40)
METRICS = ("cider_d", "similarity")


@torch.inference_mode()
def captioned(
    model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip], asked: Sequence[Question]
) -> dict[str, list[float]]:
    """Of every clip: loss per token of its caption, whether it is written word for word, CIDEr-D, similarity."""
    lm = model.language_model
    losses: list[float] = []
    texts: list[str] = []
    for start in range(0, len(clips), CLIPS_PER_CALL):
        some = slice(start, start + CLIPS_PER_CALL)
        pairs = [[Pair("caption", question.prompt, question.answers[0])] for question in asked[some]]
        batch = collate(clips[some], pairs, caches).batch
        loss = model.loss(batch)
        for place in range(len(pairs)):
            losses.append(float(loss.token_losses_N[loss.example_N == place].mean()))
        prefix = model.prefix(model.audio_tokens(batch.features), batch.prompts)
        texts += [lm.decode(beams[0].tokens).strip() for beams in generate(lm, *prefix, GREEDY)]
    scores, _ = caption_scores(texts, [question.answers for question in asked])
    exact = [float(text in question.answers) for text, question in zip(texts, asked, strict=True)]
    found = {"loss per token": losses, "word for word": exact}
    return found | {name: list(scores[name].per_item) for name in METRICS if scores[name].per_item}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=400, help="at most so many, always the same ones")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    source = manifest_of(options.manifest)
    held_out = [clip for clip in source.clips if clip.split == "val"]
    file = options.manifest.parent / "labels.jsonl"
    wording = Wording(labels_of(held_out, read_labels(file) if file.is_file() else {}))
    questions = {clip.id: FAMILIES["caption"].questions(clip, wording) for clip in held_out}
    fitting = [clip for clip in held_out if questions[clip.id]]
    clips = random.Random(0).sample(fitting, min(options.clips, len(fitting)))
    asked = [questions[clip.id][0] for clip in clips]
    groups = [clip.group or clip.id for clip in clips]
    runs = {}
    for folder in (options.first, options.second):
        model = checkpoint.load(folder, torch.bfloat16).eval()
        caches = [cached_features(held_out, source.root, branch.encoder, branch.config) for branch in model.branches]
        runs[folder.name] = captioned(model, caches, clips, asked)
    first, second = runs.values()
    report: dict[str, Any] = {"clips": len(clips), "groups": len(set(groups))}
    for name in first:
        row = {run: vars(bootstrap(mean_of(values[name]), groups)) for run, values in runs.items()}
        row["difference"] = vars(paired_bootstrap(mean_of(first[name]), mean_of(second[name]), groups))
        report[name] = row
    text = json.dumps(report, indent=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
