"""Accuracy on held-out clips while a model is trained: few clips, to see where it goes. ``pengi eval`` measures."""

from __future__ import annotations

import random
from collections.abc import Mapping

from pengi.data.recordings import recording
from pengi.data.sources import Source
from pengi.data.tasks import TASKS
from pengi.engine import Pengi
from pengi.errors import ConfigError, PengiError, no_such

CLIPS_PER_CALL = 32


def check_tasks(held_out: Source, tasks: Mapping[str, int]) -> None:
    """Raise a ConfigError if a task is unknown or no held-out clip is of it."""
    for name in tasks:
        if name not in TASKS:
            raise ConfigError(f"training.evaluate: {no_such('task', name, TASKS)}")
        if not any(TASKS[name].answers(clip) for clip in held_out.clips):
            raise ConfigError(f"training.evaluate: no held-out clip is of the task '{name}'")


def accuracies(engine: Pengi, held_out: Source, tasks: Mapping[str, int]) -> dict[str, float]:
    """Share of right answers for each task, the choices being all labels that held-out clips have.

    Args:
        engine: the model as it is now.
        held_out: its clips are sampled, always the same ones.
        tasks: name -> at most so many clips.

    Returns:
        ``accuracy/<task>`` -> 0 to 1. A clip that cannot be read counts as wrong.
    """
    found = {}
    for name, most in tasks.items():
        task = TASKS[name]
        asked = [clip for clip in held_out.clips if task.answers(clip)]
        labels = sorted({label for clip in asked for label in task.answers(clip)})
        chosen = random.Random(0).sample(asked, min(most, len(asked)))
        right = 0
        for start in range(0, len(chosen), CLIPS_PER_CALL):
            clips = chosen[start : start + CLIPS_PER_CALL]
            audio = [recording(held_out.root, clip.audio) for clip in clips]
            answers = engine.classify(audio, labels, prompt=task.prompt, on_error="return")
            for clip, answer in zip(clips, answers, strict=True):
                right += not isinstance(answer, PengiError) and answer.label in task.answers(clip)
        found[f"accuracy/{name}"] = right / len(chosen)
    return found
