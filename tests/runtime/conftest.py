"""Tiny Llamas in folders, for torch and for onnxruntime."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from pengi import weights
from pengi.language_model import LanguageModel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.HOME_ENV, str(tmp_path / "home"))


@pytest.fixture(scope="session")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose matrices passed through 4-bit blocks, and its embeddings through 8-bit blocks."""
    tiny = LanguageModel.tiny()
    with torch.no_grad():
        for name, weight in tiny.model.named_parameters():
            if weight.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0 if "embed" in name or "lm_head" in name else None
                kind = kind or gguf.GGMLQuantizationType.Q4_1
                values = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
                weight.copy_(torch.from_numpy(np.asarray(values, np.float32)))
    return saved(tiny, tmp_path_factory.mktemp("four_bits"))


@pytest.fixture(scope="session")
def any_floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose matrices are in no blocks."""
    return saved(LanguageModel.tiny(seed=1), tmp_path_factory.mktemp("any_floats"))


def saved(model: LanguageModel, folder: Path) -> Path:
    model.model.save_pretrained(folder)
    model.tokenizer.save(str(folder / "tokenizer.json"))
    return folder
