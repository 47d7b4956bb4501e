from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.errors import AudioError, InputError
from pengi.evaluation.baselines import YamnetMatch
from pengi.evaluation.benchmarks import Suite, task_benchmark
from pengi.evaluation.suites import RunProgress, SuiteRun, run_suite, score_run
from pengi.evaluation.systems import Systems
from pengi.evaluation.task_report import task_report
from pengi.text_encoder import SentenceEncoder

CLASSES = ("Dog", "Rain", "Siren")


@pytest.fixture(scope="module")
def tagger() -> YamnetTagger:
    torch.manual_seed(0)
    return YamnetTagger(YamnetEncoder.tiny(), CLASSES).eval().requires_grad_(False)


@pytest.fixture
def baseline(tagger: YamnetTagger) -> YamnetMatch:
    return YamnetMatch(tagger, SentenceEncoder.tiny())


def test_a_label_takes_the_class_of_its_own_name(baseline: YamnetMatch) -> None:
    assert baseline.nearest_classes(["siren", "dog"]) == [2, 0]


def test_the_label_with_the_highest_standardised_logit_is_chosen(
    tagger: YamnetTagger, baseline: YamnetMatch, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By raw logits it would be rain three times; standardised over the clips, each class is highest once."""
    logits = {"dog-1": (2.0, 5.0, 0.0), "rain-1": (1.0, 9.0, 0.1), "both": (1.0, 5.0, 0.4)}
    monkeypatch.setattr(baseline, "_logits", lambda path: torch.tensor(logits[path.stem]))
    files = [manifest.parent / f"{name}.wav" for name in logits]
    labels = ["dog", "rain", "siren"]
    chosen = [
        max(zip(scores, labels, strict=True))[1] for scores in baseline(files, labels) if isinstance(scores, tuple)
    ]
    assert chosen == labels


def test_a_class_with_equal_logits_scores_zero(
    baseline: YamnetMatch, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = {"dog-1": (2.0, 0.1, 0.0), "rain-1": (1.0, 0.1, 0.5)}
    monkeypatch.setattr(baseline, "_logits", lambda path: torch.tensor(logits[path.stem]))
    found = baseline([manifest.parent / f"{name}.wav" for name in logits], ["dog", "rain"])
    assert [scores[1] for scores in found if isinstance(scores, tuple)] == [0.0, 0.0]


def test_a_bad_recording_gives_its_error_and_the_rest_goes_on(baseline: YamnetMatch, manifest: Path) -> None:
    files = [manifest.parent / name for name in ("broken.wav", "dog-1.wav", "rain-1.wav")]
    found = baseline(files, ["dog", "rain"])
    assert isinstance(found[0], AudioError)
    assert all(isinstance(outcome, tuple) and len(outcome) == 2 for outcome in found[1:])
    with pytest.raises(InputError, match="at least two"):
        baseline(files[:2], ["dog", "rain"])


def test_stock_yamnet_on_real_recordings(shared_data: Path, tmp_path: Path) -> None:
    """Classes of ESC-50 that AudioSet has by nearly the same name are rarely missed."""
    chosen = ["siren", "rain", "laughter", "snoring", "church bells"]
    asked = task_benchmark("events", split="val", source="esc50-fold4", labels=chosen)
    plan = SuiteRun(
        Suite((asked,), limit=12, modes=("match",)), manifest=shared_data / "manifest.jsonl", baselines=False
    )
    run_suite(plan, Systems.of_tagger, tmp_path, RunProgress())
    found = task_report(tmp_path, score_run(tmp_path), "yamnet-match")
    assert (found["n"], found["model"], found["prompt"]) == (12, "yamnet", None)
    assert found["accuracy"] >= 0.75
    assert found["errors"] == []
