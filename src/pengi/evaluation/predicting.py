"""Writes predictions, one line for each answer, before they are scored.

A run may be killed at any moment; items with a line are not predicted again. Each line has a key, a hash of the system,
its input, the question and the mode. So lines of another model or question are never used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pengi.errors import PengiError
from pengi.evaluation.items import Item
from pengi.evaluation.systems import Reply, System, search_of
from pengi.hashes import text_sha256
from pengi.json_lines import JsonLines, Row
from pengi.progress import Advance
from pengi.writing import locked

ITEMS_PER_CALL = 16


@dataclass(frozen=True)
class AnswerCounts:
    """Number of answers of a run from existing lines, and computed now."""

    kept: int
    computed: int


class PredictionFile:
    """The lines of one system and mode for one benchmark, or of a shard of it."""

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._lines.mend()
        self.rows = _by_item(self._lines)
        """Lines by item id, in the order in which they were written."""

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Open or create the file, and lock it against other writers.

        Raises:
            InputError: if another process is writing it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            yield cls(path)

    def keep(self, keys: Mapping[str, str]) -> None:
        """Remove lines whose key differs from that of their item, because the model or the question has changed."""
        kept = {name: row for name, row in self.rows.items() if keys.get(name) == row["key"]}
        if len(kept) < len(self.rows):
            self._lines.rewrite(kept.values())
            self.rows = kept

    def append(self, rows: Sequence[Row]) -> None:
        """Write lines and flush them to the disk."""
        self._lines.append(rows)
        self.rows.update((row["id"], row) for row in rows)


def predict(
    system: System,
    items: Sequence[Item],
    folder: Path,
    mode: str,
    file: PredictionFile,
    done: Advance = lambda count: None,
) -> AnswerCounts:
    """Write one line for each item that has none yet; ``folder`` holds the items' recordings."""
    keys = {item.id: key_of(system, item, folder, mode) for item in items}
    if system.together:
        all_keys = text_sha256("".join(sorted(keys.values())))
        keys = {name: text_sha256(f"{all_keys} {key}") for name, key in keys.items()}
    file.keep(keys)
    waiting = [item for item in items if item.id not in file.rows]
    kept = len(items) - len(waiting)
    done(kept)
    # If answers depend on each other, all items are predicted again, and only the missing lines are written.
    asked = list(items) if system.together and waiting else waiting
    size = max(1, len(asked)) if system.together else ITEMS_PER_CALL
    answers: dict[str, Row] = {}
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        answers |= _ask(system, [item for item in part if keys[item.id] not in answers], folder, mode, keys)
        missing = [item for item in part if item.id not in file.rows]
        file.append([_row(item, keys[item.id], answers[keys[item.id]]) for item in missing])
        done(len(missing))
    return AnswerCounts(kept, len(waiting))


def key_of(system: System, item: Item, folder: Path, mode: str) -> str:
    """The key of an answer: a hash of system, recording, prompt, labels, mode and search options."""
    parts = [system.fingerprint, system.name, system.input_of(item, folder), item.prompt, list(item.labels), mode]
    return text_sha256(json.dumps([*parts, asdict(search_of(item))]))


def read_predictions(folder: Path, stem: str) -> dict[str, Row]:
    """The lines of a system and mode by item id, from all existing shards; an incomplete line is left out."""
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob(f"{stem}.jsonl")) + sorted(folder.glob(f"{stem}.shard-*.jsonl")):
        rows |= _by_item(JsonLines(path))
    return rows


def _by_item(lines: JsonLines) -> dict[str, Row]:
    return {row["id"]: row for row in lines if row is not None}


def _ask(system: System, items: Sequence[Item], folder: Path, mode: str, keys: Mapping[str, str]) -> dict[str, Row]:
    """Answers by key; items with the same key are predicted once (with silence as input, many have the same key)."""
    different = list({keys[item.id]: item for item in items}.values())
    if not different:
        return {}
    start = time.perf_counter()
    replies = system.answer(different, folder, mode)
    seconds = round((time.perf_counter() - start) / len(different), 4)
    return {
        keys[item.id]: {**_values(reply), "seconds": seconds} for item, reply in zip(different, replies, strict=True)
    }


def _values(reply: Reply | PengiError) -> Row:
    if isinstance(reply, PengiError):
        return {"error": str(reply)}
    row: Row = {}
    if reply.text is not None:
        row["text"] = reply.text
    if reply.scores is not None:
        row["scores"] = [float(f"{score:.7g}") for score in reply.scores]
    return row


def _row(item: Item, key: str, answer: Row) -> Row:
    return {"id": item.id, "audio": item.audio, "prompt": item.prompt, **answer, "key": key}
