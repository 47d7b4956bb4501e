"""What each choice behind the shipped model is worth: short runs of its recipe that differ in one thing.

    pengi data compose --manifest ../shared/data/manifest.jsonl --ship-only --count 2400 --out runs/composed
    python benchmarks/ablations.py --steps 120 --out results/ablations.json

Every variant is trained for the same steps on the same draws and measured on the same held-out clips: the loss, and for
each benchmark the share of clips whose right label gets the highest likelihood (summed over its tokens), with 95 %
intervals from resampling groups (Wilson's where all answers are right or all wrong). Recordings are heard once, their
features are kept. Runs stay in ``--work``; the same command goes on where it was stopped. A table in Markdown is
written beside the JSON file.
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
from pengi.data.manifest import Clip
from pengi.data.tasks import TASKS
from pengi.decoding import score_labels
from pengi.evaluation.statistics import share_right
from pengi.model import PengiModel
from pengi.training.journal import LOG_FILE
from pengi.training.loop import train
from pengi.training.recipe import read_recipe
from pengi.training.setup import read_clips

SLOTS = "{kind: transformer, input: sequence, positions: true, width: 384, layers: 2, heads: 6, constants: 10}"
POOLED = "{kind: transformer, input: pooled, tokens: 10, width: 384, layers: 2, heads: 6, constants: 10}"
MLP = "{kind: mlp, input: sequence, hidden: 512, constants: 10}"
LEARNED = ["model.facts=null", "training.facts_dropout=0"]
SENTENCE = "{kind: transformer, input: pooled, tokens: 10, width: 384, layers: 2, heads: 6, constants: 10}"


def learned(mapper: str) -> list[str]:
    """Overrides that put learned prefixes in the place of the probes' words; the tagger's words stay."""
    return [*LEARNED, f"model.audio.0.mapper={mapper}", f"model.audio.1.mapper={mapper}"]


# Name -> what differs from the recipe as it is.
VARIANTS: dict[str, list[str]] = {
    "as the recipe is": [],
    "no adapters in the language model": ["model.language_model.lora=null"],
    # Not quite zero: without these clips the features of all would be computed anew.
    "no compositions": ["data.mixture.composed.share=0.000001"],
    "no pseudo-labels": ["data.class_directions=0", "data.word_targets=0", "data.audioset_tags=false"],
    "class directions only": ["data.class_directions=0.7", "data.word_targets=0"],
    "no probes": LEARNED,
    "probes read statistics only": ["model.facts.spotted={}"],
    "mentions not listened for": ["model.mentions=null"],
    "prompt through MiniLM": [
        f"model.text={{encoder: all-minilm-l6-v2, max_tokens: 64, mapper: {SENTENCE}}}",
    ],
    "learned prefix: token sequence, transformer": learned(SLOTS),
    "learned prefix: pooled vector, transformer": learned(POOLED),
    "learned prefix: token sequence, MLP": learned(MLP),
    "learned prefix: as the first, YAMNet's last layers trained": [
        *learned(SLOTS),
        "model.audio.0.trained=true",
        "model.audio.0.frozen_layers=23",
        "training.encoder_lr=0.00005",
    ],
    "no Whisper": [
        "model.facts.branches=[0, 2, 5]",
        "model.facts.only={kind: [0, 2], instrument: [2], dynamics: [2], count: [0], kinds: [0]}",
        "model.facts.spotted={instrument: 0, genre: 5}",
    ],
    "no inner layers": [
        "model.facts.branches=[0, 1, 2]",
        "model.facts.only.gender=[1]",
        "model.facts.spotted.gender=1",
        "model.facts.spotted.genre=0",
    ],
}
BENCHMARKS = (
    ("events", "esc50-fold4"),
    ("instrument", "philharmonia"),
    ("instrument", "keyboardia"),
    ("genre", None),
    ("gender", "librispeech"),
    ("keyword", "speech-commands"),
    ("digit", "fsdd"),
)
CLIPS_PER_CALL = 12


@torch.inference_mode()
def accuracy(
    model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip], task: str, most: int
) -> dict[str, float]:
    """Share of right labels among all that the clips have, on at most so many clips, always the same ones."""
    asked = [clip for clip in clips if TASKS[task].answers(clip)]
    labels = sorted({label for clip in asked for label in TASKS[task].answers(clip)})
    lm = model.language_model
    label_ids = [model.target_ids(label)[:-1] for label in labels]
    chosen = random.Random(0).sample(asked, min(most, len(asked)))
    right = []
    for start in range(0, len(chosen), CLIPS_PER_CALL):
        some = chosen[start : start + CLIPS_PER_CALL]
        tokens = model.audio_tokens([cache.batch([clip.id for clip in some]) for cache in caches])
        prefix = model.prefix(tokens, [TASKS[task].prompt] * len(some))
        best = score_labels(lm, *prefix, label_ids, end_id=lm.end_id).total_BL.argmax(1).tolist()
        right += [labels[place] in TASKS[task].answers(clip) for place, clip in zip(best, some, strict=True)]
    found = share_right(right, [clip.group or clip.id for clip in chosen])
    return {"n": len(chosen), "accuracy": found.value, "low": found.low, "high": found.high}


def measured(recipe: Path, overrides: list[str], folder: Path, most: int) -> dict[str, Any]:
    """Train a variant, or go on with it, and measure what came out."""
    train(recipe, overrides, out=folder, resume=True)
    entries = [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    model = checkpoint.load(folder, torch.bfloat16).eval()
    source = read_clips(read_recipe(recipe, overrides).data)
    held_out = [clip for clip in source.clips if clip.split == "val"]
    caches = [cached_features(held_out, source.root, branch.encoder, branch.config) for branch in model.branches]
    found: dict[str, Any] = {"loss": [entry["val_loss"] for entry in entries if "val_loss" in entry][-1]}
    for task, name in BENCHMARKS:
        clips = [clip for clip in held_out if name is None or clip.source == name]
        found[f"{task} ({name})" if name else task] = accuracy(model, caches, clips, task, most)
    return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row a variant."""
    columns = list(next(iter(results.values())))
    lines = ["| variant | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in results.items():
        cells = [f"{row['loss']:.3f}"]
        for column in columns[1:]:
            cell = row[column]
            cells.append(f"{cell['accuracy']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/pengi-mini.yaml"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--clips", type=int, default=100, help="at most so many of each benchmark")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    report |= {"recipe": str(options.recipe), "steps": options.steps, "clips": options.clips, "set": options.set}
    results: dict[str, Any] = report.setdefault("variants", {})
    run = [f"training.{key}={options.steps}" for key in ("steps", "validate_every")]
    for place, name in enumerate(VARIANTS):
        if name not in options.only or name in results:
            continue
        overrides = [*VARIANTS[name], *run, *options.set]
        results[name] = measured(options.recipe, overrides, options.work / str(place), options.clips)
        print(name, json.dumps(results[name]), flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(f"# Ablations\n\n{table(results)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
