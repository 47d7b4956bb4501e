"""Adds tags to a trained model: labels of recordings that its tagger does not know.

The scores of new tags are fitted like those of a new model (:mod:`pengi.training.tagger`): on the mean tokens of the
recordings, by a softmax over the new tags and "none of them". Scores and probabilities of the other tags do not change.

Shape suffixes: N clips, K new tags, D features of a frame, I features of the first encoder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pengi.conditioning.tagger import Tagger
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.manifest import Clip
from pengi.data.tagging import TagTargets, folds_of, group_of
from pengi.model import PengiModel
from pengi.training.evidence import TrainingClips, frames_of, load_scores
from pengi.training.label_report import LabelReport
from pengi.training.tagger import (
    NO_CLASS,
    FitOptions,
    FittedTagger,
    Scores,
    fit_tagger,
    out_of_fold_scores,
)

log = logging.getLogger(__name__)

GROUP = "sound"
MIN_CLIPS = 2
"""A label with fewer clips does not become a tag."""
MAX_SCALE = 3.0
"""Maximum scale of the calibration; with few clips that are all scored correctly it would grow without limit."""
THRESHOLD_RANGE = (0.1, 0.9)
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class NewTags:
    """Tags that were added to a model.

    Attributes:
        fitted: scores of the new tags alone, fitted on all clips, and once without each fold.
        report: their accuracy.
    """

    fitted: FittedTagger
    report: LabelReport


def add_new_tags(model: PengiModel, train: TrainingClips, held_out: TrainingClips) -> NewTags | None:
    """Give a model's tagger a tag for each label of the training clips that it does not know.

    Clips without labels count as examples of "none of them", unless texts describe them.

    Args:
        model: with a fitted tagger, which is replaced.
        train: what to fit on.
        held_out: clips on which thresholds are chosen and results are reported. If they lack one of the labels, the
            training clips are used instead, each scored by tags that were fitted without it.

    Returns:
        None if no label is new.
    """
    assert model.tagger is not None, "new tags are added to a tagger"
    clips = train.with_features()
    labels = new_labels(model.tagger.vocabulary, clips)
    if not labels:
        return None
    log.info("fitting %d new tags: %s", len(labels), ", ".join(labels))
    frames = frames_of(model, TrainingClips(clips, train.caches))
    targets, fold_N = label_targets(clips, labels), folds_of([group_of(clip) for clip in clips])
    added = Vocabulary(tuple(Tag(label, GROUP) for label in labels))
    stock = _no_stock(model.tagger, len(labels))
    fitted = fit_tagger(frames, stock, targets, added, fold_N, FitOptions())
    softened_K = fitted.scale_K.clamp(max=MAX_SCALE) / fitted.scale_K  # the score of probability 0.5 stays the same
    fitted = replace(fitted, scale_K=softened_K * fitted.scale_K, shift_K=softened_K * fitted.shift_K)
    _extend(model, added)
    load_scores(model.tagger, fitted.scores, fitted)
    trained_NK = _probabilities(out_of_fold_scores(frames, fitted.folds, fold_N), fitted)
    report = _report(model, held_out, labels, fitted, (clips, trained_NK))
    _set_thresholds(model.tagger, report.thresholds)
    return NewTags(fitted, report)


def new_labels(vocabulary: Vocabulary, clips: Sequence[Clip]) -> list[str]:
    """The labels of clips that name no tag yet (or only a keyword, the spoken word) and have enough clips."""
    counts = Counter(label for clip in clips for label in dict.fromkeys(clip.events))
    texts = {tag.text for tag in vocabulary.tags}
    found = []
    for label in sorted(counts):
        index = vocabulary.index(label)
        if label in texts or (index is not None and vocabulary.tags[index].group != "keyword"):
            log.info("'%s' is already a tag and does not change", label)
        elif counts[label] < MIN_CLIPS:
            log.warning(
                "'%s' has only %d clip to train on and does not become a tag; add more clips", label, counts[label]
            )
        else:
            found.append(label)
    return found


def label_targets(clips: Sequence[Clip], labels: Sequence[str]) -> TagTargets:
    """Which of the labels clips have. If a clip without labels has absent events or describing texts, only its absent
    labels are known."""
    present_NK = np.array([[label in clip.events for label in labels] for clip in clips], dtype=np.bool_)
    known_NK = np.ones_like(present_NK)
    for row, clip in enumerate(clips):
        if not clip.events:
            is_described = bool(clip.captions or clip.qa or clip.title or clip.tags or clip.description)
            if clip.absent or is_described:
                known_NK[row] = [label in clip.absent for label in labels]
    return TagTargets(present_NK, known_NK)


def _no_stock(tagger: Tagger, count: int) -> Scores:
    """Scores of a stock tagger that knows none of the new tags."""
    dim, first = tagger.head.in_features, tagger.stock.in_features
    return Scores(torch.zeros(count, dim), torch.full((count,), NO_CLASS), torch.zeros(count, first))


def _extend(model: PengiModel, added: Vocabulary) -> None:
    """Give a model a tagger with ``added`` after its present tags, whose scores stay the same."""
    before = model.tagger
    assert before is not None, "the model has a tagger"
    model.set_vocabulary(Vocabulary((*before.vocabulary.tags, *added.tags)))
    after, count = model.tagger, len(before.vocabulary)
    assert after is not None, "set_vocabulary makes one"
    with torch.no_grad():
        for name in ("head.weight", "head.bias", "stock.weight", "scale_K", "shift_K"):
            after.state_dict()[name][:count] = before.state_dict()[name]


def _probabilities(scores_NK: Tensor, fitted: FittedTagger) -> NDArray[np.float32]:
    """Calibrated probabilities of the new tags, ``float32[N, K]``."""
    probability_NK: NDArray[np.float32] = (scores_NK * fitted.scale_K + fitted.shift_K).sigmoid().numpy()
    return probability_NK


def _report(
    model: PengiModel,
    held_out: TrainingClips,
    labels: Sequence[str],
    fitted: FittedTagger,
    trained: tuple[Sequence[Clip], NDArray[np.float32]],
) -> LabelReport:
    """Thresholds and results on held-out clips, or on training clips if a label has no held-out clip."""
    clips = held_out.with_features()
    if all(any(label in clip.events for clip in clips) for label in labels):
        frames = frames_of(model, TrainingClips(clips, held_out.caches))
        probability_NK = _probabilities(fitted.scores.of_clips(frames, np.arange(len(clips))), fitted)
        where = "held-out clips"
    else:
        clips, probability_NK = list(trained[0]), trained[1]
        where = "training clips, each scored by tags that did not see it, because a label has no held-out clip"
    targets = label_targets(clips, labels)
    thresholds = {
        label: best_threshold(probability_NK[:, column], targets.present_NK[:, column], targets.known_NK[:, column])
        for column, label in enumerate(labels)
    }
    return LabelReport(tuple(labels), clips, probability_NK, targets, thresholds, where)


def best_threshold(
    probability_N: NDArray[np.float32], present_N: NDArray[np.bool_], known_N: NDArray[np.bool_]
) -> float:
    """The threshold with the best F1; of equally good ones the nearest to 0.5.

    Candidates are halfway between two successive probabilities.
    """
    values_M, present_M = probability_N[known_N], present_N[known_N]
    edges = np.unique(np.concatenate([values_M, [0.0, 1.0]]))
    candidates = np.clip(np.append((edges[:-1] + edges[1:]) / 2, DEFAULT_THRESHOLD), *THRESHOLD_RANGE)

    def quality(threshold: float) -> tuple[float, float]:
        found_M = values_M >= threshold
        f1 = 2 * float((found_M & present_M).sum()) / max(float(found_M.sum() + present_M.sum()), 1.0)
        return round(f1, 9), -abs(threshold - DEFAULT_THRESHOLD)

    return round(float(max(candidates.tolist(), key=quality)), 3)


def _set_thresholds(tagger: Tagger, thresholds: Mapping[str, float]) -> None:
    """Store in the vocabulary the lowest probabilities at which new tags are events of a timeline."""
    tags = tagger.vocabulary.tags
    tagger.vocabulary = Vocabulary(
        tuple(replace(tag, threshold=thresholds.get(tag.text, tag.threshold)) for tag in tags)
    )
