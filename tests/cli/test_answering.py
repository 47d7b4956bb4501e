from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers.commands import complaint
from pengi.cli import console
from pengi.cli.session import FILES_PER_CALL
from pengi.readable import clock, percent

BAD = ("missing", "empty", "truncated", "text")


def test_describe_prints_the_text_as_it_is_and_the_events(pengi: Callable[..., Any], tone: Path) -> None:
    result = pengi("describe", tone)
    assert result.exit_code == 0
    assert "A tone rings [loudly]." in result.stdout  # square brackets are no markup
    assert "tone" in result.stdout
    assert "75.0%" in result.stdout
    assert result.stderr == ""


def test_one_file_gives_one_json_object(pengi: Callable[..., Any], tone: Path) -> None:
    found = json.loads(pengi("describe", tone, "--json").stdout)
    assert found == {
        "input": str(tone),
        "text": "A tone rings [loudly].",
        "events": [{"label": "tone", "confidence": 0.75}],
        "duration_s": 1.0,
    }


def test_many_files_give_a_header_each_and_one_json_list(pengi: Callable[..., Any], tone: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(tone.read_bytes())
    lines = pengi("describe", tone, other).stdout.splitlines()
    assert [line for line in lines if line.endswith(".wav")] == [str(tone), str(other)]
    found = json.loads(pengi("describe", tone, other, "--json").stdout)
    assert [entry["input"] for entry in found] == [str(tone), str(other)]


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["describe", "ask", "classify", "timeline", "embed"])
def test_a_bad_file_is_one_sentence_and_exit_code_2(
    pengi: Callable[..., Any], bad_files: dict[str, Path], tmp_path: Path, command: str, kind: str
) -> None:
    more = {"ask": ["What is it?"], "classify": ["--labels", "a, b"], "embed": ["--out", tmp_path / "out.npz"]}
    message = complaint(pengi(command, bad_files[kind], *more.get(command, [])))
    assert message.startswith("error: ")
    assert str(bad_files[kind]) in message
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("kind", BAD)
def test_among_many_files_a_bad_one_is_an_error_entry(
    pengi: Callable[..., Any], bad_files: dict[str, Path], tone: Path, kind: str
) -> None:
    result = pengi("classify", tone, bad_files[kind], tone, "--labels", "dog, rain", "--json")
    first, bad, last = json.loads(result.stdout)
    assert result.exit_code == 2
    assert first == last
    assert first["scores"][0] == {"label": "dog", "probability": 0.5}
    assert set(bad) == {"input", "error"}
    assert bad["input"] == str(bad_files[kind])
    assert bad["error"] in result.stderr
    assert "1 of 3 files" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["describe", "classify", "embed"])
def test_a_file_that_may_not_be_read_is_no_usage_error(
    pengi: Callable[..., Any], tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(tone.read_bytes())
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == secret:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)  # an administrator may read any file
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != secret)
    more = {"classify": ["--labels", "dog, rain"], "embed": ["--out", tmp_path / "v.npz"]}
    result = pengi(command, secret, tone, *more.get(command, []))
    assert result.exit_code == 2
    assert f"error: '{secret}' cannot be read: permission denied" in result.stderr
    assert "1 of 2 files" in result.stderr
    assert "Usage" not in result.stderr


def test_debug_adds_the_traceback(pengi: Callable[..., Any], tone: Path) -> None:
    plain = pengi("describe", tone, "--model", "nonsense")
    assert plain.stderr == "error: there is no model named 'nonsense'\n"
    debug = pengi("describe", tone, "--model", "nonsense", "--debug")
    assert "Traceback" in debug.stderr
    assert plain.exit_code == debug.exit_code == 2


def test_an_unexpected_error_says_how_to_see_more(
    pengi: Callable[..., Any], engine: Any, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes differ\nin many ways")

    monkeypatch.setattr(engine, "describe", fail)
    result = pengi("describe", tone)
    assert result.exit_code == 1
    assert result.stderr == (
        "error: internal error (RuntimeError: shapes differ); run it again with --debug for the traceback\n"
    )
    assert "Traceback" in pengi("describe", tone, "--debug").stderr


def test_an_interrupt_is_quiet(
    pengi: Callable[..., Any], engine: Any, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "describe", interrupt)
    result = pengi("describe", tone)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")


def test_many_files_go_to_the_engine_in_batches(pengi: Callable[..., Any], engine: Any, tone: Path) -> None:
    count = FILES_PER_CALL + 3
    pengi("describe", *[tone] * count)
    assert [len(call["audio"]) for call in engine.calls] == [FILES_PER_CALL, 3]


def test_only_given_generation_options_replace_the_models_own(
    pengi: Callable[..., Any], engine: Any, tone: Path
) -> None:
    pengi("ask", tone, "What is it?")
    pengi("ask", tone, "What is it?", "--beams", 2, "--max-tokens", 7, "--seed", 3, "--temperature", 0.5)
    assert engine.calls[0]["options"] is None
    options = engine.calls[1]["options"]
    assert (options.beams, options.max_tokens, options.seed, options.temperature) == (2, 7, 3, 0.5)


def test_ask_answers(pengi: Callable[..., Any], tone: Path) -> None:
    assert "a tone" in pengi("ask", tone, "What is it?").stdout
    found = json.loads(pengi("ask", tone, "What is it?", "--json").stdout)
    assert found == {"input": str(tone), "question": "What is it?", "text": "a tone", "confidence": 0.5}


def test_classify_reads_labels_from_the_command_line_or_a_file(
    pengi: Callable[..., Any], engine: Any, tone: Path, tmp_path: Path
) -> None:
    pengi("classify", tone, "--labels", " dog,rain , siren,,dog", "--method", "match")
    file = tmp_path / "labels.txt"
    file.write_text("dog\n\nrain, heavy\n", encoding="utf-8")
    pengi("classify", tone, "--labels-file", file)
    assert engine.calls[0]["labels"] == ["dog", "rain", "siren"]
    assert engine.calls[0]["method"] == "match"
    assert engine.calls[1]["labels"] == ["dog", "rain, heavy"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["classify", "x.wav"], "--labels"),
        (["classify", "x.wav", "--labels", " , "], "no label"),
        (["classify", "x.wav", "--labels-file", "none.txt"], "no labels file at 'none.txt'"),
        (["ask", "x.wav", "  "], "the question is empty"),
        (["timeline", "x.wav", "--window", "0"], "--window must be more than 0"),
        (["timeline", "x.wav", "--hop", "-1"], "--hop must be more than 0"),
        (["embed", "x.wav", "--out", "out.csv"], "must end in .npz"),
        (["embed", "x.wav", "--out", "no/such/out.npz"], "there is no folder"),
    ],
)
def test_a_senseless_argument_is_refused_before_any_work(
    pengi: Callable[..., Any], engine: Any, arguments: list[str], sentence: str
) -> None:
    assert sentence in complaint(pengi(*arguments))
    assert engine.calls == []


@pytest.mark.parametrize("arguments", [["describe"], ["describe", "x.wav", "--beams", "0"], ["listen"]])
def test_a_usage_error_has_exit_code_2(pengi: Callable[..., Any], arguments: list[str]) -> None:
    assert pengi(*arguments).exit_code == 2


def test_timeline_prints_times(pengi: Callable[..., Any], engine: Any, tone: Path) -> None:
    result = pengi("timeline", tone, "--window", 4, "--hop", 2)
    assert result.stdout == "00:00 - 01:05   50%  A tone rings.\n01:05 - 1:02:05   <1%  Silence.\n"
    assert (engine.calls[0]["window_s"], engine.calls[0]["hop_s"]) == (4.0, 2.0)
    found = json.loads(pengi("timeline", tone, "--json").stdout)
    assert found["segments"][0]["end_s"] == 65.0
    assert (found["input"], found["duration_s"]) == (str(tone), 3725.0)


def test_tags_of_a_timeline_can_be_chosen(pengi: Callable[..., Any], engine: Any, tone: Path, tmp_path: Path) -> None:
    assert pengi("timeline", tone, "--labels", "siren, rain", "--threshold", 0.5).exit_code == 0
    assert engine.calls[0]["labels"] == ["siren", "rain"]
    assert (engine.calls[0]["threshold"], engine.calls[0]["window_s"]) == (0.5, None)
    (tmp_path / "labels.txt").write_text("siren\n", encoding="utf-8")
    pengi("timeline", tone, "--labels-file", tmp_path / "labels.txt")
    assert engine.calls[2]["labels"] == ["siren"]
    assert pengi("timeline", tone, "--threshold", 2).exit_code == 2


def test_a_mistake_in_the_options_of_a_timeline_is_one_error(
    pengi: Callable[..., Any], engine: Any, tone: Path
) -> None:
    message = complaint(pengi("timeline", tone, tone, "--merge-gap", -1))
    assert message == "error: the gap must be 0 seconds or more, not -1"
    assert engine.calls == []


def test_a_note_about_a_label_is_printed_once_and_in_the_json_of_each_recording(
    pengi: Callable[..., Any], engine: Any, tone: Path
) -> None:
    command = ("timeline", tone, tone, "--labels", "whisle, rain")
    assert pengi(*command).stderr == "there is no tag 'whisle'\n"
    rows = json.loads(pengi(*command, "--json").stdout)
    assert [row["notes"] for row in rows] == 2 * [["there is no tag 'whisle'"]]


def test_an_answer_is_explained_if_asked_for(pengi: Callable[..., Any], tone: Path) -> None:
    shown = pengi("ask", tone, "is there a siren?", "--explain").stdout
    rows = [row.split() for row in shown.splitlines()]
    assert ["tone", "sure", "75.0%", "sound", "0.0-1.0", "s"] in rows
    assert ["siren", "no", "0.4%", "sound"] in rows
    assert "Said: Stop [it].\nMeasured: Level -6 dBFS, steady.\n" in shown
    assert "\n[audio: 8 embeddings]<|im_start|>user\nHeard in 1.0 s: tone (sure).\n" in shown
    assert "Detected" not in pengi("ask", tone, "is there a siren?").stdout
    found = json.loads(pengi("describe", tone, "--explain", "--json").stdout)["explanation"]
    assert found["transcript"] == "Stop [it]."
    assert found["tags"][0]["spans"] == [[0.0, 1.0]]
    assert "explanation" not in json.loads(pengi("describe", tone, "--json").stdout)
    chosen = pengi("classify", tone, "--labels", "tone, siren", "--explain").stdout
    assert "The language model was not asked." in chosen


def test_rows_of_a_timeline_are_printed_before_the_recording_is_read_to_its_end(
    pengi: Callable[..., Any], engine: Any, tone: Path
) -> None:
    pengi("timeline", tone)
    assert engine.calls[1]["shown"] == "00:00 - 01:05   50%  A tone rings.\n"


def test_timelines_of_several_recordings_have_a_header_each_and_one_json_list(
    pengi: Callable[..., Any], tone: Path, bad_files: dict[str, Path]
) -> None:
    result = pengi("timeline", tone, bad_files["text"], tone)
    assert result.exit_code == 2
    assert [line for line in result.stdout.splitlines() if line.endswith(".wav")] == [str(tone)] * 2
    assert str(bad_files["text"]) in result.stderr
    found = json.loads(pengi("timeline", tone, bad_files["text"], tone, "--json").stdout)
    assert [list(entry) for entry in found] == [
        ["input", "segments", "duration_s"],
        ["input", "error"],
        ["input", "segments", "duration_s"],
    ]


def test_what_rounds_to_0_percent_is_less_than_1_percent() -> None:
    assert [percent(share) for share in (0.0, 0.0004, 0.005, 0.5, 1.0)] == ["0%", "<1%", "0%", "50%", "100%"]
    assert [percent(share, digits=1) for share in (0.0004, 0.0006, 0.5)] == ["<0.1%", "0.1%", "50.0%"]


@pytest.mark.parametrize(("total_s", "shown"), [(1800.0, "47%"), (None, "14:10")])
def test_a_long_recording_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, total_s: float | None, shown: str
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("pengi.progress.stderr", lambda: Console(file=screen, force_terminal=True, width=80))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    with console.percentage("Reading") as waiting:
        waiting.reach(850.0, total_s, clock(850.0, tenths=False))
    assert shown in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "tenths", "text"),
    [(0, False, "00:00"), (59.96, True, "01:00.0"), (61.25, True, "01:01.3"), (3600, False, "1:00:00")],
)
def test_clock(seconds: float, tenths: bool, text: str) -> None:
    assert clock(seconds, tenths=tenths) == text


def test_embed_writes_vectors_and_files(pengi: Callable[..., Any], tone: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npz"
    result = pengi("embed", tone, tone, "--out", out, "--json")
    assert result.exit_code == 0
    with np.load(out) as arrays:
        assert arrays["embeddings"].shape == (2, 4)
        assert arrays["embeddings"].dtype == np.float32
        assert arrays["files"].tolist() == [str(tone), str(tone)]
    assert json.loads(result.stdout) == {"out": str(out), "files": [str(tone)] * 2, "dim": 4, "errors": []}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tone.wav", "vectors.npz"]


def test_embed_leaves_out_bad_files_and_says_so(
    pengi: Callable[..., Any], bad_files: dict[str, Path], tone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vectors.npz"
    result = pengi("embed", bad_files["text"], tone, "--out", out)
    assert result.exit_code == 2
    assert str(bad_files["text"]) in result.stderr
    with np.load(out) as arrays:
        assert arrays["files"].tolist() == [str(tone)]


def test_embed_leaves_the_old_file_if_writing_fails(
    pengi: Callable[..., Any], tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "vectors.npz"
    out.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", fail)
    message = complaint(pengi("embed", tone, "--out", out))
    assert message == f"error: '{out}' could not be written: no space left on the disk that holds '{out.parent}'"
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tone.wav", "vectors.npz"]


def test_embed_refuses_a_folder_that_cannot_be_written(
    pengi: Callable[..., Any], engine: Any, tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the tests may run as root
    message = complaint(pengi("embed", tone, "--out", tone.parent / "v.npz"))
    assert message == f"error: the folder '{tone.parent}' cannot be written"
    assert engine.calls == []


def test_what_is_to_be_known_of_a_reading_is_on_stderr_and_in_json(
    pengi: Callable[..., Any], shared_cases: Path
) -> None:
    path = shared_cases / "opposite-phase.flac"
    note = f"the channels of '{path}' cancel each other out in 3.00 s of it"
    for command in (
        ["describe", path],
        ["ask", path, "what?"],
        ["timeline", path],
        ["classify", path, "--labels", "a,b"],
    ):
        shown = pengi(*command)
        assert shown.exit_code == 0
        assert shown.stderr.startswith(note)
        assert note not in shown.stdout
        (said,) = json.loads(pengi(*command, "--json").stdout)["notes"]
        assert said.startswith(note)


def test_a_sound_track_is_chosen_by_number(pengi: Callable[..., Any], shared_cases: Path, tmp_path: Path) -> None:
    path = shared_cases / "two-tracks.mp4"
    assert pengi("describe", path).stderr == f"'{path}' has 2 sound tracks; track 2 is read\n"
    assert pengi("describe", path, "--track", 1).stderr == ""
    assert pengi("embed", path, "--track", 1, "--out", tmp_path / "a.npz").stderr == ""
    for command in ("describe", "timeline"):
        message = complaint(pengi(command, path, "--track", 3))
        assert message == f"error: '{path}' has 2 sound tracks, so there is no track 3"


def test_what_is_left_of_a_damaged_file_is_read_if_asked_for(
    pengi: Callable[..., Any], shared_cases: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.flac"
    path.write_bytes((shared_cases / "opposite-phase.flac").read_bytes()[:60_000])
    for command in (["describe", path], ["timeline", path], ["embed", path, "--out", tmp_path / "a.npz"]):
        refused = pengi(*command)
        assert refused.exit_code == 2
        assert "damaged or cut off" in refused.stderr
        read = pengi(*command, "--partial")
        assert read.exit_code == 0
        assert f" s of '{path}' were read; the recording is damaged or cut off there" in read.stderr
