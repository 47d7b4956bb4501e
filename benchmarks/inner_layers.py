"""What probes hear in inner layers of the frozen encoders, and what in their last ones.

    python benchmarks/inner_layers.py --manifest ../shared/data/manifest.jsonl --out results/inner-layers.json

One attribute at a time, among the clips that have it, by probes as in ``model.facts`` that read one audio branch of a
model: every token and statistics, of genre the tokens alone. "left out" are training clips, each told by probes that
were fitted without its group; "validation" are those of the validation split. Shares with 95 % intervals from
resampling groups.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from facts import logits

from pengi import checkpoint, weights
from pengi.config import FactsConfig
from pengi.data.features import cached_branches
from pengi.data.manifest import Clip, read_manifest
from pengi.evaluation.statistics import share_right
from pengi.training.facts import fit_facts, values_of_attributes

READ = {
    "emotion": ("whisper-tiny.en", "whisper-tiny.en-layer2"),
    "gender": ("whisper-tiny.en", "whisper-tiny.en-layer2"),
    "genre": ("yamnet", "yamnet-conv17"),
}
BY_TOKENS_ALONE = ("genre",)  # statistics of 2048 features are too many for the tracks that there are


def share(heard_AF: torch.Tensor, values: Sequence[str], clips: Sequence[Clip], name: str) -> dict[str, Any]:
    """How often the likeliest value of an attribute that all of the clips have is right."""
    said = [values[place] for place in heard_AF[:, 1:].argmax(1).tolist()]
    right = [one == clip.attributes[name] for one, clip in zip(said, clips, strict=True)]
    found = share_right(right, [clip.group or clip.id for clip in clips])
    return {"n": len(clips), "right": [round(value, 3) for value in (found.value, found.low, found.high)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--model", default="pengi-mini", help="whose audio branches are read")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = Path(options.model)
    model = checkpoint.load(folder if folder.is_dir() else weights.resolve(options.model))
    place_of = {branch.encoder: place for place, branch in enumerate(model.config.audio)}
    known = list(read_manifest(options.manifest))
    report: dict[str, Any] = {}
    for name, encoders in READ.items():
        clips = {
            split: [clip for clip in known if clip.split == split and name in clip.attributes]
            for split in ("train", "val")
        }
        branches = [(branch.encoder, branch.config) for branch in model.branches]
        caches = {split: cached_branches(own, options.manifest.parent, branches) for split, own in clips.items()}
        values = values_of_attributes([name], clips["train"])
        for encoder in encoders:
            place = place_of[encoder]
            only, spotted = {} if name in BY_TOKENS_ALONE else {name: (place,)}, {name: place}
            model.tell(FactsConfig(branches=(place,), attributes=(name,), only=only, spotted=spotted, values=values))
            left_out_AF = fit_facts(model, caches["train"], clips["train"], seed=0).logits_AF
            report.setdefault(name, {})[encoder] = {
                "left out": share(left_out_AF, values[name], clips["train"], name),
                "validation": share(logits(model, caches["val"], clips["val"]), values[name], clips["val"], name),
            }
    text = json.dumps(report, indent=1) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
