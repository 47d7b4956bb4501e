"""Composed examples: true by construction, the same for an id, never of several splits, and heard as they say."""

from __future__ import annotations

import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pengi import templates
from pengi.audio.decode import load
from pengi.data import mixing
from pengi.data.compose import (
    LOUDER_DB,
    MAX_S,
    Composed,
    Composer,
    Composition,
    Excerpt,
    compose,
    render,
    write_composed,
)
from pengi.data.label_overlap import may_hold
from pengi.data.manifest import Clip, Label, read_labels, read_manifest
from pengi.data.phrases import Phrases
from pengi.data.questions import QuestionMaker
from pengi.data.tagging import FOLDS, folds_of, group_of
from pengi.data.tasks import labels_of
from pengi.errors import InputError, ManifestError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16_000
LABELS = {
    name: Label(label=name, phrase=phrase, sentence=sentence, audioset=audioset, category=category)
    for name, phrase, sentence, audioset, category in [
        ("dog barking", "a dog barking", "A dog barks.", "Bark", "animal"),
        ("rooster crowing", "a rooster crowing", "A rooster crows.", "Crowing, cock-a-doodle-doo", "animal"),
        ("church bells", "church bells", "Church bells ring.", "Church bell", "alarm"),
        ("glass breaking", "glass breaking", "Glass shatters.", "Shatter", "household"),
        ("siren", "a siren", "A siren wails.", "Siren", "vehicle"),
        ("french horn", "a French horn", "A French horn plays.", "French horn", "instrument"),
        ("speech", "a person speaking", "A person is speaking.", "Speech", "speech"),
        ("woman speaking", "a woman speaking", "A woman is speaking.", "Female speech, woman speaking", "speech"),
    ]
}
NUMBER = {word: number for number, word in enumerate(templates.NUMBERS)}


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """The eight real recordings of the examples."""
    return read_manifest(EXAMPLES / "manifest.jsonl")


def sound_phrases(labels: dict[str, Label]) -> re.Pattern[str]:
    """Finds the sounds that a question names."""
    phrases = sorted((label.phrase for label in labels.values()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, phrases)))


def frame(question: str, labels: dict[str, Label]) -> str:
    """A question without the sounds that it names, whose words ("knocking together", "plastic") say nothing of it."""
    return sound_phrases(labels).sub("…", question)


def truth(question: str, example: Composed, labels: dict[str, Label]) -> str:
    """The answer that follows from the composition, found without the code that wrote the question."""
    composition = example.composition
    order = [labels[part.clip.events[0]].phrase for part in composition.parts]
    background = labels[composition.background.clip.events[0]].phrase if composition.background else None
    level = {labels[part.clip.events[0]].phrase: part.level_db for part in composition.all_parts}
    named = sound_phrases(labels).findall(question)
    question = frame(question, labels)

    def yes(true: bool) -> str:
        return "yes" if true else "no"

    if found := re.search(r"how many (words|notes|kinds of sound)", question):
        return templates.NUMBERS[len(level) if found[1] == "kinds of sound" else len(order)]
    if found := re.search(r"exactly (\w+) (word|note|kind)", question):
        return yes(NUMBER[found[1]] == (len(level) if found[2] == "kind" else len(order)))
    if re.search(r"first\?$|begin with", question):
        return order[0]
    if re.search(r"last\?$|end with", question):
        return order[-1]
    if re.search("the whole time|throughout|from beginning to end", question):
        assert background is not None
        return background
    if re.search("comes first|heard first|comes earlier", question):
        return min(named, key=order.index)
    if re.search("before|first and then", question):
        return yes(order.index(named[0]) < order.index(named[1]))
    if re.search("^(can|do|does) .* after", question):
        return yes(order.index(named[0]) > order.index(named[1]))
    if re.search("heard after|follows|right after", question):
        assert background is None
        return order[order.index(named[0]) + 1]
    if re.search("same time|together", question):
        return yes(background in named and named[0] != named[1])
    if "louder" in question:
        assert abs(level[named[0]] - level[named[1]]) >= LOUDER_DB
        louder = max(named, key=lambda phrase: level[phrase])
        return louder if " or " in question else yes(louder == named[0])
    if " or " in question:
        (right,) = set(named) & set(level)
        return right
    assert len(named) == 1, question
    return yes(named[0] in level)


def kind_of_question(framed: str) -> str:
    """What a question is about, by its words but those of the sounds in it."""
    words = {
        "number": "exactly|how many",
        "loudness": "louder",
        "simultaneity": "same time|together",
        "background": "whole time|throughout|beginning to end",
        "order": " before | first and then |comes first, |heard first, |comes earlier, |^(do|can|does) .* after ",
        "sequence": "first|last|begin with|end with|after|follows",
    }
    return next((kind for kind, found in words.items() if re.search(found, framed)), "presence")


def check(examples: Sequence[Composed], labels: dict[str, Label]) -> Counter[tuple[str, str]]:
    """Every answer against the oracle; returns how often each kind of yes/no question has each answer."""
    answers: Counter[tuple[str, str]] = Counter()
    for example in examples:
        composition = example.composition
        for one in composition.all_parts:
            for other in composition.all_parts:
                if one.clip.events != other.clip.events:
                    assert not may_hold(labels[one.clip.events[0]], labels[other.clip.events[0]])
        for asked in example.clip.qa:
            assert truth(asked.question, example, labels) == asked.answer, (asked, composition)
            assert asked.kind == kind_of_question(frame(asked.question, labels)), asked
            if asked.answer in ("yes", "no"):
                kind = re.search("exactly|before|first and then|after|together|same time|louder", asked.question)
                name = kind[0] if kind else "presence"
                answers[{"first and then": "before", "same time": "together"}.get(name, name), asked.answer] += 1
    return answers


def test_answers_follow_from_the_recipe(clips: list[Clip]) -> None:
    answers = check(list(compose(clips, LABELS, 0, 400)), LABELS)
    by_kind: defaultdict[str, list[int]] = defaultdict(list)
    for (kind, _), count in answers.items():
        by_kind[kind].append(count)
    assert by_kind.keys() == {"presence", "exactly", "before", "after", "together", "louder"}
    for kind, counts in by_kind.items():
        assert len(counts) == 2, kind
        assert counts[0] == counts[1] > 20, kind


def test_answers_of_the_real_labels_are_true_too(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    every = read_manifest(shared_data / "manifest.jsonl", check_audio=False)
    train = [clip for clip in every if clip.split == "train"]
    examples = list(compose(train, labels, 0, 300))
    check(examples, labels)
    parts = [part.clip for example in examples for part in example.composition.all_parts]
    assert {clip.split for clip in parts} == {"train"}
    assert len({clip.events[0] for clip in parts}) > 150  # of 290: rare labels come as often as frequent ones
    assert {example.composition.kind for example in examples} == {"sounds", "words", "notes"}
    assert {example.clip.ship for example in examples} == {True, False}  # emotional speech must not ship
    for example in examples:
        assert example.clip.ship == all(part.clip.ship for part in example.composition.all_parts)
        assert example.clip.redistribute == all(part.clip.redistribute for part in example.composition.all_parts)
        seconds = sum(part.length_s * part.times for part in example.composition.parts) + sum(
            example.composition.gaps_s
        )
        assert seconds <= MAX_S


def test_attributes_say_how_many_where_questions_do(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    every = read_manifest(shared_data / "manifest.jsonl", check_audio=False)
    seen: Counter[str] = Counter()
    for example in compose([clip for clip in every if clip.split == "val"], labels, 0, 200):
        asked = {
            "kinds" if "kinds" in pair.question else "count": pair.answer
            for pair in example.clip.qa
            if pair.question.startswith("how many")
        }
        known = dict(example.clip.attributes)
        assert ("transcript" in known) == (example.composition.kind == "words")
        assert len(str(known.pop("transcript", "")).split()) == (
            NUMBER[asked["count"]] if example.composition.kind == "words" else 0
        )
        assert known == asked
        seen.update(list(asked) or ["nothing"])
        if "count" in asked:
            assert NUMBER[asked["count"]] == len(example.composition.parts)
    assert min(seen[name] for name in ("count", "kinds", "nothing")) > 10


def test_counted_parts_are_words_and_single_notes(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels.jsonl")
    every = read_manifest(shared_data / "manifest.jsonl", check_audio=False)
    counts = Counter()
    for example in compose([clip for clip in every if clip.split == "val"], labels, 3, 300):
        kind, parts = example.composition.kind, example.composition.parts
        if kind == "sounds":
            continue
        counts[kind, len(parts)] += 1
        assert len({part.clip.id for part in parts}) == len(parts)
        for part in parts:
            if kind == "words":
                assert part.clip.domain in ("digit", "keyword")
            else:
                assert "pitch" in part.clip.attributes
                assert part.clip.attributes.get("articulation") not in ("tremolo", "major trill", "roll", "phrase")
        if example.composition.background:
            category = labels[example.composition.background.clip.events[0]].category
            assert category not in (("speech", "scene", "music") if kind == "words" else ("music", "instrument"))
    assert len(counts) >= 8


def test_training_examples_are_of_recordings_of_one_fold_to_which_they_belong(clips: list[Clip]) -> None:
    train = [
        clip.model_copy(update={"id": f"{clip.id}-{copy}", "split": "train", "group": f"{clip.group}-{copy}"})
        for clip in clips
        for copy in range(20)
    ]
    examples = list(compose(train, LABELS, 0, 100))
    for example in examples:
        groups = [group_of(clip) for clip in [example.clip, *(part.clip for part in example.composition.all_parts)]]
        assert len(set(folds_of(groups))) == 1
    assert set(folds_of([group_of(example.clip) for example in examples])) == set(range(FOLDS))
    check(examples, LABELS)
    assert max(len(example.composition.all_parts) for example in examples) > 2


def test_training_clips_that_share_no_fold_are_not_composed(clips: list[Clip]) -> None:
    groups = {int(fold): name for name in map(str, range(50)) for fold in folds_of([name])}
    one, other = (
        clip.model_copy(update={"split": "train", "group": groups[fold]}) for fold, clip in enumerate(clips[:2])
    )
    with pytest.raises(InputError, match="two different sounds, with one event each, in one of the folds"):
        Composer([one, other], LABELS, 0)
    assert Composer([one, other.model_copy(update={"group": one.group})], LABELS, 0).example(3).clip.group == one.group


def test_an_example_repeats_for_its_seed_and_number(clips: list[Clip]) -> None:
    one, same = (list(compose(clips, LABELS, 5, 30)) for _ in range(2))
    assert one == same
    assert [example.composition for example in compose(clips, LABELS, 6, 30)] != [
        example.composition for example in one
    ]
    assert Composer(clips[::-1], LABELS, 5).example(17) == one[17]  # in any order of the clips
    assert len({example.id for example in one}) == 30


def test_a_recipe_is_found_by_its_id(clips: list[Clip]) -> None:
    example = Composer(clips, LABELS, 8).example(1234)
    assert Composer.find(example.id, clips, LABELS) == example
    with pytest.raises(InputError, match="was not composed of these clips and labels"):
        Composer.find(example.id, clips[1:], LABELS)
    dog = LABELS["dog barking"].model_copy(update={"phrase": "a hound"})
    with pytest.raises(InputError, match="was not composed of these clips and labels"):
        Composer.find(example.id, clips, {**LABELS, "dog barking": dog})
    with pytest.raises(InputError, match="'dog' is not the id of a composed example"):
        Composer.find("dog", clips, LABELS)


def test_splits_are_never_mixed(clips: list[Clip]) -> None:
    mixed = [clips[0].model_copy(update={"split": "train"}), *clips[1:]]
    with pytest.raises(InputError, match="of one split, not of train, val"):
        Composer(mixed, LABELS, 0)


def test_what_cannot_be_composed(clips: list[Clip]) -> None:
    several = [clip.model_copy(update={"events": ("siren", "dog barking")}) for clip in clips]
    order = [clip.model_copy(update={"domain": "speech_qa"}) for clip in clips]
    for unusable in ([], clips[:1], several, order, [clip.model_copy(update={"domain": "composed"}) for clip in clips]):
        with pytest.raises(InputError, match="two different sounds"):
            Composer(unusable, LABELS, 0)


def test_captions_tell_the_parts_in_order(clips: list[Clip]) -> None:
    captions = {caption for example in compose(clips, LABELS, 0, 300) for caption in example.clip.captions}
    for pattern in (
        r"A dog barks, then [a-z].* while [a-zA-Z ]+\.",
        r"First a dog barks, and then .*\.",
        r".*\. Meanwhile first .*, and then .*\.",
        r"One word is said\.",
    ):
        assert any(re.fullmatch(pattern, caption) for caption in captions), pattern
    assert not any(re.search(r"\.[^ ]|\.\.| a french| Then|, [aA]nd [A-Z]", caption) for caption in captions)


def by_hand(
    clips: list[Clip], *names: str, background: str | None = None, levels: Sequence[float] = (0.0, -8.0)
) -> Composed:
    clip_of = {clip.events[0]: clip for clip in clips}
    parts = tuple(Excerpt(clip_of[name], 1.5, level) for name, level in zip(names, levels, strict=True))
    gaps_s = (0.3, *(0.5 for _ in parts[1:]), 0.3)
    composition = Composition(
        "sounds", parts, gaps_s, Excerpt(clip_of[background], MAX_S, -6.0) if background else None
    )
    return Composed(clips[0], composition)


def test_parts_are_heard_in_order_at_their_levels(clips: list[Clip]) -> None:
    example = by_hand(clips, "siren", "church bells")
    samples = render(example, EXAMPLES, RATE).samples
    assert len(samples) == pytest.approx((0.3 + 1.5 + 0.5 + 1.5 + 0.3) * RATE, abs=5)
    siren, bells = samples[: round(2.0 * RATE)], samples[round(2.1 * RATE) :]
    assert mixing.loudness_db(siren, RATE) - mixing.loudness_db(bells, RATE) == pytest.approx(8.0, abs=1.0)
    assert not samples[: round(0.29 * RATE)].any()
    assert not samples[round(1.85 * RATE) : round(2.25 * RATE)].any()
    for samples, name in ((siren, "siren"), (bells, "church-bells")):
        source = load(EXAMPLES / f"{name}.opus", RATE)
        stretch = samples[np.flatnonzero(samples)[0] :][RATE // 4 : RATE]
        matches = np.correlate(source, stretch, "valid")
        position = int(np.argmax(matches))
        alike = matches[position] / np.linalg.norm(source[position : position + len(stretch)]) / np.linalg.norm(stretch)
        assert alike > 0.999


def test_it_is_known_when_each_sound_is_heard(clips: list[Clip]) -> None:
    rendered = render(by_hand(clips, "siren", "church bells", background="dog barking"), EXAMPLES, RATE)
    background, siren, bells = rendered.fields["times"]
    assert (background.event, background.start_s, background.level_db) == ("dog barking", 0.0, -6.0)
    assert background.end_s == pytest.approx(len(rendered.samples) / RATE, abs=0.01)
    assert (siren.event, siren.start_s, siren.end_s) == ("siren", 0.3, pytest.approx(1.8, abs=0.01))
    assert (bells.event, bells.start_s) == ("church bells", pytest.approx(2.3, abs=0.01))


def test_a_background_goes_on_from_beginning_to_end(clips: list[Clip]) -> None:
    samples = render(by_hand(clips, "glass breaking", "siren", background="dog barking"), EXAMPLES, RATE).samples
    tenths = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    assert (np.abs(tenths).max(1) > 1e-3).all()


def test_repeated_parts(clips: list[Clip]) -> None:
    example = by_hand(clips, "speech", levels=[0.0])
    (part,) = example.composition.parts
    once = render(example, EXAMPLES, RATE).samples
    thrice = Composition("sounds", (Excerpt(part.clip, part.length_s, 0.0, 3),), example.composition.gaps_s, None)
    rendered = render(Composed(example.clip, thrice), EXAMPLES, RATE).samples
    ends = round(0.6 * RATE)
    assert len(rendered) - ends == pytest.approx(3 * (len(once) - ends), abs=2)


def test_every_example_can_be_heard(clips: list[Clip]) -> None:
    for example in compose(clips, LABELS, 1, 12):
        samples = render(example, EXAMPLES, RATE).samples
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert 0.02 < np.abs(samples).max() <= mixing.PEAK + 1e-6
        assert 0.3 * RATE < len(samples) <= (MAX_S + 0.1) * RATE


def test_a_written_corpus_is_a_corpus(clips: list[Clip], tmp_path: Path) -> None:
    manifest = write_composed(clips, LABELS, EXAMPLES, tmp_path / "new" / "out", count=6, seed=2)
    written = read_manifest(manifest)
    labels = read_labels(manifest.parent / "labels.jsonl")
    assert labels == LABELS
    assert len(written) == 6
    for clip in written:
        example = Composer.find(clip.id, clips, labels)
        assert clip == example.clip.model_copy(update={"duration_s": clip.duration_s, "times": clip.times})
        assert [time.event for time in clip.times if time.start_s] == [
            part.clip.events[0] for part in example.composition.parts for _ in range(part.times)
        ]
        info = soundfile.info(manifest.parent / clip.audio)
        assert (info.samplerate, info.format, info.duration) == (
            16_000,
            "FLAC",
            pytest.approx(clip.duration_s, abs=1e-3),
        )
        samples = load(manifest.parent / clip.audio, 16_000)
        assert np.abs(samples - render(example, EXAMPLES, 16_000).samples).max() < 1e-4
    with pytest.raises(InputError, match="already exists"):
        write_composed(clips, LABELS, EXAMPLES, manifest.parent, count=6, seed=2)


def test_the_number_of_processes_changes_nothing(clips: list[Clip], tmp_path: Path) -> None:
    one, two = (
        write_composed(clips, LABELS, EXAMPLES, tmp_path / str(workers), count=3, seed=0, rate=8000, workers=workers)
        for workers in (1, 2)
    )
    assert one.read_bytes() == two.read_bytes()
    for clip in read_manifest(one):
        assert (one.parent / clip.audio).read_bytes() == (two.parent / clip.audio).read_bytes()


def test_bad_recordings_are_skipped_up_to_a_share(
    clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(RATE), RATE)
    worse = [clip.model_copy(update={"audio": str(silent)}) if "dog" in clip.audio else clip for clip in clips]
    with caplog.at_level(logging.WARNING):
        manifest = write_composed(
            worse, LABELS, EXAMPLES, tmp_path / "out", count=12, seed=0, rate=8000, max_bad_share=0.9
        )
    kept = read_manifest(manifest)
    assert 0 < len(kept) < 12
    assert not any("dog barking" in clip.events for clip in kept)
    assert "the recording is silent" in caplog.text
    with pytest.raises(ManifestError, match="of 12 examples cannot be read"):
        write_composed(worse, LABELS, EXAMPLES, tmp_path / "none", count=12, seed=0, rate=8000)
    assert not [path for path in tmp_path.iterdir() if "none" in path.name]


def test_training_pairs_of_a_composed_example(clips: list[Clip]) -> None:
    """Captions, events in any order, and questions that follow from what is in it."""
    example = next(example for example in compose(clips, LABELS, 0, 50) if len(example.clip.events) == 3)
    weights = {"caption": 1.0, "events": 1.0, "presence": 2.0, "qa": 2.0}
    maker = QuestionMaker(Phrases(labels_of(clips, LABELS)), weights=weights)
    drawn = {pair for seed in range(80) for pair in maker.about(example.clip, random.Random(seed), 3)}
    assert {pair.target for pair in drawn if pair.task == "caption"} == set(example.clip.captions)
    assert len({pair.target for pair in drawn if pair.task == "events"}) > 2
    assert {pair.target for pair in drawn if pair.task == "presence"} == {"yes", "no"}
    assert not [pair for pair in drawn if pair.task == "qa"]
