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
from pengi.data.tasks import (
    FAMILIES,
    HEARD_WITH,
    TASKS,
    Pair,
    PairMaker,
    Question,
    QuestionTask,
    check_kinds,
    kind_of,
    labels_of,
)
from pengi.errors import ConfigError


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
    absent = {other for seed in range(400) if (other := MAKER.wording.absent(subject, random.Random(seed)))}
    assert len(absent) > 2
    for other in map(LABELS.__getitem__, absent):
        assert other.label not in subject.events
        for worded in own:
            assert worded.audioset is None or other.audioset != worded.audioset
            assert other.category not in HEARD_WITH.get(worded.category, ())
    assert "electric guitar" not in absent or name != "rock"
    assert "slurping" in absent or name == "no class"


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
    tagged = [pair for pair in drawn(clip(events=["rain"], tags=["drops"])) if pair.task == "metadata"]
    assert {pair.target for pair in tagged} == {"tags: drops"}
    assert {pair.prompt for pair in tagged} == set(templates.PROMPTS["metadata"])
    assert not [pair for pair in drawn(clip(id="other", events=["rain"])) if pair.task == "metadata"]


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
    few = MAKER.draw(clip(events=[], domain="animal"), random.Random(0), 50)
    assert 1 <= len(few) < 50


def test_nothing_is_asked_where_nothing_is_known() -> None:
    unknown = clip(domain="x")
    assert MAKER.draw(unknown, random.Random(0), 3) == []
    assert not MAKER.fits(unknown)
    assert MAKER.fits(CLIPS["dog"])


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


RICH = {
    "caption": clip(captions=("Rain on a roof.", "It pours.")),
    "events": CLIPS["two events"],
    "metadata": clip(title="Roof", tags=("rain", "roof"), description="A shed in May."),
    "scene": clip(domain="scene", events=["rain"]),
    "question": clip(
        qa=[{"question": "what falls?", "answer": "rain"}, {"question": "what falls?", "answer": "water"}]
    ),
    "emotion": clip(attributes={"emotion": "happy"}),
    "sentiment": clip(attributes={"sentiment": "positive"}),
    "music": clip(domain="music", attributes={"language": "French", "genre": "chanson"}),
    "note": clip(attributes={"instrument": "flute", "pitch": 69, "velocity": 100, "qualities": "bright, dark"}),
    "instrument": CLIPS["flute"],
    "velocity": clip(attributes={"velocity": 100}),
    "genre": CLIPS["rock"],
    "digit": clip(attributes={"digit": "seven"}),
    "keyword": clip(attributes={"keyword": "left"}),
    "language": clip(attributes={"language": "Greek"}),
    "gender": CLIPS["voice"],
}
ANSWERS = {
    "caption": {"Rain on a roof.", "It pours."},
    "events": {"rain, dog barking", "dog barking, rain"},
    "metadata": {
        "title: Roof; tags: rain, roof; description: A shed in May.",
        "title: Roof; tags: roof, rain; description: A shed in May.",
    },
    "scene": {"rain"},
    "question": {"rain", "water"},
    "emotion": {"happy"},
    "sentiment": {"positive"},
    "music": {"French, genre chanson"},
    "note": {f"flute, pitch 69, velocity 100, qualities {both}" for both in ("bright, dark", "dark, bright")},
    "instrument": {"flute"},
    "velocity": {"100"},
    "genre": {"rock"},
    "digit": {"seven"},
    "keyword": {"left"},
    "language": {"Greek"},
    "gender": {"female"},
}  # fmt: skip


def test_every_family_has_an_example_here() -> None:
    assert RICH.keys() == ANSWERS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_what_it_asks(name: str) -> None:
    """One object gives the pairs of the training and the question of the evaluation, with the same prompt."""
    family, subject = FAMILIES[name], RICH[name]
    pairs = {family.pair(subject, MAKER.wording, random.Random(seed)) for seed in range(60)}
    assert None not in pairs
    questions = family.questions(subject, MAKER.wording)
    prompts = {pair.prompt for pair in pairs if pair}
    assert {question.prompt for question in questions} <= prompts
    if name != "question":
        assert {pair.target for pair in pairs if pair} == ANSWERS[name]
        assert prompts == set(templates.PROMPTS[name])
        assert len(prompts) > 1
    (question,) = questions
    assert set(question.answers) <= ANSWERS[name] | {"rain", "dog barking"}
    nothing = clip(domain="x")
    assert family.questions(nothing, MAKER.wording) == ()
    assert family.pair(nothing, MAKER.wording, random.Random(0)) is None


def test_an_evaluation_asks_for_all_events_and_any_answer() -> None:
    asked = FAMILIES["events"].questions(CLIPS["two events"], MAKER.wording)
    assert asked == (Question("events", "this is a sound of", ("rain", "dog barking")),)
    asked = FAMILIES["question"].questions(RICH["question"], MAKER.wording)
    assert asked == (Question("question", "question: what falls? answer:", ("rain", "water")),)


def test_weights_say_which_tasks_are_drawn() -> None:
    maker = PairMaker(LABELS, weights={"caption": 1.0, "question": 3.0})
    pairs = [pair for seed in range(300) for pair in maker.draw(CLIPS["flute"], random.Random(seed), 1)]
    shares = {name: sum(pair.task == name for pair in pairs) / len(pairs) for name in ("caption", "question")}
    assert shares == {"caption": pytest.approx(0.25, abs=0.08), "question": pytest.approx(0.75, abs=0.08)}
    only = PairMaker(LABELS, weights={"digit": 1.0})
    assert not only.fits(CLIPS["flute"])
    assert only.fits(RICH["digit"])
    assert {pair.task for pair in drawn(RICH["digit"], only)} == {"digit"}


def asking(**kinds: int) -> Clip:
    """A clip with so many questions of each kind, each with its kind as the answer; of kind "none" without one."""
    qa = [
        {"question": f"{kind} {place}?", "answer": kind, "kind": "" if kind == "none" else kind}
        for kind, count in kinds.items()
        for place in range(count)
    ]
    return clip(domain="composed", qa=qa)


def asked_shares(subject: Clip, questions: dict[str, float] | None) -> dict[str, float]:
    """Share of the answers to what is asked about a clip."""
    maker = PairMaker({}, weights={"question": 1.0}, questions=questions)
    said = [pair.target for seed in range(600) for pair in maker.draw(subject, random.Random(seed), 1)]
    return {answer: said.count(answer) / len(said) for answer in set(said)}


def test_the_kind_of_a_question_is_drawn_before_the_question() -> None:
    shares = asked_shares(asking(order=9, number=1), None)
    assert shares == {"order": pytest.approx(0.5, abs=0.08), "number": pytest.approx(0.5, abs=0.08)}


def test_weights_say_which_kinds_of_questions_are_drawn() -> None:
    subject = asking(order=2, number=3, loudness=2, none=1)
    shares = asked_shares(subject, {"order": 2.0, "number": 1.0})
    expected = {"order": 0.5, "number": 0.25, "none": 0.25}  # what says no kind has a weight of 1
    assert shares == {kind: pytest.approx(share, abs=0.08) for kind, share in expected.items()}
    assert not PairMaker({}, weights={"question": 1.0}, questions={"order": 1.0}).fits(asking(number=2))


def test_a_clips_own_questions_may_be_all_that_is_asked() -> None:
    subject = asking(order=2).model_copy(update={"events": ("siren",)})
    for share, expected in ((1.0, {"order"}), (0.0, {"a siren", "yes", "no"})):
        maker = PairMaker(LABELS, weights={"question": 1.0}, own_questions=share)
        assert {pair.target for pair in drawn(subject, maker)} == expected
    only = PairMaker(LABELS, weights={"question": 1.0}, own_questions=1.0)
    assert not only.fits(CLIPS["flute"])  # which has none


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"odrer": 1.0}, "there is no kind of question 'odrer'; did you mean 'order'?"),
        ({"order": -1.0}, "the weight of the kind of question 'order' must be 0 or more"),
    ],
)
def test_weights_of_kinds_that_make_no_sense(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_kinds(weights, [asking(order=1)])
    with pytest.raises(ConfigError, match="questions that say their kind"):
        check_kinds(weights, [asking(none=1)])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"captions": 1.0}, "there is no task 'captions'; did you mean 'caption'?"),
        ({"caption": -1.0}, "must be 0 or more"),
        ({"caption": float("nan")}, "must be 0 or more"),
        ({"caption": 0.0}, "every task has a weight of 0"),
    ],
)
def test_weights_that_make_no_sense(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PairMaker(LABELS, weights=weights)


def test_whether_someone_speaks_is_left_open_where_voices_may_be_heard() -> None:
    crowd = label("crowd talking", "a crowd talking", "Hubbub, speech noise, speech babble", "scene")
    wording = PairMaker({**LABELS, "crowd talking": crowd}).wording
    assert wording.speaks(clip(domain="scene", events=["crowd talking"])) is None
    assert wording.speaks(CLIPS["dog"]) is False
    assert wording.speaks(CLIPS["voice"]) is True
    assert wording.speaks(clip(domain="composed", events=["siren", "speech"])) is True
    assert wording.speaks(clip(domain="composed", events=["siren"])) is None
    assert wording.speaks(clip(domain="", events=["siren"])) is None


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
            question, answer = QuestionTask().draw(subject, maker.wording, rng) or ("", "")
            match = asked.fullmatch(question)
            if answer in seen and match and match[1] in phrases:
                same = [event for event in subject.events if labels[event].phrase == match[1]]
                assert (answer == "yes") == bool(same)
                seen[answer] += 1
    assert min(seen.values()) > 20


def test_a_caption_tells_the_language_only_where_nothing_more_is_known() -> None:
    said = {
        events: FAMILIES["caption"].questions(
            clip(events=list(events), attributes={"language": "Greek"}), MAKER.wording
        )
        for events in (("speech",), ("woman speaking",))
    }
    assert [question.answers for question in said[("speech",)]] == [("A person speaks Greek.",)]
    assert [question.answers for question in said[("woman speaking",)]] == [("A woman speaking sounds.",)]
