"""Measures how much less probable the tagger finds sounds in mixtures, on composed train clips out of fold.

    python benchmarks/mixtures.py recipes/pengi-mini.yaml --out results/mixtures.json

Features and fits are taken from the cache of training if they are there. Only compositions of sounds are used, and in
them the tags of their events.

A figure is the mean change of a present tag's log-odds, from its mean in recordings with this tag: for events that no
other event overlaps, and for the others by the level of the loudest overlapping event relative to theirs.

Shape suffixes: N clips, K tags.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from run_record import run_record, write_results

from pengi import checkpoint
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.manifest import Clip, EventTime
from pengi.data.tagging import folds_of, group_of
from pengi.data.tasks import COMPOSED_DOMAIN
from pengi.training.data import read_data
from pengi.training.evidence import TrainingClips, cached_fit, frames_of, load_scores, tagger_data
from pengi.training.recipe import read_recipe
from pengi.training.setup import with_features
from pengi.training.tagger import out_of_fold_scores

LEVELS_DB = (-np.inf, -6.0, -3.0, 0.0, 3.0, 6.0, np.inf)
OVERLAP_S = 0.2
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_results({**run_record(), **masking(*read(args.recipe))}, args.out)


def read(path: Path) -> tuple[list[Clip], NDArray[np.float64], NDArray[np.float64], Vocabulary]:
    """Composed clips; the log-odds of their tags, ``float64[N, K]``; the mean over the recordings that have a tag,
    ``float64[K]``; and the vocabulary. All log-odds are out of fold."""
    recipe = read_recipe(path)
    assert recipe.model is not None, "the recipe of a new model is needed"
    clips_of = read_data(recipe.data)
    model = checkpoint.create(recipe.model)
    train, _ = with_features(clips_of, model, recipe)
    data = tagger_data(model, train, clips_of.labels, recipe.tagger)
    fitted = cached_fit(data)
    load_scores(data.tagger, fitted.scores, fitted)
    present_NK = data.targets.present_NK
    odds_NK = log_odds(data.tagger.probability(out_of_fold_scores(data.frames, fitted.folds, data.fold_N)).numpy())
    usual_K = np.where(present_NK, odds_NK, 0.0).sum(0) / np.maximum(present_NK.sum(0), 1)
    usual_K[~present_NK.any(0)] = np.nan
    # The tagger is fitted on recordings only. A composed clip has recordings of one fold, and is scored as part of it.
    composed = [clip for clip in train.with_features() if clip.domain == COMPOSED_DOMAIN]
    fold_N = folds_of([group_of(clip) for clip in composed])
    scores_NK = out_of_fold_scores(frames_of(model, TrainingClips(composed, train.caches)), fitted.folds, fold_N)
    return composed, log_odds(data.tagger.probability(scores_NK).numpy()), usual_K, data.tagger.vocabulary


def log_odds(probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(clipped / (1 - clipped))


def events_of(clip: Clip, vocabulary: Vocabulary) -> dict[int, EventTime]:
    """For each tag with exactly one event that event."""
    events = defaultdict(list)
    for event in clip.times:
        if (index := vocabulary.index(event.event)) is not None:
            events[index].append(event)
    return {index: times[0] for index, times in events.items() if len(times) == 1}


def masking(
    clips: list[Clip], odds_NK: NDArray[np.float64], usual_K: NDArray[np.float64], vocabulary: Vocabulary
) -> Row:
    """Mean change of the log-odds of present tags, without overlap and by the level of what overlaps."""
    alone: list[float] = []
    overlapped: list[tuple[float, float]] = []
    for clip, odds_K in zip(clips, odds_NK, strict=True):
        events = events_of(clip, vocabulary)
        for index, event in events.items() if len(events) > 1 else ():
            if np.isnan(usual_K[index]):
                continue
            change = float(odds_K[index] - usual_K[index])
            over = [
                other.level_db - event.level_db
                for other in events.values()
                if other is not event and min(other.end_s, event.end_s) - max(other.start_s, event.start_s) > OVERLAP_S
            ]
            if over:
                overlapped.append((max(over), change))
            else:
                alone.append(change)
    levels, changes = np.array(overlapped).T
    rows = {}
    for low, high in pairwise(LEVELS_DB):
        rows[f"{low:g} to {high:g} dB"] = mean_of(changes[(levels >= low) & (levels < high)])
    return {"alone": mean_of(np.array(alone)), "overlapped": rows}


def mean_of(changes: NDArray[np.float64]) -> Row:
    return {"events": len(changes), "change": round(float(changes.mean()), 2)}


if __name__ == "__main__":
    main()
