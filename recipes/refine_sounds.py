"""The last stage of the shipped pengi-mini: its sound branch alone, on the alignment loss, without the language model.

    pengi train recipes/pengi-mini.yaml
    python recipes/refine_sounds.py runs/pengi-mini runs/pengi-mini-refined

Training through the language model leaves little of the time for the sound branch, and most AudioSet classes have no
labelled clip. Here the branch sees sounds nearly only, and more than half of its environmental clips stand for a class:
either a real clip moved towards the class (`pengi.data.pseudo`), or a stretch of it between silence, as sounds in short
recordings are. The places of the prefix keep their meaning, so that the language model reads them as before.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import torch
from torch import Tensor

from pengi import checkpoint, weights
from pengi.data.features import cached_features
from pengi.data.loader import Loader, Mixture
from pengi.data.manifest import read_labels, read_manifest
from pengi.data.pseudo import ClassDirections
from pengi.data.tasks import PairMaker, labels_of
from pengi.encoders.yamnet import YamnetTagger
from pengi.training.align import alignment_loss, asked_clips, build_aspect
from pengi.training.edits import TokenEdits
from pengi.training.loop import _direction_classes, console
from pengi.training.recipe import read_recipe

RECIPE = Path(__file__).with_name("pengi-mini.yaml")
STEPS, CLIPS, WARMUP = 600, 64, 20
MAPPER_LR, ENCODER_LR, WEIGHT_DECAY = 5e-4, 5e-5, 0.05
CLASS_DIRECTIONS, BETWEEN_SILENCE = 0.55, 0.6
DOMAINS = {
    "environment": 4.0, "animal": 3.0, "human": 3.0, "sfx": 1.0, "scene": 0.5, "instrument": 2.0, "music": 1.5,
    "keyword": 0.3, "digit": 0.1, "language": 0.3, "gender": 0.2, "speech_qa": 0.1,
}  # fmt: skip


class BetweenSilence(ClassDirections):
    """Class directions of which a share is a moved stretch of a clip, made quieter, with silence around it."""

    def __init__(self, tagger: YamnetTagger, silence_D: Tensor) -> None:
        super().__init__(tagger)
        self.silence_D = silence_D

    def draw(self, tokens_TD: Tensor, class_index: int, generator: torch.Generator) -> Tensor:
        """See :class:`ClassDirections`."""
        if random.random() >= BETWEEN_SILENCE:
            return super().draw(tokens_TD, class_index, generator)
        count = len(tokens_TD)
        length = max(1, round(count * random.uniform(0.2, 1.0)))
        start = random.randint(0, count - length)
        drawn_TD = self.silence_D.repeat(count, 1)
        stretch_TD = tokens_TD.float()[start : start + length] * random.uniform(0.3, 1.0)
        drawn_TD[start : start + length] = self.move(stretch_TD, class_index, random.uniform(-2.0, 3.0))
        return drawn_TD.to(tokens_TD.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    recipe = read_recipe(RECIPE)
    clips = read_manifest(recipe.data.manifest)
    train = [clip for clip in clips if clip.split == "train" and clip.ship]
    model = checkpoint.load(options.checkpoint)
    branch = model.branches[0]
    assert recipe.data.labels is not None
    assert recipe.alignment is not None
    # Words of the validation labels are known to the model; none of their recordings is.
    words = labels_of([*train, *[clip for clip in clips if clip.split == "val"]], read_labels(recipe.data.labels))
    tagger = YamnetTagger.from_folder(weights.resolve("yamnet"))
    classes, worded = _direction_classes(tagger, words)
    cache = cached_features(train, recipe.data.manifest.parent, branch.encoder, branch.config)
    mixture = Mixture(domains=DOMAINS, clips=CLIPS, pairs=1, class_directions=CLASS_DIRECTIONS)
    loader = Loader(train, [cache], PairMaker(worded, None, others=words), mixture, 1, classes)
    with torch.no_grad():
        silence_BTD, _ = branch.encoder(torch.zeros(1, 16_000), torch.tensor([16_000]))
    directions = BetweenSilence(tagger, silence_BTD[0, 0])
    names = [label.label for label in classes.labels]
    aspects = [
        build_aspect(aspect, loader.clips, names if aspect == "event" else [], model.language_model)
        for aspect in recipe.alignment.aspects[0]
    ]
    mapper = list(branch.mapper.parameters())
    encoder = [value for value in branch.encoder.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW([{"params": mapper}, {"params": encoder}], weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        share = min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for group, rate in zip(optimizer.param_groups, (MAPPER_LR, ENCODER_LR), strict=True):
            group["lr"] = rate * share
        torch.manual_seed(step)
        random.seed(step)
        drawn = loader.batch(step)
        model.train()
        edit = TokenEdits(drawn.clips, drawn.moved_to, directions, token_dropout=0.1, branch_dropout=0.0, seed=step)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = edit([(branch.encoder.tokens(*drawn.batch.features[0]), drawn.batch.features[0][1])])
            mapped = [branch.mapper(*tokens[0])]
            loss = alignment_loss([aspects], asked_clips(drawn, loader), tokens, mapped)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*mapper, *encoder], 1.0)
        optimizer.step()
        if step % 25 == 0:
            console.print(f"step {step}  loss {float(loss.detach()):.3f}")
    card = (options.checkpoint / "README.md").read_text(encoding="utf-8")
    checkpoint.save(model.eval(), options.out, card=card, dtype=torch.float16)


if __name__ == "__main__":
    main()
