"""Jobs from list to file: resumed, killed at the worst moments, listed twice, tried again; the memory they take."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs import FakeEngine, rows_of, timeless, write_tone
from pengi.errors import InputError
from pengi.jobs import ledger, tables
from pengi.jobs.ledger import Ledger
from pengi.jobs.runner import JobCounts

Run = Callable[..., JobCounts]
SUFFIXES = [".jsonl", ".parquet"]


def killed(work: Callable[[], Any], how: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Do the work in a process of its own that kills itself (SIGKILL) where ``how`` puts it."""
    child = os.fork()
    if child == 0:
        how(pytest.MonkeyPatch())
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it came to its end"
    assert os.WTERMSIG(status) == signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def torn(batch: int, share: float) -> Callable[[pytest.MonkeyPatch], None]:
    """Killed while a batch is written, of which a share is on the disk."""

    def how(patch: pytest.MonkeyPatch) -> None:
        append, calls = Ledger.append, iter(range(1, 100))

        def half(self: Ledger, rows: Any) -> None:
            journal = self._journal.path
            before = journal.stat().st_size if journal.exists() else 0
            append(self, rows)
            if next(calls) == batch:
                size = journal.stat().st_size
                os.truncate(journal, before + round(share * (size - before)))
                die()

        patch.setattr(Ledger, "append", half)

    return how


def before_the_table(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tables.ParquetRows, "flush", lambda self: die())


def behind_the_table(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger.Path, "unlink", lambda self, **_: die() if self.name.endswith(".rows.jsonl") else None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_killed_again_and_again_every_recording_has_one_row(
    sounds: Path, tmp_path: Path, run: Run, suffix: str
) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"rows{suffix}"
    run(sounds, whole)
    kills = [torn(1, 0.5), torn(1, 1.0), torn(2, 0.1), torn(1, 0.0), torn(1, 0.99)]
    kills += [before_the_table, before_the_table, behind_the_table] if suffix == ".parquet" else []
    for how in kills:
        killed(lambda: run(sounds, out, batch_size=1), how)
    counts = run(sounds, out)
    assert counts.rows == 9
    assert counts.known > 0
    assert timeless(rows_of(out)) == timeless(rows_of(whole))


def test_what_is_done_is_not_asked_again(sounds: Path, tmp_path: Path, run: Run, engine: FakeEngine) -> None:
    out = tmp_path / "rows.jsonl"
    assert run(sounds, out, limit=4).written == 4
    first = out.read_bytes()
    counts = run(sounds, out)
    assert (counts.listed, counts.known, counts.written, counts.rows, counts.failed) == (9, 4, 5, 9, 1)
    assert out.read_bytes().startswith(first)
    engine.calls.clear()
    assert run(sounds, out).written == 0
    assert engine.calls == []
    write_tone(sounds / "new.wav", 0.5)
    assert run(sounds, out).written == 1
    assert [row["input"] for row in rows_of(out)][-1] == str(sounds / "new.wav")


def test_a_recording_listed_twice_has_one_row(
    sounds: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sounds)
    names = ["1.wav", "./1.wav", f"{sounds}/1.wav", "deep/../1.wav", "missing.wav", "missing.wav", "3.wav"]
    out = tmp_path / "rows.jsonl"
    counts = run("-", out, stdin=io.BytesIO("\n".join(names).encode()))
    assert [row["input"] for row in rows_of(out)] == ["1.wav", "missing.wav", "3.wav"]
    assert (counts.listed, counts.known, counts.failed) == (7, 4, 1)


def test_shards_together_are_the_whole(sounds: Path, tmp_path: Path, run: Run) -> None:
    run(sounds, tmp_path / "whole.jsonl")
    found = []
    for part in (1, 2, 3, 4):
        run(sounds, tmp_path / f"{part}.jsonl", shard=(part, 4))
        found += rows_of(tmp_path / f"{part}.jsonl")
    assert timeless(found) == timeless(rows_of(tmp_path / "whole.jsonl"))


def test_errors_are_tried_again_on_demand(sounds: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "rows.parquet"
    run(sounds, out)
    (sounds / "deep" / "broken.flac").unlink()
    write_tone(sounds / "deep" / "broken.flac", 0.25)
    assert run(sounds, out).failed == 1
    counts = run(sounds, out, retry_errors=True)
    assert (counts.written, counts.rows, counts.failed) == (1, 9, 0)


def test_another_model_is_refused(sounds: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "rows.jsonl"
    run(sounds, out)
    with pytest.raises(InputError, match="was started with the model"):
        run(sounds, out, model="another")


def test_a_folder_without_recordings_is_an_error(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "rows.jsonl"
    with pytest.raises(InputError, match="no recordings in"):
        run(tmp_path / "empty", out)
    assert not out.exists()
    assert run(tmp_path / "empty", out, shard=(1, 2)).rows == 0


def test_an_interruption_loses_no_row(sounds: Path, tmp_path: Path, run: Run, engine: FakeEngine) -> None:
    out = tmp_path / "rows.jsonl"
    describe = engine.describe

    def interrupted(audio: Any, **options: Any) -> list[Any]:
        if len(engine.calls) == 2:
            raise KeyboardInterrupt
        return describe(audio, **options)

    engine.describe = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(sounds, out, batch_size=2)
    written = len(rows_of(out))
    assert written >= 4
    engine.describe = describe  # type: ignore[method-assign]
    counts = run(sounds, out)
    assert (counts.known, counts.rows) == (written, 9)


def test_memory_does_not_grow_with_the_list(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,000 recordings in a list that is read once: what is held at its end is what was held near its start."""
    import tracemalloc

    write_tone(tmp_path / "1.wav", 0.1)

    def lines() -> Iterator[bytes]:
        for index in range(8_000):
            yield f"{tmp_path}/{index:0100d}.wav\n".encode()

    held: list[int] = []

    def report(counts: JobCounts) -> None:
        if counts.written % 1_600 == 0:
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        counts = run("-", tmp_path / "rows.jsonl", stdin=lines(), batch_size=200, report=report)
    finally:
        tracemalloc.stop()
    assert (counts.rows, counts.failed) == (8_000, 8_000)
    assert max(held[1:]) - held[0] < 200_000  # bytes; the names alone are 1 MB
