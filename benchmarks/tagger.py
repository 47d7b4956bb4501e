"""Measures accuracy and calibration of the tagger, on train clips out of fold and on val clips.

    python benchmarks/tagger.py recipes/pengi-mini.yaml --out results/tags.json
    python benchmarks/tagger.py recipes/pengi-mini.yaml --out results/tags.json --penalties 0.003 0.01 0.03 \
        --stock-weights 0 0.5 1 2

Features and fits are taken from the cache of training if they are there. Composed clips are left out.

Accuracy by group of tags: the share of the clips with a tag of the group in which the tag with the highest score is
there. Only tags that at least one train clip has are compared; tags whose presence in a clip is not known are left out.
The 95 % interval is by bootstrap over groups of clips. ``stock`` is the accuracy of the stock tagger alone, among the
same tags. The expected calibration error, in 10 bins, is computed over all probabilities of at least 0.05, which may be
written as evidence, if the presence of the tag is known; ``ece_all`` is computed over all probabilities.

With ``--penalties`` and ``--stock-weights`` every pair of them is compared, group by group, on train clips out of fold:
in folds of recordings, and in folds of sources, in which no clip of a tested source is used for training. ``settings``
has the accuracies, and the penalty and stock weight with the best mean of both, which the recipe uses. ``nested`` is
the accuracy on each fold of recordings with the settings that are best on the other folds. Val clips are not used for
that.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from run_record import run_record

from pengi import checkpoint
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.tagging import TagTargets, folds_of, group_of, tag_targets
from pengi.data.tasks import COMPOSED_DOMAIN
from pengi.evaluation.statistics import share_right
from pengi.training.data import read_data
from pengi.training.evidence import (
    TaggerData,
    TrainingClips,
    cached_fit,
    frames_of,
    load_scores,
    tagger_data,
)
from pengi.training.recipe import read_recipe
from pengi.training.setup import with_features
from pengi.training.tagger import out_of_fold_scores

BINS = 10
MIN_WRITTEN = 0.05
Row = dict[str, Any]
Setting = tuple[float, float]  # penalty, stock weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--penalties", type=float, nargs="+", default=())
    parser.add_argument("--stock-weights", type=float, nargs="+", default=(1.0,))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train, val = read(args.recipe)
    found: Row = {**run_record(), "groups": compared(train, val)}
    print(table(found["groups"]), flush=True)
    if args.penalties:
        found["settings"] = settings(train, args.penalties, args.stock_weights)
        for group, row in found["settings"].items():
            print(f"{group:12} penalty {row['penalty']}  stock weight {row['stock']}  nested {row['nested']:.3f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[TaggerData, TaggerData]:
    """Train and val clips of a recipe for the tags of the train clips."""
    recipe = read_recipe(path)
    assert recipe.model is not None, "the recipe of a new model is needed"
    clips_of = read_data(recipe.data)
    model = checkpoint.create(recipe.model)
    train, val = with_features(clips_of, model, recipe)
    data = tagger_data(model, train, clips_of.labels, recipe.tagger)
    clips = [clip for clip in val.with_features() if clip.domain != COMPOSED_DOMAIN]
    frames = frames_of(model, TrainingClips(clips, val.caches))
    stock_NK = data.stock.of_clips(frames, np.arange(len(clips))).sigmoid().numpy()
    targets = tag_targets(clips, data.tagger.vocabulary, clips_of.labels, stock_NK)
    no_fold_N = np.full(len(clips), -1, dtype=np.int64)
    return data, replace(data, clips=clips, frames=frames, targets=targets, fold_N=no_fold_N)


def compared(train: TaggerData, val: TaggerData) -> dict[str, Row]:
    """Accuracy and calibration of each group, on train clips out of fold and on val clips."""
    fitted = cached_fit(train)
    load_scores(train.tagger, fitted.scores, fitted)
    train_scores_NK = out_of_fold_scores(train.frames, fitted.folds, train.fold_N)
    out_of_fold_NK = train.tagger.probability(train_scores_NK).numpy()
    val_scores_NK = fitted.scores.of_clips(val.frames, np.arange(len(val.clips)))
    val_NK = train.tagger.probability(val_scores_NK).numpy()
    rows = {}
    for group, tags in tags_of(train).items():
        rows[group] = {
            name: measured(data, probabilities_NK, tags)
            for name, data, probabilities_NK in (("train", train, out_of_fold_NK), ("val", val, val_NK))
        }
    return rows


def tags_of(train: TaggerData) -> dict[str, NDArray[np.int64]]:
    """Indices of the tags of each group that any clip has."""
    vocabulary: Vocabulary = train.tagger.vocabulary
    there_K = train.targets.present_NK.any(0)
    groups_K = np.array([tag.group for tag in vocabulary.tags])
    found = {group: np.flatnonzero((groups_K == group) & there_K) for group in vocabulary.groups}
    return {group: tags for group, tags in found.items() if len(tags)}


def measured(data: TaggerData, probabilities_NK: NDArray[np.float32], tags: NDArray[np.int64]) -> Row:
    right = is_right(data.targets, probabilities_NK, tags)
    if not len(right):
        return {"clips": 0}
    stock = data.stock.of_clips(data.frames, np.arange(len(data.clips))).numpy()
    known_NJ, present_NJ = data.targets.known_NK[:, tags], data.targets.present_NK[:, tags]
    probability_M, present_M = probabilities_NK[:, tags][known_NJ], present_NJ[known_NJ]
    written_M = probability_M >= MIN_WRITTEN
    rows = np.flatnonzero(data.targets.present_NK[:, tags].any(1))
    accuracy = share_right(right, [group_of(data.clips[row]) for row in rows.tolist()])
    return {
        "clips": len(right),
        "tags": len(tags),
        "accuracy": round(accuracy.value, 4),
        "interval": [round(accuracy.low, 4), round(accuracy.high, 4)],
        "stock": round(float(is_right(data.targets, stock, tags).mean()), 4),
        "ece": calibration_error(probability_M[written_M], present_M[written_M]),
        "ece_all": calibration_error(probability_M, present_M),
    }


def is_right(targets: TagTargets, scores_NK: NDArray[np.float32], tags: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each clip that has one of the tags, whether the tag with the highest score is there."""
    rows = np.flatnonzero(targets.present_NK[:, tags].any(1))
    known_NJ = targets.known_NK[np.ix_(rows, tags)]
    best_N = np.where(known_NJ, scores_NK[np.ix_(rows, tags)], -np.inf).argmax(1)
    right: NDArray[np.bool_] = targets.present_NK[rows, tags[best_N]]
    return right


def calibration_error(probability_M: NDArray[np.float32], present_M: NDArray[np.bool_]) -> float | None:
    """Mean distance between probability and accuracy over bins of equal width, weighted by their size."""
    if not len(probability_M):
        return None
    bin_M = np.minimum((probability_M * BINS).astype(int), BINS - 1)
    error = 0.0
    for index in range(BINS):
        inside = bin_M == index
        if inside.any():
            error += float(inside.mean() * abs(probability_M[inside].mean() - present_M[inside].mean()))
    return round(error, 4)


def settings(train: TaggerData, penalties: Sequence[float], weights: Sequence[float]) -> dict[str, Row]:
    """Accuracy of each group by penalty and stock weight, on folds of recordings and on folds of sources."""
    folds = train.options.folds
    splits = {"recordings": train.fold_N, "sources": folds_of([clip.source for clip in train.clips], folds)}
    groups = tags_of(train)
    right: dict[str, dict[str, dict[Setting, NDArray[np.bool_]]]] = {
        group: {split: {} for split in splits} for group in groups
    }
    for split, fold_N in splits.items():
        for penalty in penalties:
            names = train.tagger.vocabulary.groups
            options = replace(train.options, penalty=dict.fromkeys(names, penalty), stock=dict.fromkeys(names, 0.0))
            data = replace(train, fold_N=fold_N, options=options)
            fitted = cached_fit(data)
            for weight in weights:
                with_stock = [
                    replace(
                        scores,
                        bias_K=scores.bias_K + weight * data.stock.bias_K,
                        stock_KI=scores.stock_KI + weight * data.stock.stock_KI,
                    )
                    for scores in fitted.folds
                ]
                scores_NK = out_of_fold_scores(data.frames, with_stock, fold_N).numpy()
                for group, tags in groups.items():
                    right[group][split][penalty, weight] = is_right(train.targets, scores_NK, tags)
    return {
        group: chosen(found, train.fold_N[train.targets.present_NK[:, groups[group]].any(1)])
        for group, found in right.items()
    }


def chosen(right: dict[str, dict[Setting, NDArray[np.bool_]]], fold_N: NDArray[np.int64]) -> Row:
    """The setting with the best mean accuracy over both kinds of folds, and the accuracies of all settings."""

    def accuracy(setting: Setting, inside_N: NDArray[np.bool_]) -> float:
        return float(np.mean([found[setting][inside_N].mean() for found in right.values()]))

    every = list(next(iter(right.values())))
    penalty, weight = max(every, key=lambda setting: accuracy(setting, np.full(len(fold_N), True)))
    nested = 0
    for fold in np.unique(fold_N):
        outside = fold_N != fold
        best = max(every, key=lambda setting: accuracy(setting, outside if outside.any() else ~outside))
        nested += int(right["recordings"][best][~outside].sum())
    return {
        "penalty": penalty,
        "stock": weight,
        "nested": round(nested / len(fold_N), 4),
        "accuracy": {
            split: {
                f"{penalty} {weight}": round(float(values.mean()), 4) for (penalty, weight), values in found.items()
            }
            for split, found in right.items()
        },
    }


def table(groups: dict[str, Row]) -> str:
    lines = ["group        train (out of fold)  stock  ECE    val     stock  ECE"]
    for group, row in groups.items():
        cells = []
        for split in ("train", "val"):
            found = row[split]
            values = [found.get(name) for name in ("accuracy", "stock", "ece")]
            cells += ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"{group:12} {cells[0]:20} {cells[1]:6} {cells[2]:6} {cells[3]:7} {cells[4]:6} {cells[5]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
