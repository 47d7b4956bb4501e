"""Wordings of tags in questions and answers, and which tags a recording certainly does not contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

from pengi import templates
from pengi.conditioning.vocabulary import Vocabulary
from pengi.config import Frozen
from pengi.data.label_overlap import are_related, holds_one_kind, holds_voices, may_hold
from pengi.data.manifest import Label
from pengi.data.tables import read_tables

SPEAKING = {"man speaking": "a man", "woman speaking": "a woman", "child speaking": "a child"}
"""Event -> who speaks."""
GENDERS = {"male": "man", "female": "woman"}
"""Value of the attribute "gender" -> who speaks."""
_MUSICAL = frozenset({"music", "instrument"})
_PLURALS = frozenset({"people", "children", "dishes", "bees", "strings", "drums", "men", "women"})
_NOT_PLURAL = frozenset({"bus", "glass", "brass", "hiss", "gas", "bass", "steel"})
_UNCOUNTED = frozenset(
    {"noise", "music", "water", "speech", "singing", "thunder", "rain", "wind", "traffic", "silence", "laughter"}
)
NEVER_ASKED = frozenset({"coffee order", "music"})
"""Labels that are too special or too general for questions about their presence."""


class TagTables(Frozen):
    """The tables of ``assets/phrases.yaml``, where each is described."""

    stock: dict[str, tuple[str, str, str]]
    impacts: dict[str, str]
    vague: frozenset[str]
    textures: frozenset[str]
    continuous: frozenset[str]
    outdoors: frozenset[str]
    indoors: frozenset[str]


@cache
def tag_tables() -> TagTables:
    """The tables of ``assets/phrases.yaml``."""
    return read_tables(TagTables, "phrases.yaml")


class Phrases:
    """Wordings of labels, and of tags that are not labels.

    Args:
        labels: wordings of the events of manifests.
        vocabulary: tags of the model, or none.
    """

    def __init__(self, labels: Mapping[str, Label], vocabulary: Vocabulary | None = None) -> None:
        self.vocabulary = vocabulary
        stock = {} if vocabulary is None else _stock_labels(vocabulary, labels)
        self.worded: dict[str, Label] = {**stock, **labels}
        self.askable = tuple(
            name for name, label in self.worded.items() if label.category != "speech" and name not in NEVER_ASKED
        )
        """Tags that a question may name as absent."""
        self._plain: dict[str, Label] = {}
        self._held: dict[str, frozenset[str]] = {}
        self._absent: dict[tuple[frozenset[str], bool], tuple[str, ...]] = {}

    def label(self, tag: str) -> Label:
        """The wording of a tag; one made from its name if no collection has any."""
        if tag in self.worded:
            return self.worded[tag]
        if tag not in self._plain:
            phrase = plain_phrase(tag)
            self._plain[tag] = Label(label=tag, phrase=phrase, sentence=f"{_capital(phrase)} can be heard.")
        return self._plain[tag]

    def phrase(self, tag: str) -> str:
        """Completes "the sound of ...": "a dog barking"."""
        return self.label(tag).phrase

    def thing(self, tag: str) -> str | None:
        """The animal or vehicle that makes a sound; see :func:`thing_of`."""
        return thing_of(self.label(tag))

    def clause(self, tag: str) -> str:
        """The tag's sentence as part of a longer one: "a dog barks"."""
        label = self.label(tag)
        return templates.clause(re.sub(r" repeatedly\b", "", label.sentence), label.phrase)

    def category(self, tag: str) -> str:
        """The category of a tag's label, such as "animal"; empty if none is known."""
        return self.label(tag).category

    def is_musical(self, tag: str) -> bool:
        """Whether a tag is music or an instrument."""
        return self.category(tag) in _MUSICAL

    def holds_voices(self, tag: str) -> bool:
        """Whether a recording of a tag may contain words: spoken, or sung in music."""
        return holds_voices(self.label(tag)) or self.category(tag) == "music"

    def kinds(self, tags: Iterable[str]) -> int | None:
        """Number of kinds of sound in recordings of these tags; None if one of them may contain several."""
        labels = [self.label(tag) for tag in dict.fromkeys(tags)]
        return len(labels) if all(map(holds_one_kind, labels)) else None

    def may_hold(self, tag: str, other: str) -> bool:
        """Whether a recording of ``tag`` may also contain ``other``."""
        if tag not in self._held:
            self._held[tag] = frozenset(name for name in self.askable if self._may_hold(tag, name))
        return other in self._held[tag] or self._may_hold(tag, other)

    def _may_hold(self, tag: str, other: str) -> bool:
        one, two = self.label(tag), self.label(other)
        return tag == other or may_hold(one, two) or are_related(one, two)

    def absent(self, tags: Iterable[str], *, recorded: bool = False) -> tuple[str, ...]:
        """All tags that are certainly absent from a scene.

        Args:
            tags: the known tags of the scene.
            recorded: whether there is a recording, which may contain more than its labels name.
        """
        key = frozenset(tags), recorded
        if key not in self._absent:
            held: set[str] = set(tag_tables().textures) if recorded else set()
            for tag in sorted(key[0]):
                self.may_hold(tag, tag)
                held |= self._held[tag]
            self._absent[key] = tuple(name for name in self.askable if name not in held)
            if len(self._absent) > 4096:
                self._absent.pop(next(iter(self._absent)))
        return self._absent[key]


def _stock_labels(vocabulary: Vocabulary, labels: Mapping[str, Label]) -> dict[str, Label]:
    """Wordings of the tags that are not among the labels, with their AudioSet classes."""
    found, tables = {}, tag_tables()
    impacts = {text: (phrase, f"{_capital(phrase)} can be heard.", "impact") for text, phrase in tables.impacts.items()}
    for text, (phrase, sentence, category) in {**tables.stock, **impacts}.items():
        index = vocabulary.index(text)
        if index is not None and vocabulary.tags[index].text not in labels:
            audioset = vocabulary.tags[index].audioset
            found[text] = Label(label=text, phrase=phrase, sentence=sentence, audioset=audioset, category=category)
    return found


def thing_of(label: Label) -> str | None:
    """The animal or vehicle that makes a sound, such as "a dog"; None for other sounds."""
    if label.category not in ("animal", "vehicle"):
        return None
    phrase = re.sub(r" (passing by|shutting off|driving off|climbing its lift hill|singing)$", "", label.phrase)
    words = phrase.split()
    for index in range(1, len(words)):
        if words[index].endswith("ing") and words[index] != "reversing":
            return " ".join(words[:index]) if words[:index] not in (["a"], ["an"]) else None
    return phrase


@lru_cache(maxsize=4096)
def is_plural(phrase: str) -> bool:
    """Whether a phrase takes "are": "birds chirping"."""
    words = phrase.split()
    if words[0] in ("a", "an", "the", "someone", "something", "one"):
        return False
    head = re.split(r" (?:of|on|in|with|at|over|across|against|being|clinking) | \w+ing\b", phrase)[0].split()[-1]
    return head in _PLURALS or (head.endswith("s") and not head.endswith("ss") and head not in _NOT_PLURAL)


@lru_cache(maxsize=4096)
def plain_phrase(tag: str) -> str:
    """A phrase for a tag without a wording, with an article if needed: "siren" -> "a siren", "wind noise"."""
    words = tag.split()
    if words[0] in ("a", "an", "the") or words[-1] in _UNCOUNTED or words[-1].endswith(("s", "ing")):
        return tag
    return f"{'an' if tag[0] in 'aeiou' else 'a'} {tag}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
