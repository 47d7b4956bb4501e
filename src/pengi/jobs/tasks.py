"""The tasks of a job, and the rows of their answers.

Every row has six columns: ``input``, ``text``, ``scores`` (``{"label", "score"}``, the best first), ``seconds``,
``error`` and ``notes`` (sentences about how the recording was read). The columns of the task follow. If a recording
cannot be used, ``error`` is a sentence, and the columns of the task are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pengi.calls import ANSWER, DESCRIBE
from pengi.decoding import DecodeOptions
from pengi.engine import Pengi
from pengi.errors import InputError, PengiError, no_such
from pengi.json_lines import Row
from pengi.labelling import Threshold, check_method, checked_thresholds
from pengi.writing import printable

Answers = list[Any]
"""An answer or a :class:`PengiError` for each recording."""

ROW_COLUMNS = ("input", "text", "scores", "seconds", "error", "notes")
DIGITS = 6
"""Significant digits of a score; further digits depend on the other recordings of a batch."""


@dataclass(frozen=True)
class Job:
    """A task and its options; for ``None`` the engine's default is used.

    Raises:
        InputError: for an unknown task, an option of another task, a missing question, missing labels, or a value out
            of range.
    """

    task: str
    question: str | None = None
    labels: tuple[str, ...] | None = None
    method: str | None = None
    top: int | None = None
    prompt: str | None = None
    """The prompt that the labels complete."""
    none: float | None = None
    """Lowest independent probability of a label; below it the result is 'none of these'."""
    threshold: Threshold | None = None
    """Lowest probability of a tag or label."""
    min_duration_s: float | None = None
    merge_gap_s: float | None = None
    window_s: float | None = None
    hop_s: float | None = None
    beams: int | None = None
    max_tokens: int | None = None
    track: int | None = None
    """Number of the sound track that is read, from 1."""
    partial: bool = False
    """Whether damaged recordings are read up to the damage."""

    def __post_init__(self) -> None:
        if self.task not in JOB_TASKS:
            raise InputError(no_such("task", self.task, JOB_TASKS))
        for name, value in self.settings().items():
            if name not in ("task", *_READING, *JOB_TASKS[self.task].options):
                raise InputError(f"'{name}' cannot be used with the task '{self.task}' (it is {value!r})")
        if self.task == "ask" and not (self.question or "").strip():
            raise InputError("the task 'ask' needs a question")
        if self.task == "classify" and not self.labels:
            raise InputError("the task 'classify' needs labels")
        if self.method is not None:
            check_method(self.method)
        for name in ("window_s", "hop_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"'{name}' must be more than 0 seconds, not {value:g}")
        # Which labels a model has is not known here.
        checked_thresholds(self.threshold, 0.0, self.threshold if isinstance(self.threshold, Mapping) else ())
        assert self.search  # makes DecodeOptions, which check their values

    def settings(self) -> dict[str, Any]:
        """The task and the given options as JSON values; with the model, they determine the answers."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        return given | ({"labels": list(self.labels)} if self.labels is not None else {})

    @property
    def reading(self) -> dict[str, Any]:
        """How recordings are read: keywords of the engine's methods."""
        return {"track": self.track, "partial": self.partial}

    @property
    def search(self) -> DecodeOptions:
        """How texts are generated."""
        default = ANSWER if self.task == "ask" else DESCRIBE
        return DecodeOptions(
            beams=default.beams if self.beams is None else self.beams,
            max_tokens=default.max_tokens if self.max_tokens is None else self.max_tokens,
        )

    def answer(self, engine: Pengi, sources: Sequence[Any]) -> Answers:
        """Ask the model about recordings; one answer or error for each.

        Raises:
            InputError: if the model does not support an option or a value for any recording.
        """
        task = JOB_TASKS[self.task]
        names = [name for name in task.options if name not in _SEARCH]
        options = {name: value for name in names if (value := getattr(self, name)) is not None}
        if set(_SEARCH) <= set(task.options):
            options["options"] = self.search
        # Decoded samples are already those of the chosen track.
        if task.reads_windows and not any(isinstance(source, tuple) for source in sources):
            options |= self.reading
        answers: Answers = getattr(engine, self.task)(list(sources), **options, on_error="return")
        return answers

    def row(self, name: str, answer: Any, seconds: float, notes: Sequence[str] = ()) -> Row:
        """The row of an answer, or of a :class:`PengiError`.

        Args:
            name: of the recording.
            answer: from :meth:`answer`.
            seconds: time spent on it.
            notes: sentences about the reading; those of the answer are added.
        """
        failed = isinstance(answer, PengiError)
        columns: Row = {} if failed else JOB_TASKS[self.task].row(answer)
        shared = {
            "input": name,
            "text": columns.get("text"),
            "scores": columns.get("scores", []),
            "seconds": round(seconds, 4),
            "error": printable(str(answer)) if failed else None,
            "notes": [printable(note) for note in dict.fromkeys((*notes, *getattr(answer, "notes", ())))],
        }
        return shared | {name: columns.get(name) for name in JOB_TASKS[self.task].columns}


@dataclass(frozen=True)
class TaskSpec:
    """A task: the columns of its answers, and its options."""

    row: Callable[[Any], Row]
    """The columns of an answer."""
    columns: tuple[str, ...] = ()
    """Further columns of this task."""
    options: tuple[str, ...] = ()
    reads_windows: bool = False
    """Whether the engine's method reads recordings window by window, so that they are not encoded before the call."""


def _description_row(answer: Any) -> Row:
    return {
        "text": answer.text,
        "scores": _scores((event.label, event.confidence) for event in answer.events),
        "duration_s": round(answer.duration_s, 3),
    }


def _events_row(events: Any) -> Row:
    return {
        "text": "; ".join(event.label for event in events),
        "scores": _scores((event.label, event.confidence) for event in events),
    }


def _answer_row(answer: Any) -> Row:
    return {"text": answer.text, "scores": _scores([(answer.text, answer.confidence)])}


def _classification_row(answer: Any) -> Row:
    return {
        "text": answer.label,
        "scores": _scores((score.label, score.probability) for score in answer.scores),
        "generated": answer.text,
    }


def _vector_row(vector: Any) -> Row:
    # Entries of a vector of length 1: float32 has no more than seven decimals.
    return {"vector": [round(float(value), 7) for value in vector]}


def _timeline_row(timeline: Any) -> Row:
    best: dict[str, float] = {}
    for part in timeline.segments:
        best[part.text] = max(best.get(part.text, 0.0), part.confidence)
    ranked = sorted(best.items(), key=lambda item: -item[1])
    segments = [_segment_row(part) | {"confidence": _rounded(part.confidence)} for part in timeline.segments]
    return {
        "text": "; ".join(best),
        "scores": _scores(ranked),
        "duration_s": round(timeline.duration_s, 3),
        "segments": segments,
    }


def _tags_row(found: Any) -> Row:
    tags = [
        {
            "label": tag.label,
            "group": tag.group,
            "probability": _rounded(tag.probability),
            "spans": [[round(start_s, 3), round(end_s, 3)] for start_s, end_s in tag.spans],
        }
        for tag in found.tags
    ]
    return {
        "text": "; ".join(tag.label for tag in found.tags),
        "scores": _scores((tag.label, tag.probability) for tag in found.tags),
        "duration_s": round(found.duration_s, 3),
        "tags": tags,
    }


def _transcript_row(found: Any) -> Row:
    segments = [_segment_row(part) for part in found.segments]
    return {"text": found.text, "duration_s": round(found.duration_s, 3), "transcript": segments}


def _segment_row(part: Any) -> Row:
    return {"start_s": round(part.start_s, 3), "end_s": round(part.end_s, 3), "text": part.text}


def _scores(scored: Any) -> list[Row]:
    return [{"label": label, "score": _rounded(score)} for label, score in scored]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


_SEARCH = ("beams", "max_tokens")
_READING = ("track", "partial")
JOB_TASKS = {
    "describe": TaskSpec(_description_row, columns=("duration_s",), options=_SEARCH),
    "events": TaskSpec(_events_row, options=_SEARCH),
    "ask": TaskSpec(_answer_row, options=("question", *_SEARCH)),
    "classify": TaskSpec(
        _classification_row, columns=("generated",), options=("labels", "method", "top", "prompt", "none")
    ),
    "tags": TaskSpec(_tags_row, columns=("duration_s", "tags"), options=("threshold", "top", "labels")),
    "embed": TaskSpec(_vector_row, columns=("vector",)),
    "timeline": TaskSpec(
        _timeline_row,
        columns=("duration_s", "segments"),
        options=("threshold", "labels", "min_duration_s", "merge_gap_s", "window_s", "hop_s"),
        reads_windows=True,
    ),
    "transcribe": TaskSpec(_transcript_row, columns=("duration_s", "transcript"), reads_windows=True),
}
"""Each task is the method of the engine with this name."""
