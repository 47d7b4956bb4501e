"""stdout and stderr of every encoding, full, closed, and read by nobody."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pengi.cli import main
from pengi.cli.streams import watch_output
from pengi.results import Description, Event

Run = Callable[..., tuple[int, bytes, str]]


class BrokenDevice(io.RawIOBase):
    """What a shell opens for ``> /dev/full``, or a pipe whose reader has gone."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        raise self._error


FULL = OSError(errno.ENOSPC, "No space left on device")
GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, engine: Any) -> Run:
    """Run the command as a process would, with an own stdout: exit code, what stdout got, what stderr got."""

    def call(*arguments: object, encoding: str = "utf-8", device: Any = None) -> tuple[int, bytes, str]:
        out, err = io.BytesIO(), io.BytesIO()
        below = out if device is None else io.BufferedWriter(device)
        stdout, stderr = io.TextIOWrapper(below, encoding=encoding), io.TextIOWrapper(err, encoding="utf-8")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["pengi", *map(str, arguments)])
            patched.setattr(sys, "stdout", stdout)
            patched.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as ended:
                main()
            sys.stderr.flush()
            assert "Traceback" not in err.getvalue().decode()
            return int(ended.value.code or 0), out.getvalue(), err.getvalue().decode()

    return call


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    """A model that answers with characters that few encodings have."""

    def describe(files: Any, **_: Any) -> list[Any]:
        return [Description("Ein Kätzchen – „miau“ 猫…", (Event("猫 meow", 1.0),), 1.0) for _ in files]

    monkeypatch.setattr(engine, "describe", describe)


@pytest.mark.parametrize(
    ("encoding", "text", "bar"),
    [
        ("utf-8", "Ein Kätzchen – „miau“ 猫…", "█"),
        ("cp1252", "Ein Kätzchen – „miau“ ?…", "#"),
        ("cp932", "Ein K?tzchen ? ?miau“ 猫…", "#"),
        ("ascii", "Ein K?tzchen ? ?miau? ??", "#"),
    ],
)
def test_every_encoding_gets_what_it_can_show(
    run: Run, spoken: None, tone: Path, encoding: str, text: str, bar: str
) -> None:
    code, out, err = run("describe", tone, encoding=encoding)
    lines = out.decode(encoding).splitlines()
    assert (code, err, lines[0]) == (0, "", text)
    assert lines[1].rstrip().endswith(20 * bar)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "cp932", "ascii"])
def test_json_loses_nothing_in_any_encoding(run: Run, spoken: None, tone: Path, encoding: str) -> None:
    _, out, _ = run("describe", tone, "--json", encoding=encoding)
    assert json.loads(out.decode(encoding))["text"] == "Ein Kätzchen – „miau“ 猫…"


def test_a_file_name_that_is_no_text_is_printed(run: Run) -> None:
    code, out, err = run("describe", "bad\udcff.wav", "--json")
    assert (code, json.loads(out)["input"]) == (2, "bad\udcff.wav")
    assert err == "error: there is no file 'bad?.wav'\n"


def test_messages_reach_a_pipe_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", io.TextIOWrapper(piped, encoding="utf-8", write_through=True))
        watch_output()
        sys.stderr.write("reading\n")
        assert piped.getvalue() == b"reading\n"


@pytest.mark.parametrize("arguments", [("models",), ("models", "--json"), ("--version",), ("data", "--help")])
@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        (FULL, 2, "error: the output could not be written: no space left on the disk\n"),
        (GONE, 141, "error: the output was closed before all of it was written\n"),
    ],
)
def test_output_that_cannot_be_written_is_a_sentence(
    run: Run, arguments: tuple[str, ...], failure: OSError, code: int, sentence: str
) -> None:
    assert run(*arguments, device=BrokenDevice(failure)) == (code, b"", sentence)


def test_a_command_ends_when_nobody_reads_its_results(run: Run, engine: Any, tone: Path) -> None:
    code, _, _ = run("describe", *40 * [tone], device=BrokenDevice(GONE))
    assert code == 141
    assert len(engine.calls) == 1


def test_a_bad_file_and_a_full_disk_at_stderr(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["pengi", "describe", "missing.wav"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    for stderr in (io.TextIOWrapper(io.BufferedWriter(BrokenDevice(FULL))), None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/secret/config.json"),
            "error: '/secret/config.json' cannot be used: permission denied\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/model.bin"),
            "error: '/full/model.bin' could not be written: no space left on the disk that holds '/full'\n",
        ),
    ],
)
def test_a_file_that_a_command_cannot_use_is_no_internal_error(
    run: Run, engine: Any, tone: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(engine, "describe", fail)
    assert run("describe", tone) == (2, b"", message)
