"""The benchmarks of open questions: made the same every time, with answers that their own patterns accept."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.evaluating import ABOUT, Parrot, write_manifest
from pengi import templates
from pengi.data import wordings
from pengi.errors import InputError
from pengi.evaluation import open_questions, questions
from pengi.evaluation.benchmarks import BENCHMARKS, Suite
from pengi.evaluation.building import BUILDERS, MADE, write_questions
from pengi.evaluation.items import Item, items_of
from pengi.evaluation.patterns import REFUSAL, is_accepted, is_refusal
from pengi.evaluation.questions import LabelledClips, Question
from pengi.evaluation.reporting import write_report
from pengi.evaluation.scoring import read_answers, score
from pengi.evaluation.suites import RunProgress, SuiteRun, run_suite, score_run
from pengi.evaluation.systems import Reply, Systems

REFUSED = "I can't tell from the sound."


@pytest.fixture(scope="module")
def source(shared_data: Path) -> LabelledClips:
    return LabelledClips.read(shared_data / "manifest.jsonl", "val")


@pytest.fixture(scope="module")
def asked(source: LabelledClips) -> dict[str, list[Question]]:
    return {name: build(source) for name, build in BUILDERS.items()}


def test_every_question_is_answered_by_its_own_answer_and_only_the_unanswerable_by_a_refusal(
    asked: dict[str, list[Question]],
) -> None:
    for question in (question for found in asked.values() for question in found):
        assert is_accepted(question.answer, question.accepted), question
        assert is_accepted(REFUSED, question.accepted) == (question.accepted == (REFUSAL,)), question
        assert "{" not in question.text


def test_there_are_enough_open_questions_of_every_family(asked: dict[str, list[Question]]) -> None:
    counts = Counter(question.family for question in asked["val-open"])
    assert counts.total() >= 500
    assert min(counts.values()) >= 7
    assert sum(question.accepted == (REFUSAL,) for question in asked["val-open"]) >= 80
    assert len({(question.clip.id, question.text) for question in asked["val-open"]}) == counts.total()


def test_questions_are_the_same_every_time(source: LabelledClips, asked: dict[str, list[Question]]) -> None:
    assert {name: build(source) for name, build in BUILDERS.items()} == asked


def test_every_sound_that_is_asked_about_has_names(source: LabelledClips) -> None:
    known = questions.spec()["names"]
    labels = {event for clip in source.clips if clip.domain != "speech_qa" for event in clip.events}
    assert labels <= known.keys()


def test_the_absent_sounds_of_a_label_are_not_its_names(source: LabelledClips) -> None:
    names = questions.LabelNames(source.labels)
    for label, phrases in questions.spec()["absent"].items():
        for phrase in phrases:
            assert not is_accepted(phrase, (names.one(label, ()),)), (label, phrase)


def test_no_wording_is_one_of_training() -> None:
    trained = {plain(text) for module in (templates, wordings) for text in texts_in(vars(module))}
    spec = questions.spec()
    asked = [spec["wordings"], spec["unanswerable"], spec["made"]]
    # There are only so many questions of two words.
    assert not {text for text in texts_in(asked) if plain(text) in trained and len(text.split()) > 2}


def texts_in(values: object) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            if not str(name).startswith("__"):
                yield from texts_in(value)
    elif isinstance(values, list | tuple | set | frozenset):
        for value in values:
            yield from texts_in(value)


def plain(text: str) -> str:
    """Without case and punctuation; all that is filled in looks the same."""
    return re.sub(r"[^\w ]", "", re.sub(r"\{[^}]*\}", "_", text.casefold())).strip()


def test_the_notes_have_their_octave(asked: dict[str, list[Question]]) -> None:
    assert len(asked["val-notes"]) > 100
    for question in asked["val-notes"]:
        name = str(question.clip.attributes["pitch"])
        assert is_accepted(f"It is {name}.", question.accepted)
        assert not is_accepted(name[:-1], question.accepted)


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few real sounds under the names that the benchmark knows."""
    monkeypatch.setattr(questions, "COMPOSED", 3)
    labels = ("dog barking", "rain", "clock ticking", "glass breaking", "cat meowing")
    rows: list[dict[str, object]] = []
    for index, label in enumerate(labels):
        noise = np.random.default_rng(index).standard_normal(32_000)
        soundfile.write(tmp_path / f"{index}.wav", 0.1 * noise, 16_000)
        kind = {"source": "esc50-fold4", "domain": "environment", "duration_s": 2.0, "origin": f"by {label}"}
        rows.append({"id": f"{index}", "audio": f"{index}.wav", "events": [label], **kind})
    return write_manifest(tmp_path / "m.jsonl", rows)


class Knowing(Parrot):
    """Knows the right answers, but refuses questions about a dog."""

    def _reply(self, item: Item, mode: str) -> Reply:
        return Reply(REFUSED if "dog" in item.prompt else item.answers[0])


def test_a_run_asks_about_clips_compositions_silence_and_noise_and_reports_families(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    everyone = Systems(Knowing(), None, None, ABOUT)
    plan = SuiteRun(Suite((BENCHMARKS["val-open"], BENCHMARKS["val-composed"])), manifest=samples, baselines=False)
    run_suite(plan, lambda: everyone, out, RunProgress())
    found = score_run(out)
    result = next(result for result in found["results"] if result["benchmark"] == "val-open")
    about_dogs = 0.0 < result["metrics"]["refused_answerable"]["value"] < 0.5
    assert about_dogs
    assert result["metrics"]["refused_off_topic"]["value"] == 1.0
    assert result["metrics"]["accuracy"]["value"] < 1.0
    assert result["families"]["date"]["value"] == 1.0
    assert len(result["families"]["date"]["ci95"]) == 2
    lines = (out / "items" / f"{BENCHMARKS['val-open'].id}.jsonl").read_text(encoding="utf-8").splitlines()
    items = [Item.from_dict(json.loads(line)) for line in lines]
    for item in items:
        assert (out / "manifests" / item.audio).is_file()
    assert {item.credit for item in items} >= {"by rain", "CC0-1.0"}
    assert {item.family for item in items} >= {"silence", "noise", "absent", "which of these", "place"}
    markdown, _ = write_report(out, found)
    assert "| Open questions | date |" in markdown.read_text(encoding="utf-8")


def test_existing_recordings_are_not_made_again(samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = write_questions("val-composed", samples, "val", out).read_bytes()
    files = {path: path.stat().st_mtime_ns for path in (out / "recordings").rglob("*.flac")}
    assert len(files) == 3
    assert write_questions("val-composed", samples, "val", out).read_bytes() == first
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_silence_is_silent_and_noise_is_the_same_every_time() -> None:
    levels = {name: float(np.abs(make()).max()) for name, make in MADE.items()}
    assert levels["silence"] == 0.0
    assert 0.0 < levels["faint"] < 1e-3
    assert 0.05 < levels["white noise"] < 1.0
    for make in MADE.values():
        np.testing.assert_array_equal(make(), make())


def test_a_manifest_without_anything_to_ask_about_is_an_error(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has nothing for val-notes in its split 'val'"):
        write_questions("val-notes", samples, "val", tmp_path / "run")


def test_refusals_are_counted_by_whether_the_sound_can_answer(samples: Path, tmp_path: Path) -> None:
    asked = BENCHMARKS["val-open"]
    items = items_of(asked, write_questions("val-open", samples, "val", tmp_path / "run"))
    rows = {item.id: {"text": "No." if item.accepted == (REFUSAL,) else "I don't know."} for item in items}
    metrics = score(asked, read_answers(asked, items, rows, "write"), "write")["metrics"]
    assert [metrics[name]["value"] for name in ("accuracy", "refused_off_topic", "refused_answerable")] == [0, 0, 1]
    assert is_refusal("I don't know.")


def test_drawn_clips_are_spread_over_their_groups(source: LabelledClips) -> None:
    clips = open_questions._spread("seed", source.clips, 12, lambda clip: clip.domain)
    assert len({clip.domain for clip in clips}) == 12
