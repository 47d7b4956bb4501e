"""Which files are recordings: the suffixes of all formats that ``decode`` reads, and a walk through a folder.

In a folder, files are chosen by their names. A file that is named explicitly is always opened, and its content decides
what it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pengi.errors import reason

STDIN = "-"
"""The file name that stands for standard input."""

_SOUND = """
    wav wave bwf rf64 w64 aif aiff aifc au snd caf voc sph nist iff svx sf ircam pvf paf avr
    flac wv ape tta tak shn dsf mlp thd
    mp1 mp2 mp3 mpga ogg oga opus spx aac adts m4a m4b m4r wma ac3 eac3 ec3 dts mpc mka weba ra rm oma
    amr awb 3ga qcp xi
"""
_VIDEO = "mp4 m4v mov qt 3gp 3g2 mkv webm ogv avi wmv asf flv mpg mpeg vob ts mts m2ts"
AUDIO_SUFFIXES = frozenset(f"{_SOUND} {_VIDEO}".split())
"""Lower case, without the dot."""
# pathlib turns two slashes into one; a single letter before the colon is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}([^/].*)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A recording in a folder, or a subfolder that cannot be listed."""

    path: str
    error: str | None = None
    """Why the folder cannot be listed, in a sentence."""


class FolderWalk:
    """The recordings of a folder at any depth, found by their suffix, one at a time in bounded memory.

    Hidden files and folders, linked folders, and named pipes, sockets and devices are left out. The order is that of
    the file system: sorting would need all names at once.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.fspath(folder)
        self.skipped = 0
        """Number of visible files so far that are not recordings."""

    def __iter__(self) -> Iterator[Found]:
        self.skipped = 0
        waiting = [self._folder]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        is_file = entry.is_file(follow_symlinks=False)  # avoids a system call for most names
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif has_audio_suffix(entry.name) and (is_file or is_regular(entry.path)):
                            yield Found(entry.path)
                        elif is_file or not os.path.isdir(entry.path):  # noqa: PTH112 - as below
                            self.skipped += 1
            except OSError as error:
                yield Found(folder, f"the folder '{folder}' cannot be listed: {reason(error)}")


def has_audio_suffix(name: str) -> bool:
    """Whether a file has the extension of a recording."""
    return name.rpartition(".")[2].lower() in AUDIO_SUFFIXES


def without_audio_suffix(name: str) -> str:
    """A file name without the extension of a recording; other names are returned unchanged."""
    stem = name.rpartition(".")[0]
    return stem if stem and has_audio_suffix(name) else name


def skipped_files_note(count: int, folder: str | os.PathLike[str]) -> str:
    """The sentence that says how many files of a folder were not read."""
    files = "1 file" if count == 1 else f"{count} files"
    return f"{files} in '{os.fspath(folder)}' skipped: not named as audio or video (.wav, .mp3, .mp4, ...)"


def no_recordings(folder: str | os.PathLike[str], skipped: int) -> str:
    """The sentence for a folder without recordings; ``skipped`` is how many other files it has."""
    others = f": {skipped_files_note(skipped, folder)}" if skipped else ""
    return f"there are no recordings in '{os.fspath(folder)}'{others}"


def address_error(name: str) -> str | None:
    """The message for a name that is not a file or folder but an address, such as http, ftp or s3; None for others."""
    found = _ADDRESS.fullmatch(name)
    return f"addresses are not fetched; download '{found[1]}://{found[2]}' first" if found else None


def is_regular(path: str) -> bool:
    """Whether a path is a file, and neither a folder nor a named pipe, socket or device.

    A link that cannot be followed counts as a file, so that the error of reading it says why.
    """
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 - a Path for each of a million names is slow
