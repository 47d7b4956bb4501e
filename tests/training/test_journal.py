"""The log of a run, also of a resumed one, and its report."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pengi.training.journal import LOG_FILE, SAMPLES_FILE, TENSORBOARD_FOLDER, Journal, Sample
from pengi.training.report import CURVES_FILE, REPORT_FILE, curve, write_report


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_resumed_journal_continues_the_given_history(tmp_path: Path) -> None:
    """Entries of lost steps, and half a line, are removed; later entries are appended."""
    kept = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]
    answer = Sample(2, "dog", "what is it?", "a dog", "a cat")
    with Journal(tmp_path) as journal:
        for entry in (*kept, {"step": 3, "loss": 2.0}):
            journal.log(entry)
        journal.keep_sample(answer)
    with (tmp_path / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')
    resumed = Journal(tmp_path)
    resumed.history, resumed.samples = list(kept), [answer]
    with resumed as journal:
        journal.log({"step": 3, "loss": 1.5})
    assert lines(tmp_path / LOG_FILE) == [*kept, {"step": 3, "loss": 1.5}]
    assert [sample["answer"] for sample in lines(tmp_path / SAMPLES_FILE)] == ["a cat"]  # type: ignore[index]


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.log({"step": 1, "loss": 3.0})
        journal.log({"step": 2, "loss": 2.0})
        journal.keep_sample(Sample(2, "dog", "what is it?", "a dog", "a cat"))
    board = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(1, 3.0), (2, 2.0)]
    assert "step" not in board.Tags()["scalars"]
    assert board.Tags()["tensors"] == ["samples/dog/text_summary"]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with Journal(None) as journal:
        journal.start_bar(0, 3)
        journal.log({"step": 1, "loss": 3.0})
        journal.print("hello")
        journal.keep_sample(Sample(2, "dog", "what is it?", "a dog", "a cat"))
        journal.advance(1, 3.0, 2.0)
    assert journal.history == [{"step": 1, "loss": 3.0}]
    assert not list(tmp_path.iterdir())


def test_the_report_has_numbers_curves_and_the_last_answers(tmp_path: Path) -> None:
    history = [
        {"step": 1, "loss": 3.0, "lr": 0.1, "examples_per_second": 2.0},
        {"step": 2, "loss": 2.0, "lr": 0.2, "examples_per_second": 4.0},
        {"step": 2, "val_loss": 2.25},
    ]
    samples = [Sample(1, "cat", "q", "r", "early"), Sample(2, "dog", "what | who?", "a dog", "a\ncat")]
    write_report(tmp_path, "toy", {"processes": "2"}, history, samples, {"step": 2, "val_loss": 2.25})
    text = (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
    assert "| loss there | 2.000 |" in text
    assert "2.250 at step 2" in text
    assert "| examples per second | 3.0 |" in text
    assert r"| dog | what \| who? | a dog | a cat |" in text
    assert "| processes | 2 |" in text
    assert "early" not in text
    assert (tmp_path / CURVES_FILE).read_bytes().startswith(b"\x89PNG")
    assert curve(history, "loss") == ([1, 2], [3.0, 2.0])


def test_a_report_of_a_run_without_validation(tmp_path: Path) -> None:
    write_report(tmp_path, "toy", {}, [{"step": 1, "loss": 3.0, "lr": 0.1}], [], None)
    assert "held-out" not in (tmp_path / REPORT_FILE).read_text(encoding="utf-8")
