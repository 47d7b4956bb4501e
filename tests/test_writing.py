"""Files on a disk that is full: a sentence that names them, and nothing left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers import tiny_model
from pengi import checkpoint
from pengi.errors import InputError, is_disk_full, reason, unwritten
from pengi.jobs.tables import replacing_table
from pengi.training.journal import _append_line
from pengi.writing import append, check_new_folder, new_folder, replacing, writing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def torch_save(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weight": torch.rand(100_000)}, file)


def parquet(path: Path) -> None:
    with replacing_table(path, "describe") as table:
        for _ in range(20):
            for number in np.random.default_rng().random(2_000):
                table.write({"input": str(number), "text": str(number)})


def in_folder(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "part").write_bytes(bytes(10))
        (folder / "rest").write_bytes(bytes(100_000))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": torch_save,
    "safetensors": lambda path: save_file({"weight": torch.rand(100_000)}, path),
    "numpy": lambda path: np.save(path, np.zeros(100_000)),
    "numpy zip": lambda path: np.savez(path.with_suffix(".npz"), vectors=np.zeros(100_000)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_left_behind(small_disk: Path, kind: str) -> None:
    out = small_disk / ("out.npz" if kind == "numpy zip" else "out.npy")
    with pytest.raises(InputError) as caught, replacing(out) as partial:
        WRITERS[kind](partial)
    assert str(caught.value) == f"'{out}' could not be written: no space left on the disk that holds '{small_disk}'"
    assert list(small_disk.iterdir()) == []


def test_a_table_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(InputError, match=rf"'{small_disk}/out\.parquet' could not be written: no space left on"):
        parquet(small_disk / "out.parquet")
    assert list(small_disk.iterdir()) == []


def test_a_folder_and_a_checkpoint_on_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(InputError, match=f"'{small_disk}/folder' could not be written: no space left on"):
        in_folder(small_disk / "folder")
    assert list(small_disk.iterdir()) == []
    (small_disk / "ballast").write_bytes(bytes(60_000))
    with pytest.raises(InputError, match=r"model\.safetensors' could not be written: no space left on"):
        checkpoint.save(tiny_model(), small_disk / "model", card="")
    assert list((small_disk / "model").iterdir()) == []


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("before")

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="no space left on"), replacing(out) as partial:
        write(partial)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"out": "before"}


def test_a_folder_that_cannot_be_made_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        check_new_folder(tmp_path / "file/run/mine")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the tests may run as root
    with pytest.raises(InputError, match="cannot be written"):
        check_new_folder(tmp_path / "mine")


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replacing(out) as first, replacing(out) as second:
        first.write_text("first")
        second.write_text("second")
    assert out.read_text() == "first"  # the one that was done last
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_full_disk_cut_off_is_not_left_in_a_file(small_disk: Path) -> None:
    file = small_disk / "rows"
    append(file, b"first\n")
    with pytest.raises(InputError, match=r"rows' could not be written: no space left on"):
        append(file, bytes(100_000))
    assert file.read_bytes() == b"first\n"


def test_a_line_that_cannot_be_added_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be written: is a directory"):
        _append_line(tmp_path, {})


def test_an_error_of_the_program_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("a mistake")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("100000 requested and 16352 written"),
        Exception("database or disk is full"),
    ],
)
def test_every_way_to_say_that_a_disk_is_full(error: Exception) -> None:
    assert is_disk_full(error)
    assert unwritten("a/b", error) == "'a/b' could not be written: no space left on the disk that holds 'a'"


def test_reasons_end_a_sentence() -> None:
    assert reason(PermissionError(errno.EACCES, "Permission denied")) == "permission denied"
    assert reason(OSError("HTTP 404\nnot found")) == "HTTP 404"
    assert reason(ConnectionResetError()) == "ConnectionResetError"
