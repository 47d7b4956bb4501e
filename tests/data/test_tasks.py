"""Training pairs: true by construction, and worded like the questions of the evaluation."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from pengi import templates
from pengi.data.manifest import Clip, Label, read_labels, read_manifest
from pengi.data.tasks import HEARD_WITH, TASKS, Pair, PairMaker, kind_of, labels_of


def label(name: str, phrase: str, audioset: str | None, category: str) -> Label:
    return Label(
        label=name, phrase=phrase, sentence=f"{phrase.capitalize()} sounds.", audioset=audioset, category=category
    )


LABELS = {
    worded.label: worded
    for worded in (
        label("dog barking", "a dog barking", "Bark", "animal"),
        label("fox barking", "a fox barking", "Bark", "animal"),
        label("rain", "rain falling", "Rain", "nature"),
        label("heavy rain", "heavy rain falling", "Rain", "nature"),
        label("siren", "a siren", "Siren", "vehicle"),
        label("speech", "someone speaking", "Speech", "speech"),
        label("woman speaking", "a woman speaking", "Female speech, woman speaking", "speech"),
        label("rock music", "rock music", "Rock music", "music"),
        label("folk music", "folk music", "Folk music", "music"),
        label("electric guitar", "an electric guitar", "Electric guitar", "instrument"),
        label("flute", "a flute", "Flute", "instrument"),
        label("slurping", "someone slurping", None, "human"),
    )
}
BY_PHRASE = {worded.phrase: worded for worded in LABELS.values()}
MAKER = PairMaker(LABELS)


def clip(**fields: Any) -> Clip:
    return Clip(**{"id": "clip", "audio": "clip.wav", "split": "train", "domain": "animal", **fields})


def drawn(subject: Clip, maker: PairMaker = MAKER, seeds: int = 300, count: int = 3) -> set[Pair]:
    """Everything that is asked about a clip, sooner or later."""
    return {pair for seed in range(seeds) for pair in maker.draw(subject, random.Random(seed), count)}


def named_in(text: str) -> set[str]:
    """Labels whose phrase stands in a text; a longer phrase hides the shorter one inside it."""
    found = set()
    for phrase in sorted(BY_PHRASE, key=len, reverse=True):
        if phrase in text:
            found.add(BY_PHRASE[phrase].label)
            text = text.replace(phrase, "")
    return found


CLIPS = {
    "dog": clip(events=["dog barking"]),
    "two events": clip(domain="environment", events=["rain", "dog barking"]),
    "rock": clip(domain="music", events=["rock music"], attributes={"genre": "rock"}),
    "flute": clip(
        domain="instrument", events=["flute"], attributes={"instrument": "flute", "pitch": "A4", "dynamics": "forte"}
    ),
    "voice": clip(domain="gender", events=["speech"], attributes={"gender": "female", "language": "english"}),
    "no class": clip(domain="human", events=["slurping"]),
}


@pytest.mark.parametrize("name", CLIPS)
def test_questions_about_presence_are_answered_truly(name: str) -> None:
    subject = CLIPS[name]
    answers = set()
    for pair in drawn(subject):
        if pair.target in ("yes", "no") and "speech" not in pair.prompt and "speaking" not in pair.prompt:
            (asked,) = named_in(pair.prompt)
            assert (pair.target == "yes") == (asked in subject.events)
            answers.add(pair.target)
    if name != "voice":  # of whose events only phrases with "speaking" are asked
        assert answers == {"yes", "no"}


@pytest.mark.parametrize("name", CLIPS)
def test_choices_hold_the_right_answer_and_one_wrong_one(name: str) -> None:
    subject = CLIPS[name]
    choices = [pair for pair in drawn(subject) if " or " in pair.prompt and pair.target in BY_PHRASE]
    assert choices
    for pair in choices:
        options = named_in(pair.prompt)
        assert len(options) == 2
        assert options & set(subject.events) == {BY_PHRASE[pair.target].label}


@pytest.mark.parametrize("name", CLIPS)
def test_no_sound_of_the_same_kind_is_called_absent(name: str) -> None:
    """A fox's bark is no wrong answer for a dog's, nor a guitar for rock music."""
    subject = CLIPS[name]
    own = [LABELS[event] for event in subject.events]
    absent = {other for seed in range(400) if (other := MAKER._other(subject, random.Random(seed)))}
    assert len(absent) > 2
    for other in map(LABELS.__getitem__, absent):
        assert other.label not in subject.events
        for worded in own:
            assert worded.audioset is None or other.audioset != worded.audioset
            assert other.category not in HEARD_WITH.get(worded.category, ())
    assert "electric guitar" not in absent or name != "rock"
    assert "slurping" in absent or name == "no class"


def test_only_the_labels_given_are_called_absent() -> None:
    """Words of AudioSet's classes may be asked about where they are heard, and nowhere else."""
    animal = Label(label="animal", phrase="an animal", sentence="An animal.", audioset="Animal")
    maker = PairMaker({**LABELS, "animal": animal}, others=LABELS)
    assert not any("an animal" in pair.prompt for pair in drawn(CLIPS["dog"], maker))
    assert any("an animal" in pair.prompt for pair in drawn(clip(events=["animal"]), maker))


def test_nothing_is_called_absent_where_every_label_may_be_present() -> None:
    maker = PairMaker({name: LABELS[name] for name in ("dog barking", "fox barking")})
    asked = [pair for pair in drawn(CLIPS["dog"], maker) if pair.task == "question" and "dog" in pair.prompt]
    assert {pair.target for pair in asked} == {"yes"}


def test_each_closed_task_asks_what_the_clip_has() -> None:
    targets: dict[str, set[str]] = {}
    for pair in drawn(CLIPS["flute"]):
        targets.setdefault(pair.task, set()).add(pair.target)
    assert targets["events"] == {"flute"}
    assert targets["instrument"] == {"flute"}
    assert targets["note"] == {"flute, pitch A4, forte"}
    assert targets["caption"] == {"A flute sounds the note A4 loudly."}
    assert not targets.keys() & {"digit", "keyword", "gender", "language", "genre", "scene", "metadata"}


def test_events_come_in_any_order() -> None:
    targets = {pair.target for pair in drawn(CLIPS["two events"]) if pair.task == "events"}
    assert targets == {"rain, dog barking", "dog barking, rain"}


def test_tags_are_asked_for_where_a_clip_has_some() -> None:
    maker = PairMaker(LABELS, {"clip": ("bark", "dog")})
    tagged = [pair for pair in drawn(CLIPS["dog"], maker) if pair.task == "metadata"]
    assert {(pair.prompt, pair.target) for pair in tagged} == {("generate metadata", "tags: bark, dog")}
    assert not [pair for pair in drawn(clip(id="other", events=["rain"]), maker) if pair.task == "metadata"]


def test_a_clips_own_questions_are_asked() -> None:
    subject = clip(domain="speech_qa", events=["speech"], qa=[{"question": "which drink?", "answer": "latte"}])
    assert Pair("question", "question: which drink? answer:", "latte") in drawn(subject)


@pytest.mark.parametrize(
    ("domain", "kind"), [("digit", "speech"), ("music", "music"), ("instrument", "music"), ("animal", "another sound")]
)
def test_the_kind_of_sound(domain: str, kind: str) -> None:
    subject = clip(domain=domain)
    assert kind_of(subject) == kind
    for pair in drawn(subject):
        if "speech, music or" in pair.prompt:
            assert pair.target == kind
        elif re.search("someone speaking|there speech|voice speaking", pair.prompt):
            assert pair.target == ("yes" if kind == "speech" else "no")


def test_a_draw_holds_different_pairs_and_repeats_for_a_seed() -> None:
    for seed in range(50):
        pairs = MAKER.draw(CLIPS["flute"], random.Random(seed), 5)
        assert len(pairs) == 5
        assert len({(pair.prompt, pair.target) for pair in pairs}) == 5
        assert pairs == MAKER.draw(CLIPS["flute"], random.Random(seed), 5)
    bare = MAKER.draw(clip(domain="x"), random.Random(0), 50)
    assert 1 <= len(bare) < 50


def test_closed_tasks_are_trained_with_the_prompt_of_the_evaluation() -> None:
    for name in ("events", "instrument"):
        prompts = {pair.prompt for pair in drawn(CLIPS["flute"]) if pair.task == name}
        assert TASKS[name].prompt in prompts
        assert prompts == set(templates.PROMPTS[name])


def test_answers_of_the_closed_tasks() -> None:
    assert TASKS["events"].answers(CLIPS["two events"]) == ("rain", "dog barking")
    assert TASKS["scene"].answers(CLIPS["two events"]) == ()
    assert TASKS["scene"].answers(clip(domain="scene", events=["rain"])) == ("rain",)
    assert TASKS["gender"].answers(CLIPS["voice"]) == ("female",)
    assert TASKS["digit"].answers(CLIPS["voice"]) == ()


def test_labels_nobody_has_worded_are_their_own_phrase() -> None:
    known = labels_of([clip(events=["rain", "yodelling"])], LABELS)
    assert known["rain"] == LABELS["rain"]
    assert known["yodelling"].phrase == "yodelling"
    assert known["yodelling"].sentence == "The sound of yodelling."
    assert "yodelling" in {pair.target for pair in drawn(clip(events=["yodelling"]), PairMaker(known))}


def test_pairs_of_the_real_data_are_true(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    clips = read_manifest(shared_data / "manifest.jsonl", check_audio=False)[::25]
    phrases = {worded.phrase: worded.label for worded in labels.values()}
    asked = re.compile(
        r"(?:is there|do you hear|can|is this the sound of|does this recording contain) (.+?)( be heard)?\?"
    )
    maker, rng, seen = PairMaker(labels), random.Random(0), {"yes": 0, "no": 0}
    for subject in clips:
        assert json.dumps([vars(pair) for pair in maker.draw(subject, rng, 3)])
        for _ in range(5):
            question, answer = maker._draw_question(subject, rng)
            match = asked.fullmatch(question)
            if answer in seen and match and match[1] in phrases:
                same = [event for event in subject.events if labels[event].phrase == match[1]]
                assert (answer == "yes") == bool(same)
                seen[answer] += 1
    assert min(seen.values()) > 20
