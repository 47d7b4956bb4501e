"""A stand-in for the engine: it decodes files as the real one does and says what it was asked to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from helpers.commands import invoke
from helpers.jobs import FakeEngine as JobEngine
from pengi.audio.decode import load
from pengi.cli import session
from pengi.errors import InputError, PengiError
from pengi.jobs import runner
from pengi.results import (
    Answer,
    Classification,
    Description,
    Event,
    Explanation,
    LabelScore,
    Segment,
    Tags,
    TagScore,
    Timeline,
    with_notes,
)

DIM = 4
EXPLANATION = Explanation(
    (TagScore("tone", "sound", 0.75, "sure", ((0.0, 1.0),)), TagScore("siren", "sound", 0.004, "no")),
    "Stop [it].",
    ("Level -6 dBFS, steady.",),
    "[audio: 8 embeddings]<|im_start|>user\nHeard in 1.0 s: tone (sure).",
)


class FakeEngine:
    """The interface of :class:`pengi.engine.Pengi` over lists of recordings; ``calls`` holds what it was called with,
    and what was on stdout between two segments of a timeline."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def describe(
        self,
        audio: Sequence[Any],
        *,
        options: Any = None,
        explain: bool = False,
        on_error: str = "raise",
        **reading: Any,
    ) -> list[Any]:
        self.calls.append({"audio": list(audio), "options": options})
        events, why = (Event("tone", 0.75),), EXPLANATION if explain else None
        return self._each(audio, lambda s: Description("A tone rings [loudly].", events, s, why), reading)

    def ask(
        self,
        audio: Sequence[Any],
        question: str,
        *,
        options: Any = None,
        explain: bool = False,
        on_error: str = "raise",
        **reading: Any,
    ) -> list[Any]:
        self.calls.append({"audio": list(audio), "options": options})
        return self._each(audio, lambda s: Answer(question, "a tone", 0.5, EXPLANATION if explain else None), reading)

    def classify(
        self, audio: Sequence[Any], labels: Sequence[str], *, method: str = "likelihood", prompt: str | None = None,
        top: int | None = None, explain: bool = False, on_error: str = "raise", none: bool | float = False,
        multi_label: bool = False, **reading: Any,
    ) -> list[Any]:  # fmt: skip
        scored = {"method": method, "prompt": prompt, "none": none, "multi_label": multi_label}
        self.calls.append({"audio": list(audio), "labels": list(labels), **scored})
        if method not in ("likelihood", "match"):
            raise InputError(f"there is no method '{method}'; choose one of likelihood, match")
        share = 1 / len(labels)
        scores = tuple(LabelScore(label, share, 0.875 if multi_label else None) for label in labels[:top])
        why = replace(EXPLANATION, prompt=None) if explain else None
        return self._each(audio, lambda s: Classification(method, scores, explanation=why), reading)

    def encode(
        self, audio: Sequence[Any], *, for_text: bool = True, on_error: str = "raise", **reading: Any
    ) -> list[Any]:
        self.calls.append({"audio": list(audio)})
        return self._each(audio, lambda s: Timeline((), s), reading)

    def embed(self, encoded: Timeline) -> Any:
        return np.full(DIM, encoded.duration_s, dtype=np.float32)

    def tags(
        self, audio: Sequence[Any], *, threshold: Any = None, labels: Any = None, top: Any = None,
        on_error: str = "raise", **reading: Any,
    ) -> list[Any]:  # fmt: skip
        self.calls.append({"audio": list(audio), "threshold": threshold, "labels": labels, "top": top})
        kept = EXPLANATION.tags if threshold is None else ()
        return self._each(audio, lambda s: Tags(kept, s), reading)

    @staticmethod
    def timeline_remarks(
        *, labels: Sequence[str] | None = None, merge_gap_s: float | None = None, **_options: Any
    ) -> tuple[str, ...]:
        if merge_gap_s is not None and merge_gap_s < 0:
            raise InputError(f"the gap must be 0 seconds or more, not {merge_gap_s:g}")
        return tuple(f"there is no tag '{label}'" for label in labels or () if label == "whisle")

    def segments(
        self,
        audio: Any,
        *,
        threshold: Any = None,
        labels: Sequence[str] | None = None,
        min_duration_s: float | None = None,
        merge_gap_s: float | None = None,
        window_s: float | None = None,
        hop_s: float | None = None,
        progress: Callable[[float], None],
        notes: list[str] | None = None,
        **reading: Any,
    ) -> Iterator[Segment]:
        named = {"window_s": window_s, "hop_s": hop_s, "threshold": threshold, "labels": labels}
        self.calls.append({"audio": audio, "min_duration_s": min_duration_s, "merge_gap_s": merge_gap_s, **named})
        load(audio, 16_000, **reading, notes=notes)
        if notes is not None:
            notes += self.timeline_remarks(labels=labels)
        progress(65.0)
        yield Segment(0.0, 65.0, "A tone rings.", 0.5)
        self.calls.append({"shown": cast("Any", sys.stdout).buffer.getvalue().decode()})
        progress(3725.0)
        yield Segment(65.0, 3725.0, "Silence.", 0.001)

    @staticmethod
    def _each(audio: Sequence[Any], result: Callable[[float], Any], reading: dict[str, Any]) -> list[Any]:
        def one(source: Any) -> Any:
            notes: list[str] = []
            try:
                return with_notes(result(len(load(source, 16_000, **reading, notes=notes)) / 16_000), notes)
            except PengiError as error:
                return error

        return [one(path) for path in audio]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that commands get instead of a trained model."""
    fake = FakeEngine()

    def load_model(name: str, device: str, *, generates: bool = False) -> FakeEngine:
        if name == "nonsense":
            raise InputError("there is no model named 'nonsense'")
        return fake

    for module in ("answering", "tagging", "timelines", "embedding", "evaluating"):
        monkeypatch.setattr(f"pengi.cli.{module}.load_model", load_model)
    assert session.FILES_PER_CALL > 1
    return fake


@pytest.fixture
def pengi(engine: FakeEngine) -> Callable[..., Any]:
    """Run a command line with the stand-in, see :func:`helpers.commands.invoke`."""
    return invoke


@pytest.fixture
def job_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the engine of ``pengi run``."""
    monkeypatch.setattr(runner, "model_hash", lambda name: f"hash of {name}")
    monkeypatch.setattr("pengi.cli.running.load_model", lambda name, device: JobEngine())
