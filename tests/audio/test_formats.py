"""Which files of a folder are recordings."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pengi.audio.formats import FolderWalk, has_audio_suffix, skipped_files_note


def names(walk: FolderWalk, root: Path) -> list[str]:
    return sorted(os.path.relpath(found.path, root) for found in walk)


SUFFIXES = "wav aiff aifc au w64 rf64 caf flac mp3 ogg opus m4a m4b mka wma ac3 wv amr 3gp mov mkv webm mp4 ts avi"


def test_everything_that_can_be_read_is_found() -> None:
    for suffix in SUFFIXES.split():
        assert has_audio_suffix(f"a.{suffix}")
        assert has_audio_suffix(f"a.b.{suffix.upper()}")


@pytest.mark.parametrize("name", ["notes.txt", "cover.jpg", "index.json", "a.wav.txt", "wavy"])
def test_other_names_are_not(name: str) -> None:
    assert not has_audio_suffix(name)


def test_a_folder_is_searched_at_any_depth_and_other_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("a.wav", "b.MKV", "deep/c.w64", "deep/er/d.m4b", "readme.txt", "deep/cover.png", ".hidden.wav"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "e.wav").touch()
    (tmp_path / "again").symlink_to(tmp_path)
    walk = FolderWalk(tmp_path)
    for _ in range(2):
        assert names(walk, tmp_path) == ["a.wav", "b.MKV", "deep/c.w64", "deep/er/d.m4b"]
        assert walk.skipped == 2


def test_pipes_sockets_and_devices_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").touch()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "device.wav").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 characters
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.wav")
        walk = FolderWalk(tmp_path)
        assert names(walk, tmp_path) == ["a.wav"]
    assert walk.skipped == 3


def test_links_to_files_are_recordings_even_if_the_file_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to("a.wav")
    (tmp_path / "broken.wav").symlink_to("nothing")  # reading it says what is missing
    assert names(FolderWalk(tmp_path), tmp_path) == ["a.wav", "broken.wav", "link.wav"]


def test_a_link_that_cannot_be_followed_hides_no_other_file(tmp_path: Path) -> None:
    for name in ("1.wav", "loop.wav", "loop.txt", "z.wav"):
        (tmp_path / name).symlink_to(name) if "loop" in name else (tmp_path / name).touch()
    walk = FolderWalk(tmp_path)
    assert names(walk, tmp_path) == ["1.wav", "loop.wav", "z.wav"]
    assert walk.skipped == 1


def test_a_folder_that_cannot_be_listed_says_so(tmp_path: Path) -> None:
    (found,) = FolderWalk(tmp_path / "nowhere")
    assert found.error == f"the folder '{tmp_path}/nowhere' cannot be listed: no such file or directory"


def test_the_note_counts() -> None:
    assert skipped_files_note(1, "in").startswith("1 file in 'in' skipped")
    assert skipped_files_note(12, Path("in")).startswith("12 files in 'in' skipped")
