"""What runs the language model of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import tiny_model
from pengi import checkpoint, weights
from pengi.errors import CheckpointError, ConfigError, WeightsError
from pengi.language_model import LanguageModel
from pengi.runtime import store
from pengi.runtime.decoder import OnnxLanguageModel
from pengi.runtime.graph import build


def stored(language_model: Path, folder: Path, **language_model_options: object) -> Path:
    """A checkpoint whose language model is in a folder."""
    values = {"name": str(language_model), "target_tokens": 20, **language_model_options}
    model = tiny_model(language_model=values)
    with torch.no_grad():
        for value in checkpoint.stored_tensors(model).values():
            value.add_(0.02)
    checkpoint.save(model, folder, card="")
    return folder


def test_onnxruntime_runs_a_llama_or_gpt2_where_it_is_left_to_choose(in_exact_blocks: Path, tmp_path: Path) -> None:
    folder = stored(in_exact_blocks, tmp_path / "model")
    assert isinstance(checkpoint.load(folder, runtime="auto").language_model, OnnxLanguageModel)
    assert type(checkpoint.load(folder, runtime="torch").language_model) is LanguageModel
    assert type(checkpoint.load(folder, runtime="auto", to_train=True).language_model) is LanguageModel
    assert type(checkpoint.load(folder, torch.bfloat16, runtime="auto").language_model) is LanguageModel


def test_another_family_runs_in_torch_and_onnxruntime_cannot_be_forced_on_it(
    four_bits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored(four_bits, tmp_path / "model")
    for module in ("pengi.checkpoint", "pengi.runtime.decoder"):
        monkeypatch.setattr(f"{module}.unsupported", lambda path: "it is a 'opt', neither a Llama nor a GPT-2")
    assert type(checkpoint.load(folder, runtime="auto").language_model) is LanguageModel
    with pytest.raises(ConfigError, match="it is a 'opt', neither a Llama nor a GPT-2"):
        checkpoint.load(folder, runtime="onnx")


def test_a_cache_that_cannot_be_written_leaves_the_language_model_in_torch(
    four_bits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stored(four_bits, tmp_path / "model")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(weights.HOME_ENV, str(tmp_path / "file"))
    assert type(checkpoint.load(folder, runtime="auto").language_model) is LanguageModel
    assert "the language model runs in torch, which is slower" in caplog.text
    with pytest.raises(WeightsError, match="set PENGI_HOME to another folder"):
        checkpoint.load(folder, runtime="onnx")


def test_a_checkpoints_adapters_are_part_of_either(four_bits: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    folder = stored(four_bits, tmp_path / "model", lora={"rank": 2, "alpha": 4, "top_layers": 1})
    embeds_BTD = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    plain = LanguageModel.from_folder(four_bits)
    in_torch, in_onnx = (checkpoint.load(folder, runtime=name).language_model for name in ("torch", "onnx"))
    with torch.inference_mode():
        expected_BTD, found_BTD = in_torch.hidden(embeds_BTD), in_onnx.hidden(embeds_BTD)
        assert float((expected_BTD - plain.hidden(embeds_BTD)).abs().max()) > 0.01
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=0, atol=1e-4)
    model = checkpoint.load(folder, runtime="onnx")
    with pytest.raises(CheckpointError, match="adapters are merged"):
        checkpoint.save(model, tmp_path / "again", card="")


def test_graphs_that_are_cut_off_while_they_are_built_are_not_used(
    four_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        build(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr("pengi.runtime.graph.build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        OnnxLanguageModel.from_folder(four_bits)
    assert list(weights.cache_folder().iterdir()) == []


def test_graphs_that_were_not_used_for_longest_are_deleted(four_bits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_GRAPHS", 2)
    others = [{"model.layers.0.self_attn.q_proj": (np.full((2, 32), n, "f4"), np.ones((32, 2), "f4"))} for n in (1, 2)]
    first, second = (store.built(four_bits, adapters) for adapters in ({}, others[0]))
    os.utime(second, (0, 0))
    third = store.built(four_bits, others[1])
    assert {folder.name for folder in weights.cache_folder().iterdir()} == {first.name, third.name}
    assert store.built(four_bits, {}) == first
