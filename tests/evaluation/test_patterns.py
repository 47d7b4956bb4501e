"""What counts as a right answer to an open question, in the words that people and models use."""

from __future__ import annotations

import pytest

from pengi.evaluation.patterns import (
    FALSE,
    NO,
    NONE,
    REFUSAL,
    SILENT,
    TRUE,
    UNSAID,
    YES,
    is_accepted,
    is_refusal,
    naming,
    note,
    number,
)

RIGHT: dict[str, list[str]] = {
    REFUSAL: [
        "I can't tell from the sound.", "I cannot tell.", "That can't be heard.", "Can't say.", "No idea.", "Unknown.",
        "It is not possible to say from the recording.", "The sound does not tell.", "I don't know.",
        "I’m unable to determine that from the audio.", "There's no way to tell.", "The recording doesn't say.",
        "That is not something the sound tells.", "Nothing in the recording says where it was made.",
        "I can only describe what is in the recording.", "The price cannot be heard.",
    ],
    YES: ["yes", "Yes, there is.", "Yeah", "There is a dog barking.", "It is.", "Correct.", "I can hear it.", "True."],
    NO: [
        "no", "No.", "No, there is not.", "There is no siren.", "I can't hear one.", "It isn't.", "Nope.",
        "Nobody is speaking.", "I don't think so.", "No dog can be heard.",
        "A siren can't be heard.", "It's a cat, not a dog.", "None.",
    ],
    NONE: [
        "none", "Nothing.", "Nobody speaks.", "No one is talking.", "0", "There is no speech.", "Nothing is said.",
        "zero", "They don't say anything.", "There is no animal.", "There are 0 of them.",
    ],
    UNSAID: [
        "nothing", "Nothing is said.", "Nobody speaks.", "No one is talking.", "There is no speech.", "None.",
        "They don't say anything.", "No words are spoken.", "There isn't a speaker.", "The person is not speaking.",
    ],
    TRUE: [
        "yes", "Correct.", "Yes, no dog can be heard.", "No dog can be heard.", "There is no dog.", "That's right.",
        "Nobody is talking.", "You are right.",
    ],
    FALSE: ["no", "No, a dog is barking.", "No, there is a dog.", "That is not true.", "That isn't true.", "False."],
    SILENT: ["Silence.", "The recording is silent.", "Yes, it is silent."],
    number(0): ["none", "0", "zero", "No one.", "Nobody", "There are no dogs.", "There are 0 dogs."],
    number(1): ["one", "1", "Just a man.", "A single speaker.", "once"],
    number(3): ["3", "three", "There are three words."],
    note(60): ["C4", "The note is C4.", "c 4"],
    note(68): ["G#4", "Ab4", "a flat 4", "G sharp 4", "G♯4", "A-flat 4"],
    naming("dogs?|bark\\w*", "cats?"): ["A dog barking.", "dog", "Dogs bark."],
}  # fmt: skip
WRONG: dict[str, list[str]] = {
    REFUSAL: [
        "Paris.", "yes", "no", "A dog barking.", "I can't tell, but it sounds like Paris.", "nothing is said",
        "It is hard to say, probably London.", "No, a dog can't be heard.", "I can't hear a dog.", "There is no dog.",
        "Nobody can be heard.", "It isn't English.",
    ],
    YES: [
        "It's a dog barking.",
        "no", "Yes and no.", "yes or no", "No, yes", "There is no dog.", "I can't tell from the sound.", "Nope",
        "The recording is silent.", "it is not", "a dog barking",
    ],
    SILENT: ["It is not silent.", "no", "A dog barks."],
    NO: ["The recording is silent.",
         "yes", "yes and no", "no, yes", "I can't tell from the sound.", "a dog", "I don't know.", "No idea."],
    NONE: ["The recording is silent.",
           "one", "A man speaks.", "I can't tell from the sound.", "yes", "dog"],
    UNSAID: ["No, I can't do that.", 'The speaker says "no".', "I don't want to go.", "I can't tell.", "go"],
    TRUE: ["Yes and no.",
           "no", "No, there is a dog.", "No, a dog is barking.", "Yes, there is a dog.", "That's not true.",
           "A dog is barking.", "I can't tell from the sound."],
    FALSE: ["yes", "No, there is no dog.", "Correct", "No dog can be heard.", "I can't tell."],
    number(0): ["one", "1", "I can't tell from the sound.", "two"],
    number(1): ["none", "no one", "two", "one or two"],
    number(3): ["two or three", "3 or 4", "four", "not three", "thirty"],
    note(60): ["C#4", "C5", "C", "C4 or C5", "Cb4", "C41", "G4"],
    note(68): ["G4", "A4", "G#3", "A#4"],
    naming("dogs?|bark\\w*", "cats?"): ["cat", "a dog and a cat", "not a dog", "hotdogs"],
}  # fmt: skip


def cases(answers: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(pattern, text) for pattern, texts in answers.items() for text in texts]


@pytest.mark.parametrize(("pattern", "text"), cases(RIGHT))
def test_natural_right_answers_are_accepted(pattern: str, text: str) -> None:
    assert is_accepted(text, (pattern,))


@pytest.mark.parametrize(("pattern", "text"), cases(WRONG))
def test_wrong_answers_and_those_that_say_both_are_not(pattern: str, text: str) -> None:
    assert not is_accepted(text, (pattern,))


def test_one_of_several_patterns_is_enough_and_no_answer_is_never_right() -> None:
    assert is_accepted("A cat meows.", (NONE, naming("cats?")))
    assert not is_accepted(None, (NONE,))
    assert not is_refusal(None)
