"""Files that fail while they are read: a disk, a network drive or a pipe that goes away in the middle."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.audio import complaint, encoded
from helpers.failing import FailingFile
from pengi.audio.decode import load, probe, stream

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(30 * RATE)).astype(np.float32)


class Pipe(FailingFile):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "webm"])
def test_a_read_that_fails_in_the_middle_is_the_files_error_and_no_shorter_recording(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encoded(kind, NOISE)
    for read in (lambda source: load(source, RATE), lambda source: list(stream(source, RATE, block_s=1))):
        failing = FailingFile(content, len(content) // 2, OSError(errno.EIO, "Input/output error"))
        assert complaint(failing, read) == "'audio stream' cannot be read: input/output error"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ESTALE, "Stale file handle"), "stale file handle"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (ConnectionResetError("the server went away"), "the server went away"),
        (RuntimeError("the archive's checksum is wrong"), "RuntimeError: the archive's checksum is wrong"),
    ],
)
@pytest.mark.parametrize("method", ["read", "seek"])
@pytest.mark.parametrize("read", [probe, lambda source: load(source, RATE)], ids=["probe", "load"])
def test_whatever_a_file_raises_is_a_sentence(
    read: Callable[[Any], Any], method: str, error: Exception, sentence: str, tone: Path
) -> None:
    failing = FailingFile(tone.read_bytes(), 0, error, method)
    assert complaint(failing, read) == f"'audio stream' cannot be read: {sentence}"


def test_a_file_that_fails_is_told_by_its_name(tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FailingFile(tone.read_bytes(), 100, OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr(Path, "open", lambda *_: failing)
    assert complaint(tone) == f"'{tone}' cannot be read: input/output error"


def test_a_pipe_that_breaks_is_not_a_shorter_recording(tone: Path) -> None:
    content = tone.read_bytes()
    failing = Pipe(content, len(content) // 2, OSError(errno.EIO, "Input/output error"))
    assert "cannot be read: input/output error" in complaint(failing)


def test_no_room_for_the_copy_of_a_pipe_says_so(tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    pipe = Pipe(tone.read_bytes(), 10**9, OSError())
    assert "no space left on" in complaint(pipe)


def test_a_named_pipe_is_read(tone: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(tone.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(load(pipe, RATE), load(tone, RATE))
    writer.join()


def test_an_error_of_the_program_at_one_recording_is_that_recordings_error(
    tone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("codec")

    monkeypatch.setattr("pengi.audio.decode.SoundFileReader.__init__", fail)
    assert complaint(tone) == f"'{tone}' cannot be read: KeyError: 'codec'"
