"""A model that is none, a folder of short recordings, and a way to run jobs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs import FakeEngine, write_tone
from pengi.jobs import runner
from pengi.jobs.inputs import Listing
from pengi.jobs.runner import Execution, JobCounts
from pengi.jobs.tasks import Job


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The model of all jobs; its hash is made of its name."""
    monkeypatch.setattr(runner, "model_hash", lambda name: f"hash of {name}")
    return FakeEngine()


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of eight short recordings at two depths, and two files that are none."""
    folder = tmp_path / "sounds"
    (folder / "deep" / "deeper").mkdir(parents=True)
    for index in range(8):
        inside = folder if index % 2 else folder / "deep" / "deeper"
        write_tone(inside / f"{index}.wav", 0.1 + index / 100)
    (folder / "notes.txt").write_text("no recording", encoding="utf-8")
    (folder / "deep" / "broken.flac").write_text("This is not audio at all.", encoding="utf-8")
    (folder / "deep" / "._0.wav").write_bytes(b"\x00\x05\x16\x07")
    return folder


@pytest.fixture
def run(engine: FakeEngine) -> Callable[..., JobCounts]:
    """Do a job with the stand-in."""

    def do(given: Path | str, out: Path, task: str = "describe", **options: Any) -> JobCounts:
        execution_names = ("batch_size", "workers", "retry_errors", "actors", "model")
        listing = Listing(
            str(given), **{name: options.pop(name) for name in ("shard", "limit", "stdin") if name in options}
        )
        execution = Execution(**{"model": "fake", "batch_size": 3, "workers": 2}
                    | {name: options.pop(name) for name in execution_names if name in options})  # fmt: skip
        report = options.pop("report", lambda counts: None)
        return runner.run(listing, Job(task, **options), out, execution, load=lambda *_: engine, report=report)  # type: ignore[arg-type,return-value]

    return do
