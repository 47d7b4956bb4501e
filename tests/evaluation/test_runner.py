from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pengi.errors import AudioError, InputError, PengiError
from pengi.evaluation.runner import Prediction, report, run, select


def always(label: str) -> Callable[..., list[Prediction | PengiError]]:
    """A classifier that says ``label`` to everything but a file named broken."""

    def classify(
        recordings: Sequence[Path], labels: Sequence[str], done: Callable[[int], None]
    ) -> list[Prediction | PengiError]:
        done(len(recordings))
        return [
            AudioError(f"'{path}' is not audio") if path.stem == "broken" else Prediction(label, ((label, 1.0),))
            for path in recordings
        ]

    return classify


def test_auto_labels_are_those_of_the_selected_clips(manifest: Path) -> None:
    selection = select(manifest, task="events", split="val", source="field")
    assert selection.labels == ("dog barking", "rain", "wind")
    assert [clip.id for clip in selection.clips] == ["dog-1", "dog-2", "rain-1", "both", "broken"]


def test_a_limit_keeps_the_choices_and_draws_the_same_clips(manifest: Path) -> None:
    whole = select(manifest, task="events", split="val", source="field")
    part = select(manifest, task="events", split="val", source="field", limit=2)
    assert part.labels == whole.labels
    assert len(part.clips) == 2
    assert part == select(manifest, task="events", split="val", source="field", limit=2)
    assert select(manifest, task="events", split="val", source="field", limit=99).clips == whole.clips


def test_given_labels_leave_out_the_clips_that_have_none_of_them(manifest: Path) -> None:
    selection = select(manifest, task="events", split="val", labels=["wind", "dog barking", "thunder"])
    assert [clip.id for clip in selection.clips] == ["dog-1", "dog-2", "both"]
    assert selection.answers[2] == ("wind",)
    assert selection.left_out == 3  # rain-1, broken and seven
    assert selection.labels == ("wind", "dog barking", "thunder")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"task": "event", "split": "val"}, "there is no task 'event'; did you mean 'events'"),
        ({"task": "events", "split": "valid"}, "there is no split 'valid'; did you mean 'val'"),
        (
            {"task": "events", "split": "test"},
            "no clip of split 'test' has task 'events'; the splits here are train, val",
        ),
        ({"task": "digit", "split": "val", "source": "field"}, "sources that have it are voices"),
        ({"task": "keyword", "split": "val"}, "has task 'keyword'; tasks in this split are events, digit"),
        ({"task": "events", "split": "val", "labels": ["cow"]}, "none of the 6 clips has one of the given labels"),
    ],
)
def test_no_clips_is_a_sentence_that_says_what_there_is(
    manifest: Path, asked: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        select(manifest, **asked)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_report_by_hand(manifest: Path) -> None:
    selection = select(manifest, task="events", split="val", source="field")
    finished: list[int] = []
    rows, seconds = run(selection, always("rain"), finished.append)
    found = report(selection, rows, method="likelihood", model="tiny", seconds=seconds)
    assert sum(finished) == found["n"] == 5
    assert (found["task"], found["source"], found["split"]) == ("events", "field", "val")
    assert (found["method"], found["model"], found["labels"]) == ("likelihood", "tiny", ["dog barking", "rain", "wind"])
    assert found["accuracy"] == pytest.approx(2 / 5)  # rain-1 and both; the broken clip counts as wrong
    assert found["ci95"][0] < 2 / 5 < found["ci95"][1]
    assert found["per_class"] == {
        "dog barking": {"n": 2, "correct": 0, "accuracy": 0.0},
        "rain": {"n": 3, "correct": 2, "accuracy": pytest.approx(2 / 3)},
        "wind": {"n": 1, "correct": 1, "accuracy": 1.0},
    }
    assert [error["id"] for error in found["errors"]] == ["broken"]
    assert rows[3] == {
        "id": "both",
        "audio": "both.wav",
        "answers": ["rain", "wind"],
        "prediction": "rain",
        "text": None,
        "scores": [["rain", 1.0]],
        "correct": True,
    }


def test_source_is_null_when_not_given(manifest: Path) -> None:
    selection = select(manifest, task="digit", split="val")
    rows, seconds = run(selection, always("seven"))
    found = report(selection, rows, method="match", model="tiny", seconds=seconds)
    assert found["source"] is None
    assert (found["n"], found["accuracy"], found["labels"]) == (1, 1.0, ["seven"])
