"""Sounds that may be in a recording although its labels do not name them.

A label does not name every sound of a recording: a thunderstorm may have rain, a café has voices, and a doorbell is a
bell. A sound is certainly absent, or certainly before another, only if no such rule applies. The rules err on the side
of excluding too much.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from pengi.config import Frozen
from pengi.data.manifest import Label
from pengi.data.tables import read_tables

_NO_CONTENT = frozenset(
    {
        "a", "an", "and", "at", "being", "by", "for", "from", "in", "is", "of", "on", "one", "or", "over", "the", "to",
        "with", "someone", "sound", "sounds",
    }
)  # fmt: skip


class Relations(Frozen):
    """The tables of ``assets/label_relations.yaml``, where each is described."""

    occurs_with: dict[str, frozenset[str]]
    related: tuple[frozenset[str], ...]
    widely_related: tuple[frozenset[str], ...]
    ensembles: frozenset[str]
    voices: frozenset[str]
    one_kind: frozenset[str]


@cache
def relations() -> Relations:
    """The tables of ``assets/label_relations.yaml``."""
    return read_tables(Relations, "label_relations.yaml")


@lru_cache(maxsize=4096)
def _content(text: str) -> frozenset[str]:
    """Stems of the content words: "church bells ringing" -> church, bell, ring."""
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in _NO_CONTENT]
    return frozenset(re.sub(r"(?<=\w{3})(ing|s)$", "", word) for word in words)


def same_kind(one: Label, other: Label) -> bool:
    """Whether two labels may mean the same sound, or one may be part of the other or a more general name for it."""
    classes = {one.audioset, other.audioset} - {None}
    if one.audioset is not None and one.audioset == other.audioset:
        return True
    if len(classes) == 2 and any(classes <= related for related in relations().related):
        return True
    named = [_content(label.label) | _content(label.audioset or "") for label in (one, other)]
    return bool(named[0] & named[1])


def are_related(one: Label, other: Label) -> bool:
    """Whether one of two labels may occur with the other, or be confused with it.

    This is wider than :func:`same_kind`, which must not change, because examples are composed by its rules.
    """
    names = [{label.label, label.audioset or label.label} for label in (one, other)]
    return any(names[0] & related and names[1] & related for related in relations().widely_related)


def holds_voices(label: Label) -> bool:
    """Whether a recording with this label may contain words."""
    return label.category in ("speech", "scene") or label.audioset in relations().voices


def may_hold(recorded: Label, other: Label) -> bool:
    """Whether a recording labelled ``recorded`` may also contain ``other``.

    For labels without AudioSet classes and categories only their words are compared.
    """
    if same_kind(recorded, other) or other.category in relations().occurs_with.get(recorded.category, ()):
        return True
    if other.category == "speech":
        return holds_voices(recorded)
    return recorded.audioset in relations().ensembles and other.category == "instrument"


def holds_one_kind(label: Label) -> bool:
    """Whether a recording with this label certainly has only one kind of sound."""
    return label.category in relations().one_kind and label.audioset not in relations().ensembles
