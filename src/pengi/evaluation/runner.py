"""Ask every clip of a task and score the answers.

What answers is a :class:`Classifier`, a function over recordings and labels, so a trained model, a baseline and a
test's stand-in are measured by the same lines.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pengi.data.manifest import SPLITS, Clip, read_manifest
from pengi.data.tasks import TASKS, Task
from pengi.errors import InputError, PengiError, no_such
from pengi.evaluation.metrics import Outcome, accuracy, mean_recall, per_class, wilson_interval

if TYPE_CHECKING:
    from pengi.engine import Pengi

CLIPS_PER_CALL = 32
# Which clips a limited run keeps is drawn once and for all: the first rows of a manifest are often of one source.
_LIMIT_SEED = 0
_TOP_SCORES = 5


@dataclass(frozen=True)
class Prediction:
    """The chosen label, the scores of the labels (best first, on the method's own scale) and the text, if any."""

    label: str
    scores: tuple[tuple[str, float], ...]
    text: str | None = None


Done = Callable[[int], None]
"""Told how many more clips are finished."""


class Classifier(Protocol):
    """Chooses one of the labels for every recording; a recording that cannot be used gives its error instead."""

    def __call__(
        self, recordings: Sequence[Path], labels: Sequence[str], done: Done
    ) -> Sequence[Prediction | PengiError]: ...


@dataclass(frozen=True)
class Selection:
    """The clips of an evaluation, the answers that count for each, and the labels to choose from."""

    task: Task
    source: str | None
    split: str
    manifest: Path
    clips: tuple[Clip, ...]
    answers: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    left_out: int
    """Clips of the task that have no answer among given labels."""


def select(
    manifest: Path,
    *,
    task: str,
    split: str,
    source: str | None = None,
    labels: Sequence[str] | None = None,
    limit: int | None = None,
) -> Selection:
    """The clips of one task, split and (if given) source.

    Without ``labels`` the choices are all labels that these clips have, before ``limit`` takes a fixed random part of
    the clips: a limited run has the same choices as the full one. With ``labels``, clips that have none of them are
    left out and counted, and each clip's answers are reduced to them.

    Raises:
        InputError: unknown task or split, or no clip that matches; the message says what the manifest has.
        ManifestError: as :func:`pengi.data.manifest.read_manifest`.
    """
    if task not in TASKS:
        raise InputError(no_such("task", task, TASKS))
    if split not in SPLITS:
        raise InputError(no_such("split", split, SPLITS))
    every = read_manifest(manifest, check_audio=False)
    found = [
        (clip, answers)
        for clip in every
        if clip.split == split and source in (None, clip.source) and (answers := TASKS[task].answers(clip))
    ]
    if not found:
        raise InputError(_nothing_found(every, task, split, source))
    choices = (
        tuple(labels) if labels is not None else tuple(sorted({label for _, answers in found for label in answers}))
    )
    usable = [(clip, kept) for clip, answers in found if (kept := tuple(a for a in answers if a in choices))]
    if not usable:
        raise InputError(
            f"none of the {len(found)} clips has one of the given labels; its labels are {_some_labels(found)}"
        )
    kept_clips = _limited(usable, limit)
    return Selection(
        task=TASKS[task],
        source=source,
        split=split,
        manifest=manifest,
        clips=tuple(clip for clip, _ in kept_clips),
        answers=tuple(answers for _, answers in kept_clips),
        labels=choices,
        left_out=len(found) - len(usable),
    )


def run(
    selection: Selection, classify: Classifier, done: Done = lambda count: None
) -> tuple[list[dict[str, Any]], float]:
    """One row per clip, in the manifest's order, and the seconds it took; scoring comes after (:func:`report`)."""
    folder = selection.manifest.parent
    start = time.perf_counter()
    predictions = classify([folder / clip.audio for clip in selection.clips], selection.labels, done)
    seconds = time.perf_counter() - start
    rows = []
    for clip, answers, prediction in zip(selection.clips, selection.answers, predictions, strict=True):
        row: dict[str, Any] = {"id": clip.id, "audio": clip.audio, "answers": list(answers)}
        if isinstance(prediction, PengiError):
            row |= {"prediction": None, "error": str(prediction)}
        else:
            row |= {"prediction": prediction.label, "text": prediction.text}
            row["scores"] = [[label, round(score, 6)] for label, score in prediction.scores[:_TOP_SCORES]]
        rows.append(row | {"correct": row["prediction"] in answers})
    return rows, seconds


def report(
    selection: Selection,
    rows: Sequence[dict[str, Any]],
    *,
    method: str,
    model: str,
    seconds: float,
    prompt: str | None = None,
) -> dict[str, Any]:
    """The report as JSON values; a clip that could not be used counts as wrong and stands in ``errors``."""
    outcomes = [Outcome(tuple(row["answers"]), row["prediction"]) for row in rows]
    classes = per_class(outcomes, selection.labels)
    correct = sum(outcome.correct for outcome in outcomes)
    return {
        "task": selection.task.name,
        "source": selection.source,
        "split": selection.split,
        "method": method,
        "model": model,
        "prompt": prompt,
        "labels": list(selection.labels),
        "n": len(rows),
        "correct": correct,
        "accuracy": accuracy(outcomes),
        "ci95": list(wilson_interval(correct, len(rows))),
        "mean_recall": mean_recall(list(classes.values())),
        "per_class": {
            label: {"n": score.n, "correct": score.correct, "accuracy": score.accuracy}
            for label, score in classes.items()
        },
        "errors": [{"id": row["id"], "audio": row["audio"], "error": row["error"]} for row in rows if "error" in row],
        "left_out": selection.left_out,
        "seconds": round(seconds, 3),
        "protocol": {
            "ci95": "Wilson interval over clips",
            "right": "the prediction is one of the clip's answers; a clip that cannot be used counts as wrong",
            "per_class": "a clip counts under each of its answers",
            "manifest_sha256": hashlib.sha256(selection.manifest.read_bytes()).hexdigest(),
        },
    }


def engine_classifier(engine: Pengi, method: str, prompt: str) -> Classifier:
    """A trained model as a classifier, asked with the task's own prompt."""

    def classify(recordings: Sequence[Path], labels: Sequence[str], done: Done) -> list[Prediction | PengiError]:
        predictions: list[Prediction | PengiError] = []
        for start in range(0, len(recordings), CLIPS_PER_CALL):
            part = list(recordings[start : start + CLIPS_PER_CALL])
            for outcome in engine.classify(part, labels, method=method, prompt=prompt, on_error="return"):
                if isinstance(outcome, PengiError):
                    predictions.append(outcome)
                else:
                    scores = tuple((score.label, score.probability) for score in outcome.scores)
                    predictions.append(Prediction(outcome.label, scores, outcome.text))
            done(len(part))
        return predictions

    return classify


def _limited(clips: list[tuple[Clip, tuple[str, ...]]], limit: int | None) -> list[tuple[Clip, tuple[str, ...]]]:
    if limit is None or limit >= len(clips):
        return clips
    chosen = sorted(random.Random(_LIMIT_SEED).sample(range(len(clips)), limit))
    return [clips[index] for index in chosen]


def _nothing_found(clips: Sequence[Clip], task: str, split: str, source: str | None) -> str:
    """What was asked for, and what there is instead: the nearest thing that can be named."""
    asked = (
        f"no clip of split '{split}'"
        + (f" and source '{source}'" if source is not None else "")
        + f" has task '{task}'"
    )
    in_split = [clip for clip in clips if clip.split == split]
    if not in_split:
        return f"{asked}; the splits here are {', '.join(sorted({clip.split for clip in clips}))}"
    sources = sorted({clip.source for clip in in_split if TASKS[task].answers(clip)})
    if sources:
        return f"{asked}; sources that have it are {', '.join(sources)}"
    tasks = [name for name in TASKS if any(TASKS[name].answers(clip) for clip in in_split)]
    return f"{asked}; tasks in this split are {', '.join(tasks) or 'none'}"


def _some_labels(found: Sequence[tuple[Clip, tuple[str, ...]]], most: int = 8) -> str:
    counts = Counter(label for _, answers in found for label in answers)
    names = [label for label, _ in counts.most_common(most)]
    return ", ".join(names) + (", ..." if len(counts) > most else "")
