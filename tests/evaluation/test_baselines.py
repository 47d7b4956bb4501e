from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.errors import AudioError, InputError
from pengi.evaluation.baselines import YamnetMatch, mean_logit, mean_odds
from pengi.evaluation.runner import Prediction, report, run, select
from pengi.text_encoder import SentenceEncoder

CLASSES = ("Dog", "Rain", "Siren")


def ignore(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def tagger() -> YamnetTagger:
    torch.manual_seed(0)
    return YamnetTagger(YamnetEncoder.tiny(), CLASSES).eval().requires_grad_(False)


@pytest.fixture
def baseline(tagger: YamnetTagger) -> YamnetMatch:
    return YamnetMatch(tagger, SentenceEncoder.tiny())


def test_pools_by_hand() -> None:
    logits_TC = torch.tensor([[0.0, 2.0], [torch.log(torch.tensor(3.0)), 2.0]])
    assert torch.allclose(mean_odds(logits_TC), torch.tensor([2.0, torch.e**2]).log())
    assert torch.allclose(mean_logit(logits_TC), torch.tensor([0.549306, 2.0]))


def test_pools_do_not_depend_on_length() -> None:
    logits_TC = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    for pool in (mean_odds, mean_logit):
        assert torch.allclose(pool(logits_TC), pool(logits_TC.repeat(5, 1)), atol=1e-6)


def test_a_label_takes_the_class_of_its_own_name(baseline: YamnetMatch) -> None:
    assert baseline.nearest_classes(["siren", "dog"]) == [2, 0]


def test_standardised_logits_compete(
    tagger: YamnetTagger, baseline: YamnetMatch, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raw logits would say rain three times; over the clips, each class is highest once."""
    logits = {"dog-1": (2.0, 5.0, 0.0), "rain-1": (1.0, 9.0, 0.1), "both": (1.0, 5.0, 0.4)}
    monkeypatch.setattr(baseline, "_logits", lambda path: torch.tensor(logits[path.stem]))
    files = [manifest.parent / f"{name}.wav" for name in logits]
    found = baseline(files, ["dog", "rain", "siren"], ignore)
    assert [outcome.label for outcome in found if isinstance(outcome, Prediction)] == ["dog", "rain", "siren"]


def test_a_bad_recording_gives_its_error_and_the_rest_goes_on(baseline: YamnetMatch, manifest: Path) -> None:
    finished: list[int] = []
    files = [manifest.parent / name for name in ("broken.wav", "dog-1.wav", "rain-1.wav")]
    found = baseline(files, ["dog", "rain"], finished.append)
    assert isinstance(found[0], AudioError)
    assert all(isinstance(outcome, Prediction) for outcome in found[1:])
    assert sum(finished) == 3
    with pytest.raises(InputError, match="at least two"):
        baseline(files[:2], ["dog", "rain"], ignore)


def test_stock_yamnet_on_real_recordings(shared_data: Path) -> None:
    """Classes of ESC-50 that AudioSet has by nearly the same name are rarely missed."""
    chosen = ["siren", "rain", "laughter", "snoring", "church bells"]
    selection = select(
        shared_data / "manifest.jsonl", task="events", split="val", source="esc50-fold4", labels=chosen, limit=12
    )
    rows, seconds = run(selection, YamnetMatch.from_pretrained())
    found = report(selection, rows, method="yamnet-match", model="yamnet", seconds=seconds)
    assert found["n"] == 12
    assert found["accuracy"] >= 0.75
    assert found["errors"] == []
