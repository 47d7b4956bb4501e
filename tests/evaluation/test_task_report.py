"""One task on a user's clips: a suite of one benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluating import ABOUT, Parrot
from pengi.errors import InputError
from pengi.evaluation.benchmarks import Suite, task_benchmark
from pengi.evaluation.comparing import compare
from pengi.evaluation.items import items_of, left_out
from pengi.evaluation.reporting import write_report
from pengi.evaluation.suites import RunProgress, SuiteRun, run_suite, score_run
from pengi.evaluation.systems import Systems
from pengi.evaluation.task_report import task_report

FIELD = task_benchmark("events", split="val", source="field")


def run(manifest: Path, out: Path, *, system: Parrot | None = None, method: str = "likelihood") -> dict[str, Any]:
    mode = "match" if method.startswith("yamnet") else method
    plan = SuiteRun(Suite((FIELD,), modes=(mode,)), manifest=manifest, baselines=False)
    run_suite(plan, lambda: Systems(system or Parrot(), None, None, ABOUT), out, RunProgress())
    return score_run(out)


@pytest.fixture
def named(manifest: Path) -> Path:
    """The manifest with labels that a :class:`Parrot` finds in file names."""
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("dog barking", "dog"), encoding="utf-8")
    return manifest


def test_labels_are_those_of_the_clips_of_split_and_source(manifest: Path) -> None:
    items = items_of(FIELD, manifest)
    assert items[0].labels == ("dog barking", "rain", "wind")
    assert [item.id for item in items] == ["dog-1", "dog-2", "rain-1", "both", "broken"]


def test_given_labels_leave_out_the_clips_that_have_none_of_them(manifest: Path) -> None:
    asked = task_benchmark("events", split="val", labels=["wind", "dog barking", "thunder"])
    items = items_of(asked, manifest)
    assert [item.id for item in items] == ["dog-1", "dog-2", "both"]
    assert items[2].answers == ("wind",)
    assert items[0].labels == ("wind", "dog barking", "thunder")
    assert left_out(asked, manifest) == 3  # rain-1, broken and seven
    assert left_out(FIELD, manifest) == 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"task": "event", "split": "val"}, "there is no task 'event'; did you mean 'events'"),
        ({"task": "events", "split": "valid"}, "there is no split 'valid'; did you mean 'val'"),
        (
            {"task": "events", "split": "test"},
            "no clip of split 'test' has events; it is in train (field), val (field)",
        ),
        (
            {"task": "digit", "split": "val", "source": "field"},
            "no clip of split 'val' of source 'field' has digit; it is in val (voices)",
        ),
        ({"task": "keyword", "split": "val"}, "no clip of split 'val' has keyword"),
        (
            {"task": "events", "split": "val", "labels": ["cow"]},
            "no clip of split 'val' has one of the given labels; its labels are dog barking, rain, speech, wind",
        ),
    ],
)
def test_without_clips_the_error_says_what_the_manifest_has(
    manifest: Path, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        items_of(task_benchmark(**asked), manifest)
    assert sentence in str(caught.value)


def test_the_report_by_hand(named: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = task_report(out, run(named, out), "likelihood")
    assert (found["task"], found["source"], found["split"]) == ("events", "field", "val")
    assert (found["method"], found["model"], found["labels"]) == ("likelihood", "parrot", ["dog", "rain", "wind"])
    assert (found["n"], found["correct"], found["accuracy"]) == (5, 3, pytest.approx(3 / 5))  # all but both and broken
    assert found["ci95"][0] < 3 / 5 < found["ci95"][1]
    assert found["per_class"] == {
        "dog": {"n": 2, "correct": 2, "accuracy": 1.0},
        "rain": {"n": 3, "correct": 1, "accuracy": pytest.approx(1 / 3)},
        "wind": {"n": 1, "correct": 0, "accuracy": 0.0},
    }
    assert [error["id"] for error in found["errors"]] == ["broken"]
    assert found["left_out"] == 0
    json.dumps(found, allow_nan=False)


def test_a_baseline_is_reported_by_its_name(named: Path, tmp_path: Path) -> None:
    tagger = Parrot(name="yamnet-match", together=True)
    found = task_report(tmp_path, run(named, tmp_path, system=tagger, method="yamnet-match"), "yamnet-match")
    assert (found["method"], found["prompt"], found["correct"]) == ("yamnet-match", None, 3)


def test_a_run_of_a_task_has_a_report_and_is_compared_as_that_of_a_suite(named: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    markdown, page = write_report(first, run(named, first))
    assert "| events, val of field (events@0) | accuracy | 5 | likelihood | 0.600" in markdown.read_text("utf-8")
    assert "events, val of field" in page.read_text("utf-8")
    run(named, second, system=Parrot(fingerprint="deaf", deaf=True))
    [row] = compare(first, second)
    assert (row["benchmark"], row["lost"]) == ("events", ["rain-1"])


def test_the_error_of_the_only_system_is_raised(named: Path, tmp_path: Path) -> None:
    class Lonely(Parrot):
        def answer(self, *_: Any) -> Any:
            raise InputError("it needs at least two")

    with pytest.raises(InputError, match="at least two"):
        run(named, tmp_path, system=Lonely(name="yamnet-match", together=True), method="yamnet-match")
