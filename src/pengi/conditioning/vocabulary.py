"""Words of a text without their endings, so that different forms of a word compare equal."""

from __future__ import annotations

import re

_ARTICLES = frozenset({"a", "an", "the"})


def word_stems(text: str) -> tuple[str, ...]:
    """A text's words without case, articles and endings: "dogs barking" and "the dog barks" are the same."""
    words = re.findall(r"[\w'-]+", text.casefold())
    return tuple(_stem(word) for word in words if word not in _ARTICLES)


def _stem(word: str) -> str:
    """A word without the endings of a plural or a verb; rough, since both sides of a comparison are cut alike."""
    if len(word) > 5 and word.endswith("ing"):
        word = word[:-3]
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if len(word) > 3 and (word.endswith("e") or word[-1] == word[-2]):
        word = word[:-1]
    return word
