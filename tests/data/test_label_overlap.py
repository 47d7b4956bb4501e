"""What may be heard although no label says so: rules that keep questions from being answered falsely."""

from __future__ import annotations

from pathlib import Path

import pytest

from pengi.data.label_overlap import holds_one_kind, holds_voices, may_hold, same_kind
from pengi.data.manifest import Label, read_labels


def label(name: str, audioset: str | None = None, category: str = "") -> Label:
    return Label(label=name, phrase=name, sentence=f"{name}.", audioset=audioset, category=category)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (label("dog barking", "Bark"), label("fox barking", "Bark")),
        (label("church bells", "Church bell"), label("bell ringing", "Bell")),
        (label("footsteps"), label("footsteps on gravel")),
        (label("thunderstorm", "Thunderstorm"), label("explosion", "Explosion")),
        (label("crow", "Caw"), label("songbird", "Chirp, tweet")),
        (label("saw", None), label("sawing", None)),
    ],
)
def test_the_same_kind(one: Label, other: Label) -> None:
    assert same_kind(one, other)
    assert same_kind(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (label("dog barking", "Bark"), label("cat meowing", "Meow")),
        (label("a knock on the door", "Knock"), label("a siren on the road", "Siren")),
        (label("as", None), label("a", None)),
    ],
)
def test_different_kinds(one: Label, other: Label) -> None:
    assert not same_kind(one, other)


def test_what_a_place_may_hold_is_not_what_its_parts_hold() -> None:
    street = label("city street", "Traffic noise, roadway noise", "scene")
    dog = label("dog barking", "Bark", "animal")
    assert may_hold(street, dog)
    assert not may_hold(dog, street)


def test_voices_and_ensembles() -> None:
    speech = label("speech", "Speech", "speech")
    assert may_hold(label("radio chatter", "Radio", "alarm"), speech)
    assert holds_voices(label("crowd", "Crowd", "human"))
    assert not may_hold(label("glass", "Shatter", "household"), speech)
    kit = label("drum loop", "Drum kit", "instrument")
    assert may_hold(kit, label("hi-hat", "Hi-hat", "instrument"))
    assert not may_hold(label("hi-hat", "Hi-hat", "instrument"), label("flute", "Flute", "instrument"))
    assert holds_one_kind(label("flute", "Flute", "instrument"))
    assert not holds_one_kind(kit)
    assert not holds_one_kind(label("rain", "Rain", "nature"))


def test_rules_on_the_real_labels(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")

    def holds(recorded: str, other: str) -> bool:
        return may_hold(labels[recorded], labels[other])

    for recorded, other in [
        ("thunderstorm", "rain"),
        ("coffee shop chatter", "speech"),
        ("church bells", "bell ringing"),
        ("fireworks", "explosion"),
        ("drum kit", "snare drum"),
        ("string section", "violin"),
        ("orchestral music", "violin"),
        ("snoring", "breathing"),
        ("chainsaw", "engine running"),
        ("man speaking", "speech"),
    ]:
        assert holds(recorded, other), (recorded, other)
    for recorded, other in [("dog barking", "cat meowing"), ("flute", "violin"), ("siren", "rain"), ("rain", "siren")]:
        assert not holds(recorded, other), (recorded, other)
    # The rules must leave something to ask about: most pairs of labels exclude each other.
    names = sorted(labels)[::7]
    excluded = sum(not holds(one, other) for one in names for other in names)
    assert excluded > 0.8 * len(names) ** 2
