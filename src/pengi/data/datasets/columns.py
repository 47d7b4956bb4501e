"""Recognises the columns of a table by their usual names, and reads their cells as plain values."""

from __future__ import annotations

import ast
import html
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pengi.audio.formats import without_audio_suffix
from pengi.data.datasets.base import DatasetRow, ProblemError, Record, words
from pengi.data.sources import ATTRIBUTES

_NAMES: Mapping[str, tuple[str, ...]] = {
    "audio": (
        "audio", "path", "audio_path", "file_path", "filepath", "audio_file", "file", "filename", "file_name", "fname",
        "wav", "wav_path", "slice_file_name", "location", "id", "sound_id", "clip_id", "freesound_id", "key",
    ),
    "title": ("title", "name", "track_title", "sound_name"),
    "tags": ("tags", "tag", "keywords", "categories", "genres"),
    "description": ("description", "desc", "details"),
    "captions": ("captions", "caption", "text", "texts", "sentence", "sentences", "raw_text"),
    "events": ("human_labels", "labels", "label", "events", "event", "category", "class", "class_name"),
    "question": ("question", "questions"),
    "answer": ("answer", "answers"),
    "license": ("license", "licence", "license_name", "license_url"),
    "group": ("group", "speaker", "speaker_id", "src_file", "recording_id"),
    "split": ("split",),
}  # fmt: skip
"""Field of a row -> the usual names of its column, the preferred first."""
_DESCRIPTIVE = ("title", "tags", "description", "captions", "events", "answer", *ATTRIBUTES)
_SPLITS = {
    "train": ("train", "training", "tr", "development"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "te", "eval", "evaluation"),
    "heldout": ("heldout",),
}
_NOTHING = frozenset({"nan", "none", "null", "n/a", "<na>"})
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>")
_CREATIVE_COMMONS = re.compile(r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)/([\d.]+)")


@dataclass(frozen=True)
class Columns:
    """The columns of a table for each field of a row.

    Attributes:
        by_field: field -> its columns, the preferred first.
    """

    by_field: Mapping[str, tuple[str, ...]]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, names: tuple[str, ...]) -> Columns:
        """The columns among ``names`` whose meaning is known; case, spaces and hyphens do not matter."""
        plain = {re.sub(r"[\W_]+", "_", name.strip().lower()): name for name in names}
        known = {**_NAMES, **{name: (name,) for name in ATTRIBUTES}}
        meaning = {what: tuple(plain[name] for name in usual if name in plain) for what, usual in known.items()}
        numbered = sorted(name for name in plain if re.fullmatch(r"caption_?\d+", name))
        meaning["captions"] = meaning["captions"][:1] + tuple(plain[name] for name in numbered)
        return cls(meaning)

    @property
    def describe_recordings(self) -> bool:
        """Whether any column holds a label, a text or an attribute of recordings."""
        return any(self.by_field[what] for what in _DESCRIPTIVE)

    def cells(self, what: str, record: Record) -> list[str]:
        """The non-empty cells of a field."""
        return [text for column in self.by_field[what] if (text := text_of(record[column]))]

    def cell(self, what: str, record: Record) -> str:
        """The first non-empty cell of a field; empty if there is none."""
        return next(iter(self.cells(what, record)), "")

    def row(self, record: Record, id: str, *, label: str = "events", spaced_tags: bool = False) -> DatasetRow:
        """The row of a record, without its recording.

        Args:
            record: its fields by column.
            id: of the row.
            label: the attribute that a column ``label`` is, such as ``emotion``; by default it is a sound event.
            spaced_tags: whether the tags of a cell are separated by spaces.

        Raises:
            ProblemError: for a malformed cell.
        """
        events = self._items("events", record, words)
        genres = [words_of_genre(item) for column in self.by_field["tags"] if column.lower() == "genres"
                  for item in items_of(record[column])]  # fmt: skip
        attributes = {name: text for name in ATTRIBUTES if (text := " ".join(self.cells(name, record)))}
        if len(genres) == 1:
            attributes.setdefault("genre", genres[0])
        if label != "events" and events:
            attributes.setdefault(label, events[0])
            events = ()
        captions = [plain(text) for column in self.by_field["captions"] for text in texts_of(record[column])]
        return DatasetRow(
            id=id,
            split=self._split(record),
            events=events,
            attributes=attributes,
            group=self.cell("group", record),
            captions=tuple(dict.fromkeys(filter(None, captions))),
            qa=self._answers(record),
            title=title_of(self.cell("title", record)),
            tags=self._items("tags", record, plain, spaced=spaced_tags),
            description=plain(self.cell("description", record)),
            license=license_of(self.cell("license", record)),
        )

    def _items(
        self, what: str, record: Record, wording: Callable[[str], str], *, spaced: bool = False
    ) -> tuple[str, ...]:
        """The items of a field, from its first column that has any."""
        for column in self.by_field[what]:
            commas = what == "tags" and column.lower() != "categories"
            items = [wording(item) for item in items_of(record[column], spaced=spaced, commas=commas)]
            if any(items):
                return tuple(dict.fromkeys(filter(None, items)))
        return ()

    def _answers(self, record: Record) -> tuple[tuple[str, str], ...]:
        question = self.cell("question", record)
        answers = [text for column in self.by_field["answer"] for text in texts_of(record[column])]
        return tuple((question, answer) for answer in answers) if question else ()

    def _split(self, record: Record) -> str:
        named = self.cell("split", record)
        split = split_of(named)
        if named and not split:
            raise ProblemError(f"split '{named}' is unknown; use {', '.join(_SPLITS)}")
        return split


def split_of(name: str) -> str:
    """Our name of a split (``validation`` is ``val``); empty for other words."""
    return next((split for split, names in _SPLITS.items() if name.strip().lower() in names), "")


def text_of(value: object) -> str:
    """A cell as text: empty for a missing value, integers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(text_of, value)))
    text = str(value).strip()
    return "" if text.lower() in _NOTHING else text


def texts_of(value: object) -> list[str]:
    """The texts of a cell, which may be a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in map(text_of, values) if text]


def items_of(value: object, *, spaced: bool = False, commas: bool = False) -> list[str]:
    """The items of a cell: a list, a list as text (``['a', 'b']``), or text with ``;``, ``|`` or commas between items.

    A comma separates items unless a space follows, as in the category "domestic animals, pets"; with ``commas`` every
    comma does.

    Raises:
        ProblemError: for a malformed list.
    """
    if isinstance(value, list | tuple):
        return [item for each in value for item in texts_of(each)]
    text = text_of(value)
    if text == "[]":
        return []
    if text.startswith("[") and text.endswith("]"):
        try:
            return items_of(list(ast.literal_eval(text)))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ProblemError(f"'{text[:40]}' is not a list such as ['rain', 'wind']") from error
    if ";" in text or "|" in text:
        parts = re.split(r"[;|]", text)
    elif re.search(r"," if commas else r",\S", text):
        parts = text.split(",")
    else:
        parts = text.split() if spaced else [text]
    return [part for part in map(text_of, parts) if part]


def plain(text: str) -> str:
    """A text without markup, with single spaces between its words."""
    return " ".join(html.unescape(_MARKUP.sub(" ", text)).split())


def title_of(name: str) -> str:
    """A title as plain text; the extension is removed from a title that is a file name."""
    return without_audio_suffix(plain(name))


def words_of_genre(name: str) -> str:
    """A genre as words: ``Hip-Hop`` becomes ``hip hop``."""
    return " ".join(name.replace("-", " ").split()).lower()


def license_of(text: str) -> str:
    """The short name of a Creative Commons URL; other licences are returned unchanged."""
    found = _CREATIVE_COMMONS.match(text)
    if not found:
        return plain(text)
    kind = "CC0" if found[2] == "zero" else f"CC-{found[2].upper()}"
    return f"{kind}-{found[3]}"
