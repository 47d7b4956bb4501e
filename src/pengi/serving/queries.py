"""Queries: calls of the engine's methods. Equal queries about several recordings become one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from pengi.audio.sources import ReadingOptions
from pengi.calls import AskOptions, ClassifyOptions, DescribeOptions, TagsOptions
from pengi.errors import checked_text
from pengi.results import Answer, Classification, Description, Tags, Timeline, Transcript
from pengi.timelines import TimelineOptions

EngineMethod = Literal["describe", "ask", "classify", "tags", "embed", "timeline", "transcribe"]
TEXT_METHODS: tuple[EngineMethod, ...] = ("describe", "ask")
"""Methods that generate a text about a recording; in a batch each recording may have another query."""
R = TypeVar("R")


@dataclass(frozen=True)
class Query(Generic[R]):
    """A call whose result for one recording is an ``R``. Queries with the same method and options share a call."""

    method: EngineMethod
    options: tuple[tuple[str, object], ...] = ()
    """Hashable keyword arguments of the method, without those that are None or False, the defaults of the engine."""
    question: str = ""
    """The question of "ask"; every recording of a call has its own."""


def describe(**options: Unpack[DescribeOptions]) -> Query[Description]:
    """A text about a recording, and its sound events."""
    return Query("describe", _call_options(options))


def ask(question: str, **options: Unpack[AskOptions]) -> Query[Answer]:
    """The answer to a question.

    Raises:
        InputError: if the question is not a valid text.
    """
    return Query("ask", _call_options(options), checked_text(question, "the question"))


def classify(labels: Sequence[str], **options: Unpack[ClassifyOptions]) -> Query[Classification]:
    """The scores of labels.

    Raises:
        InputError: if a label is not a valid text.
    """
    return Query("classify", _call_options({**options, "labels": labels}))


def tags(**options: Unpack[TagsOptions]) -> Query[Tags]:
    """The tags of a recording and their times.

    Raises:
        InputError: if a label is not a valid text.
    """
    return Query("tags", _call_options(options))


def embed(**options: Unpack[ReadingOptions]) -> Query[NDArray[np.float32]]:
    """A recording as a vector ``float32[D]``."""
    return Query("embed", _call_options(options))


def timeline(**options: Unpack[TimelineOptions]) -> Query[Timeline]:
    """The timeline of a recording.

    Raises:
        InputError: if a label is not a valid text.
    """
    return Query("timeline", _call_options(options))


def transcribe() -> Query[Transcript]:
    """The transcript of a recording."""
    return Query("transcribe")


def _call_options(options: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    chosen = {name: value for name, value in options.items() if value is not None and value is not False}
    labels = chosen.get("labels")
    if isinstance(labels, Sequence):
        chosen["labels"] = tuple(checked_text(label, "each label") for label in labels)
    return tuple(sorted(chosen.items()))
