"""``pengi run``: options to jobs, what is printed, exit codes; and the real command killed and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import complaint, invoke
from helpers.jobs import rows_of, write_tone
from pengi.cli.running import Pace
from pengi.jobs.runner import JobCounts

Command = Callable[..., Any]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    for index in range(5):
        write_tone(folder / f"{index}.wav", 0.1 + index / 10)
    return folder


@pytest.fixture
def run(job_engine: None) -> Command:
    """Run ``pengi run`` in this process, with a stand-in for the engine."""
    return partial(invoke, "run")


def test_summary_and_resumption(run: Command, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = run(sounds, "--task", "describe", "--out", out, "--limit", 2)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}: 2 rows, 2 of them new\n", "")
    result = run(sounds, "--task", "describe", "--out", out, "--json")
    said = json.loads(result.stdout)
    assert said.pop("seconds") >= 0
    assert said == {"out": str(out), "listed": 5, "known": 2, "written": 3, "rows": 5, "failed": 0, "skipped": 0}
    result = run(sounds, "--task", "describe", "--out", out)
    assert (result.exit_code, result.stdout) == (0, f"{out}: 5 rows, 0 of them new\n")


def test_bad_files_are_rows_and_exit_code_2_every_time(run: Command, sounds: Path, tmp_path: Path) -> None:
    (sounds / "bad.wav").write_bytes(b"")
    out = tmp_path / "rows.jsonl"
    for _ in range(2):
        result = run(sounds, "--task", "embed", "--out", out, "--json")
        assert result.exit_code == 2
        assert json.loads(result.stdout)["failed"] == 1
        assert result.stderr == "error: 1 of 6 recordings could not be used; the column 'error' says why\n"
    assert [row["error"] for row in rows_of(out) if row["error"]] == [f"'{sounds}/bad.wav' is empty (0 bytes)"]
    write_tone(sounds / "bad.wav", 0.5)
    assert run(sounds, "--task", "embed", "--out", out, "--retry-errors").exit_code == 0


def test_every_option_reaches_the_job(run: Command, sounds: Path, tmp_path: Path) -> None:
    def settings(name: str, *arguments: object) -> dict[str, Any]:
        out = tmp_path / f"{name}.jsonl"
        result = run(sounds, "--out", out, "--limit", 1, *arguments)
        assert result.exit_code == 0, result.stderr
        found: dict[str, Any] = json.loads((tmp_path / f"{name}.jsonl.job.json").read_text(encoding="utf-8"))
        return found["settings"]

    model = {"model_sha256": "hash of mine"}
    asked = settings("ask", "--task", "ask", "--question", "why?", "--beams", 2, "--max-tokens", 9, "-m", "mine")
    assert asked == {"task": "ask", "question": "why?", "beams": 2, "max_tokens": 9} | model
    (tmp_path / "labels.txt").write_text("dog\nrain\n", encoding="utf-8")
    chosen = ("--task", "classify", "--labels-file", tmp_path / "labels.txt", "--method", "generate", "--top", 1)
    classified = settings("classify", *chosen, "-m", "mine")
    assert classified == {"task": "classify", "labels": ["dog", "rain"], "method": "generate", "top": 1} | model
    found = settings("timeline", "--task", "timeline", "--window", 4, "--hop", 2, "-m", "mine")
    assert found == {"task": "timeline", "window_s": 4.0, "hop_s": 2.0} | model


def test_paths_on_stdin(run: Command, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    names = f"{sounds}/1.wav\n{sounds}/3.wav\n{sounds}/1.wav\n"
    result = run("-", "--task", "events", "--out", out, stdin=names)
    assert result.exit_code == 0, result.stderr
    assert [row["input"] for row in rows_of(out)] == [f"{sounds}/1.wav", f"{sounds}/3.wav"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "hear"], "there is no task 'hear'"),
        (["--task", "ask"], "needs a question"),
        (["--task", "classify"], "--labels"),
        (["--task", "describe", "--labels", "a, b"], "'labels' cannot be used with the task 'describe'"),
        (["--task", "describe", "--shard", "2"], "--shard must be I/N"),
        (["--task", "describe", "--shard", "3/2"], "no shard 3 of 2"),
        (["--task", "describe", "--engine", "slurm"], "no engine 'slurm'"),
        (["--task", "describe", "--actors", "2"], "need --engine ray"),
        (["--task", "describe", "--out", "rows.csv"], "ends in .jsonl or .parquet"),
        (["--task", "describe", "--out", "nowhere/rows.jsonl"], "there is no folder 'nowhere'"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Command, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "rows.jsonl"]
    assert message in complaint(run(sounds, *arguments, *out))
    assert not (tmp_path / "rows.jsonl").exists()


def test_another_task_into_the_same_file_is_refused(run: Command, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    run(sounds, "--task", "describe", "--out", out)
    before = out.read_bytes()
    message = complaint(run(sounds, "--task", "embed", "--out", out))
    assert 'was started with task "describe", not task "embed"' in message
    assert out.read_bytes() == before


def test_pace_is_that_of_the_last_batches() -> None:
    times = iter([0.0, 10.0, 20.0])
    pace = Pace(lambda: next(times))
    assert pace.text(JobCounts()) == ""
    pace.total = 1000
    pace.note(JobCounts(known=900, written=0))  # what is skipped is no work
    for written in (16, 36, 36, 56):
        counts = JobCounts(known=900, written=written, failed=3)
        pace.note(counts)
    assert pace.text(counts) == "2.0/s, 00:22 left, 3 not usable"


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_the_real_command_killed_and_interrupted(tiny_folder: Path, sounds: Path, tmp_path: Path) -> None:
    """The list on stdin is kept open, so that neither run can end before it is stopped."""
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "pengi", "run", "-", "--task", "events", "--beams", "1", "--max-tokens", "4",
               "--model", str(tiny_folder), "--device", "cpu", "--batch-size", "1", "--out", str(out)]  # fmt: skip
    names = [f"{sounds}/{index}.wav\n".encode() for index in range(5)]

    def stopped(listed: int, signal_: signal.Signals) -> subprocess.CompletedProcess[bytes]:
        """End the command as soon as it has written a row of its own."""
        known = out.read_bytes().count(b"\n") if out.exists() else 0
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as job:
            assert job.stdin is not None
            job.stdin.write(b"".join(names[:listed]))
            job.stdin.flush()
            deadline = time.monotonic() + 300
            while not (out.exists() and out.read_bytes().count(b"\n") > known):
                assert job.poll() is None, job.communicate()
                assert time.monotonic() < deadline, "no rows appeared"
                time.sleep(0.05)  # between two looks at a file of another process
            os.kill(job.pid, signal_)
            output = job.communicate()
        return subprocess.CompletedProcess(command, job.returncode, *output)

    assert stopped(4, signal.SIGKILL).returncode == -signal.SIGKILL
    first = out.read_bytes()
    with out.open("ab") as file:
        file.write(b'{"input": "torn')
    interrupted = stopped(5, signal.SIGINT)
    assert interrupted.returncode == 130
    assert b"the same command continues from there" in interrupted.stderr
    assert b"Traceback" not in interrupted.stderr
    done = subprocess.run(command, input=b"".join(names), capture_output=True, timeout=300, check=True)
    assert f"{out}: 5 rows" in done.stdout.decode()
    assert out.read_bytes().startswith(first)
    assert [row["input"] for row in rows_of(out)] == [name.decode().strip() for name in names]
