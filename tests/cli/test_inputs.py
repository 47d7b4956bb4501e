"""What a command takes as its recordings: files, folders, standard input; and what it takes for a mistake."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from helpers.commands import complaint, invoke
from pengi.audio.formats import FolderWalk, Found
from pengi.cli.inputs import source_of
from pengi.errors import InputError

COMMANDS = ("describe", "ask", "classify", "timeline", "embed")


@pytest.fixture
def more(tmp_path: Path) -> Callable[[str], list[str]]:
    """The arguments of a command behind its recordings."""
    out = tmp_path / "vectors.npz"
    options = {"ask": ["What is it?"], "classify": ["--labels", "a, b"], "embed": ["--out", str(out)]}
    return lambda command: options.get(command, [])


def sound(kind: str) -> bytes:
    """One second of a tone in a format."""
    file = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    soundfile.write(file, samples, 16_000, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "MP3", "OGG"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_dash_is_the_recording_on_standard_input(
    pengi: Callable[..., Any], more: Callable[[str], list[str]], command: str, kind: str
) -> None:
    result = pengi(command, "-", *more(command), "--json", stdin=sound(kind))
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["files"] == ["-"] if command == "embed" else found["input"] == "-"
    if command == "describe":
        assert found["duration_s"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_that_a_shell_names_is_read_once(
    pengi: Callable[..., Any], more: Callable[[str], list[str]], command: str
) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, sound("WAV"))  # fits the pipe's buffer: no second thread is needed
    os.close(write_end)
    name = f"/dev/fd/{read_end}"
    try:
        result = pengi(command, name, *more(command), "--json")
    finally:
        os.close(read_end)
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["files"] == [name] if command == "embed" else found["input"] == name


def test_bad_bytes_on_standard_input_are_one_sentence(pengi: Callable[..., Any]) -> None:
    for content, sentence in ((b"", "is empty"), (b"no audio at all, but words", "is not audio")):
        assert sentence in complaint(pengi("describe", "-", stdin=content))


@pytest.mark.parametrize("command", COMMANDS)
def test_standard_input_given_twice_is_refused(
    pengi: Callable[..., Any], engine: Any, more: Callable[[str], list[str]], command: str
) -> None:
    message = complaint(pengi(command, "-", "-", *more(command), stdin=sound("WAV")))
    assert message == "error: - is standard input, which holds one recording; give it once"
    assert engine.calls == []


def test_standard_input_that_is_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(InputError, match="pipe one in, such as: cat FILE"):
        source_of("-")


@pytest.fixture
def folder(tmp_path: Path, tone: Path) -> Path:
    """Three recordings at different depths, two other files, and what is hidden."""
    root = tmp_path / "sounds"
    for name in ("b.wav", "a/2.WAV", "c/d/1.flac", "notes.txt", "a/cover.jpg", ".hidden.wav"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tone.read_bytes())
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_all_its_recordings_in_the_order_of_their_paths(
    pengi: Callable[..., Any], more: Callable[[str], list[str]], folder: Path, command: str
) -> None:
    result = pengi(command, folder, *more(command), "--json")
    found = json.loads(result.stdout)
    names = found["files"] if command == "embed" else [entry["input"] for entry in found]
    assert names == [str(folder / name) for name in ("a/2.WAV", "b.wav", "c/d/1.flac")]
    assert result.exit_code == 0
    assert result.stderr.startswith(f"2 files in '{folder}' skipped")


def test_a_folder_gives_a_list_even_of_one(pengi: Callable[..., Any], folder: Path, tone: Path) -> None:
    found = json.loads(pengi("describe", folder / "c", "--json").stdout)
    assert [entry["input"] for entry in found] == [str(folder / "c/d/1.flac")]
    found = json.loads(pengi("describe", tone, folder / "c", "--json").stdout)
    assert [entry["input"] for entry in found] == [str(tone), str(folder / "c/d/1.flac")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_recordings_is_one_sentence(
    pengi: Callable[..., Any], engine: Any, more: Callable[[str], list[str]], tmp_path: Path, command: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("milk, bread")
    message = complaint(pengi(command, empty, *more(command)))
    assert message.startswith(f"error: there are no recordings in '{empty}': 1 file in '{empty}' skipped")
    assert engine.calls == []


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_folder_or_name_among_recordings_is_an_error_entry(
    pengi: Callable[..., Any], more: Callable[[str], list[str]], tone: Path, tmp_path: Path, command: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result = pengi(command, empty, tone, "", *more(command))
    assert result.exit_code == 2
    assert f"error: there are no recordings in '{empty}'\n" in result.stderr
    assert "error: the name of a recording is empty\n" in result.stderr
    assert "error: 2 of 3 files could not be used" in result.stderr


@pytest.mark.parametrize("command", ["describe", "timeline", "embed"])
def test_a_subfolder_that_cannot_be_listed_is_an_error_entry(
    pengi: Callable[..., Any],
    more: Callable[[str], list[str]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    locked = Found(str(folder / "locked"), f"the folder '{folder / 'locked'}' cannot be listed: permission denied")
    monkeypatch.setattr(FolderWalk, "__iter__", lambda walk: iter([locked, Found(str(folder / "b.wav"))]))
    result = pengi(command, folder, *more(command), "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    bad = found["errors"] if command == "embed" else found[1:]
    assert bad == [{"input": locked.path, "error": locked.error}]
    assert f"error: {locked.error}\nerror: 1 of 2 files could not be used\n" in result.stderr


@pytest.mark.parametrize("address", ["https://example.org/dog.wav", "s3://bucket/dog.wav", "ftp://example.org/a.mp3"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_is_not_fetched(
    pengi: Callable[..., Any], more: Callable[[str], list[str]], command: str, address: str
) -> None:
    message = complaint(pengi(command, address, *more(command)))
    assert message == f"error: addresses are not fetched; download '{address}' first"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "https://example.org/sounds", "--task", "describe", "--out", "rows.jsonl"],
        ["index", "https://example.org/sounds", "--db", "sounds.index"],
    ],
)
def test_a_job_fetches_no_address_either(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb", reason="LanceDB is not installed")
    monkeypatch.chdir(tmp_path)
    message = complaint(invoke(*arguments))
    assert message == "error: addresses are not fetched; download 'https://example.org/sounds' first"
    assert list(tmp_path.iterdir()) == []


def test_one_question_is_asked_about_several_recordings(pengi: Callable[..., Any], tone: Path, folder: Path) -> None:
    found = json.loads(pengi("ask", tone, folder, "What is it?", "--json").stdout)
    assert [entry["question"] for entry in found] == ["What is it?"] * 4
    assert isinstance(json.loads(pengi("ask", tone, "What is it?", "--json").stdout), dict)


def test_a_word_that_is_also_a_folder_is_a_question(
    pengi: Callable[..., Any], tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music").mkdir()
    assert json.loads(pengi("ask", tone, "music", "--json").stdout)["question"] == "music"


def test_long_questions_and_names_are_no_file_names(pengi: Callable[..., Any], tone: Path) -> None:
    question = "is there " * 40 + "a tone?"
    assert json.loads(pengi("ask", tone, question, "--json").stdout)["question"] == question
    assert complaint(pengi("describe", "a" * 400))


def test_a_missing_question_is_an_error(pengi: Callable[..., Any], engine: Any, tone: Path) -> None:
    for files in ([tone], [tone, tone]):
        message = complaint(pengi("ask", *files))
        assert message == f"error: '{tone}' is a file, and the question is missing; put it after the files, in quotes"
    for arguments in ([], ["is it a tone?"]):
        message = complaint(pengi("ask", *arguments))
        assert message.startswith("error: give the recordings and then a question, such as: pengi ask FILE")
    assert engine.calls == []
