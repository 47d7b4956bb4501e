"""The arguments of a command: files, folders, and ``-`` for standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pengi.audio.formats import STDIN, FolderWalk, no_recordings, skipped_files_note
from pengi.cli.console import print_note
from pengi.errors import AudioError, InputError, PengiError

InputSource = str | IO[bytes]
"""A recording for the engine: a path or an open file."""


@dataclass(frozen=True)
class InputFile:
    """One recording of a command."""

    name: str
    """Its name as given, or its path inside a given folder."""
    source: InputSource
    error: PengiError | None = None
    """Why it cannot be read, if known in advance: a subfolder that cannot be listed, or an empty folder."""


@dataclass(frozen=True)
class InputFiles:
    """All recordings of a command."""

    items: tuple[InputFile, ...]
    many: bool
    """Whether the results are a list: more than one file was given, or a folder."""

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return [item.name for item in self.items]


def read_arguments(given: Sequence[str]) -> InputFiles:
    """The recordings behind the arguments of a command, those of a folder in the order of their paths.

    A note on stderr says how many other files of a folder are skipped.

    Raises:
        InputError: if ``-`` is given twice, nothing is piped in, or the only argument is a folder without recordings.
    """
    if given.count(STDIN) > 1:
        raise InputError("- is standard input, which holds one recording; give it once")
    items: list[InputFile] = []
    folders = [os.path.isdir(name) for name in given]  # noqa: PTH112 - pathlib fails at names that are too long
    for name, is_folder in zip(given, folders, strict=True):
        items += _of_folder(name) if is_folder else [InputFile(name, source_of(name))]
    if len(given) == len(items) == 1 and isinstance(items[0].error, InputError):
        raise items[0].error
    return InputFiles(tuple(items), many=len(given) > 1 or any(folders))


def source_of(name: str) -> InputSource:
    """The recording for a file name: the name itself, or standard input for ``-``.

    Raises:
        InputError: if nothing is piped in.
    """
    if name != STDIN:
        return name
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("- reads a recording from standard input; pipe one in, such as: cat FILE | pengi describe -")
    return sys.stdin.buffer


def _of_folder(folder: str) -> Iterator[InputFile]:
    walk = FolderWalk(folder)
    found = sorted(walk, key=lambda item: item.path)
    if not found:
        yield InputFile(folder, folder, InputError(no_recordings(folder, walk.skipped)))
        return
    if walk.skipped:
        print_note(skipped_files_note(walk.skipped, folder))
    for item in found:
        yield InputFile(item.path, item.path, AudioError(item.error) if item.error is not None else None)
