"""Tiny Llamas and GPT-2s in folders, for torch and for onnxruntime."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pengi import weights
from pengi.language_model import LanguageModel


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.HOME_ENV, str(tmp_path / "home"))


Q4_1, Q8_0 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0


@pytest.fixture(scope="session")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose matrices passed through 4-bit blocks, and its embeddings through 8-bit blocks."""
    tiny = LanguageModel.tiny()
    with torch.no_grad():
        for name, weight in tiny.model.named_parameters():
            if weight.ndim == 2:
                weight.copy_(in_blocks(weight, Q8_0 if "embed" in name or "lm_head" in name else Q4_1))
    return saved(tiny, tmp_path_factory.mktemp("four_bits"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 whose matrices passed through 8-bit blocks."""
    tiny = tiny_gpt2()
    with torch.no_grad():
        for name, weight in tiny.model.named_parameters():
            if "wte" in name:
                weight.copy_(in_blocks(weight, Q8_0))
            elif weight.ndim == 2 and "wpe" not in name:
                weight.copy_(in_blocks(weight.T, Q8_0).T)
    return saved(tiny, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session", params=["four_bits", "gpt2"])
def in_exact_blocks(request: pytest.FixtureRequest) -> Path:
    """A model of either architecture, whose blocks hold its matrices exactly."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="session")
def any_floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose matrices are in no blocks."""
    return saved(LanguageModel.tiny(seed=1), tmp_path_factory.mktemp("any_floats"))


def tiny_gpt2() -> LanguageModel:
    """A random GPT-2 whose biases, norms and positions are random, too."""
    tiny = LanguageModel.tiny()
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    ids = {"vocab_size": tiny.vocab_size, "bos_token_id": tiny.end_id, "eos_token_id": tiny.end_id}
    generator = torch.Generator().manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes, **ids))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1 if "ln_" in name and name.endswith("weight") else 0, 0.3, generator=generator)
    return LanguageModel(model, tiny.tokenizer, tiny.end_id)


def in_blocks(weight: Tensor, kind: gguf.GGMLQuantizationType) -> Tensor:
    values = gguf.quants.dequantize(gguf.quants.quantize(weight.contiguous().numpy(), kind), kind)
    return torch.from_numpy(np.asarray(values, np.float32))


def saved(model: LanguageModel, folder: Path) -> Path:
    model.model.save_pretrained(folder)
    model.tokenizer.save(str(folder / "tokenizer.json"))
    return folder
