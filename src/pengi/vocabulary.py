"""Words that a model hears, found in what users write: in prompts, and among labels to choose from.

Shape suffixes: B recordings, V words, L labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pengi.errors import ConfigError, no_such

LEAST_SHARE = 1e-6  # of a label: nothing is ruled out by one source alone
_ARTICLES = frozenset({"a", "an", "the"})


class Vocabulary:
    """Finds words in texts.

    Args:
        words: in their order in whatever hears them.
        phrases: what else stands for one of them.

    Raises:
        ConfigError: if a phrase stands for an unknown word.
    """

    def __init__(self, words: Sequence[str], phrases: Mapping[str, str] | None = None) -> None:
        phrases = phrases or {}
        place_of = {word: place for place, word in enumerate(words)}
        for word in phrases.values():
            if word not in place_of:
                raise ConfigError(no_such("word", word, words))
        spellings = {phrase: place_of[word] for phrase, word in phrases.items()} | place_of
        self._places = {key: place for text, place in spellings.items() if (key := word_stems(text))}
        self._longest = max(map(len, self._places), default=0)

    def place(self, text: str) -> int | None:
        """Place of the word that a text is; none if it is none."""
        return self._places.get(word_stems(text))

    def mentioned(self, text: str, most: int | None = None) -> list[int]:
        """Places of a text's words, each once, the first ``most`` or all; of words within words the longest counts."""
        words = word_stems(text)
        found: dict[int, None] = {}
        start = 0
        while start < len(words) and (most is None or len(found) < most):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                if (place := self._places.get(words[start : start + length])) is not None:
                    found[place] = None
                    start += length - 1
                    break
            start += 1
        return list(found)


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


def exclusive_log_shares(share_BV: Tensor, places: Sequence[int | None], absent_B: Tensor) -> Tensor:
    """What is heard of labels by something that knows some of them and hears one of its words alone: ``float32[B, L]``.

    Labels that are words have their share. What other words have goes to the labels that are none, in equal parts: if
    one of the labels is right and it is none of those that are known, it is one of these. Where none of the words is
    there at all nothing is known of any label, and that share is all labels' alike.

    Args:
        share_BV: of every word.
        places: of the word that each label is, or none.
        absent_B: share of "none of the words"; with ``share_BV`` it comes to 1.
    """
    known = sorted({place for place in places if place is not None})
    unknown = places.count(None)
    if not known:
        return share_BV.new_zeros(len(share_BV), len(places))
    rest_B = (1.0 - absent_B - share_BV[:, known].sum(1)).clamp(min=0.0) / max(unknown, 1)
    heard_BL = torch.stack([rest_B if place is None else share_BV[:, place] for place in places], 1)
    return (heard_BL + absent_B[:, None] / len(places)).clamp(min=LEAST_SHARE).log()


def tag_log_shares(log_share_BV: Tensor, places: Sequence[int | None]) -> Tensor:
    """What is heard of labels by something that knows some of them and hears many words at once: ``float32[B, L]``.

    A violin is a bowed instrument and music, too: what other words have speaks for none of the labels. So a label that
    is no word counts as those that are words do on average; without one that is a word, nothing is known of any.

    Args:
        log_share_BV: of every word.
        places: of the word that each label is, or none.
    """
    known = [place for place in places if place is not None]
    if not known:
        return log_share_BV.new_zeros(len(log_share_BV), len(places))
    log_share_BV = log_share_BV.clamp(min=math.log(LEAST_SHARE))
    usual_B = log_share_BV[:, known].mean(1)
    return torch.stack([usual_B if place is None else log_share_BV[:, place] for place in places], 1)
