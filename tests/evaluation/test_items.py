from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helpers.evaluating import write_manifest
from pengi.errors import InputError
from pengi.evaluation.benchmarks import BENCHMARKS, SUITES, Benchmark, benchmark_named
from pengi.evaluation.items import Item, items_of, shard_of

EVENTS = replace(BENCHMARKS["val-esc50"], source="field")
AQA = {
    name: replace(BENCHMARKS[f"clotho-aqa-{name}"], split="val", source="field")
    for name in ("binary", "majority", "unanimous", "words")
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    asked = [("is it loud?", "no"), ("is it loud?", "yes"), ("is it loud?", "Yes"), ("is it a dog?", "no"),
             ("is it a dog?", "no"), ("is it a dog?", "no"), ("what barks?", "dog"), ("what barks?", "a dog"),
             ("what barks?", "yes")]  # fmt: skip
    rows: list[dict[str, object]] = [
        {"id": "dog-1", "events": ["dog"], "group": "yard", "license": "CC0-1.0", "redistribute": True},
        {
            "id": "dog-2",
            "events": ["dog", "wind"],
            "redistribute": False,
            "license": "CC-BY-NC-3.0",
            "origin": "a film",
        },
        {"id": "rain-1", "events": ["rain"], "split": "train"},
        {"id": "talk-1", "qa": [{"question": question, "answer": answer} for question, answer in asked]},
        {"id": "quiz-1", "qa": [{"question": "Who speaks?", "answer": "Man"}], "choices": ["Man", "Woman", "Child"]},
        {"id": "song-1", "captions": ["a song", "someone sings"], "attributes": {"qualities": "bright, dark"}},
    ]
    return write_manifest(tmp_path / "m.jsonl", rows)


def test_labels_are_those_of_the_split(manifest: Path) -> None:
    items = items_of(EVENTS, manifest)
    assert [item.id for item in items] == ["dog-1", "dog-2"]
    assert items[1].answers == ("dog", "wind")
    assert items[0].labels == ("dog", "wind")
    assert (items[0].group, items[1].group) == ("yard", "dog-2")
    assert (items[0].redistribute, items[1].redistribute) == (True, False)
    assert items[1].credit == "CC-BY-NC-3.0, a film"


def test_items_are_read_back_as_they_were_written(manifest: Path) -> None:
    for item in items_of(EVENTS, manifest):
        assert Item.from_dict(asdict(item)) == item


def test_a_limit_keeps_the_labels_and_shards_divide_the_items(tmp_path: Path) -> None:
    rows = [{"id": f"{name}-{number}", "events": [name]} for name in ("dog", "rain") for number in range(10)]
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    part = items_of(EVENTS, manifest, limit=7)
    assert len(part) == 7
    assert part == items_of(EVENTS, manifest, limit=7)
    assert part[0].labels == ("dog", "rain")
    shards = [shard_of(part, (number, 3)) for number in (1, 2, 3)]
    assert sorted(len(shard) for shard in shards) == [2, 2, 3]
    assert {item.id for shard in shards for item in shard} == {item.id for item in part}


def test_which_answers_of_several_people_count(manifest: Path) -> None:
    assert [item.answers for item in items_of(AQA["binary"], manifest)] == [("no", "yes", "yes"), ("no", "no", "no")]
    assert [item.answers for item in items_of(AQA["majority"], manifest)] == [("yes",), ("no",)]
    assert [item.id for item in items_of(AQA["unanimous"], manifest)] == ["talk-1#2"]
    words = items_of(AQA["words"], manifest)
    assert [(item.prompt, item.answers) for item in words][:1] == [("what barks?", ("dog", "a dog", "yes"))]
    assert words[0].labels == ()


def test_choices_are_the_labels_and_part_of_the_question(manifest: Path) -> None:
    quiz = items_of(replace(BENCHMARKS["mmau"], split="val"), manifest)
    assert quiz[0].labels == ("Man", "Woman", "Child")
    assert quiz[0].answers == ("Man",)
    assert quiz[0].prompt == "Who speaks? Man, Woman or Child?"


def test_captions_and_listed_attributes(manifest: Path) -> None:
    assert items_of(replace(BENCHMARKS["clotho"], split="val"), manifest)[0].answers == ("a song", "someone sings")
    qualities = replace(BENCHMARKS["nsynth-qualities"], split="val")
    assert items_of(qualities, manifest)[0].answers == ("bright", "dark")


def test_a_benchmark_without_items_is_an_error_with_the_reason(manifest: Path) -> None:
    with pytest.raises(
        InputError, match=r"has nothing for val-digits: no clip of split 'val' of source 'fsdd' has digit"
    ):
        items_of(BENCHMARKS["val-digits"], manifest)


@pytest.mark.parametrize("asked", BENCHMARKS.values(), ids=lambda asked: asked.name)
def test_definitions_are_complete(asked: Benchmark) -> None:
    assert asked.version >= 1
    assert asked.prompt
    assert asked.license
    assert asked.how_to_get
    assert asked.metrics
    assert all(0 < number.value < 1 for number in asked.reported)


def test_numbers_of_the_paper_are_marked() -> None:
    assert BENCHMARKS["esc50"].numbers("accuracy", "paper")[0].value == 0.9195
    assert BENCHMARKS["esc50"].numbers("accuracy", "others")[0].value == 0.808
    unverified = {name for name, asked in BENCHMARKS.items() for number in asked.reported if not number.verified}
    assert unverified == {"dcase2017-task4", "sesa", "beijing-opera", "ravdess", "clotho"}


def test_suites_name_benchmarks_that_exist() -> None:
    for suite in SUITES.values():
        assert all(benchmark_named(asked.name) == asked for asked in suite.benchmarks)
    with pytest.raises(InputError, match="did you mean 'esc50'"):
        benchmark_named("esc-50")
