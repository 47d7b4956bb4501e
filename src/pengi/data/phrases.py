"""Wordings of tags in questions and answers, and which tags a recording certainly does not contain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pengi import templates
from pengi.conditioning.vocabulary import Vocabulary
from pengi.data.label_overlap import are_related, holds_one_kind, holds_voices, may_hold
from pengi.data.manifest import Label

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
# Phrase and sentence of AudioSet classes for which no collection has a wording, and the category of the nearest label.
_STOCK: dict[str, tuple[str, str, str]] = {
    "child speaking": ("a child speaking", "A child is speaking.", "speech"),
    "dog": ("a dog", "A dog makes a sound.", "animal"),
    "cat": ("a cat", "A cat makes a sound.", "animal"),
    "bird": ("a bird", "A bird calls.", "animal"),
    "horse": ("a horse", "A horse moves about.", "animal"),
    "duck": ("a duck", "A duck quacks.", "animal"),
    "car": ("a car", "A car drives by.", "vehicle"),
    "truck": ("a truck", "A truck drives by.", "vehicle"),
    "bus": ("a bus", "A bus drives by.", "vehicle"),
    "ambulance": ("an ambulance", "An ambulance drives by with its siren on.", "vehicle"),
    "lawn mower": ("a lawn mower", "A lawn mower runs.", "vehicle"),
    "race car": ("a race car", "A race car speeds by.", "vehicle"),
    "accelerating": ("an engine accelerating", "An engine accelerates.", "vehicle"),
    "skateboard": ("a skateboard", "Someone rides a skateboard.", "vehicle"),
    "frying": ("food frying", "Food fries in a pan.", "household"),
    "microwave oven": ("a microwave oven", "A microwave oven runs.", "household"),
    "zipper": ("a zipper", "Someone pulls a zipper.", "household"),
    "typewriter": ("a typewriter", "Someone types on a typewriter.", "household"),
    "air conditioning": ("air conditioning", "An air conditioner hums.", "household"),
    "smoke detector": ("a smoke detector", "A smoke detector beeps.", "alarm"),
    "fire alarm": ("a fire alarm", "A fire alarm goes off.", "alarm"),
    "foghorn": ("a foghorn", "A foghorn sounds.", "alarm"),
    "steam whistle": ("a steam whistle", "A steam whistle blows.", "alarm"),
    "dial tone": ("a dial tone", "A dial tone is heard.", "alarm"),
    "busy signal": ("a busy signal", "A busy signal is heard.", "alarm"),
    "ringtone": ("a ringtone", "A ringtone plays.", "alarm"),
    "whispering": ("someone whispering", "Someone whispers.", "speech"),
    "hiccup": ("someone hiccuping", "Someone hiccups.", "human"),
    "fart": ("a fart", "Someone farts.", "human"),
    "throat clearing": ("someone clearing their throat", "Someone clears their throat.", "human"),
    "gasp": ("someone gasping", "Someone gasps.", "human"),
    "giggle": ("someone giggling", "Someone giggles.", "human"),
    "sniff": ("someone sniffing", "Someone sniffs.", "human"),
    "purr": ("a cat purring", "A cat purrs.", "animal"),
    "mosquito": ("a mosquito", "A mosquito whines.", "animal"),
    "static": ("static", "Static crackles.", "impact"),
    "mains hum": ("an electric hum", "Something hums electrically.", "impact"),
    "bagpipes": ("bagpipes", "Bagpipes play.", "instrument"),
    "glockenspiel": ("a glockenspiel", "A glockenspiel plays.", "instrument"),
    "organ": ("an organ", "An organ plays.", "instrument"),
    "theremin": ("a theremin", "A theremin plays.", "instrument"),
    "jazz": ("jazz music", "Jazz plays.", "music"),
    "blues": ("blues music", "Blues plays.", "music"),
    "reggae": ("reggae music", "Reggae plays.", "music"),
    "country": ("country music", "Country music plays.", "music"),
    "pop music": ("pop music", "Pop music plays.", "music"),
    "classical music": ("classical music", "Classical music plays.", "music"),
    "disco": ("disco music", "Disco music plays.", "music"),
    "flamenco": ("flamenco music", "Flamenco music plays.", "music"),
    "funk": ("funk music", "Funk music plays.", "music"),
    "music": ("music", "Music plays.", "music"),
}
_STOCK |= {
    text: (phrase, f"{phrase[:1].upper()}{phrase[1:]} can be heard.", "impact")
    for text, phrase in {
        "rustle": "rustling", "rumble": "rumbling", "whir": "whirring", "clatter": "clattering",
        "squeal": "squealing", "buzz": "buzzing", "rattle": "rattling", "scratch": "scratching", "thump": "thumping",
        "bang": "banging", "crunch": "crunching", "tick": "ticking", "ding": "a ding", "vibration": "vibrations",
        "crack": "cracking", "gurgling": "gurgling", "rub": "rubbing",
        "squish": "squishing", "slap": "slapping", "whack": "a whack", "smash": "smashing", "beep": "beeping",
        "chop": "chopping", "clang": "clanging", "chink": "clinking", "boom": "a boom", "stream": "a stream",
        "fire": "a fire", "steam": "steam", "typing": "typing", "cutlery": "cutlery", "frog": "a frog",
        "snake": "a snake", "pigeon": "a pigeon", "crow": "a crow", "owl": "an owl", "turkey": "a turkey",
        "goose": "a goose", "chicken": "a chicken", "rodents": "a rodent", "fly": "a fly",
        "telephone": "a telephone", "clock": "a clock", "toothbrush": "a toothbrush", "sink": "a sink",
        "whimper": "whimpering", "chuckle": "chuckling", "snicker": "snickering", "yell": "yelling",
        "wail": "wailing", "pant": "panting", "bleat": "bleating", "patter": "pattering", "flap": "flapping",
        "trickle": "trickling water", "splinter": "splintering", "wheeze": "wheezing", "moo": "mooing",
        "honk": "honking", "quack": "quacking",
    }.items()
}  # fmt: skip
VAGUE = frozenset(
    {
        "wood", "glass", "hands", "run", "shuffle", "roll", "stir", "noise", "environmental noise", "echo",
        "reverberation", "pulse", "tools", "liquid", "cacophony", "distortion", "mechanisms", "field recording",
        "sound effect", "inside", "outside", "inside, large room or hall", "inside, public space",
        "outside, rural or natural", "heart murmur", "harmonic", "song", "effects unit", "chorus effect",
        "tap", "tapping", "hum", "humming", "goose honking",
        "electronic tuner", "sampler", "background music", "musical instrument", "keyboard", "country", "soul music",
        "house music", "jingle", "chant", "domestic animals", "wild animals", "rail transport",
    }
)  # fmt: skip
"""Tags that are too vague, or whose names mostly mean something else in a sentence."""
TEXTURES = frozenset(
    {
        "rustle", "rumble", "whir", "clatter", "squeal", "buzz", "rattle", "scratch", "thump", "bang", "crunch", "tick",
        "ding", "vibration", "crack", "rub", "squish", "slap", "whack", "smash", "beep", "clang", "chink", "boom",
        "patter", "flap", "splinter", "wail", "static", "mains hum",
    }
)  # fmt: skip
"""Tags that describe how something sounds, not what it is; any recording may contain them."""
NEVER_ASKED = frozenset({"coffee order", "music"})
"""Labels that are too special or too general for questions about their presence."""


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
            held: set[str] = set(TEXTURES) if recorded else set()
            for tag in sorted(key[0]):
                self.may_hold(tag, tag)
                held |= self._held[tag]
            self._absent[key] = tuple(name for name in self.askable if name not in held)
            if len(self._absent) > 4096:
                self._absent.pop(next(iter(self._absent)))
        return self._absent[key]


def _stock_labels(vocabulary: Vocabulary, labels: Mapping[str, Label]) -> dict[str, Label]:
    """Wordings of the tags that are not among the labels, with their AudioSet classes."""
    found = {}
    for text, (phrase, sentence, category) in _STOCK.items():
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
