"""Training questions about scenes: their answers are true, whatever was detected."""

import random
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pengi.conditioning.collect import MIN_KEPT
from pengi.conditioning.evidence import DetectedTag, Evidence, evidence_text
from pengi.conditioning.vocabulary import Tag, Vocabulary
from pengi.config import EvidenceConfig
from pengi.data.drawing import SceneDrawer, Sources
from pengi.data.families import FAMILIES
from pengi.data.manifest import Clip, EventTime, Label, QuestionAnswer, read_labels
from pengi.data.phrases import Phrases, tag_tables
from pengi.data.question_context import QuestionContext
from pengi.data.questions import QuestionMaker
from pengi.data.scene_loader import SceneLoader
from pengi.data.scenes import Scene, SceneEvent, scene_of
from pengi.data.simulation import Simulator, TagNoise, measure_noise
from pengi.data.spoken import Spoken, as_read, draw_spoken, is_near, misheard, spoken_tables, together
from pengi.data.tagging import TagTargets, build_vocabulary
from pengi.data.tasks import Pair
from pengi.data.wordings import CANT_TELL, wording_tables, wordings

LABELS = {
    label: Label(label=label, phrase=phrase, sentence=sentence, audioset=audioset, category=category)
    for label, phrase, sentence, audioset, category in (
        ("dog barking", "a dog barking", "A dog barks repeatedly.", "Bark", "animal"),
        ("cat meowing", "a cat meowing", "A cat meows.", "Meow", "animal"),
        ("birds chirping", "birds chirping", "Birds chirp.", "Chirp, tweet", "animal"),
        ("siren", "a siren", "A siren wails.", "Siren", "vehicle"),
        ("rain", "rain falling", "Rain is falling.", "Rain", "nature"),
        ("toilet flushing", "a toilet flushing", "A toilet flushes.", "Toilet flush", "household"),
        ("bell ringing", "a bell ringing", "A bell rings.", "Bell", "alarm"),
        ("piano", "a piano", "A piano plays.", "Piano", "instrument"),
        ("flute", "a flute", "A flute plays.", "Flute", "instrument"),
        ("duck quacking", "a duck quacking", "A duck quacks.", "Quack", "animal"),
        ("woodpecker pecking", "a woodpecker pecking", "A woodpecker pecks.", "Knock", "animal"),
        ("crickets chirping", "crickets chirping", "Crickets chirp.", "Cricket", "animal"),
        ("baby crying", "a baby crying", "A baby cries.", "Baby cry, infant cry", "human"),
        ("rock music", "rock music", "Rock music plays.", "Rock music", "music"),
        ("sneezing", "someone sneezing", "A person sneezes.", "Sneeze", "human"),
        ("speech", "a person speaking", "A person is speaking.", "Speech", "speech"),
        ("man speaking", "a man speaking", "A man is speaking.", "Male speech, man speaking", "speech"),
        ("woman speaking", "a woman speaking", "A woman is speaking.", "Female speech, woman speaking", "speech"),
        ("coffee order", "a person ordering coffee", "A person orders a drink.", "Speech", "speech"),
    )
}
WORDS = [Clip(id=word, audio="x", split="train", attributes={"keyword": word}) for word in ("yes", "no", "stop", "dog")]
CLASSES = (
    "Speech", "Child speech, kid speaking", "Dog", "Bark", "Bell", "Rain", "Music", "Rustle", "Singing", "Bird", "Duck",
    "Quack", "Stream", "Cat",
)  # fmt: skip


@cache
def vocabulary() -> Vocabulary:
    english = Clip(id="english", audio="x", split="train", attributes={"language": "English"})
    return build_vocabulary(LABELS, [*WORDS, english], CLASSES)


@cache
def phrases() -> Phrases:
    return Phrases(LABELS, vocabulary())


def pairs_about(scene: Scene, *families: str, evidence: Evidence | None = None, count: int = 300) -> list[Pair]:
    """Many pairs of some families about a scene."""
    weights = dict.fromkeys(families, 1.0) if families else None
    maker = QuestionMaker(phrases(), weights=weights)
    return [pair for seed in range(count) for pair in maker.draw(scene, random.Random(seed), 1, evidence)]


def scene(*tags: str, **changes: object) -> Scene:
    """A recording of some sounds throughout, of which all is known."""
    events = tuple(SceneEvent(tag, 0.0, 6.0) for tag in tags)
    known = Scene(6.0, events, transcript="", absent=phrases().absent(tags), is_complete=True, is_recorded=True)
    return replace(known, **changes)  # type: ignore[arg-type]


DOG = scene("dog barking")
SPOKEN = scene(
    "woman speaking", transcript="Turn left at the bridge.", attributes={"gender": "female", "language": "English"}
)
ORDERED = scene(
    "dog barking",
    "siren",
    events=(SceneEvent("dog barking", 0.5, 2.0, -9.0), SceneEvent("siren", 3.0, 5.5, 0.0)),
    is_timed=True,
)


@pytest.mark.parametrize("known", [DOG, SPOKEN, ORDERED, scene("piano"), scene()])
def test_what_no_sound_can_tell_is_always_refused(known: Scene) -> None:
    pairs = pairs_about(known, "unanswerable")
    assert len(pairs) == 300
    assert {pair.target for pair in pairs} == {"I can't tell from the sound."}


def test_questions_about_places_and_dates_and_chatter_are_among_those_that_are_refused() -> None:
    asked = " ".join(pair.prompt.casefold() for pair in pairs_about(DOG, "unanswerable", count=2000))
    for words in ("city", "country", "year", "colour", "name", "how old", "cost", "capital", "poem", "was hörst du"):
        assert words in asked


def test_a_sound_that_is_there_is_confirmed_and_one_that_is_not_is_denied() -> None:
    pairs = pairs_about(DOG, "presence")
    for pair in pairs:
        assert pair.target == ("yes" if "dog" in pair.prompt.casefold() else "no")
    assert {pair.target for pair in pairs} == {"yes", "no"}


def test_a_negated_question_is_answered_the_other_way_round() -> None:
    for pair in pairs_about(DOG, "absence"):
        assert pair.target == ("no" if "dog" in pair.prompt.casefold() else "yes")


def test_presence_keeps_the_true_answer_whatever_is_detected() -> None:
    wrong = Evidence(6.0, (DetectedTag("siren", "sound", 0.4), DetectedTag("dog barking", "sound", 0.04)), "")
    for pair in pairs_about(DOG, "presence", evidence=wrong):
        assert pair.target == ("yes" if "dog" in pair.prompt.casefold() else "no")


def test_what_is_not_shown_is_not_named_in_open_answers() -> None:
    both = scene("dog barking", "siren")
    shown = Evidence(6.0, (DetectedTag("dog barking", "sound", 0.8), DetectedTag("siren", "sound", 0.04)), "")
    pairs = pairs_about(both, "description", "what", "list", evidence=shown)
    assert pairs
    assert not [pair for pair in pairs if "siren" in pair.target]
    assert [pair for pair in pairs if "dog" in pair.target]


def test_where_nothing_of_a_scene_is_shown_it_is_not_described() -> None:
    assert pairs_about(DOG, "description", "what", "list", evidence=Evidence(6.0, (), "")) == []


def test_a_list_without_the_right_sound_has_none_of_these() -> None:
    for pair in pairs_about(DOG, "choice"):
        if "dog" in pair.prompt.casefold():
            assert "dog" in pair.target
        else:
            assert pair.target in ("neither", "none of these")


def test_of_people_talking_where_nobody_talks_there_are_none() -> None:
    assert {pair.target for pair in pairs_about(DOG, "speakers")} == {"none"}
    assert {pair.target for pair in pairs_about(DOG, "who")} == {"nobody"}
    assert {pair.target for pair in pairs_about(DOG, "said")} == {"Nothing is said."}
    assert {pair.target for pair in pairs_about(DOG, "says")} == {"no"}


def test_who_speaks_and_what_is_said_is_answered() -> None:
    assert {pair.target for pair in pairs_about(SPOKEN, "who")} == {"a woman"}
    assert {pair.target for pair in pairs_about(SPOKEN, "speakers")} == {"one"}
    assert {pair.target for pair in pairs_about(SPOKEN, "said")} == {"Turn left at the bridge."}
    for pair in pairs_about(SPOKEN, "says"):
        said = any(word in pair.prompt.casefold().split("say")[-1] for word in ("turn", "left", "bridge"))
        if pair.target == "yes":
            assert said or any(word in pair.prompt.casefold() for word in ("turn", "left", "the", "bridge"))


def test_two_people_are_counted() -> None:
    two = scene("man speaking", "woman speaking", is_recorded=False, transcript="Hello. Good morning.")
    assert {pair.target for pair in pairs_about(two, "speakers")} == {"two"}
    assert {pair.target for pair in pairs_about(two, "who")} == {"a man and a woman"}


def test_what_is_said_is_refused_where_the_transcript_is_empty_or_of_another_language() -> None:
    wrong = Evidence(6.0, (DetectedTag("woman", "speaker", 0.9),), "Thank you for watching my video.")
    assert pairs_about(SPOKEN, "said", evidence=wrong) == []
    unread, refused = replace(wrong, transcript=""), {"I can't tell from the sound."}
    assert {pair.target for pair in pairs_about(SPOKEN, "said", evidence=unread)} == refused
    french = replace(SPOKEN, attributes={**SPOKEN.attributes, "language": "French"})
    assert {pair.target for pair in pairs_about(french, "said", evidence=wrong)} == refused


def test_a_transcript_with_a_small_error_is_given_as_it_is_read() -> None:
    near = Evidence(6.0, (DetectedTag("woman", "speaker", 0.9),), "Turn left at the ridge.")
    assert {pair.target for pair in pairs_about(SPOKEN, "said", evidence=near)} == {"Turn left at the ridge."}
    assert not [pair for pair in pairs_about(SPOKEN, "says", evidence=near) if "bridge" in pair.prompt]


def test_order_follows_the_times() -> None:
    for pair in pairs_about(ORDERED, "sequence"):
        prompt = pair.prompt.casefold()
        if "after a dog" in prompt or "follows a dog" in prompt or "last" in prompt:
            assert pair.target == "a siren"
    for pair in pairs_about(ORDERED, "order"):
        if any(words in pair.prompt.casefold() for words in ("comes first", "heard first", "earlier, ")):
            assert pair.target == "a dog barking"
    assert {pair.target for pair in pairs_about(ORDERED, "together")} == {"no"}
    assert {pair.target for pair in pairs_about(ORDERED, "louder")} == {"yes", "no", "a siren"}
    assert {pair.target for pair in pairs_about(ORDERED, "throughout")} == {"no", "nothing"}


def test_where_one_of_two_sounds_was_missed_only_the_louder_is_asked_about() -> None:
    one = Evidence(6.0, (DetectedTag("dog barking", "sound", 0.8, ((0.5, 2.0),)),), "")
    assert pairs_about(ORDERED, "order", "together", "throughout", evidence=one) == []
    assert {pair.target for pair in pairs_about(ORDERED, "louder", evidence=one)} == {"a siren"}
    assert pairs_about(ORDERED, "louder", evidence=Evidence(6.0, (), "")) == []
    assert {pair.target for pair in pairs_about(ORDERED, "sequence", evidence=one)} == {"a dog barking"}


def test_a_recording_in_which_another_sound_is_more_probable_is_not_named() -> None:
    right, wrong = DetectedTag("dog barking", "sound", 0.5), DetectedTag("siren", "sound", 0.8)
    names = ("what", "list", "caption", "events", "animal_name")
    assert pairs_about(DOG, *names, evidence=Evidence(6.0, (wrong, right), "")) == []
    assert pairs_about(DOG, *names, evidence=Evidence(6.0, (right, replace(wrong, probability=0.4)), ""))
    assert pairs_about(DOG, "presence", evidence=Evidence(6.0, (wrong, right), ""))


def test_times_that_the_evidence_does_not_show_are_not_asked_about() -> None:
    def read(dog: tuple[float, float], siren: tuple[float, float]) -> Evidence:
        spans = {"dog barking": dog, "siren": siren}
        return Evidence(6.0, tuple(DetectedTag(tag, "sound", 0.8, (span,)) for tag, span in spans.items()), "")

    right, tied = read((0.48, 1.92), (2.88, 5.5)), read((0.96, 1.92), (1.2, 5.5))
    lasting = read((0.48, 1.92), (0.0, 6.0))
    assert pairs_about(ORDERED, "sequence", "order", evidence=right)
    assert pairs_about(ORDERED, "sequence", "order", evidence=tied) == []
    assert pairs_about(ORDERED, "together", evidence=right)
    assert pairs_about(ORDERED, "together", "throughout", evidence=lasting) == []


def test_of_sounds_over_one_another_only_the_first_and_the_last_are_asked_for() -> None:
    events = (SceneEvent("dog barking", 0.5, 4.0), SceneEvent("siren", 3.0, 5.5))
    pairs = pairs_about(scene("dog barking", "siren", events=events, is_timed=True), "sequence")
    assert {pair.target for pair in pairs} == {"a dog barking", "a siren"}
    assert not [pair for pair in pairs if "dog" in pair.prompt.casefold() or "siren" in pair.prompt.casefold()]


def test_captions_say_what_happens_in_order() -> None:
    assert {pair.target for pair in pairs_about(ORDERED, "description")} == {
        "A dog barks, then a siren wails.",
        "First a dog barks, and then a siren wails.",
    }


def test_counts_are_those_of_the_scene() -> None:
    for pair in pairs_about(ORDERED, "how_many"):
        if "sound" in pair.prompt.split("question: ")[-1].split(" in ")[0]:
            assert pair.target == "two"
        elif "dogs" in pair.prompt:
            assert pair.target == "at least one"
    barks = scene(
        "dog barking",
        events=tuple(SceneEvent("dog barking", t, t + 0.5) for t in (0.0, 2.0, 4.0)),
        is_timed=True,
        is_recorded=False,
    )
    asked = pairs_about(barks, "how_often")
    assert {pair.target for pair in asked if "dog" in pair.prompt} == {"three times"}
    assert {pair.target for pair in asked if "dog" not in pair.prompt} == {"never"}


def test_measured_things_are_read_from_the_evidence() -> None:
    note = scene("piano", attributes={"instrument": "piano", "pitch": "C4"})
    tags = (DetectedTag("piano", "instrument", 0.9),)
    read = Evidence(6.0, tags, "", ("Level -41 dBFS, fading.", "Note C4 (262 Hz)."))
    assert {pair.target for pair in pairs_about(note, "pitch", evidence=read)} == {"C4"}
    loudness = pairs_about(note, "loudness", evidence=read)
    assert {pair.target for pair in loudness} == {"quiet, about -41 dBFS", "yes", "no"}
    assert all("quiet" in pair.prompt.lower() for pair in loudness if pair.target == "yes")
    assert all("loud" in pair.prompt.lower() for pair in loudness if pair.target == "no")
    assert {pair.target for pair in pairs_about(note, "length", evidence=read)} == {"6 seconds"}
    assert {pair.target for pair in pairs_about(note, "course", evidence=read)} == {"It gets quieter.", "the start"}
    wrong = replace(read, descriptors=("Note F#4 (370 Hz).",))
    assert pairs_about(note, "pitch", evidence=wrong) == []
    assert not [pair for pair in pairs_about(note, "description", "note", evidence=wrong) if "4" in pair.target]


def test_questions_that_come_with_a_clip_are_asked() -> None:
    clip = Clip(
        id="order", audio="x", split="train", duration_s=4.0, events=("coffee order",),
        qa=(QuestionAnswer(question="What drink is ordered?", answer="latte"),),
    )  # fmt: skip
    pairs = pairs_about(scene_of(clip, phrases()), "qa")
    assert {pair.target for pair in pairs} == {"latte"}


def test_a_scene_of_a_composed_clip_has_its_times() -> None:
    def time(event: str, start_s: float) -> EventTime:
        return EventTime(event=event, start_s=start_s, end_s=start_s + 2)

    clip = Clip(
        id="two", audio="x", split="train", duration_s=6.0, events=("dog barking", "siren"),
        times=(time("dog barking", 0), time("siren", 3)),
    )  # fmt: skip
    found = scene_of(clip, phrases())
    assert found.is_timed
    assert found.events == (SceneEvent("dog barking", 0.0, 2.0), SceneEvent("siren", 3.0, 5.0))
    asking = clip.model_copy(update={"qa": (QuestionAnswer(question="is there a dog?", answer="yes"),)})
    assert scene_of(asking, phrases()).qa
    assert scene_of(asking.model_copy(update={"domain": "composed"}), phrases()).qa == ()
    assert "toilet flushing" in found.absent
    assert "dog barking" not in found.absent


def test_yes_or_no_is_answered_with_nothing_else() -> None:
    for name in ("presence", "absence", "speech", "is_music", "says", "exactly", "is_speaker"):
        for known in (DOG, SPOKEN, ORDERED):
            assert {pair.target for pair in pairs_about(known, name)} <= {"yes", "no"}


def test_all_wordings_can_be_filled_and_families_have_many() -> None:
    tables = wording_tables()
    refused = {kind: found.questions for kind, found in tables.unanswerable.items()}
    for name, asked in (tables.questions | refused | tables.words).items():
        assert len(asked) == len(set(asked)), name
    assert min(len(wordings(kind)) for kind in ("presence", "said", "who", "what", "describe")) >= 28
    assert min(map(len, refused.values())) >= 12


def test_a_misspelt_kind_of_question_is_named_with_the_most_similar_one() -> None:
    with pytest.raises(KeyError, match="did you mean 'presence'"):
        wordings("presense")


def test_the_word_dog_is_another_tag_than_a_dog() -> None:
    tags = vocabulary().tags
    assert [tags[index].group for index in vocabulary().find("is there a dog?")] == ["sound"]
    assert [tag.group for tag in tags if tag.text == '"dog"'] == ["keyword"]


# --- answers that only seem to be known ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "may_be_there"),
    [
        ("duck quacking", {"bird", "duck", "duck quacking", "birds chirping"}),
        ("woodpecker pecking", {"bird", "duck", "duck quacking", "birds chirping"}),
        ("cat meowing", {"cat"}),
        ("dog barking", {"dog"}),
        ("rain", {"stream"}),
        ("piano", set()),
    ],
)
def test_a_class_of_which_a_sound_may_be_one_is_not_absent(recorded: str, may_be_there: set[str]) -> None:
    assert {"bird", "duck", "cat", "stream"} <= set(phrases().askable)
    assert not may_be_there & set(phrases().absent([recorded]))
    birds = {"bird", "duck", "duck quacking", "birds chirping"}
    assert may_be_there & birds or birds - {"birds chirping"} <= set(phrases().absent([recorded]))


def test_a_class_that_a_label_words_is_worded_once() -> None:
    assert "quack" not in phrases().worded
    assert phrases().worded["bird"].audioset == "Bird"


def test_tags_of_impacts_have_their_phrases() -> None:
    tags = Vocabulary((Tag("rustle", "sound", audioset="Rustle"),))
    label = Phrases({}, tags).label("rustle")
    assert tag_tables().impacts["rustle"] == label.phrase == "rustling"
    assert (label.sentence, label.category) == ("Rustling can be heard.", "impact")


def test_a_recording_of_anything_may_rustle() -> None:
    assert "rustle" in phrases().absent(["piano"])
    assert "rustle" not in phrases().absent(["piano"], recorded=True)
    clip = Clip(id="note", audio="x", split="train", duration_s=2.0, events=("piano",))
    assert "rustle" not in scene_of(clip, phrases()).absent


def test_where_a_baby_cries_voices_are_not_counted() -> None:
    crying = scene("baby crying")
    asked = pairs_about(crying, "speakers", "who", "speech", "is_speaker")
    assert {pair.target for pair in asked if pair.task == "speakers"} == {"none"}
    assert not [pair for pair in asked if "voice" in pair.prompt.casefold()]
    assert not [pair for pair in asked if pair.task == "is_speaker"]


def test_whether_music_has_words_is_known_only_where_no_voice_is_detected() -> None:
    song = scene("rock music", transcript=None, domain="music")
    assert pairs_about(song, "speech", "speakers", "who", "said") == []
    played = Evidence(6.0, (DetectedTag("rock music", "genre", 0.9),), "")
    assert pairs_about(song, "speech", evidence=played) != []
    sung = replace(played, tags=(*played.tags, DetectedTag("singing", "sound", 0.1)))
    for unclear in (sung, replace(played, transcript="Baby."), replace(played, transcript=None)):
        assert pairs_about(song, "speech", "speakers", "who", "said", evidence=unclear) == []


def test_how_often_something_sounds_in_a_recording_is_not_known() -> None:
    """One part of a composed clip may be three barks."""
    times = tuple(SceneEvent("dog barking", t, t + 1.5) for t in (0.0, 3.0))
    composed = scene("dog barking", events=times, is_timed=True)
    assert pairs_about(composed, "how_often") == []
    assert not [pair for pair in pairs_about(composed, "description", "caption") if "twice" in pair.target]
    for family in ("how_many", "exactly"):
        for pair in pairs_about(composed, family):
            assert not any(words in pair.prompt for words in ("many sounds", "number of sounds", "exactly one sound"))
    drawn = replace(composed, is_recorded=False)
    assert {pair.target for pair in pairs_about(drawn, "how_often") if "dog" in pair.prompt} == {"twice"}


def test_what_sounds_very_often_is_counted() -> None:
    often = tuple(SceneEvent("dog barking", t, t + 0.5) for t in range(0, 26, 2))
    known = scene("dog barking", events=often, duration_s=26.0, is_timed=True, is_recorded=False)
    assert "13 times" in {pair.target for pair in pairs_about(known, "how_often")}


def test_words_are_counted_as_words_and_not_as_parts() -> None:
    said = scene("speech", "piano", transcript="view glass stop", attributes={"count": "two"})
    read = Evidence(6.0, (DetectedTag("speech", "sound", 0.9), DetectedTag("piano", "instrument", 0.9)), "Few class.")
    for evidence in (None, read):
        pairs = [pair for pair in pairs_about(said, "how_many", evidence=evidence) if "words" in pair.prompt]
        assert {pair.target for pair in pairs} == {"three"}
        assert not [pair for pair in pairs_about(said, "how_many", evidence=evidence) if "notes" in pair.prompt]
    notes = scene("piano", attributes={"count": "two"})
    counted = [pair for pair in pairs_about(notes, "how_many") if "notes" in pair.prompt]
    assert {pair.target for pair in counted} == {"two"}


def test_one_sound_is_not_called_one_different_sounds() -> None:
    pairs = pairs_about(DOG, "exactly") + pairs_about(ORDERED, "exactly")
    assert pairs
    assert not [pair for pair in pairs if "one different" in pair.prompt or "one kinds" in pair.prompt]


def refused_about(scene: Scene, evidence: Evidence | None = None) -> str:
    """Many questions about a scene that cannot be answered, one a line."""
    rng, ask = random.Random(0), FAMILIES["unanswerable"].ask
    asked = [ask(QuestionContext(scene, evidence, phrases(), EvidenceConfig(), rng)) for _ in range(4000)]
    return "\n".join(answered.question.casefold() for answered in asked if answered)


def test_the_name_of_an_instrument_is_no_secret() -> None:
    refused = refused_about(scene("piano"))
    assert not re.search("name of (it|this|the instrument)[?]", refused)
    assert "name of the speaker" in refused
    assert "name of the dog?" in refused_about(DOG)


@pytest.mark.parametrize(
    ("transcript", "question"),
    [
        ("It is half past ten.", "what time is it"),
        ("Well, my name is Tom.", "speaker's name"),
        ("The car is red.", "what colour is the car"),
        ("I am fifty years old.", "how old is the speaker"),
        ("I am from Berlin.", "which city is this"),
        ("It costs ten euros.", "how much does it cost"),
        ("They did it because of the rain.", "why did they do that"),
    ],
)
def test_what_may_be_said_is_not_refused(transcript: str, question: str) -> None:
    speaking = replace(SPOKEN, transcript=transcript)
    read = Evidence(6.0, (DetectedTag("woman", "speaker", 0.9),), transcript)
    unknown = replace(SPOKEN, transcript=None)
    assert question not in refused_about(speaking)
    assert question not in refused_about(unknown, read)
    assert question in refused_about(SPOKEN)


def test_what_follows_from_the_sounds_is_not_refused() -> None:
    night = refused_about(scene("crickets chirping"))
    assert not re.search("at night|time of day|season", night)
    assert "which city" in night
    assert "speaking?" not in refused_about(DOG)
    assert "speaking?" in refused_about(SPOKEN)


def test_a_question_that_two_speakers_answer_differently_is_answered_by_neither() -> None:
    tom, anna = (Spoken(f"My name is {name}.", (("what is the speaker's name?", name),)) for name in ("Tom", "Anna"))
    assert together([tom, anna]).qa == ()
    assert together([tom, tom]).qa == tom.qa
    assert together([tom, anna, tom]).qa == ()
    for number in range(600):
        drawn = drawer(5).scene(number)
        if len(drawn.tags) > 1 and drawn.transcript:
            named = set(re.findall(r"[Mm]y name is (\w+)", drawn.transcript))
            assert len(named) < 2 or "what is the speaker's name?" not in dict(drawn.qa)


# --- drawn scenes and what would be detected of them ----------------------------------------------------------------


@cache
def noise() -> TagNoise:
    """Of a tagger that detects what is there with 0.8, a cat where a dog barks, and nothing else."""
    tags = vocabulary()
    clips = len(tags)
    present = np.eye(clips, dtype=bool)
    probabilities = np.full((clips, clips), 0.001, dtype=np.float32)
    probabilities[present] = 0.8
    dog, cat = tags.index("dog barking"), tags.index("cat meowing")
    probabilities[dog, cat] = 0.3
    return measured(probabilities, TagTargets(present, np.ones_like(present)))


def measured(probabilities_NK: NDArray[np.float32], targets: TagTargets, tags: Vocabulary | None = None) -> TagNoise:
    """The noise of a tagger that detects tags with these probabilities all through clips of 5 s."""
    tags = tags or vocabulary()
    found = [
        Evidence(
            5.0,
            tuple(
                DetectedTag(tag.text, tag.group, float(probability), ((0.0, 5.0),))
                for tag, probability in zip(tags.tags, row, strict=True)
                if probability >= MIN_KEPT
            ),
        )
        for row in probabilities_NK
    ]
    return measure_noise(found, targets, tags)


def drawer(seed: int = 0) -> SceneDrawer:
    captions = ("A dog barks and a siren wails", "A woman speaks then rain falls", "The old tune nobody knows")
    sources = Sources(captions=captions, transcripts=("Press one to hear more.",), pitched=("piano", "flute"))
    return SceneDrawer(phrases(), vocabulary(), sources, seed)


def test_scenes_and_evidence_are_functions_of_seed_and_number() -> None:
    simulator = Simulator(vocabulary(), noise())
    for number in range(30):
        scenes = [drawer(3).scene(number) for _ in range(2)]
        assert scenes[0] == scenes[1]
        evidence = [simulator.evidence(scenes[0], random.Random(number)) for _ in range(2)]
        assert evidence[0] == evidence[1]
    assert [drawer(3).scene(number) for number in range(9)] != [drawer(4).scene(number) for number in range(9)]


def test_a_tagger_is_simulated_with_its_own_confusions() -> None:
    simulator = Simulator(vocabulary(), noise())
    barking = replace(DOG, is_recorded=False, is_timed=True)
    for seed in range(20):
        tags = {tag.text: tag.probability for tag in simulator.evidence(barking, random.Random(seed)).tags}
        assert tags["dog barking"] == pytest.approx(0.8)
        assert tags["cat meowing"] == pytest.approx(0.3)
        assert "siren" not in tags


def test_what_is_detected_by_mistake_keeps_its_time_relative_to_the_event() -> None:
    tags = vocabulary()
    present = np.zeros((1, len(tags)), dtype=bool)
    present[0, tags.index("dog barking")] = True
    found = Evidence(
        5.0,
        (
            DetectedTag("dog barking", "sound", 0.8, ((1.0, 3.0),)),
            DetectedTag("cat meowing", "sound", 0.3, ((2.0, 3.0),)),
            DetectedTag("siren", "sound", 0.2, ((4.0, 5.0),)),
        ),
    )
    simulator = Simulator(tags, measure_noise([found], TagTargets(present, np.ones_like(present)), tags))

    def spans_of(length_s: float, *events: SceneEvent) -> dict[str, tuple[tuple[float, float], ...]]:
        one = Scene(duration_s=length_s, events=events, transcript="", is_timed=True)
        return {tag.text: tag.spans for tag in simulator.evidence(one, random.Random(1)).tags}

    middle = spans_of(20.0, SceneEvent("dog barking", 4.0, 12.0, 0.0))
    start_s, end_s = middle["dog barking"][0]
    assert middle["cat meowing"][0] == pytest.approx(((start_s + end_s) / 2, end_s), abs=0.5)
    assert middle["siren"][0] == pytest.approx((end_s + 1.0, end_s + 2.0), abs=0.5)
    assert "siren" not in spans_of(20.0, SceneEvent("dog barking", 10.0, 20.0, 0.0))
    whole = spans_of(10.0, SceneEvent("dog barking", 0.0, 10.0, 0.0))
    assert whole["dog barking"][0] == pytest.approx((2.0, 6.0), abs=0.5)
    assert whole["siren"][0] == pytest.approx((8.0, 10.0), abs=0.5)


def test_open_answers_name_the_most_probable_tag_first() -> None:
    both = Evidence(
        6.0,
        (
            DetectedTag("siren", "sound", 0.9, ((2.5, 6.0),)),
            DetectedTag("dog barking", "sound", 0.2, ((0.5, 2.0),)),
        ),
    )
    assert {pair.target for pair in pairs_about(ORDERED, "events", evidence=both)} == {"siren, dog barking"}
    assert {pair.target for pair in pairs_about(ORDERED, "what", evidence=both)} == {"a siren and a dog barking"}


@pytest.mark.parametrize(("played", "measured"), [("Gb4", "F#4"), ("Bb2", "A#2"), ("C5", "C5")])
def test_flats_are_measured_as_sharps(played: str, measured: str) -> None:
    simulator, tone = Simulator(vocabulary(), noise()), scene("piano", attributes={"pitch": played})
    found = [" ".join(simulator.evidence(tone, random.Random(seed)).descriptors) for seed in range(60)]
    assert sum(f"Note {measured} (" in text for text in found) > 40


def test_the_many_clips_of_one_voice_say_little_about_how_a_tag_is_detected() -> None:
    tags = vocabulary()
    man = tags.index("man")
    assert man is not None
    present = np.zeros((300, len(tags)), dtype=bool)
    present[:, man] = True
    detected = np.full(present.shape, 0.9, dtype=np.float32)
    detected[:200] = 0.1  # the voice that has 200 clips
    weight_N = np.array([200**-0.5] * 200 + [1.0] * 100, dtype=np.float32)
    for weights, share in ((weight_N, 0.12), (None, 0.67)):
        known = measured(detected, TagTargets(present, np.ones_like(present), weights))
        missed = [clip.own.probability < 0.5 for clip in known.clips[man]]
        assert sum(missed) / len(missed) == pytest.approx(share, abs=0.13)


def test_tags_without_clips_borrow_the_probabilities_of_others() -> None:
    tags = vocabulary()
    none = np.zeros((4, len(tags)), dtype=bool)
    known = measured(np.full(none.shape, 0.2, np.float32), TagTargets(none, ~none))
    found = Simulator(tags, known).evidence(replace(DOG, is_recorded=False), random.Random(0))
    assert "dog barking" in [tag.text for tag in found.tags]


def test_captions_are_only_used_where_tags_say_all_of_them() -> None:
    captions = {text for number in range(400) for text in drawer().scene(number).captions}
    assert captions == {"A dog barks and a siren wails.", "A woman speaks then rain falls."}


def test_a_caption_with_an_order_has_times() -> None:
    found = drawer().captioned("A woman speaks then rain falls", random.Random(0))
    assert found is not None
    assert [event.tag for event in found.events] == ["woman speaking", "rain"]
    assert found.events[0].end_s <= found.events[1].start_s


def test_a_person_who_speaks_in_a_caption_is_not_nobody() -> None:
    found = drawer().captioned("A dog barks and a person speaks", random.Random(0))
    assert found is not None
    assert found.tags == ("dog barking", "speech")
    for pair in pairs_about(found, "speech"):
        negated = any(asked.rstrip("?") in pair.prompt.casefold() for asked in wordings("no_speech"))
        assert pair.target == ("no" if negated else "yes")
    assert pairs_about(found, "speakers", "who") == []
    unclear = drawer().captioned("A siren with people", random.Random(0))
    assert unclear is not None
    assert pairs_about(unclear, "speech", "speakers", "who", "said") == []


def test_quotes_end_a_caption() -> None:
    timed = replace(SPOKEN, events=(SceneEvent("woman speaking", 0.5, 4.0),), is_timed=True)
    for known in (SPOKEN, timed):
        captions = {pair.target for pair in pairs_about(known, "caption")}
        assert captions == {'A woman says "Turn left at the bridge."'}


def test_what_is_not_detected_at_all_is_not_said_to_be_there() -> None:
    nothing = Evidence(6.0, (), "")
    assert {pair.target for pair in pairs_about(DOG, "presence", evidence=nothing)} == {"no"}
    assert {pair.target for pair in pairs_about(DOG, "absence", evidence=nothing)} == {"yes"}


def test_labels_do_not_deny_speech_that_is_detected_and_read() -> None:
    voices = Evidence(6.0, (DetectedTag("speech", "sound", 0.9),), "Over here!")
    assert pairs_about(DOG, "speech", "speakers", "who", "said", evidence=replace(voices, transcript="")) != []
    recorded = replace(DOG, transcript=None)
    assert pairs_about(recorded, "speech", "speakers", "who", "said", evidence=voices) == []


def test_answers_about_drawn_scenes_fit_what_is_in_them() -> None:
    maker, simulator, scenes = QuestionMaker(phrases()), Simulator(vocabulary(), noise()), drawer(1)
    refused = Counter[bool]()
    for number in range(1500):
        drawn, rng = scenes.scene(number), random.Random(number)
        for pair in maker.draw(drawn, rng, 3, simulator.evidence(drawn, rng)):
            assert pair.prompt
            assert pair.target
            assert "{" not in pair.prompt + pair.target
            refused[pair.target == CANT_TELL] += 1
            if pair.task in ("what", "list") and drawn.tags:
                assert any(phrases().phrase(tag) in pair.target or tag in pair.target for tag in drawn.tags)
            if pair.task == "speakers" and drawn.transcript == "":
                assert pair.target == "none"
    assert 0.12 < refused[True] / refused.total() < 0.25


def test_real_captions_and_labels_make_all_kinds_of_questions(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    tags = build_vocabulary(labels, WORDS, CLASSES)
    said = Phrases(labels, tags)
    flat = np.eye(len(tags), dtype=np.float32) * 0.9
    simulator = Simulator(tags, measured(flat, TagTargets(flat > 0, flat >= 0), tags))
    scenes = SceneDrawer(said, tags, Sources(pitched=("piano", "violin")))
    maker, asked = QuestionMaker(said), Counter[str]()
    for number in range(800):
        drawn, rng = scenes.scene(number), random.Random(number)
        evidence = simulator.evidence(drawn, rng)
        assert len(evidence_text(evidence, EvidenceConfig())) < 1200
        asked.update(pair.task for pair in maker.draw(drawn, rng, 4, evidence))
    never = {name for name, family in FAMILIES.items() if family.weight} - asked.keys()
    # These need clips that say such a thing, or come so seldom that a few hundred scenes may have none.
    rare = {"velocity", "emotion", "sentiment", "feeling", "metadata", "scene", "digit", "music", "genre", "tempo"}
    assert never <= rare | {"language", "note"}


def test_what_is_said_answers_its_questions() -> None:
    refused = Counter[bool]()
    for seed in range(600):
        spoken = together(draw_spoken(random.Random(seed), (), sentences=1 + seed % 2))
        assert not set("{}[]()<>|") & set(spoken.text + "".join(map("".join, spoken.qa)))
        for question, answer in spoken.qa:
            assert question.endswith("?") or question.startswith("tell me")
            assert answer == CANT_TELL or answer.casefold() in spoken.text.casefold()
            refused[answer == CANT_TELL] += 1
    assert 0.1 < refused[True] / refused.total() < 0.25


def test_every_slot_of_every_topic_is_asked_about_and_can_be_filled() -> None:
    for topic in spoken_tables().topics:
        sentences = " ".join(topic.sentences)
        slots = set(re.findall(r"{(\w+)}", sentences))
        assert slots <= spoken_tables().slots.keys()
        assert {name for names in topic.asked for name in names.split()} <= slots
        asked = [wording for wordings_ in topic.asked.values() for wording in wordings_]
        assert set(re.findall(r"{(\w+)}", " ".join(asked))) <= slots


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        ("A latte with soy milk and honey.", "soy milk"),
        ("A latte with so milk and honey.", "so milk"),
        ("A lattes with oil and honey.", "oil"),
        ("A latte and honey.", ""),
    ],
)
def test_an_answer_has_the_words_of_the_transcript(read: str, answer: str) -> None:
    assert as_read("soy milk", "A latte with soy milk and honey.", read) == answer
    said = "A latte with soy milk and honey."
    ordering = scene("woman speaking", transcript=said, qa=(("which milk?", "soy milk"),), is_recorded=False)
    evidence = Evidence(6.0, (DetectedTag("speech", "sound", 0.9),), read)
    targets = {pair.target for pair in pairs_about(ordering, "qa", evidence=evidence, count=20)}
    assert targets == {answer or CANT_TELL}


def test_a_recognisers_errors_are_small_or_noticed() -> None:
    text = "Please bring me two sandwiches and a large lemonade with ice."
    assert is_near(text, text.upper())
    assert all(is_near(text, misheard(text, 0.03, random.Random(seed))) for seed in range(50))
    assert not is_near(text, "Thank you for watching.")
    assert not is_near("yes", "yet")


def test_batches_of_scenes_repeat_and_have_what_a_model_reads() -> None:
    def loader() -> SceneLoader:
        simulator = Simulator(vocabulary(), noise())
        return SceneLoader(drawer(), simulator, QuestionMaker(phrases()), batch_size=4, questions_per_clip=3, seed=1)

    drawn = loader()
    for step in (0, 3, 9):
        batch = drawn.batch(step)
        again = loader().batch(step)
        assert (batch.batch.prompts, batch.batch.targets) == (again.batch.prompts, again.batch.targets)
        assert batch.batch.features == ()
        assert batch.batch.evidence is not None
        assert len(batch.clips) == len(batch.batch.evidence) == 4
        assert len(batch.batch.prompts) == len(batch.batch.targets) == len(batch.batch.clip_E) == len(batch.pairs)
        assert set(batch.batch.clip_E.tolist()) == {0, 1, 2, 3}
    ids = [clip.id for step in range(8) for clip in drawn.batch(step).clips]
    assert len(set(ids)) == 32
    asked = [prompt for step in range(8) for prompt in drawn.batch(step).batch.prompts]
    assert any(prompt.startswith("Asked about: ") for prompt in asked)
