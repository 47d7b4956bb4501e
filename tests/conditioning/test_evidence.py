"""What the language model reads about a recording."""

import re

import pytest

from pengi.conditioning.evidence import (
    DetectedTag,
    Evidence,
    evidence_text,
    queried_prompt,
    queried_tags,
    queried_text,
    spans_text,
    strength,
)
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.config import EvidenceConfig

DOG = DetectedTag("dog barking", "sound", 0.93, ((0.1, 1.0),))
WIND = DetectedTag("wind", "sound", 0.21)
CLARINET = DetectedTag("clarinet", "instrument", 0.55)
OBOE = DetectedTag("oboe", "instrument", 0.12)


def test_everything_that_is_measured_is_written_in_a_fixed_order() -> None:
    evidence = Evidence(5.0, (DOG, CLARINET, WIND, OBOE), "Come here.", ("Level -23 dBFS.", "Note C4."))
    assert evidence_text(evidence, EvidenceConfig()) == (
        "Heard in 5 s: dog barking (sure, 0-1 s), wind (maybe). Instrument: clarinet (likely), oboe (maybe). "
        'Said: "Come here.". Level -23 dBFS. Note C4.'
    )


def test_it_is_written_that_nothing_is_detected_and_nothing_is_said() -> None:
    assert evidence_text(Evidence(5.0, (), ""), EvidenceConfig()) == "Heard in 5 s: nothing clear. Nothing is said."


def test_of_a_model_without_a_tagger_it_is_not_written_that_nothing_is_detected() -> None:
    untagged = Evidence(5.0, (), "", ("Level -23 dBFS.",), is_tagged=False)
    assert evidence_text(untagged, EvidenceConfig()) == "Heard in 5 s. Nothing is said. Level -23 dBFS."


def test_nothing_is_written_of_speech_where_no_transcriber_ran() -> None:
    assert evidence_text(Evidence(5.0, (WIND,)), EvidenceConfig()) == "Heard in 5 s: wind (maybe)."


def test_sounds_are_not_called_unclear_where_another_group_has_a_tag() -> None:
    assert (
        evidence_text(Evidence(2.0, (CLARINET,)), EvidenceConfig()) == "Heard in 2.0 s. Instrument: clarinet (likely)."
    )


def test_only_the_likeliest_tags_above_the_limit_are_written() -> None:
    config = EvidenceConfig(max_tags=2, min_probability=0.2)
    text = evidence_text(Evidence(5.0, (WIND, DOG, CLARINET, OBOE)), config)
    assert text == "Heard in 5 s: dog barking (sure, 0-1 s). Instrument: clarinet (likely)."


def test_many_names_of_one_sound_do_not_crowd_out_another() -> None:
    names = [DetectedTag(f"name {number}", "sound", 0.9 - number / 100, ((0.0, 1.0),)) for number in range(9)]
    bell = DetectedTag("bell", "sound", 0.3, ((3.0, 4.0),))
    written = Evidence(5.0, (*names, bell)).written(EvidenceConfig(max_tags=6))
    assert [tag.text for tag in written] == ["name 0", "name 1", "name 2", "name 3", "name 4", "bell"]


def test_parts_can_be_left_out_by_configuration() -> None:
    config = EvidenceConfig(max_tags=0, transcript=False, descriptors=False)
    assert evidence_text(Evidence(5.0, (DOG,), "Hello.", ("Note C4.",)), config) == "Heard in 5 s: nothing clear."


@pytest.mark.parametrize(
    ("probability", "word"),
    [
        (0.7, "sure"),
        (0.69, "likely"),
        (0.4, "likely"),
        (0.1, "maybe"),
        (0.03, "unlikely"),
        (0.008, "doubtful"),
        (0.002, "hardly"),
        (0.0, "no"),
    ],
)
def test_a_probability_has_its_word(probability: float, word: str) -> None:
    assert strength(probability) == word


@pytest.mark.parametrize(
    ("spans", "duration_s", "text"),
    [
        ((), 5.0, ""),
        (((0.0, 1.0),), 2.0, ""),
        (((0.2, 1.1),), 2.9, "0.2-1.1 s"),
        (((0.2, 1.1),), 5.0, "0-1 s"),
        (((3.1, 3.3),), 5.0, "3-4 s"),
        (((4.8, 5.0),), 5.0, "4-5 s"),
        (((0.0, 1.0), (3.0, 4.2)), 5.0, "0-1 and 3-4 s"),
        (((0.0, 1.0), (3.0, 4.2), (6.0, 8.0)), 10.0, "0-1, 3-4 and 6-8 s"),
        (((0.0, 1.0), (3.0, 4.0), (6.0, 8.0), (8.9, 9.5)), 10.0, "0-1, 3-4, 6-8 s and 1 more"),
        (((0.0, 4.8),), 5.0, "throughout"),
        (((0.0, 2.5), (2.6, 5.0)), 5.0, "throughout"),
        (((65.0, 71.0),), 130.0, "65-71 s"),
    ],
)
def test_times_are_written_short(spans: tuple[tuple[float, float], ...], duration_s: float, text: str) -> None:
    assert spans_text(spans, duration_s) == text


VOCABULARY = Vocabulary(
    (
        Tag("dog barking", "sound", ("a dog barking",)),
        Tag("siren", "sound"),
        Tag("filing", "sound"),
        Tag("no", "keyword"),
        Tag("yes", "keyword"),
    )
)


def test_tags_that_a_prompt_names_are_written_however_improbable() -> None:
    tags = queried_tags(Evidence(5.0, (DOG,)), VOCABULARY, "Is there a siren, or a dog barking?")
    assert queried_text(tags, 5.0) == "Asked about: dog barking (sure, 0-1 s), siren (no).\n"


def test_tags_that_a_prompt_names_are_written_in_the_order_in_which_they_begin() -> None:
    siren = DetectedTag("siren", "sound", 0.99, ((3.2, 5.0),))
    tags = queried_tags(Evidence(5.0, (siren, DOG)), VOCABULARY, "Is there a siren before a dog barking?")
    assert queried_text(tags, 5.0) == "Asked about: dog barking (sure, 0-1 s), then siren (sure, 3-5 s).\n"


@pytest.mark.parametrize("prompt", ["A dog barking and a siren?", "A siren and a dog barking?"])
@pytest.mark.parametrize("starts_s", [(4.1, 4.45), (4.45, 4.55), (3.6, 4.5)])
def test_the_order_is_right_however_times_are_rounded(prompt: str, starts_s: tuple[float, float]) -> None:
    dog, siren = (
        DetectedTag(text, "sound", 0.9, ((start_s, start_s + 0.02),))
        for text, start_s in zip(("dog barking", "siren"), starts_s, strict=True)
    )
    line = queried_text(queried_tags(Evidence(6.0, (siren, dog)), VOCABULARY, prompt), 6.0)
    assert re.fullmatch(r"Asked about: dog barking .*, then siren .*\n", line)


def test_the_line_says_which_tags_follow_and_which_overlap_one_another() -> None:
    tags = [
        DetectedTag("rain", "sound", 0.9, ((0.0, 2.0),)),
        DetectedTag("siren", "sound", 0.9, ((1.0, 2.0), (4.0, 5.0))),
        DetectedTag("dog barking", "sound", 0.9, ((6.0, 7.0),)),
        DetectedTag("music", "sound", 0.0),
    ]
    assert queried_text(tags, 8.0) == (
        "Asked about: rain (sure, 0-2 s), together with siren (sure, 1-2 and 4-5 s), then dog barking (sure, 6-7 s), "
        "music (no).\n"
    )
    assert queried_text(tags[:2], 1.5) == "Asked about: rain (sure), siren (sure).\n"  # times are not written


def test_tags_with_the_same_times_do_not_crowd_out_others_in_an_order() -> None:
    birds = [DetectedTag(f"bird {number}", "sound", 0.9 - 0.01 * number, ((2.0, 3.0),)) for number in range(20)]
    siren = DetectedTag("siren", "sound", 0.2, ((0.0, 1.0),))
    tags = queried_tags(Evidence(5.0, (*birds, siren)), VOCABULARY, "What is heard first?")
    assert [tag.text for tag in tags] == ["siren", "bird 0", "bird 1", "bird 2"]


@pytest.mark.parametrize("prompt", ["What is heard first?", "What comes after the dog barking?"])
def test_a_question_about_the_order_of_unnamed_sounds_gets_all_in_order(prompt: str) -> None:
    siren, voice = (
        DetectedTag("siren", "sound", 0.99, ((3.2, 5.0),)),
        DetectedTag("English", "language", 0.9, ((0, 5),)),
    )
    tags = queried_tags(Evidence(5.0, (siren, voice, DOG)), VOCABULARY, prompt)
    assert [tag.text for tag in tags] == ["dog barking", "siren"]
    line = queried_prompt(Evidence(5.0, (siren, voice, DOG)), VOCABULARY, prompt)
    assert line == f"In order: dog barking (sure, 0-1 s), then siren (sure, 3-5 s).\n{prompt}"
    assert queried_tags(Evidence(5.0, (DOG,)), VOCABULARY, "What is heard first?") == ()


def test_a_prompt_that_names_no_tag_gets_no_line() -> None:
    assert queried_text(queried_tags(Evidence(5.0, (DOG,)), VOCABULARY, "What happens?"), 5.0) == ""


def test_words_are_only_meant_where_the_prompt_is_about_words() -> None:
    evidence = Evidence(1.0, (DetectedTag("yes", "keyword", 0.9),))
    assert [tag.text for tag in queried_tags(evidence, VOCABULARY, "is there no siren?")] == ["siren"]
    assert [tag.text for tag in queried_tags(evidence, VOCABULARY, "does she say yes or no?")] == ["yes", "no"]


def test_a_file_is_not_taken_for_filing() -> None:
    assert queried_tags(Evidence(5.0), VOCABULARY, "is there a siren in this file?") == (
        DetectedTag("siren", "sound", 0.0),
    )
