"""What the probes of a recipe hear of held-out clips: from statistics, from every token, and as it is told.

    pengi data compose --manifest ../shared/data/manifest.jsonl --ship-only --count 2400 --out runs/composed
    python benchmarks/facts.py --out results/facts.json

For every attribute that the recipe spots: the share of held-out clips that have it whose likeliest value is right (one
that no training clip has cannot be), with 95 % intervals from resampling groups (Wilson's where all are right), and how
often it is told of clips that have it and of clips that have none. Probes are fitted on the training clips alone, once
in each way. Statistics are read of the branches that the recipe names for them, or else of the spotted one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pengi import checkpoint
from pengi.config import FactsConfig
from pengi.data.features import FeatureCache, cached_features
from pengi.data.manifest import Clip
from pengi.evaluation.statistics import share_right
from pengi.model import PengiModel
from pengi.training.align import NONE, aspect_value
from pengi.training.facts import UNLABELLED, fit_facts
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare, read_clips

CLIPS_PER_CALL = 32


@torch.inference_mode()
def logits(model: PengiModel, caches: Sequence[FeatureCache], clips: Sequence[Clip]) -> torch.Tensor:
    """What the model's probes hear, ``float32[A, F]``."""
    rows = []
    for start in range(0, len(clips), CLIPS_PER_CALL):
        ids = [clip.id for clip in clips[start : start + CLIPS_PER_CALL]]
        rows.append(model.fact_logits(model.audio_tokens([cache.batch(ids) for cache in caches])))
    return torch.cat(rows)


def measured(model: PengiModel, heard_AF: torch.Tensor, clips: Sequence[Clip], name: str) -> dict[str, Any]:
    """One attribute: right values, and how often it is told."""
    assert model.facts is not None
    start, end = model.facts.spans[name]
    share_AV = heard_AF[:, start:end].log_softmax(-1)
    said = [model.facts.attributes[name][place] for place in share_AV[:, 1:].argmax(1).tolist()]
    told = model.facts.present(share_AV).flatten().tolist()
    true = [aspect_value(name, clip) for clip in clips]
    has = [place for place, value in enumerate(true) if value != NONE]
    unknown = UNLABELLED.get(name, frozenset())
    lacks = [place for place, value in enumerate(true) if value == NONE and clips[place].domain not in unknown]
    groups = [clips[place].group or clips[place].id for place in has]
    found = share_right([said[place] == true[place] for place in has], groups)
    return {
        "n": len(has),
        "accuracy": [round(value, 3) for value in (found.value, found.low, found.high)],
        "told": round(sum(told[place] for place in has) / len(has), 3),
        "told where there is none": round(sum(told[place] for place in lacks) / len(lacks), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/pengi-mini.yaml"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = read_recipe(options.recipe)
    spotted = recipe.model.facts.spotted if recipe.model and recipe.model.facts else {}
    if not spotted:
        parser.error(f"{options.recipe} spots no attribute")
    setup = prepare(recipe)
    model = setup.model.eval()
    source = read_clips(recipe.data)
    clips = [clip for clip in source.clips if clip.split == recipe.data.val_split]
    caches = [cached_features(clips, source.root, branch.encoder, branch.config) for branch in model.branches]
    report: dict[str, Any] = {"recipe": str(options.recipe), "attributes": {name: {} for name in spotted}}
    told = model.config.facts
    assert told is not None
    of_spotted = {name: (place,) for name, place in spotted.items()}
    without = {name: places for name, places in told.only.items() if name not in spotted}
    ways: dict[str, FactsConfig] = {
        "statistics": told.model_copy(update={"only": {**of_spotted, **told.only}, "spotted": {}}),
        "tokens": told.model_copy(update={"only": without}),
        "as told": told,
    }
    for way, facts in ways.items():
        model.config = model.config.model_copy(update={"facts": facts})
        probing = checkpoint.create(model.config)
        fit_facts(probing, setup.loader.caches, setup.train_clips, recipe.training.seed)
        heard_AF = logits(probing.eval(), caches, clips)
        for name in spotted:
            report["attributes"][name][way] = measured(probing, heard_AF, clips, name)
    text = json.dumps(report, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
