"""A system that answers from the file names, and a manifest for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pengi.errors import AudioError, PengiError
from pengi.evaluation.items import Item
from pengi.evaluation.systems import Reply

ABOUT = {"name": "parrot", "sha256": "0" * 64, "device": "cpu"}
"""What a run records about a :class:`Parrot`."""


@dataclass
class Parrot:
    """Hears what a file is called: ``dog-1.wav`` is a dog. A file named broken cannot be used."""

    name: str = "model"
    fingerprint: str = "parrot"
    together: bool = False
    deaf: bool = False
    asked: list[str] = field(default_factory=list)

    def input_of(self, item: Item, folder: Path) -> str:
        return hashlib.sha256(b"" if self.deaf else item.audio.encode()).hexdigest()

    def answer(self, items: Sequence[Item], folder: Path, mode: str) -> list[Reply | PengiError]:
        self.asked += [item.id for item in items]
        return [self._reply(item, mode) for item in items]

    def _reply(self, item: Item, mode: str) -> Reply | PengiError:
        if item.audio.startswith("broken") and not self.deaf:
            return AudioError(f"'{item.audio}' is not audio")
        detected = "silence" if self.deaf else item.audio.split("-")[0]
        if mode == "write":
            return Reply(f"{detected}.")
        scores = tuple(-float(label != detected) - index / 100 for index, label in enumerate(item.labels))
        return Reply(f"A {detected}!" if mode == "match" else None, scores)


def item(name: str, *answers: str, labels: Sequence[str] = ("dog", "rain", "wind"), group: str = "") -> Item:
    """An item about a recording named ``name``.wav."""
    return Item(name, f"{name}.wav", "this is", tuple(answers), tuple(labels), group or name, "CC0-1.0", True)


def write_manifest(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """A manifest of ``rows``; whatever every row needs is filled in."""
    lines = []
    for row in rows:
        filled = {"id": row["id"], "audio": f"{row['id']}.wav", "split": "val", "source": "field", **row}
        lines.append(json.dumps(filled) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path
