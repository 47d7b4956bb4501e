"""The task families as pure strings: every prompt and every form of an answer is written here, once.

The first prompt of a family is the canonical one, used by the engine and in evaluation; the others are paraphrases for
training. "generate audio caption", "this is a sound of", "generate metadata", "this acoustic scene is", "question: ..."
and "this emotion is" are the paper's wording; the speech and music prompts beyond it follow the same style.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

PROMPTS: dict[str, tuple[str, ...]] = {
    "caption": ("generate audio caption", "describe this recording", "write a caption for this sound"),
    "events": ("this is a sound of", "the sound events are", "this recording contains"),
    "metadata": ("generate metadata",),
    "scene": ("this acoustic scene is", "this was recorded in a place with"),
    "emotion": ("this emotion is", "the speaker's emotion is"),
    "instrument": ("this instrument is", "the instrument playing is"),
    "note": ("this music note is produced by",),
    "genre": ("this music genre is", "the genre of this music is"),
    "digit": ("this spoken digit is", "the digit being said is"),
    "keyword": ("this spoken word is", "the word being said is"),
    "language": ("this spoken language is", "the language being spoken is"),
    "gender": ("this speaker's gender is", "the gender of the speaker is"),
}

QUESTION = "question: {question} answer:"
YES, NO = "yes", "no"

_WHAT = ("what is this sound?", "what do you hear?", "what can be heard?", "what sound is this?", "what is happening?")
_PRESENCE = (
    "is there {phrase}?",
    "do you hear {phrase}?",
    "can {phrase} be heard?",
    "is this the sound of {phrase}?",
    "does this recording contain {phrase}?",
)
_CHOICE = ("is this {a} or {b}?", "which is it, {a} or {b}?", "do you hear {a} or {b}?")
_ATTRIBUTE = {
    "language": ("what language is spoken?", "which language is this?", "in what language does the person speak?"),
    "digit": ("which digit is spoken?", "what number is said?"),
    "keyword": ("what word is spoken?", "what does the person say?", "which word do you hear?"),
    "genre": ("what genre is this music?", "what kind of music is this?"),
    "instrument": ("what instrument is playing?", "which instrument is this?", "what instrument is it?"),
    "pitch": ("what note is played?", "what is the pitch of the note?"),
    "emotion": ("what emotion is in the voice?", "how does the speaker feel?"),
}
_GENDERS = {"male": "a man", "female": "a woman"}
_GENDER = ("is the speaker a man or a woman?", "who is speaking, a man or a woman?", "is this a woman or a man?")
_KIND = ("is this speech, music or another sound?", "what kind of audio is this: speech, music or other?")
_SPEECH = ("is someone speaking?", "is there speech?", "do you hear a voice speaking?")
DYNAMICS = {
    "pianissimo": "very quietly",
    "piano": "quietly",
    "mezzo-piano": "rather quietly",
    "mezzo-forte": "rather loudly",
    "forte": "loudly",
    "fortissimo": "very loudly",
}


def question_prompt(question: str) -> str:
    """The prompt that asks a free question (paper: "question: {question}")."""
    return QUESTION.format(question=question.strip())


def events_target(events: Sequence[str]) -> str:
    """Event labels, comma-separated."""
    return ", ".join(events)


def split_events(text: str) -> tuple[str, ...]:
    """Event labels of a generated list, in order, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def metadata_target(tags: Sequence[str]) -> str:
    """Tags, the surest first."""
    return "tags: " + ", ".join(tags)


def note_target(attributes: Mapping[str, str]) -> str:
    """Instrument, then pitch and dynamics as far as they are known."""
    parts = [attributes["instrument"]]
    if "pitch" in attributes:
        parts.append(f"pitch {attributes['pitch']}")
    if "dynamics" in attributes:
        parts.append(attributes["dynamics"])
    return ", ".join(parts)


def caption_target(sentences: Sequence[str], attributes: Mapping[str, str]) -> str:
    """A plain caption: what was said or played where that is known, the events' sentences otherwise."""
    if "keyword" in attributes or "digit" in attributes:
        return f'A person says "{attributes.get("keyword", attributes.get("digit"))}".'
    if "language" in attributes:
        return f"A person speaks {attributes['language']}."
    if "instrument" in attributes and "pitch" in attributes:
        manner = DYNAMICS.get(attributes.get("dynamics", ""), "")
        return f"{sentences[0].removesuffix('.')} the note {attributes['pitch']}{' ' + manner if manner else ''}."
    return " ".join(sentences)


def what_question(rng: random.Random, phrases: Sequence[str]) -> tuple[str, str]:
    """An open question about the sound, and its answer."""
    return rng.choice(_WHAT), " and ".join(phrases)


def presence_question(rng: random.Random, phrase: str, present: bool) -> tuple[str, str]:
    """A yes/no question about one sound."""
    return rng.choice(_PRESENCE).format(phrase=phrase), YES if present else NO


def choice_question(rng: random.Random, right: str, wrong: str) -> tuple[str, str]:
    """A question with two options in random order."""
    first, second = rng.sample([right, wrong], 2)
    return rng.choice(_CHOICE).format(a=first, b=second), right


def attribute_question(rng: random.Random, attribute: str, value: str) -> tuple[str, str] | None:
    """A question about a known attribute; none where no question is written for it."""
    if attribute == "gender" and value in _GENDERS:
        return rng.choice(_GENDER), _GENDERS[value]
    if attribute == "dynamics" and value in DYNAMICS:
        return "how loudly is the note played?", DYNAMICS[value]
    if attribute not in _ATTRIBUTE:
        return None
    return rng.choice(_ATTRIBUTE[attribute]), value


def kind_question(rng: random.Random, kind: str) -> tuple[str, str]:
    """Speech, music or another sound?"""
    return rng.choice(_KIND), kind


def speech_question(rng: random.Random, present: bool) -> tuple[str, str]:
    """Is someone speaking?"""
    return rng.choice(_SPEECH), YES if present else NO
