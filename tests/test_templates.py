"""Prompts and targets: pure strings that say what the labels say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pengi import templates
from pengi.data.tasks import CLOSED_TASKS

LABELS = st.text("abcdefghij 'é", min_size=1).map(str.strip).filter(bool)


def every(draw: object, *arguments: object) -> set[tuple[str, str]]:
    """All that a randomly worded question can be."""
    return {draw(random.Random(seed), *arguments) for seed in range(200)}  # type: ignore[operator]


def test_the_papers_prompts_are_canonical() -> None:
    canonical = {family: prompts[0] for family, prompts in templates.PROMPTS.items()}
    assert canonical["caption"] == "generate audio caption"
    assert canonical["events"] == "this is a sound of"
    assert canonical["metadata"] == "generate metadata"
    assert canonical["scene"] == "this acoustic scene is"
    assert canonical["emotion"] == "this emotion is"
    assert canonical["sentiment"] == "this sentiment is"
    assert canonical["music"] == "music analysis, this is a sound of music in language"
    assert canonical["note"] == "this music note is produced by"
    assert templates.question_prompt(" what is this? ") == "question: what is this? answer:"


def test_every_prompt_has_paraphrases() -> None:
    assert all(len(prompts) > 1 for prompts in templates.PROMPTS.values())


def test_no_prompt_stands_for_two_families() -> None:
    prompts = [prompt for family in templates.PROMPTS.values() for prompt in family]
    assert len(set(prompts)) == len(prompts)


def test_every_closed_task_has_a_prompt() -> None:
    assert set(CLOSED_TASKS) <= templates.PROMPTS.keys()


@given(st.lists(LABELS, unique=True))
def test_events_are_read_back_from_the_text_that_names_them(labels: list[str]) -> None:
    assert templates.split_events(templates.events_target(labels)) == tuple(labels)


def test_events_of_an_untidy_text() -> None:
    assert templates.split_events(" rain,wind , ,rain,") == ("rain", "wind")
    assert templates.split_events("") == ()


def test_notes_say_what_is_known() -> None:
    assert templates.note_target({"instrument": "flute"}) == "flute"
    assert templates.note_target({"instrument": "flute", "dynamics": "piano"}) == "flute, piano"
    assert templates.note_target({"instrument": "flute", "pitch": "C5"}) == "flute, pitch C5"


def test_notes_and_music_as_in_the_paper() -> None:
    note = {"instrument": "organ", "pitch": "60", "velocity": "75", "qualities": "dark, reverb"}
    assert templates.note_target(note) == "organ, pitch 60, velocity 75, qualities dark, reverb"
    assert templates.music_target({"language": "French", "genre": "chanson"}) == "French, genre chanson"
    assert templates.music_target({"genre": "rock", "stem": "guitar"}) == "genre rock"
    assert templates.music_target({}) == ""


def test_metadata_says_what_is_known() -> None:
    assert templates.metadata_target((), "Roof", "In May.") == "title: Roof; description: In May."
    assert templates.metadata_target(()) == ""


def test_metadata_keeps_the_order_of_the_tags() -> None:
    assert templates.metadata_target(["wind", "rain"]) == "tags: wind, rain"


def test_presence_questions_name_the_sound_and_answer_truly() -> None:
    for present, answer in ((True, "yes"), (False, "no")):
        pairs = every(templates.presence_question, "a dog barking", present)
        assert len(pairs) > 3
        assert all("a dog barking" in question and said == answer for question, said in pairs)


def test_choice_questions_hold_both_options_in_either_order() -> None:
    pairs = every(templates.choice_question, "rain", "wind")
    assert {answer for _, answer in pairs} == {"rain"}
    assert all("rain" in question and "wind" in question for question, _ in pairs)
    assert {question.index("rain") < question.index("wind") for question, _ in pairs} == {True, False}


def test_choices_of_many() -> None:
    pairs = every(templates.choice_question, "rain", "wind", "a dog")
    assert {answer for _, answer in pairs} == {"rain"}
    assert all(option in question for question, _ in pairs for option in ("rain", "wind", "a dog"))
    assert "is this wind, a dog or rain?" in {question for question, _ in pairs}


def test_sentences_become_clauses() -> None:
    assert templates.clause("A dog barks.", "a dog barking") == "a dog barks"
    assert templates.clause("Rain is falling.", "rain falling") == "rain is falling"
    assert templates.clause("Hammond organs play.", "Hammond organs") == "Hammond organs play"


@pytest.mark.parametrize(
    ("clauses", "throughout", "captions"),
    [
        (["a dog barks"], None, ("A dog barks.",)),
        (["a dog barks"], "rain is falling", ("A dog barks while rain is falling.",
                                              "Rain is falling. Meanwhile a dog barks.")),
        (["a dog barks", "a siren wails"], "rain is falling",
         ("A dog barks, then a siren wails while rain is falling.",
          "Rain is falling. Meanwhile first a dog barks, and then a siren wails.")),
        (["a", "b", "c"], None, ("A, then b, then c.", "First a, then b, and finally c.")),
    ],
)  # fmt: skip
def test_composed_captions(clauses: list[str], throughout: str | None, captions: tuple[str, ...]) -> None:
    assert templates.composed_captions(clauses, throughout) == captions


def test_counts_are_said_in_words() -> None:
    assert templates.counted_clause("words", 1) == "one word is said"
    assert templates.counted_clause("notes", 3, "a flute") == "three notes are played on a flute one after another"
    (open_, answer), (right, yes), (wrong, no) = templates.count_questions(random.Random(0), "kinds of sound", 1, 2)
    assert (answer, yes, no) == ("one", "yes", "no")
    assert "kinds of sound" in open_
    assert "one kind of sound" in right
    assert "are there" not in right
    assert "two kinds of sound" in wrong
