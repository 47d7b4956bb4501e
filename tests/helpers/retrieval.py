"""A stand-in for the model that encodes for an index, and a process that indexes with it until it is killed.

Its recordings are text files named ``*.wav``: every line is the text of one window of 10 s; "bad" is no recording.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pengi.errors import AudioError, PengiError
from pengi.retrieval import updating
from pengi.retrieval.table import AUDIO, TEXT, IndexInfo, RecordingsTable, Window
from pengi.retrieval.updating import Changes, Update, only_writer, recordings_below

DIM = 16
INFO = IndexInfo("stub", "stub", text_dim=DIM, tags_dim=0, audio_dim=DIM)


def vector_of(text: str) -> NDArray[np.float32]:
    """A direction of its own for every text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    values: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(DIM, dtype=np.float32)
    return values


class StubIndexer:
    """The interface of :class:`pengi.retrieval.indexing.Indexer`; ``encoded`` lists the recordings it was given."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def recordings(self, paths: Iterable[str]) -> Iterator[tuple[str, list[Window] | PengiError]]:
        for path in paths:
            self.encoded.append(Path(path).name)
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except OSError:
                lines = ["bad"]
            if lines == ["bad"]:
                yield path, AudioError("it is not audio")
                continue
            yield path, [self._window(number, text, len(lines)) for number, text in enumerate(lines)]

    @staticmethod
    def _window(number: int, text: str, count: int) -> Window:
        vectors = {TEXT: vector_of(text), AUDIO: vector_of(f"sound of {text}")}
        tags = tuple(text.split()[:1])
        return Window(10.0 * number, 10.0 * (number + 1), 10.0 * count, text, tags, text, vectors)


def write_recordings(folder: Path, texts: dict[str, str]) -> Path:
    """Recordings of the stand-in, by name."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def update(
    location: Path | str, folder: Path, indexer: StubIndexer, progress: Callable[[int, int], None] | None = None
) -> Changes:
    """What :meth:`pengi.retrieval.Collection.update` does, with the stand-in."""
    contents = recordings_below(folder)
    with only_writer(str(location)):
        table = RecordingsTable.open(str(location)) or RecordingsTable.create(str(location), INFO)
        return Update(table, indexer, progress).run(contents.recordings, contents.covers)  # type: ignore[arg-type]


def contents(location: Path) -> dict[str, list[str]]:
    """What an index holds: the texts of every recording, by file name and in order of time."""
    import lancedb

    rows = lancedb.connect(location).open_table("recordings").to_arrow().select(["path", "start_s", "text"])
    found: dict[str, list[str]] = {}
    for row in sorted(rows.to_pylist(), key=lambda row: row["start_s"]):
        found.setdefault(Path(row["path"]).name, []).append(row["text"])
    return found


def main(location: str, folder: str) -> None:
    """Index, writing after every second recording, and print the number of each recording that is done."""
    updating.ROWS_PER_WRITE = 6

    def report(done: int, total: int) -> None:
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()

    update(Path(location), Path(folder), StubIndexer(), report)


if __name__ == "__main__":
    main(*sys.argv[1:])
