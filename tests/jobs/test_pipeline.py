"""Decoding ahead of the model: order, batches, bounds, and what goes wrong on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs import FakeEngine, timeless, write_tone
from pengi.errors import InputError
from pengi.jobs import pipeline
from pengi.jobs.inputs import JobInput
from pengi.jobs.pipeline import Pipeline
from pengi.jobs.tasks import Job


def items(folder: Path) -> list[JobInput]:
    return [JobInput(path.name, str(path)) for path in sorted(folder.rglob("*.*")) if path.suffix in (".wav", ".flac")]


def answered(engine: Any, found: list[JobInput], batch_size: int = 3, task: str = "describe") -> list[dict[str, Any]]:
    rows = Pipeline(engine, Job(task), batch_size=batch_size, workers=2).rows(found)
    return list(itertools.chain.from_iterable(rows))


def test_rows_keep_the_order_and_calls_the_batch(sounds: Path, engine: FakeEngine) -> None:
    found = [item for item in items(sounds) if not item.name.startswith(".")]
    rows = answered(engine, found)
    assert [row["input"] for row in rows] == [item.name for item in found]
    assert sum(engine.calls) == 8  # the broken one never reaches the model
    assert max(engine.calls) == 3
    alone = answered(engine, found, batch_size=1)
    assert timeless(alone) == timeless(rows)


def test_nothing_is_read_further_ahead_than_two_batches(sounds: Path, engine: FakeEngine) -> None:
    path = sounds / "1.wav"
    taken = itertools.count()
    endless = (JobInput(str(next(taken)), str(path)) for _ in itertools.repeat(None))
    rows = Pipeline(engine, Job("describe"), batch_size=4, workers=2).rows(endless)
    assert len(next(rows)) == 4
    assert next(taken) <= 4 + pipeline.BATCHES_AHEAD * 4
    rows.close()


@pytest.mark.parametrize(("each", "together"), [(1000, 10**9), (10**9, 2000), (10**9, 1)])
def test_what_does_not_fit_is_left_to_the_model(
    sounds: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, each: int, together: int
) -> None:
    """Recordings of 800 to 1,360 samples: too long each or too much together, they are the same rows in the end."""
    found = items(sounds / "deep" / "deeper") + items(sounds)
    expected = answered(engine, found)
    assert not engine.paths
    monkeypatch.setattr(pipeline, "MAX_SAMPLES_EACH", each)
    monkeypatch.setattr(pipeline, "MAX_SAMPLES", together)
    assert timeless(answered(engine, found)) == timeless(expected)
    assert engine.paths


def test_the_room_is_given_back(sounds: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three recordings serves any number of them, one batch after the other."""
    write_tone(sounds / "long.wav", 2.0)
    monkeypatch.setattr(pipeline, "MAX_SAMPLES", 12_000)
    found = [JobInput(f"{index}", str(sounds / name)) for index in range(30) for name in ("1.wav", "deep/broken.flac")]
    line = Pipeline(engine, Job("describe"), batch_size=2, workers=1)
    list(line.rows([*found, JobInput("long", str(sounds / "long.wav"))]))
    assert line._budget.reserve(12_000)
    assert not line._budget.reserve(1)


class Unsound(FakeEngine):
    """A model that fails, as a program does, at some recordings, alone or in a batch."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        super().__init__()
        self.fails = fails

    def describe(self, audio: Any, **options: Any) -> list[Any]:
        if any(self.fails(len(samples)) for samples, _ in audio):
            raise RuntimeError("shapes do not fit\nsecond line")
        return super().describe(audio, **options)


def test_a_failing_program_costs_one_row_and_not_the_batch(sounds: Path) -> None:
    rows = answered(Unsound(lambda samples: samples == 880), items(sounds), batch_size=4)
    bad = [row for row in rows if row["error"] and "internal" in row["error"]]
    assert [row["error"] for row in bad] == ["internal error at '1.wav' (RuntimeError: shapes do not fit)"]
    assert len([row for row in rows if row["error"] is None]) == 7


def test_a_program_that_always_fails_stops_the_job(sounds: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        answered(Unsound(lambda samples: True), items(sounds) * 2, batch_size=4)


def test_a_mistake_in_the_options_stops_the_job(sounds: Path, engine: FakeEngine) -> None:
    def refuses(*args: Any, **options: Any) -> None:
        raise InputError("the question is too long; about 20 words can be read")

    engine.describe = refuses  # type: ignore[method-assign,assignment]
    with pytest.raises(InputError, match="too long"):
        answered(engine, items(sounds))
