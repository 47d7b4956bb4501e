"""Options of jobs, and the rows of every task: their columns, in order, for good and bad recordings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from helpers import RATE, noise, tiny_model, tone
from helpers.chat import HUM, RAIN, chat_pengi, joined
from helpers.jobs import rows_of
from pengi.engine import Pengi
from pengi.errors import AudioError, InputError, PengiError
from pengi.jobs import pipeline
from pengi.jobs.inputs import JobInput
from pengi.jobs.tasks import JOB_TASKS, ROW_COLUMNS, Job, printable

JOBS: dict[str, dict[str, Any]] = {
    "describe": {},
    "events": {},
    "ask": {"question": "how long?"},
    "classify": {"labels": ("dog", "rain"), "method": "match"},
    "tags": {"threshold": 0.05, "labels": ("rain",), "top": 3},
    "embed": {},
    "timeline": {"window_s": 4.0},
    "transcribe": {},
}
EXPECTED: dict[str, dict[str, Any]] = {
    "describe": {"text": "0.110 seconds", "scores": [{"label": "tone", "score": 0.123457}], "duration_s": 0.11},
    "events": {"text": "tone; hum", "scores": [{"label": "tone", "score": 0.75}, {"label": "hum", "score": 0.25}]},
    "ask": {"text": "0.110", "scores": [{"label": "0.110", "score": 0.5}]},
    "classify": {
        "text": "dog",
        "scores": [{"label": "dog", "score": 0.5}, {"label": "rain", "score": 0.5}],
        "generated": "a tone",
    },
    "tags": {
        "text": "rain",
        "scores": [{"label": "rain", "score": 0.123457}],
        "duration_s": 0.11,
        "tags": [{"label": "rain", "group": "sound", "probability": 0.123457, "spans": [[0.0, 0.481], [1.0, 2.0]]}],
    },
    "embed": {"text": None, "scores": [], "vector": [0.6, 0.8]},
    "timeline": {
        "text": "rain; siren",
        "scores": [{"label": "rain", "score": 0.75}, {"label": "siren", "score": 0.5}],
        "duration_s": 10.0,
        "segments": [
            {"start_s": 0.0, "end_s": 4.0, "text": "rain", "confidence": 0.25},
            {"start_s": 4.0, "end_s": 9.0, "text": "siren", "confidence": 0.5},
            {"start_s": 9.0, "end_s": 10.0, "text": "rain", "confidence": 0.75},
        ],
    },
    "transcribe": {
        "text": "Come here.",
        "scores": [],
        "duration_s": 0.11,
        "transcript": [{"start_s": 0.012, "end_s": 0.1, "text": "Come here."}],
    },
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("task", JOB_TASKS)
def test_rows_of_every_task(
    sounds: Path, tmp_path: Path, run: Callable[..., Any], task: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / f"rows{suffix}"
    counts = run("sounds", out, task, **JOBS[task])
    assert (counts.written, counts.rows, counts.failed, counts.known) == (9, 9, 1, 0)
    rows = {row["input"]: row for row in rows_of(out)}
    columns = [*ROW_COLUMNS, *JOB_TASKS[task].columns]
    assert columns[: len(ROW_COLUMNS)] == list(ROW_COLUMNS)
    assert all(list(row) == columns for row in rows.values())
    good = rows["sounds/1.wav"]
    if task == "embed":  # float32 in Parquet
        assert good.pop("vector") == pytest.approx(EXPECTED[task]["vector"])
        good["vector"] = EXPECTED[task]["vector"]
    assert {name: good[name] for name in EXPECTED[task]} == EXPECTED[task]
    assert good["error"] is None
    assert good["seconds"] > 0
    bad = rows["sounds/deep/broken.flac"]
    assert bad["error"] == "'sounds/deep/broken.flac' is not audio in any format that can be read"
    assert (bad["text"], bad["scores"]) == (None, [])
    assert all(bad[name] is None for name in columns[len(ROW_COLUMNS) :])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "hear"}, "no task 'hear'"),
        ({"task": "ask"}, "needs a question"),
        ({"task": "ask", "question": "  "}, "needs a question"),
        ({"task": "classify"}, "needs labels"),
        ({"task": "describe", "question": "what?"}, "'question' cannot be used with the task 'describe'"),
        ({"task": "tags", "threshold": 1.5}, "threshold must be a probability from 0 to 1, not 1.5"),
        ({"task": "describe", "threshold": 0.5}, "'threshold' cannot be used with the task 'describe'"),
        ({"task": "embed", "beams": 1}, "'beams' cannot be used with the task 'embed'"),
        ({"task": "classify", "labels": ("a",), "method": "guess"}, "unknown method 'guess'"),
        ({"task": "timeline", "hop_s": float("nan")}, "must be more than 0 seconds"),
        ({"task": "describe", "beams": 0}, "beams"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Job(**options)


def test_names_of_any_bytes_are_written_as_text() -> None:
    broken = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    job = Job("describe")
    row = job.row(printable(broken), AudioError(f"there is no file '{broken}'"), 0.0)
    assert row["input"] == "caf\\xe9.wav"
    assert row["error"] == "there is no file 'caf\\xe9.wav'"
    json.dumps(row, ensure_ascii=False).encode("utf-8")


def test_the_row_of_a_silent_recording_says_so() -> None:
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    silent = [(np.zeros(RATE, np.float32), RATE)]
    for job, text in (
        (Job("classify", labels=("dog", "rain")), "silence"),
        (Job("ask", question="is there a dog?"), "The recording is silent."),
        (Job("describe"), "Silence."),
        (Job("timeline"), "silence"),
    ):
        assert job.row("a.wav", job.answer(engine, silent)[0], 0.0)["text"] == text
    job = Job("classify", labels=("dog", "rain"))
    row = job.row("a.wav", job.answer(engine, silent)[0], 0.0)
    assert row["scores"] == [{"label": "dog", "score": 0.0}, {"label": "rain", "score": 0.0}]


def test_tags_and_timelines_of_tags_are_rows() -> None:
    engine = chat_pengi()
    recordings = [joined(RAIN, HUM)]
    tags = Job("tags", labels=("rain", "hum"), top=1)
    row = tags.row("a.wav", tags.answer(engine, recordings)[0], 0.0)
    assert row["text"] in ("rain", "hum")
    assert row["tags"][0]["spans"]
    timeline = Job("timeline", labels=("rain",), threshold=0.5)
    row = timeline.row("a.wav", timeline.answer(engine, recordings)[0], 0.0)
    assert [segment["text"] for segment in row["segments"]] == ["rain"]
    unknown = Job("tags", labels=("unicorn",))
    with pytest.raises(InputError, match="there is no tag 'unicorn'"):
        unknown.answer(engine, recordings)


def test_events_are_those_of_a_description() -> None:
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    recordings = [(tone(1.0), RATE), (noise(2.5), RATE), (np.zeros(RATE, np.float32), RATE)]
    described, named = engine.describe(recordings), engine.events(recordings)
    assert [[event.label for event in events] for events in named] == [
        [event.label for event in description.events] for description in described
    ]
    for events, description in zip(named, described, strict=True):
        expected = [event.confidence for event in description.events]
        assert [event.confidence for event in events] == pytest.approx(expected, rel=1e-3)
    assert named[2][0].label == "silence"
    assert isinstance(engine.events([b""], on_error="return")[0], PengiError)


def test_rows_say_how_recordings_were_read_and_other_files_are_counted(
    shared_cases: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    out = tmp_path / "rows.jsonl"
    counts = run(shared_cases, out)
    assert (counts.written, counts.failed, counts.skipped) == (12, 0, 1)
    notes = {Path(row["input"]).name: row["notes"] for row in rows_of(out)}
    assert notes["piped.w64"] == []
    assert "cancel each other out" in notes["opposite-phase.flac"][0]
    assert "5.00 s of" in notes["gap.webm"][0]


@pytest.mark.parametrize("task", ["describe", "timeline"])
def test_a_track_and_what_is_left_of_damaged_files_can_be_asked_for(
    shared_cases: Path, tmp_path: Path, run: Callable[..., Any], task: str
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    (folder / "cut.flac").write_bytes((shared_cases / "opposite-phase.flac").read_bytes()[:60_000])
    (folder / "film.mp4").write_bytes((shared_cases / "two-tracks.mp4").read_bytes())
    run(folder, tmp_path / "a.jsonl", task)
    rows = {Path(row["input"]).name: row for row in rows_of(tmp_path / "a.jsonl")}
    assert "damaged or cut off" in rows["cut.flac"]["error"]
    assert "track 2 is read" in rows["film.mp4"]["notes"][0]
    run(folder, tmp_path / "b.jsonl", task, partial=True, track=1)
    rows = {Path(row["input"]).name: row for row in rows_of(tmp_path / "b.jsonl")}
    assert rows["cut.flac"]["error"] is None
    assert "only the first" in rows["cut.flac"]["notes"][0]
    assert rows["film.mp4"]["notes"] == []


@pytest.mark.parametrize("task", ["describe", "embed", "events"])
def test_rows_of_long_recordings_say_once_how_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0)[:, None] * np.array([1.0, -1.0]), RATE)
    monkeypatch.setattr(pipeline, "MAX_SAMPLES_EACH", RATE // 2)
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    item = JobInput("a.wav", str(tmp_path / "a.wav"))
    ((row,),) = pipeline.Pipeline(engine, Job(task), batch_size=1, workers=1).rows([item])
    assert row["error"] is None
    assert len(row["notes"]) == 1
    assert "cancel each other out" in row["notes"][0]


def test_a_long_recording_from_a_pipe_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_SAMPLES_EACH", RATE // 2)
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    read_end, write_end = os.pipe()
    os.write(write_end, (tmp_path / "a.wav").read_bytes())  # fits the pipe's buffer: no second thread is needed
    os.close(write_end)
    engine = Pengi(tiny_model(), "tiny", torch.device("cpu"))
    items = [JobInput(path, path) for path in (f"/dev/fd/{read_end}", str(tmp_path / "a.wav"))]
    try:
        ((piped, file),) = pipeline.Pipeline(engine, Job("embed"), batch_size=2, workers=1).rows(items)
    finally:
        os.close(read_end)
    assert piped["error"] is None
    assert piped["vector"] == pytest.approx(file["vector"], abs=1e-5)
