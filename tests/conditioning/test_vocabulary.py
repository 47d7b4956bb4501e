"""Names of tags in prompts, label lists and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pengi.conditioning.vocabulary import VOCABULARY_FILE, Tag, Vocabulary, word_stems
from pengi.errors import ConfigError

VOCABULARY = Vocabulary(
    (
        Tag("dog barking", "sound", ("a dog barking",), "Bark"),
        Tag("dog", "sound", (), "Dog"),
        Tag("rain", "sound", ("rain falling",), "Rain"),
        Tag("footsteps", "sound"),
        Tag("footsteps on gravel", "sound"),
        Tag("French horn", "instrument"),
        Tag('"dog"', "keyword", ("dog",)),
        Tag("stop", "keyword"),
        Tag("go", "keyword"),
    )
)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("dog barking", "dog barking"),
        ("The dogs bark", "dog barking"),
        ("A french horn", "French horn"),
        ("rain falling", "rain"),
        ("rain and wind", None),
        ("the", None),
        ("", None),
    ],
)
def test_a_whole_text_names_a_tag_whatever_its_case_articles_and_endings(text: str, tag: str | None) -> None:
    index = VOCABULARY.index(text)
    assert (None if index is None else VOCABULARY.tags[index].text) == tag


def test_the_longest_matching_name_wins() -> None:
    def found(text: str) -> list[str]:
        return [VOCABULARY.tags[index].text for index in VOCABULARY.find(text)]

    assert found("Are there footsteps on gravel, or rain?") == ["footsteps on gravel", "rain"]
    assert found("Footsteps! And footsteps. Then a dog.") == ["footsteps", "dog"]
    assert found("Is it raining?") == ["rain"]
    assert found("What is this?") == []


def test_a_list_of_words_means_words_and_a_list_of_sounds_means_sounds() -> None:
    def groups(*labels: str) -> list[str | None]:
        found = VOCABULARY.label_indices(labels)
        return [None if index is None else VOCABULARY.tags[index].group for index in found]

    assert groups("dog", "stop", "go") == ["keyword", "keyword", "keyword"]
    assert groups("dog", "rain", "footsteps") == ["sound", "sound", "sound"]
    assert groups("dog", "unheard of") == ["sound", None]


def test_the_nearest_names_are_offered_for_one_that_is_no_tag() -> None:
    assert VOCABULARY.nearest("dog braking")[0] == "dog barking"
    assert VOCABULARY.nearest("xxxxxx") == []


def test_a_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = VOCABULARY.to_json()
    assert rows[3] == {"text": "footsteps", "group": "sound"}
    (tmp_path / VOCABULARY_FILE).write_text(json.dumps(rows), encoding="utf-8")
    assert Vocabulary.read(tmp_path) == VOCABULARY
    assert VOCABULARY.groups == ("sound", "instrument", "keyword")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[{", "not valid JSON"),
        ('{"text": "rain"}', "a list of tags"),
        ('[{"text": "rain"}]', "group"),
        ('[{"text": "rain", "group": "sound", "colour": "grey"}]', "colour"),
        ('[{"text": 3, "group": "sound"}]', "'text' has the value 3"),
        ('[{"text": "rain", "group": "sound", "phrases": "rain falling"}]', "'phrases' has the value"),
        ('[{"text": "rain", "group": "sound", "phrases": [1]}]', "'phrases' has the value"),
        ('[{"text": "rain", "group": "sound"}, {"text": "rain", "group": "keyword"}]', "two tags 'rain'"),
    ],
)
def test_a_damaged_vocabulary_is_one_sentence(content: str, why: str, tmp_path: Path) -> None:
    (tmp_path / VOCABULARY_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=why):
        Vocabulary.read(tmp_path)


def test_a_vocabulary_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Vocabulary.read(tmp_path)


@given(st.text())
def test_any_text_can_be_searched(text: str) -> None:
    found = VOCABULARY.find(text)
    assert len(set(found)) == len(found)
    assert VOCABULARY.index(text) is None or VOCABULARY.index(text) in found or not word_stems(text)
