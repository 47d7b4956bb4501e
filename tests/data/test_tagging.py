"""Which tags a collection has, and what its clips say about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pengi.conditioning.evidence import GROUPS
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.data.manifest import Clip, Label, read_labels, read_manifest
from pengi.data.tagging import GROUPS_OF_ATTRIBUTES, TagTargets, build_vocabulary, tag_targets
from pengi.data.tasks import COMPOSED_DOMAIN, labels_of

CLASSES = (
    "Speech", "Child speech, kid speaking", "Bark", "Animal", "Rain", "Footsteps", "Musical instrument", "Piano",
    "Scratching (performance technique)", "Pop music", "Rock music", "Scary music", "Silence", "Baby cry, infant cry",
)  # fmt: skip


def label(name: str, category: str, audioset: str | None = None) -> Label:
    return Label(label=name, phrase=f"a {name}", sentence=f"A {name}.", category=category, audioset=audioset)


LABELS = {
    found.label: found
    for found in (
        label("dog barking", "animal", "Bark"),
        label("hyena calling", "animal", "Animal"),
        label("rain", "nature", "Rain"),
        label("footsteps", "human", "Footsteps"),
        label("footsteps on gravel", "human", "Footsteps"),
        label("street", "scene"),
        label("grand piano", "instrument", "Piano"),
        label("rock music", "music", "Rock music"),
        label("man speaking", "speech", "Speech"),
        label("unknown thing", "household", "No such class"),
    )
}


def clip(*events: str, duration_s: float = 1.0, **attributes: Any) -> Clip:
    return Clip(id="clip", audio="a.wav", split="train", events=events, attributes=attributes, duration_s=duration_s)


CLIPS = [
    clip("dog barking"),
    clip("man speaking", keyword="stop", gender="male"),
    clip(keyword="rain", language="Dutch"),
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return build_vocabulary(LABELS, CLIPS, CLASSES)


def tag(vocabulary: Vocabulary, text: str) -> Tag:
    return next(found for found in vocabulary.tags if found.text == text)


def test_labels_attributes_and_stock_classes_are_tags_each_once(vocabulary: Vocabulary) -> None:
    assert tag(vocabulary, "dog barking") == Tag("dog barking", "sound", ("a dog barking", "a dog", "bark"), "Bark")
    assert tag(vocabulary, "unknown thing").audioset is None
    assert tag(vocabulary, "baby cry") == Tag("baby cry", "sound", ("infant cry",), "Baby cry, infant cry")
    assert "bark" not in {found.text for found in vocabulary.tags}  # "dog barking" is that class
    assert tag(vocabulary, "animal").audioset == "Animal"  # "hyena calling" is but one of several
    assert "man speaking" in tag(vocabulary, "man").phrases
    assert not {"silence", "man speaking"} & {found.text for found in vocabulary.tags}


def test_tags_have_the_groups_of_their_labels_attributes_and_classes(vocabulary: Vocabulary) -> None:
    groups = {found.text: found.group for found in vocabulary.tags}
    assert groups["grand piano"] == groups["musical instrument"] == "instrument"
    assert groups["rock music"] == groups["pop music"] == "genre"
    assert groups["stop"] == "keyword"
    assert groups["Dutch"] == "language"
    assert groups["child"] == "speaker"
    assert groups["speech"] == "sound"
    assert set(vocabulary.groups) <= set(GROUPS)


def test_a_tag_is_written_as_in_its_phrase() -> None:
    horn = Label(label="french horn", phrase="a French horn", sentence="A French horn plays.", category="instrument")
    found = build_vocabulary({"french horn": horn}, [], CLASSES)
    assert tag(found, "French horn").phrases == ("a French horn",)
    assert found.index("french horn") is not None


def test_a_word_that_is_said_is_another_tag_than_the_sound_of_its_name(vocabulary: Vocabulary) -> None:
    assert tag(vocabulary, '"rain"') == Tag('"rain"', "keyword", ("rain",))
    assert tag(vocabulary, "rain").group == "sound"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Tag("telephone ringing", "sound", (), "Telephone"), False),
        (Tag("footsteps", "sound", (), "Walk, footsteps"), True),
        (Tag("footsteps on gravel", "sound", (), "Walk, footsteps"), False),
        (Tag("hyena calling", "sound", (), "Animal"), False),
        (Tag("crying", "sound", ("a baby cry",), "Baby cry, infant cry"), True),
        (Tag("thing", "sound"), False),
    ],
)
def test_a_tag_means_its_class_if_one_of_its_names_is_the_class(found: Tag, expected: bool) -> None:
    assert found.is_class is expected


def test_a_class_of_which_there_are_only_kinds_has_a_tag_of_its_own() -> None:
    labels = {name: label(name, "household", "Door") for name in ("door creaking", "door slamming")}
    assert [tag.text for tag in build_vocabulary(labels, [], ["Door"]).tags][-1] == "door"


def targets(vocabulary: Vocabulary, found: Clip, stock: dict[str, float] | None = None) -> TagTargets:
    stock_1K = np.zeros((1, len(vocabulary)), dtype=np.float32)
    for text, probability in (stock or {}).items():
        stock_1K[0, vocabulary.tags.index(tag(vocabulary, text))] = probability
    return tag_targets([found], vocabulary, LABELS, stock_1K)


def state(vocabulary: Vocabulary, found: TagTargets, text: str) -> bool | None:
    """Whether a tag is there; None if that is not known."""
    index = vocabulary.tags.index(tag(vocabulary, text))
    return bool(found.present_NK[0, index]) if found.known_NK[0, index] else None


def test_what_a_label_says_is_there_and_what_the_stock_tagger_suspects_is_unknown(vocabulary: Vocabulary) -> None:
    found = targets(vocabulary, clip("dog barking"), {"dog barking": 0.9, "rain": 0.5, "footsteps": 0.05})
    assert state(vocabulary, found, "dog barking") is True
    assert state(vocabulary, found, "rain") is None
    assert state(vocabulary, found, "footsteps") is False
    assert state(vocabulary, found, "stop") is False


def test_another_animal_is_absent_although_the_stock_tagger_detects_an_animal(vocabulary: Vocabulary) -> None:
    heard = {"hyena calling": 0.9, "animal": 0.9}
    dog, rain = (targets(vocabulary, clip(event), heard) for event in ("dog barking", "rain"))
    assert state(vocabulary, dog, "hyena calling") is False
    assert state(vocabulary, dog, "animal") is None
    assert state(vocabulary, rain, "hyena calling") is None


def test_kinds_of_what_is_there_may_be_there_too(vocabulary: Vocabulary) -> None:
    wider = targets(vocabulary, clip("footsteps"))
    assert state(vocabulary, wider, "footsteps on gravel") is None
    narrower = targets(vocabulary, clip("hyena calling"))
    assert state(vocabulary, narrower, "hyena calling") is True
    assert state(vocabulary, narrower, "animal") is None
    assert state(vocabulary, narrower, "rain") is False


def test_groups_that_the_labels_do_not_cover_are_unknown(vocabulary: Vocabulary) -> None:
    spoken = targets(vocabulary, clip("man speaking", gender="male"))
    assert state(vocabulary, spoken, "speech") is True
    assert state(vocabulary, spoken, "man") is True
    assert state(vocabulary, spoken, "woman") is False
    assert state(vocabulary, spoken, "Dutch") is None
    assert state(vocabulary, spoken, "stop") is False  # in a second there is no room for it
    assert state(vocabulary, targets(vocabulary, clip("man speaking", duration_s=5.0)), "stop") is None
    music = targets(vocabulary, clip("rock music"))
    assert state(vocabulary, music, "grand piano") is None
    assert state(vocabulary, music, "pop music") is False
    street = targets(vocabulary, clip("street"))
    assert state(vocabulary, street, "man") is None


def test_a_kind_of_a_class_is_rare_unless_several_recordings_have_it() -> None:
    def rare(*groups: str, domain: str = "") -> set[str]:
        clips = [clip("hyena calling").model_copy(update={"group": group, "domain": domain}) for group in groups]
        return {tag.text for tag in build_vocabulary(LABELS, clips, CLASSES).tags if tag.is_rare}

    assert "hyena calling" not in rare("one", "two", "three")
    assert "hyena calling" in rare("one", "one", "one", "two")
    assert "hyena calling" in rare("one", "two", "three", domain=COMPOSED_DOMAIN)
    assert rare() == {"hyena calling", "footsteps on gravel", "grand piano"}  # "dog barking" means the class "Bark"


def test_values_of_attributes_are_there(vocabulary: Vocabulary) -> None:
    found = targets(vocabulary, CLIPS[2])
    assert state(vocabulary, found, '"rain"') is True
    assert state(vocabulary, found, "rain") is False
    assert state(vocabulary, found, "Dutch") is True
    assert not targets(vocabulary, clip("nothing that is labelled")).present_NK.any()


def test_every_value_of_real_clips_is_a_tag(shared_data: Path) -> None:
    clips = read_manifest(shared_data / "manifest.jsonl", check_audio=False)
    labels = labels_of(clips, read_labels(shared_data / "labels.jsonl"))
    vocabulary = build_vocabulary(labels, clips, CLASSES)
    names = {(found.group, name.casefold()) for found in vocabulary.tags for name in (found.text, *found.phrases)}
    values = {
        (group, str(found.attributes[name]).casefold())
        for found in clips
        for name, group in GROUPS_OF_ATTRIBUTES.items()
        if name in found.attributes
    }
    assert values
    elsewhere = values - names  # what is a sound in another clip is no further tag
    assert all(group != "keyword" for group, _ in elsewhere)
    assert {value for _, value in elsewhere} <= {name for _, name in names}
