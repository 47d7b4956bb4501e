"""Answers are written once, whatever happens to the process that writes them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluating import Parrot, item
from pengi.errors import InputError
from pengi.evaluation.predicting import AnswerCounts, PredictionFile, predict, read_predictions

ITEMS = [item(f"{name}-{number}", name) for number in range(20) for name in ("dog", "rain", "wind")]


def asked(system: Parrot, path: Path, items: Any = ITEMS) -> AnswerCounts:
    with PredictionFile.opened(path) as file:
        return predict(system, items, path.parent, "likelihood", file)


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines without the time that each took."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def die_in_the_third_write(path: Path) -> None:
    """Kill the process in its third write of answers, which leaves half a line on the disk."""
    whole = PredictionFile.append
    writes = 0

    def append(file: PredictionFile, lines: Any) -> None:
        nonlocal writes
        writes += 1
        whole(file, lines)
        if writes == 3:
            os.truncate(path, path.stat().st_size - 40)
            os.kill(os.getpid(), signal.SIGKILL)

    PredictionFile.append = append  # type: ignore[method-assign]
    asked(Parrot(), path)


def test_a_kill_loses_no_line_and_doubles_none(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    asked(Parrot(), undisturbed)
    process = multiprocessing.get_context("fork").Process(target=die_in_the_third_write, args=(killed,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not killed.read_bytes().endswith(b"\n")
    before = read_predictions(tmp_path, "b")
    assert 32 < len(before) < len(ITEMS)
    system = Parrot()
    counts = asked(system, killed)
    assert counts.kept == len(before)
    assert not set(system.asked) & set(before)  # nothing was asked twice
    assert rows(killed) == rows(undisturbed)
    assert [row["id"] for row in rows(killed)] == [asked_item.id for asked_item in ITEMS]


def test_existing_answers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    assert asked(Parrot(), path) == AnswerCounts(0, 60)
    again = Parrot()
    assert asked(again, path) == AnswerCounts(60, 0)
    assert again.asked == []


def test_answers_of_another_model_or_question_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    asked(Parrot(), path)
    assert asked(Parrot(fingerprint="other"), path).computed == 60
    assert len(rows(path)) == 60
    changed = [*ITEMS[:59], item("wind-19", "wind", labels=("dog", "wind"))]
    assert asked(Parrot(fingerprint="other"), path, items=changed).computed == 1
    assert len(rows(path)) == 60


def test_an_error_is_written(tmp_path: Path) -> None:
    asked(Parrot(), tmp_path / "a.jsonl", [item("broken-1", "dog")])
    assert rows(tmp_path / "a.jsonl")[0]["error"] == "'broken-1.wav' is not audio"


def test_equal_inputs_are_predicted_once(tmp_path: Path) -> None:
    system = Parrot(name="blind", deaf=True)
    asked(system, tmp_path / "p.jsonl")
    assert len(rows(tmp_path / "p.jsonl")) == 60
    assert len(system.asked) == 1


def test_a_system_that_compares_items_gets_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    asked(Parrot(together=True), path)
    whole = rows(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:50]), encoding="utf-8")
    system = Parrot(together=True)
    asked(system, path)
    assert len(system.asked) == 60
    assert rows(path) == whole
    assert asked(Parrot(together=True), path, items=ITEMS[:30]).computed == 30  # others beside them: other answers


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    asked(Parrot(), tmp_path / "s.shard-1-of-2.jsonl", items=ITEMS[::2])
    asked(Parrot(), tmp_path / "s.shard-2-of-2.jsonl", items=ITEMS[1::2])
    assert len(read_predictions(tmp_path, "s")) == 60


def test_two_runs_do_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with (
        PredictionFile.opened(path),
        pytest.raises(InputError, match="another process is writing"),
        PredictionFile.opened(path),
    ):
        pass
