"""Closed tasks, and the training pairs of their prompts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pengi import templates
from pengi.data.families import FAMILIES
from pengi.data.manifest import Clip, Label, read_labels, read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tasks import CLOSED_TASKS, Pair, answers_of, labels_of


def label(name: str, phrase: str, audioset: str | None, category: str) -> Label:
    return Label(
        label=name, phrase=phrase, sentence=f"{phrase.capitalize()} sounds.", audioset=audioset, category=category
    )


LABELS = {
    worded.label: worded
    for worded in (
        label("dog barking", "a dog barking", "Bark", "animal"),
        label("rain", "rain falling", "Rain", "nature"),
        label("siren", "a siren", "Siren", "vehicle"),
        label("speech", "someone speaking", "Speech", "speech"),
        label("rock music", "rock music", "Rock music", "music"),
        label("flute", "a flute", "Flute", "instrument"),
        label("slurping", "someone slurping", None, "human"),
    )
}


def clip(**fields: Any) -> Clip:
    return Clip(**{"id": "clip", "audio": "clip.wav", "split": "train", "domain": "animal", **fields})


def maker(**weights: float) -> QuestionMaker:
    return QuestionMaker(Phrases(LABELS), weights=weights or None)


def drawn(subject: Clip, questions: QuestionMaker, seeds: int = 300, count: int = 1) -> set[Pair]:
    """Everything that is asked about a clip, sooner or later."""
    return {pair for seed in range(seeds) for pair in questions.about(subject, random.Random(seed), count)}


FLUTE = clip(
    domain="instrument", events=["flute"], attributes={"instrument": "flute", "pitch": "A4", "dynamics": "forte"}
)
TWO = clip(domain="environment", events=["rain", "dog barking"])
RICH = {
    "caption": (clip(captions=("Rain on a roof.", "It pours.")), {"Rain on a roof.", "It pours."}),
    "events": (TWO, {"rain, dog barking", "dog barking, rain"}),
    "metadata": (
        clip(title="Roof", tags=("rain", "roof"), description="A shed."),
        {"title: Roof; tags: rain, roof; description: A shed."},
    ),
    "scene": (clip(domain="scene", events=["rain"]), {"rain"}),
    "emotion": (clip(attributes={"emotion": "happy"}), {"happy"}),
    "sentiment": (clip(attributes={"sentiment": "positive"}), {"positive"}),
    "music": (clip(domain="music", attributes={"language": "French", "genre": "chanson"}), {"French, genre chanson"}),
    "note": (
        clip(attributes={"instrument": "flute", "pitch": 69, "velocity": 100, "qualities": "bright, dark"}),
        {f"flute, pitch 69, velocity 100, qualities {both}" for both in ("bright, dark", "dark, bright")},
    ),
    "instrument": (FLUTE, {"flute"}),
    "velocity": (clip(attributes={"velocity": 100}), {"100"}),
    "genre": (clip(domain="music", attributes={"genre": "rock"}), {"rock"}),
    "digit": (clip(attributes={"digit": "seven"}), {"seven"}),
    "keyword": (clip(attributes={"keyword": "left"}), {"left"}),
    "language": (clip(attributes={"language": "Greek"}), {"Greek"}),
    "gender": (clip(attributes={"gender": "female"}), {"female"}),
}


def test_every_task_has_an_example_here() -> None:
    assert RICH.keys() == FAMILIES.keys() & templates.PROMPTS.keys()


@pytest.mark.parametrize("name", RICH)
def test_a_task_is_trained_with_all_its_prompts(name: str) -> None:
    subject, answers = RICH[name]
    pairs = drawn(subject, maker(**{name: 1.0}), seeds=60)
    assert {pair.target for pair in pairs} == answers
    assert {pair.prompt for pair in pairs} == set(templates.PROMPTS[name])
    if name in CLOSED_TASKS:
        assert {", ".join(answers_of(subject, name))} <= answers
    assert drawn(clip(domain="x"), maker(**{name: 1.0})) == set()


def test_answers_of_the_closed_tasks() -> None:
    assert answers_of(TWO, "events") == ("rain", "dog barking")
    assert answers_of(TWO, "scene") == ()
    assert answers_of(clip(domain="scene", events=["rain"]), "scene") == ("rain",)
    assert answers_of(FLUTE, "digit") == ()


@pytest.mark.parametrize(
    ("attributes", "caption"),
    [
        ({"keyword": "left"}, 'A person says "left".'),
        ({"digit": "seven"}, 'A person says "seven".'),
        ({"language": "French"}, "A person speaks French."),
        ({"language": "French", "gender": "female"}, "A woman speaks French."),
        ({"gender": "male", "transcript": "Come here."}, 'A man says "Come here."'),
        ({}, "A person is speaking."),
    ],
)
def test_captions_of_speech_say_what_is_known(attributes: dict[str, str], caption: str) -> None:
    subject = clip(domain="", events=["speech"], attributes=attributes)
    assert {pair.target for pair in drawn(subject, maker(caption=1.0))} == {caption}


def test_captions_of_notes_say_how_they_are_played() -> None:
    assert {pair.target for pair in drawn(FLUTE, maker(caption=1.0))} == {"A flute sounds the note A4 loudly."}


def test_a_draw_holds_different_pairs_and_repeats_for_a_seed() -> None:
    for seed in range(50):
        pairs = maker().about(FLUTE, random.Random(seed), 5)
        assert len(pairs) == 5
        assert len({(pair.prompt, pair.target) for pair in pairs}) == 5
        assert pairs == maker().about(FLUTE, random.Random(seed), 5)


def test_nothing_is_asked_where_nothing_is_known() -> None:
    assert maker().about(clip(domain="x"), random.Random(0), 3) == []
    assert not maker().fits(clip(domain="x"))
    assert maker().fits(FLUTE)


def test_weights_say_which_families_are_drawn() -> None:
    pairs = [pair for seed in range(300) for pair in maker(caption=1.0, note=1.0).about(FLUTE, random.Random(seed), 1)]
    captions = sum(pair.task == "caption" for pair in pairs) / len(pairs)
    assert 0.3 < captions < 0.7
    assert {pair.task for pair in pairs} == {"caption", "note"}
    assert not maker(digit=1.0).fits(FLUTE)


def test_whether_someone_speaks_is_left_open_where_voices_may_be_heard() -> None:
    crowd = label("crowd talking", "a crowd talking", "Hubbub, speech noise, speech babble", "scene")
    questions = QuestionMaker(Phrases({**LABELS, "crowd talking": crowd}), weights={"speech": 1.0})
    assert drawn(clip(domain="scene", events=["crowd talking"]), questions) == set()
    assert drawn(clip(events=["dog barking"]), questions)
    assert drawn(clip(domain="", events=["yodelling"]), questions) == set()


def test_labels_nobody_has_worded_are_their_own_phrase() -> None:
    known = labels_of([clip(events=["rain", "yodelling"])], LABELS)
    assert known["rain"] == LABELS["rain"]
    assert known["yodelling"].phrase == "yodelling"
    assert known["yodelling"].sentence == "The sound of yodelling."
    asked = QuestionMaker(Phrases(known), weights={"what": 1.0})
    assert {pair.target for pair in drawn(clip(events=["yodelling"]), asked)} == {"yodelling"}


def test_a_label_without_a_category_is_asked_about_as_well() -> None:
    known = labels_of([clip(events=["moaning"]), clip(events=["ticking"])], {})
    asked = QuestionMaker(Phrases(known), weights={"presence": 1.0})
    pairs = drawn(clip(events=["moaning"]), asked)
    assert {pair.target for pair in pairs if "moaning" in pair.prompt.casefold()} == {"yes"}
    assert {pair.target for pair in pairs if "ticking" in pair.prompt.casefold()} == {"no"}


def test_pairs_of_the_real_data_are_true(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    clips = read_manifest(shared_data / "manifest.jsonl", check_audio=False)[::25]
    asked = QuestionMaker(Phrases(labels), weights={"presence": 1.0})
    everything = QuestionMaker(Phrases(labels))
    seen = {"yes": 0, "no": 0}
    for number, subject in enumerate(clips):
        assert everything.about(subject, random.Random(number), 3)
        own = [labels[event].phrase.casefold() for event in subject.events]
        for pair in asked.about(subject, random.Random(number), 1):
            if any(phrase in pair.prompt.casefold() for phrase in own):
                assert pair.target == "yes"
            seen[pair.target] += 1
    assert min(seen.values()) > 20
