"""The tags that a model detects, and the names by which prompts and label lists refer to them.

AudioSet classes, instruments, genres, keywords and speakers' genders are all tags. A checkpoint stores its tags in
``vocabulary.json``.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pengi.errors import ConfigError, reason

VOCABULARY_FILE = "vocabulary.json"
_IGNORED = frozenset({"a", "an", "the", "someone", "somebody", "something"})


@dataclass(frozen=True)
class Tag:
    """One thing that can be detected.

    Attributes:
        text: its name, such as "dog barking", unique in its vocabulary.
        group: what kind of thing it is, such as "sound", "instrument" or "language".
        phrases: other texts that mean it, such as "a dog barking".
        audioset: display name of the AudioSet class that the stock tagger scores for it; None if there is none.
        threshold: lowest probability of an event of a timeline; None for the default.
        is_rare: whether it is a kind of its AudioSet class with too few labelled recordings to distinguish it from the
            other kinds.
    """

    text: str
    group: str
    phrases: tuple[str, ...] = ()
    audioset: str | None = None
    threshold: float | None = None
    is_rare: bool = False

    @property
    def is_class(self) -> bool:
        """Whether the tag means its AudioSet class itself, and not a kind of it."""
        parts = [word_stems(part.split("(")[0]) for part in (self.audioset or "").split(",")]
        return any(word_stems(name) in parts for name in (self.text, *self.phrases))


@dataclass(frozen=True)
class Vocabulary:
    """All tags of a model, in the order of its tagger's outputs.

    Raises:
        ConfigError: if two tags have the same text.
    """

    tags: tuple[Tag, ...]

    def __post_init__(self) -> None:
        texts = [tag.text for tag in self.tags]
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise ConfigError(f"the vocabulary has two tags '{twice}'")

    def __len__(self) -> int:
        return len(self.tags)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """The groups in the order in which they first occur."""
        return tuple(dict.fromkeys(tag.group for tag in self.tags))

    @cached_property
    def _named(self) -> dict[tuple[str, ...], list[int]]:
        """Word stems of every name -> indices of its tags: those with this ``text``, then those with it as a phrase."""
        found: dict[tuple[str, ...], list[int]] = {}
        for names in ([(tag.text,) for tag in self.tags], [tag.phrases for tag in self.tags]):
            for index, texts in enumerate(names):
                for text in texts:
                    if stems := word_stems(text):
                        found.setdefault(stems, []).append(index)
        return found

    @cached_property
    def _indices(self) -> dict[tuple[str, ...], int]:
        """Word stems of every name -> index of its first tag."""
        return {stems: indices[0] for stems, indices in self._named.items()}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._indices), default=0)

    def index(self, text: str) -> int | None:
        """Index of the tag whose name is the whole text; None if there is none."""
        return self._indices.get(word_stems(text))

    def label_indices(self, labels: Sequence[str]) -> list[int | None]:
        """Index of the tag that each label of one list names; None for a label that names none.

        If several tags have the same name, such as a dog and the word "dog", the one whose group fits the most labels
        is taken.
        """
        candidates = [self._named.get(word_stems(label), []) for label in labels]
        groups = Counter(group for tags in candidates for group in {self.tags[index].group for index in tags})
        return [max(tags, key=lambda index: groups[self.tags[index].group], default=None) for tags in candidates]

    def nearest(self, text: str) -> list[str]:
        """Texts of up to three tags with similarly spelled names, the nearest first; word order does not matter."""
        texts = {_sorted_stems(name): tag.text for tag in reversed(self.tags) for name in (*tag.phrases, tag.text)}
        near = difflib.get_close_matches(_sorted_stems(text), list(texts), n=6, cutoff=0.5)
        return list(dict.fromkeys(texts[name] for name in near))[:3]

    def find(self, text: str) -> list[int]:
        """Indices of the tags that a text names, each once, in the order of the text. Names within a longer name are
        ignored."""
        words = word_stems(text)
        found: dict[int, None] = {}
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                if (index := self._indices.get(words[start : start + length])) is not None:
                    found[index] = None
                    start += length - 1
                    break
            start += 1
        return list(found)

    def to_json(self) -> list[dict[str, Any]]:
        """One object for each tag, without empty fields."""
        return [{name: value for name, value in asdict(tag).items() if value} for tag in self.tags]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> Self:
        """The vocabulary of :meth:`to_json`.

        Raises:
            ConfigError: if a row is not a valid tag.
        """
        try:
            return cls(tuple(Tag(**{**row, "phrases": tuple(row.get("phrases", ()))}) for row in map(_checked, rows)))
        except TypeError as error:
            raise ConfigError(f"a tag of the vocabulary is not valid: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The vocabulary of a checkpoint.

        Raises:
            ConfigError: if there is none, or it is damaged.
        """
        path = folder / VOCABULARY_FILE
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"'{path}' is not valid JSON: {error}") from error
        except OSError as error:
            raise ConfigError(f"'{path}' cannot be read: {reason(error)}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"'{path}' must hold a list of tags")
        return cls.from_json(rows)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if (name == "threshold" and isinstance(value, float)) or (name == "is_rare" and isinstance(value, bool)):
            continue
        texts = value if name == "phrases" and isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts) or (name == "phrases" and texts is not value):
            raise TypeError(f"'{name}' has the value {json.dumps(value)}")
    return row


def word_stems(text: str) -> tuple[str, ...]:
    """A text's words without case, articles, "someone" and endings: "dogs barking" and "the dog barks" are the same."""
    words = re.findall(r"[\w'#-]+", text.casefold())
    return tuple(_stem(word) for word in words if word not in _IGNORED)


def _sorted_stems(text: str) -> str:
    return " ".join(sorted(word_stems(text)))


def _stem(word: str) -> str:
    """A word without the endings of a plural or a verb. It may be rough: both sides of a comparison are cut alike."""
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if len(word) > 3 and (word.endswith("e") or word[-1] == word[-2]):
        word = word[:-1]
    return word
