"""Patterns of right answers to open questions: what counts as yes, no, none, a number, a name or a refusal.

A pattern is a regular expression that matches from the beginning of an answer in lower case. The common ones have names
in angle brackets, so that a file of items stays readable: ``<yes>``, ``<no>``, ``<true>``, ``<false>``,
``<none>``, ``<unsaid>``, ``<silent>``, ``<refusal>``, ``<negation>``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

REFUSAL = "<refusal>"
YES, NO, NONE, SILENT = "<yes>", "<no>", "<none>", "<silent>"
UNSAID = "<unsaid>"
"""Answers that nobody says anything. A negation alone is not enough: "No, I can't come" may be a transcript."""
TRUE, FALSE = "<true>", "<false>"
"""Answers to a statement that something is absent: that the statement is right (also with a negation), or wrong."""

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TIMES = {1: "once|a single|only an?|just an?", 2: "twice|a couple|a pair", 3: "thrice"}
_FLATS = {1: "d", 3: "e", 6: "g", 8: "a", 10: "b"}
_SHARPS = {1: "c", 3: "d", 6: "f", 8: "g", 10: "a"}
_NATURALS = {0: "c", 2: "d", 4: "e", 5: "f", 7: "g", 9: "a", 11: "b"}

_NEGATION = (
    r"\b(?:no|nope|nah|not|never|none|nobody|nothing|neither|nor|without|cannot|absent|false|incorrect|wrong|zero"
    r"|(?:ca|do|does|did|is|are|was|were|would|could|has|have|wo)n't)\b"
)
_CONSENT = r"\b(?:yes|yeah|yea|yep|yup)\b"
# "It does." agrees; "it's a dog" names a sound, which may differ from the one that was asked about.
_BARE = r"(?=\W*$|[,;.!]|\s+(?:true|right|correct|so|it|that|them|one)\b)"
_AFFIRMATION = (
    rf"(?:{_CONSENT}|(?:indeed|correct|right|true|exactly|definitely|certainly|absolutely|sure|of course|probably)\b"
    r"|(?:i|you|we) (?:can |do |think )?(?:hear|do|can|so)\b|there (?:is|are)\b|there's\b|they (?:do|are)\b"
    rf"|some(?:one|body) (?:is|does)\b|(?:(?:that|it|he|she|this) (?:is|does|has)|(?:it|that)'s)\b{_BARE})"
)
_UNABLE = (
    r"(?:can't|cannot|can not|couldn't|could not|unable to|not able to|no way to|no way of|impossible to|hard to"
    r"|not possible to|isn't possible to|difficult to|not enough(?: information)? to|isn't enough to|nobody can"
    r"|nothing (?:here|there|in (?:it|this|the \w+)) to)"
)
_KNOW = (
    r"(?:really |reliably |possibly |even |exactly )?(?:tell|telling|say|saying|know|knowing|determine|judge|answer"
    r"|identify|work out|infer|guess)"
)
_ASKED = r"(?:that|this|it|which|name|date|place|age|colou?r|price)"
_FOUND = r"(?:heard|told|known|determined|answered|said|inferred|identified)"
_CARRIER = r"(?:sound|audio|recording|clip)s?"
_GIVEN_UP = "|".join(
    (
        rf"\b{_UNABLE} {_KNOW}\b",
        r"\b(?:do not|don't|wouldn't|couldn't) know\b",
        r"\bno (?:idea|telling)\b",
        r"\bnot sure\b",
        r"\bi can only\b",
        rf"\b{_ASKED} (?:can't|cannot|can not|can never) be {_FOUND}\b",
        rf"\b{_CARRIER}(?: alone| itself| by itself)? (?:does not|doesn't|do not|don't|can't|cannot|won't|will not) "
        r"(?:tell|say|reveal|show|answer|indicate|let)\b",
        rf"\bnothing in the {_CARRIER} (?:says|tells|reveals|indicates|shows|gives)\b",
        r"\bnot (?:something|a thing|a question)\b",
        rf"\bnot (?:audible|stated|mentioned|given|revealed|known) (?:from|in|by) the {_CARRIER}\b",
        r"\b(?:is|are|it's) (?:unknown|unclear)\b",
        r"\Aunknown\b",
    )
)
_GUESS = (
    r"\bbut (?:it|i|probably|maybe|perhaps|likely|most)\b|\b(?:probably|perhaps|maybe|sounds like|my guess)\b"
    r"|\bi(?:'d| would)? guess\b"
)
_COMMITTED = r"\A(?:yes|no)\b(?! (?:idea|way|telling)\b)"
_REFUSED = rf"(?!{_COMMITTED})(?!.*(?:{_GUESS}))(?=.*(?:{_GIVEN_UP}))"
_SPOKEN = (
    r"(?:spoken|speech|words?|voices?|speakers?|conversations?|dialog\w*|transcript\w*|speak\w*|talk\w*|say\w*|said)"
)
_NOTHING_SAID = (
    rf"\b(?:nothing|nobody|none|no (?:\w+ )?(?:{_SPOKEN}|language|person|people)|without (?:any )?{_SPOKEN}"
    rf"|(?:not|never|\w+n't) (?:\w+ ){{0,2}}{_SPOKEN})\b"
)
_FEW_WORDS = r"(?:[^\s.;]+\s+){0,7}"
_NO_ALONE = r"no\b\s*(?:[,.;!]|$|it|that|there|this|you)|nope\b"
_RIGHT = (
    rf"{_CONSENT}|(?:correct|right|true|exactly|indeed|absolutely|definitely)\b"
    r"|(?:that|it|you|this)(?:'s| is|'re| are) (?:right|correct|true|so)\b"
)
_WRONG = (
    r"no\b(?=\W*$|[,.;!])|nope\b|false\b|wrong\b|incorrect\b"
    r"|(?:that|it|this)(?:'s| is|) (?:not (?:true|correct|right|so)|false|wrong)\b"
    r"|(?:that|it|this) isn't (?:true|correct|right|so)\b"
)

MACROS = {
    "<negation>": _NEGATION,
    REFUSAL: _REFUSED,
    YES: rf"(?!.*{_NEGATION})(?!.*\bsilen(?:t|ce)\b)(?={_AFFIRMATION})",
    NO: rf"(?!{_REFUSED})(?!.*{_CONSENT})(?!no idea)(?=\W*{_FEW_WORDS}{_NEGATION})",
    NONE: rf"(?!{_REFUSED})(?!.*{_CONSENT})(?!no idea)(?=.*(?:{_NEGATION}|\b0\b))",
    UNSAID: rf"(?!{_REFUSED})(?!.*{_CONSENT})(?!.*\b(?:says?|said|saying)\W*[:\"'])(?=.*{_NOTHING_SAID})",
    SILENT: r"(?!.*\b(?:not|isn't|no) silen)(?=.*\b(?:silent|silence)\b)",
    TRUE: (
        rf"(?!.*\bno(?:pe)?\W*$)(?!{_REFUSED})"
        r"(?!.*\b(?:not|isn't) (?:true|correct|right)\b)(?!.*\bthere (?:is|are) (?!no|not)\w)"
        rf"(?!{_NO_ALONE})(?=\W*(?:{_RIGHT})|.*{_NEGATION})"
    ),
    FALSE: (
        rf"(?!{_REFUSED})(?!.*{_CONSENT})(?!.*\bthere (?:is|are) no)(?!.*(?:n't|not) (?:be |there|any))(?:{_WRONG})"
    ),
}


def normal(text: str) -> str:
    """An answer in the form that patterns match: lower case, plain quotes, single spaces; "no one" becomes "nobody"."""
    plain = unicodedata.normalize("NFKC", text).translate({0x2018: "'", 0x2019: "'", 0x266F: "#", 0x266D: "b"})
    return re.sub(r"\bno[- ]?one\b", "nobody", " ".join(plain.lower().split()))


def is_accepted(text: str | None, accepted: Iterable[str]) -> bool:
    """Whether an answer matches one of the patterns; a missing answer matches none."""
    return text is not None and any(_compiled(pattern).match(normal(text)) for pattern in accepted)


def is_refusal(text: str | None) -> bool:
    """Whether an answer says that the recording does not show it, and makes no guess."""
    return is_accepted(text, (REFUSAL,))


def naming(right: str, *wrong: str) -> str:
    """The pattern of answers that name the right thing and none of the wrong ones; each is a regular expression such as
    ``dogs?|barking``."""
    others = "|".join(wrong)
    return "(?!.*<negation>)" + (rf"(?!.*\b(?:{others})\b)" if others else "") + rf"(?=.*\b(?:{right})\b)"


def number(count: int) -> str:
    """The pattern of answers with this number and no other, in digits or as a word; for 0 also "nobody" or "no
    dogs"."""
    others = [(value, word) for value, word in enumerate(NUMBER_WORDS) if value != count]
    different = "|".join(f"{value}|{word}" for value, word in others)
    if count == 0:
        return rf"(?!.*\b(?:{different})\b){NONE}"
    words = "|".join(filter(None, (str(count), NUMBER_WORDS[count], _TIMES.get(count))))
    return rf"(?!.*<negation>)(?!.*\b(?:{different})\b)(?=.*\b(?:{words})\b)"


def note(midi: int) -> str:
    """The pattern of answers with this note and its octave only; 60 is C4. Sharps may be called flats."""
    octave, pitch_class = midi // 12 - 1, midi % 12
    if pitch_class in _NATURALS:
        named = rf"{_NATURALS[pitch_class]}(?:[ -]?natural)? ?{octave}"
    else:
        higher, lower = _SHARPS[pitch_class], _FLATS[pitch_class]
        named = rf"(?:{higher} ?(?:#|-?sharp) ?{octave}|{lower} ?(?:b|-?flat) ?{octave})"
    return rf"(?!.*\bor\b)(?=.*\b{named}\b)"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for name, meaning in MACROS.items():
        pattern = pattern.replace(name, meaning)
    return re.compile(pattern, re.DOTALL)
