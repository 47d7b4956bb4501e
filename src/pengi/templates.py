"""The prompts of the tasks and the wordings of their answers, each defined once.

The first prompt of a family is the canonical one, used by the engine and in evaluation; the others are paraphrases for
training. "generate audio caption", "this is a sound of", "generate metadata", "this acoustic scene is",
"question: ...", "this emotion is", "this sentiment is", "music analysis, ..." and "this music note is produced by" are
the paper's wording; the speech and music prompts beyond it follow the same style.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

PROMPTS: dict[str, tuple[str, ...]] = {
    "caption": ("generate audio caption", "describe this recording", "write a caption for this sound"),
    "events": ("this is a sound of", "the sound events are", "this recording contains"),
    "metadata": ("generate metadata", "write the catalogue entry of this recording", "title, tags and description"),
    "scene": ("this acoustic scene is", "this was recorded in a place with"),
    "emotion": ("this emotion is", "the speaker's emotion is"),
    "sentiment": ("this sentiment is", "the speaker's sentiment is"),
    "music": ("music analysis, this is a sound of music in language", "analyse this music", "this piece of music is"),
    "instrument": ("this instrument is", "the instrument playing is"),
    "note": ("this music note is produced by", "this note is played on", "analyse this note"),
    "velocity": ("the velocity of this note is", "this note is played with a velocity of"),
    "genre": ("this music genre is", "the genre of this music is"),
    "digit": ("this spoken digit is", "the digit being said is"),
    "keyword": ("this spoken word is", "the word being said is"),
    "language": ("this spoken language is", "the language being spoken is"),
    "gender": ("this speaker's gender is", "the gender of the speaker is"),
}

QUESTIONS = ("question: {question} answer:", "question: {question}")
"""The form of this package, which marks the start of the answer, and the paper's form."""
YES, NO = "yes", "no"
CANT_TELL, NOTHING_SAID, NOTHING_CLEAR = (
    "I can't tell from the sound.", "Nothing is said.", "Nothing clear can be heard.",
)  # fmt: skip
"""The answers if the sound is not enough to answer, if there is no speech, and if no sound is clear."""

_PRESENCE = (
    "is there {phrase}?",
    "do you hear {phrase}?",
    "can {phrase} be heard?",
    "is this the sound of {phrase}?",
    "does this recording contain {phrase}?",
)
_CHOICE = ("is this {a} or {b}?", "which is it, {a} or {b}?", "do you hear {a} or {b}?")
DYNAMICS = {
    "pianissimo": "very quietly",
    "piano": "quietly",
    "mezzo-piano": "rather quietly",
    "mezzo-forte": "rather loudly",
    "forte": "loudly",
    "fortissimo": "very loudly",
}


def question_prompt(question: str) -> str:
    """The prompt that asks a free question."""
    return QUESTIONS[0].format(question=question.strip())


def is_there(phrase: str) -> str:
    """The standard question about the presence of a sound."""
    return _PRESENCE[0].format(phrase=phrase)


def events_target(events: Sequence[str]) -> str:
    """Event labels, comma-separated."""
    return ", ".join(events)


def split_events(text: str) -> tuple[str, ...]:
    """Event labels of a generated list, in order, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def joined_description(caption: str, metadata: str, events: str) -> str:
    """Caption, metadata and events in one text, in the order and wording of the paper's authors."""
    return f"{caption} {metadata} this audio contains sound events: {events}."


def metadata_target(tags: Sequence[str], title: str = "", description: str = "") -> str:
    """Title, tags and description, as far as they are known (the paper's auxiliary task); tags in the given order."""
    parts = {"title": title, "tags": ", ".join(tags), "description": description}
    return "; ".join(f"{name}: {text}" for name, text in parts.items() if text)


def music_target(attributes: Mapping[str, str]) -> str:
    """Language of the singing and genre, as far as they are known (the paper's music analysis)."""
    forms = {"language": "{}", "genre": "genre {}"}
    return ", ".join(form.format(attributes[name]) for name, form in forms.items() if name in attributes)


def note_target(attributes: Mapping[str, str]) -> str:
    """Instrument, pitch, velocity (or dynamics) and qualities, as far as they are known (the paper's note analysis)."""
    parts = [attributes["instrument"]]
    parts += [f"{name} {attributes[name]}" for name in ("pitch", "velocity") if name in attributes]
    if "dynamics" in attributes:
        parts.append(attributes["dynamics"])
    if attributes.get("qualities"):
        parts.append(f"qualities {attributes['qualities']}")
    return ", ".join(parts)


def presence_question(rng: random.Random, phrase: str, present: bool) -> tuple[str, str]:
    """A yes/no question about one sound, and its answer."""
    return rng.choice(_PRESENCE).format(phrase=phrase), YES if present else NO


def choice_question(rng: random.Random, right: str, *wrong: str) -> tuple[str, str]:
    """A question with options in random order, and its answer."""
    *first, last = rng.sample([right, *wrong], 1 + len(wrong))
    return rng.choice(_CHOICE).format(a=", ".join(first), b=last), right


_BEFORE = ("do you hear {a} before {b}?", "can {a} be heard before {b}?", "is it {a} first and then {b}?")
_LATER = ("do you hear {b} after {a}?", "can {b} be heard after {a}?", "does {b} come after {a}?")
_WHICH_FIRST = ("which comes first, {a} or {b}?", "what is heard first, {a} or {b}?", "what comes earlier, {a} or {b}?")
_FIRST = ("what is heard first?", "which sound comes first?", "what does this recording begin with?")
_LAST = ("what is heard last?", "which sound comes last?", "what does this recording end with?")
_AFTER = ("what is heard after {a}?", "what follows {a}?", "what comes right after {a}?")
_TOGETHER = ("do you hear {a} and {b} at the same time?", "can {a} and {b} be heard together?")
_THROUGHOUT = ("what goes on the whole time?", "what is heard throughout?", "what can be heard from beginning to end?")
_LOUDER = ("which is louder, {a} or {b}?", "what sounds louder, {a} or {b}?")
_IS_LOUDER = ("is the sound of {a} louder than that of {b}?", "does {a} sound louder than {b}?")
_HOW_MANY = ("how many {things} are there?", "how many {things} do you hear?", "how many {things} can be heard?")
_EXACTLY = ("are there exactly {number} {things}?", "do you hear exactly {number} {things}?")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def before_questions(rng: random.Random, earlier: str, later: str) -> list[tuple[str, str]]:
    """Questions and answers about the order of two sounds: two "yes", two "no", and a choice."""
    first, second = rng.sample([earlier, later], 2)
    return [
        *((rng.choice(wordings).format(a=earlier, b=later), YES) for wordings in (_BEFORE, _LATER)),
        *((rng.choice(wordings).format(a=later, b=earlier), NO) for wordings in (_BEFORE, _LATER)),
        (rng.choice(_WHICH_FIRST).format(a=first, b=second), earlier),
    ]


def sequence_questions(rng: random.Random, phrases: Sequence[str]) -> list[tuple[str, str]]:
    """Open questions, with answers, about two or more sounds that follow one another without overlap."""
    index = rng.randrange(len(phrases) - 1)
    return [
        (rng.choice(_FIRST), phrases[0]),
        (rng.choice(_LAST), phrases[-1]),
        (rng.choice(_AFTER).format(a=phrases[index]), phrases[index + 1]),
    ]


def together_question(rng: random.Random, one: str, other: str, together: bool) -> tuple[str, str]:
    """A yes/no question about two sounds at the same time, and its answer."""
    first, second = rng.sample([one, other], 2)
    return rng.choice(_TOGETHER).format(a=first, b=second), YES if together else NO


def throughout_question(rng: random.Random, phrase: str) -> tuple[str, str]:
    """A question about the sound that lasts from beginning to end, and its answer."""
    return rng.choice(_THROUGHOUT), phrase


def louder_questions(rng: random.Random, louder: str, softer: str) -> list[tuple[str, str]]:
    """Questions and answers about the loudness of two sounds: one "yes", one "no", and a choice."""
    first, second = rng.sample([louder, softer], 2)
    return [
        (rng.choice(_IS_LOUDER).format(a=louder, b=softer), YES),
        (rng.choice(_IS_LOUDER).format(a=softer, b=louder), NO),
        (rng.choice(_LOUDER).format(a=first, b=second), louder),
    ]


def count_questions(rng: random.Random, things: str, count: int, wrong: int) -> list[tuple[str, str]]:
    """Questions and answers about a number of ``things``, a plural such as "kinds of sound": the number, one "yes" and
    one "no"."""

    def exactly(number: int) -> str:
        question = rng.choice(_EXACTLY).format(number=NUMBERS[number], things=as_many(number, things))
        return question.replace("are there exactly one", "is there exactly one")

    return [(rng.choice(_HOW_MANY).format(things=things), NUMBERS[count]), (exactly(count), YES), (exactly(wrong), NO)]


def as_many(number: int, things: str) -> str:
    """The plural ``things``, such as "kinds of sound", or its singular if ``number`` is 1."""
    first, *rest = things.split(" ")
    return " ".join([first.removesuffix("s") if number == 1 else first, *rest])


def clause(sentence: str, phrase: str) -> str:
    """A caption's sentence as part of a longer one: "A dog barks." -> "a dog barks"; names keep their capital."""
    text = sentence.strip().removesuffix(".")
    first = text.split(" ", 1)[0]
    return text if first in phrase.split() else text[:1].lower() + text[1:]


def repeated(clause_: str) -> str:
    """The clause about a sound that is repeated."""
    return f"{clause_} again and again"


def counted_clause(things: str, count: int, phrase: str | None = None) -> str:
    """ "three words are said one after another", "one note is played on a flute"."""
    said = f"{NUMBERS[count]} {as_many(count, things)} {'is' if count == 1 else 'are'}"
    verb = "said" if phrase is None else f"played on {phrase}"
    return f"{said} {verb}" if count == 1 else f"{said} {verb} one after another"


def composed_captions(clauses: Sequence[str], throughout: str | None = None) -> tuple[str, ...]:
    """Two wordings of a caption of sounds that follow one another, with a background sound if there is one.

    "A dog barks, then a siren wails while rain is falling."
    """
    plain = ordered = ", then ".join(clauses)
    if len(clauses) > 1:
        last = "and then" if len(clauses) == 2 else "and finally"
        ordered = f"first {', then '.join(clauses[:-1])}, {last} {clauses[-1]}"
    if throughout is None:
        return tuple(_sentence(text) for text in dict.fromkeys((plain, ordered)))
    return _sentence(f"{plain} while {throughout}"), f"{_sentence(throughout)} Meanwhile {ordered}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
