"""The real language model in onnxruntime against torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pengi import weights
from pengi.language_model import LanguageModel
from pengi.runtime.decoder import OnnxLanguageModel

TEXTS = (
    "A recording of rain falling on a tin roof while thunder rolls in the",
    "Question: what animal is it? Answer: It is a dog, which barks at the",
)


FOLDER = weights.cached("smollm2-135m-instruct")  # before the tests here move the cache


@pytest.fixture
def folder() -> Path:
    if FOLDER is None:
        pytest.skip("the weights of smollm2-135m-instruct are not in the cache; 'pengi pull' fetches them")
    return FOLDER


def log_probs(model: LanguageModel) -> Tensor:
    """float32[B, T, V] of the texts' tokens from the sixth on, one step each."""
    rows = [model.encode(text) for text in TEXTS]
    ids_BT = torch.tensor([row[: min(map(len, rows))] for row in rows])
    logits_BV, state = model.prefill(model.embed(ids_BT[:, :5]))
    found = [logits_BV]
    for ids_B1 in ids_BT[:, 5:].split(1, dim=1):
        logits_B1V, state = model.step(ids_B1, state)
        found.append(logits_B1V[:, 0])
    return torch.stack(found, dim=1).log_softmax(-1)


def test_smollm2_diverges_from_torch_by_less_than_a_hundredth_of_a_nat(folder: Path) -> None:
    with torch.inference_mode():
        expected_BTV = log_probs(LanguageModel.from_folder(folder))
        found_BTV = log_probs(OnnxLanguageModel.from_folder(folder))
    divergence_BT = (expected_BTV.exp() * (expected_BTV - found_BTV)).sum(-1)
    assert float(divergence_BT[:, 0].max()) < 0.003  # behind the prefix, whose inputs are not rounded
    assert float(divergence_BT.mean()) < 0.01
