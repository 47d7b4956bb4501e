"""onnxruntime against torch: the same numbers from the same weights, whatever the padding and the company."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.decoding import together
from pengi import weights
from pengi.config import LoraConfig
from pengi.decoding import DecodeOptions, SearchGroup, finish, generate, score_labels
from pengi.errors import ConfigError
from pengi.language_model import DecoderState, LanguageModel
from pengi.runtime import DEFAULT_RUNTIME, chosen_runtime
from pengi.runtime.architecture import HEAD_FILE
from pengi.runtime.decoder import OnnxLanguageModel

FLOAT = 1e-4
"""Of hidden states where the inputs of products are not rounded."""
INT8 = 0.25
"""Of logits, which reach 7: with one block a row in the tiny model, inputs rounded to 8 bits show as in no other."""
LORA = LoraConfig(rank=2, alpha=4)


@pytest.fixture(scope="module")
def torch_model(in_exact_blocks: Path) -> LanguageModel:
    return LanguageModel.from_folder(in_exact_blocks)


@pytest.fixture
def onnx_model(in_exact_blocks: Path) -> OnnxLanguageModel:
    return OnnxLanguageModel.from_folder(in_exact_blocks)


@pytest.fixture
def tolerance(in_exact_blocks: Path) -> float:
    """Of hidden states; with 8-bit blocks the inputs of all products are rounded."""
    return INT8 if in_exact_blocks.name.startswith("gpt2") else FLOAT


def prefix(*lengths: int, side: str = "left") -> tuple[Tensor, Tensor]:
    """Random rows of so many real embeddings each, with noise at padding."""
    width = max(lengths)
    generator = torch.Generator().manual_seed(width)
    embeds_BTD = torch.randn(len(lengths), width, 32, generator=generator)
    index_T = torch.arange(width)
    lengths_B1 = torch.tensor(lengths)[:, None]
    return embeds_BTD, index_T >= width - lengths_B1 if side == "left" else index_T < lengths_B1


def tokens(rows: int, count: int) -> Tensor:
    return torch.randint(0, 250, (rows, count), generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_prefix_gives_the_hidden_states_of_torch(
    torch_model: LanguageModel, onnx_model: OnnxLanguageModel, tolerance: float, side: str
) -> None:
    embeds_BTD, mask_BT = prefix(4, 7, 5, side=side)
    expected_BTD, expected = torch_model.prefill_hidden(embeds_BTD, mask_BT)
    hidden_BTD, state = onnx_model.prefill_hidden(embeds_BTD, mask_BT)
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=tolerance)
    assert float(hidden_BTD[~mask_BT].abs().max()) == 0
    assert torch.equal(state.next_B, expected.next_B)
    logits_BV, _ = onnx_model.prefill(embeds_BTD, mask_BT)
    torch.testing.assert_close(logits_BV, torch_model.prefill(embeds_BTD, mask_BT)[0], rtol=0, atol=INT8)


@pytest.mark.parametrize("side", ["left", "right"])
def test_several_tokens_behind_a_cache_give_the_hidden_states_of_torch(
    torch_model: LanguageModel, onnx_model: OnnxLanguageModel, tolerance: float, side: str
) -> None:
    _, expected = torch_model.prefill_hidden(*prefix(4, 7, 5))
    _, state = onnx_model.prefill_hidden(*prefix(4, 7, 5))
    for lengths in ((3, 5, 2), (30, 1, 40)):
        more_BTD, mask_BT = prefix(*lengths, side=side)
        expected_BTD, expected = torch_model.extend(more_BTD, mask_BT, expected)
        hidden_BTD, state = onnx_model.extend(more_BTD, mask_BT, state)
        torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=tolerance)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_gpt2_whose_inputs_are_not_rounded_gives_the_numbers_of_torch(
    gpt2: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setattr("pengi.runtime.graph._INT8_INPUTS", 0)
    models = LanguageModel.from_folder(gpt2), OnnxLanguageModel.from_folder(gpt2)
    (more_BTD, more_BT), ids_B1 = prefix(3, 5, 2, side=side), tokens(3, 1)
    found = []
    for model in models:
        logits_BV, state = model.prefill(*prefix(4, 7, 5, side=side))
        logits_B1V, state = model.step(ids_B1, state)
        hidden_BTD, state = model.extend(more_BTD, more_BT, state)
        state = model.select(state, torch.tensor([2, 0, 0, 1]))
        last_B1V, _ = model.step(ids_B1[[2, 0, 0, 1]], state)
        found.append((logits_BV, logits_B1V, hidden_BTD[more_BT], last_B1V))
    for expected, values in zip(*found, strict=True):
        torch.testing.assert_close(values, expected, rtol=0, atol=10 * FLOAT)


def test_steps_choose_the_tokens_of_torch(torch_model: LanguageModel, onnx_model: OnnxLanguageModel) -> None:
    logits_BV, state = onnx_model.prefill(*prefix(4, 7, 5))
    _, expected = torch_model.prefill(*prefix(4, 7, 5))
    for _ in range(40):
        ids_B1 = logits_BV.argmax(-1, keepdim=True)
        expected_B1V, expected = torch_model.step(ids_B1, expected)
        logits_B1V, state = onnx_model.step(ids_B1, state)
        torch.testing.assert_close(logits_B1V, expected_B1V, rtol=0, atol=4 * INT8)
        logits_BV = logits_B1V[:, 0]


def test_a_row_gives_the_same_bits_alone_and_in_a_batch(onnx_model: OnnxLanguageModel) -> None:
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    logits_BV, state = onnx_model.prefill(embeds_BTD, mask_BT)
    for row in range(3):
        real_1TD = embeds_BTD[row][mask_BT[row]][None]
        alone_1V, alone = onnx_model.prefill(real_1TD, torch.ones(real_1TD.shape[:2]))
        assert torch.equal(alone_1V[0], logits_BV[row])
        together = state
        for ids_B1 in tokens(3, 4).split(1, dim=1):
            logits_B1V, together = onnx_model.step(ids_B1, together)
            alone_11V, alone = onnx_model.step(ids_B1[row : row + 1], alone)
            assert torch.equal(alone_11V[0], logits_B1V[row])


def test_a_row_that_is_extended_gives_the_same_bits_alone_and_in_a_batch(onnx_model: OnnxLanguageModel) -> None:
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    _, together = onnx_model.prefill(embeds_BTD, mask_BT)
    _, alone = onnx_model.prefill(embeds_BTD[:1, 3:], mask_BT[:1, 3:])
    more_BTD, more_BT = prefix(6, 3, 5)
    _, together = onnx_model.extend(more_BTD, more_BT, together)
    _, alone = onnx_model.extend(more_BTD[:1], more_BT[:1], alone)
    ids_B1 = tokens(3, 1)
    for _ in range(2):
        logits_B1V, together = onnx_model.step(ids_B1, together)
        alone_11V, alone = onnx_model.step(ids_B1[:1], alone)
        torch.testing.assert_close(alone_11V[0], logits_B1V[0], rtol=0, atol=FLOAT)


def test_no_call_changes_a_state_it_was_given(onnx_model: OnnxLanguageModel) -> None:
    _, state = onnx_model.prefill(*prefix(4, 7, 5))
    ids_B1 = tokens(3, 1)
    first_BTV, following = onnx_model.step(ids_B1, state)
    second_BTV, _ = onnx_model.step(ids_B1 + 1, state)
    further_BTV, _ = onnx_model.step(ids_B1, following)
    onnx_model.extend(*prefix(3, 2, 3), state)
    assert torch.equal(onnx_model.step(ids_B1, state)[0], first_BTV)
    assert torch.equal(onnx_model.step(ids_B1 + 1, state)[0], second_BTV)
    assert torch.equal(onnx_model.step(ids_B1, following)[0], further_BTV)


def test_a_state_goes_on_outside_the_inference_mode_it_was_made_in(onnx_model: OnnxLanguageModel) -> None:
    ids_B1 = tokens(1, 1)
    with torch.inference_mode():
        _, state = onnx_model.prefill(*prefix(4))
    logits_BTV, state = onnx_model.step(ids_B1, state)
    onnx_model.extend(*prefix(3), state)
    assert torch.equal(onnx_model.step(ids_B1, onnx_model.prefill(*prefix(4))[1])[0], logits_BTV)


def test_rows_are_dropped_moved_and_repeated(onnx_model: OnnxLanguageModel) -> None:
    _, state = onnx_model.prefill(*prefix(4, 7, 5))
    ids_B1 = tokens(3, 1)
    all_BTV, _ = onnx_model.step(ids_B1, state)
    for rows in ([2, 0, 0, 1], [1], [2, 2]):
        index_N = torch.tensor(rows)
        logits_NTV, _ = onnx_model.step(ids_B1[index_N], onnx_model.select(state, index_N))
        assert torch.equal(logits_NTV, all_BTV[index_N])


def test_searches_that_join_a_batch_give_the_bits_that_they_give_alone(onnx_model: OnnxLanguageModel) -> None:
    searches = [
        (0, (4, 7), DecodeOptions(beams=1, max_tokens=40)),
        (1, (30,), DecodeOptions(beams=3, max_tokens=12)),
        (3, (1,), DecodeOptions(beams=1, max_tokens=9)),
        (3, (5, 2), DecodeOptions(beams=2, max_tokens=9, temperature=1.0, seed=1)),
        (45, (9,), DecodeOptions(beams=1, max_tokens=5)),
    ]

    def group(lengths: tuple[int, ...], options: DecodeOptions) -> SearchGroup[DecoderState]:
        return SearchGroup(onnx_model, *onnx_model.prefill(*prefix(*lengths)), options, stop_ids=[])

    alone = [finish(group(*search)) for _, *search in searches]
    assert together(onnx_model, [(at, partial(group, *search)) for at, *search in searches]) == alone


def test_searches_and_label_scores_are_those_of_torch(
    torch_model: LanguageModel, onnx_model: OnnxLanguageModel
) -> None:
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    for options in (DecodeOptions(beams=1, max_tokens=6), DecodeOptions(beams=2, max_tokens=6)):
        expected = generate(torch_model, embeds_BTD, mask_BT, options)
        found = generate(onnx_model, embeds_BTD, mask_BT, options)
        assert [text[0].tokens for text in found] == [text[0].tokens for text in expected]
    labels = [torch_model.encode(text) for text in ("a dog", "a bell", "rain on a roof")]
    scores_BL = score_labels(onnx_model, *onnx_model.prefill(embeds_BTD, mask_BT), labels).total_BL
    expected_BL = score_labels(torch_model, *torch_model.prefill(embeds_BTD, mask_BT), labels).total_BL
    torch.testing.assert_close(scores_BL, expected_BL, rtol=0, atol=0.5)


LLAMA_LAYERS = {
    "model.layers.1.self_attn.q_proj": (32, 32),
    "model.layers.1.self_attn.v_proj": (16, 32),
    "model.layers.1.mlp.up_proj": (64, 32),
    "model.layers.1.mlp.down_proj": (32, 64),
}
GPT2_LAYERS = {"transformer.h.1.attn.c_attn": (96, 32), "transformer.h.1.mlp.c_proj": (32, 128)}


def adapters(sizes: dict[str, tuple[int, int]] = LLAMA_LAYERS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (outputs, inputs) in sizes.items():
        found[f"model.{name}.lora_A.default.weight"] = torch.randn(2, inputs, generator=generator)
        found[f"model.{name}.lora_B.default.weight"] = 0.1 * torch.randn(outputs, 2, generator=generator)
    return found


@pytest.mark.parametrize(("model", "layers"), [("four_bits", LLAMA_LAYERS), ("gpt2", GPT2_LAYERS)])
def test_adapters_change_what_they_change_in_torch_and_the_blocks_stay_exact(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, model: str, layers: dict[str, tuple[int, int]]
) -> None:
    monkeypatch.setattr("pengi.runtime.graph._INT8_INPUTS", 0)
    folder = request.getfixturevalue(model)
    expected = LanguageModel.from_folder(folder)
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    plain_BTD, _ = expected.prefill_hidden(embeds_BTD, mask_BT)
    expected.merge_lora(LORA, adapters(layers))
    adapted = OnnxLanguageModel.from_folder(folder, lora=LORA, adapters=adapters(layers))
    expected_BTD, _ = expected.prefill_hidden(embeds_BTD, mask_BT)
    hidden_BTD, _ = adapted.prefill_hidden(embeds_BTD, mask_BT)
    assert float((expected_BTD - plain_BTD)[mask_BT].abs().max()) > 0.1
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=FLOAT)
    assert adapted.merged


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "adapters of the language model are missing"),
        (
            {"x.lora_A.default.weight": torch.zeros(2, 32), "x.lora_B.default.weight": torch.zeros(32, 2)},
            "no layer 'x'",
        ),
    ],
)
def test_adapters_that_do_not_fit(four_bits: Path, changed: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OnnxLanguageModel.from_folder(four_bits, lora=LORA, adapters=changed)


def test_matrices_that_are_in_no_blocks_are_rounded_to_eight_bits(any_floats: Path) -> None:
    expected, model = LanguageModel.from_folder(any_floats), OnnxLanguageModel.from_folder(any_floats)
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    expected_BTD, _ = expected.prefill_hidden(embeds_BTD, mask_BT)
    hidden_BTD, _ = model.prefill_hidden(embeds_BTD, mask_BT)
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=INT8)


def test_graphs_are_built_once_and_built_again_if_damaged(four_bits: Path, caplog: pytest.LogCaptureFixture) -> None:
    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in weights.cache_folder().rglob("*.onnx")}

    expected_BTV, _ = OnnxLanguageModel.from_folder(four_bits).prefill(*prefix(4, 7, 5))
    built = files()
    assert len(built) == 4
    OnnxLanguageModel.from_folder(four_bits)
    assert files() == built
    head = next(file for file in built if file.name == HEAD_FILE)
    head.write_bytes(head.read_bytes()[:-9])
    logits_BTV, _ = OnnxLanguageModel.from_folder(four_bits).prefill(*prefix(4, 7, 5))
    assert "is damaged" in caplog.text
    assert torch.equal(logits_BTV, expected_BTV)


def test_other_adapters_and_other_weights_have_graphs_of_their_own(four_bits: Path, any_floats: Path) -> None:
    OnnxLanguageModel.from_folder(four_bits)
    OnnxLanguageModel.from_folder(four_bits, lora=LORA, adapters=adapters())
    OnnxLanguageModel.from_folder(any_floats)
    assert len(list(weights.cache_folder().glob("decoder-*"))) == 3


def test_the_runtime_is_given_or_in_the_environment_and_off_the_cpu_it_is_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("PENGI_RUNTIME", raising=False)
    assert chosen_runtime(None, cpu) == DEFAULT_RUNTIME
    monkeypatch.setenv("PENGI_RUNTIME", "torch")
    assert chosen_runtime(None, cpu) == "torch"
    assert chosen_runtime("onnx", cpu) == "onnx"
    assert chosen_runtime("auto", cuda) == "torch"
    with pytest.raises(ConfigError, match="on the CPU only"):
        chosen_runtime("onnx", cuda)
    with pytest.raises(ConfigError, match="there is no runtime 'ort'"):
        chosen_runtime("ort", cpu)


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        ("four_bits", {"model_type": "opt"}, "it is a 'opt', neither a Llama nor a GPT-2"),
        ("four_bits", {"attention_bias": True}, "its layers have biases"),
        ("gpt2", {"activation_function": "relu"}, "another activation than GELU"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attention scores are scaled in another way"),
        ("gpt2", {"n_head": 4}, "the size of its heads is not one of 16"),
    ],
)
def test_a_model_that_computes_otherwise_is_refused_with_the_reason(
    request: pytest.FixtureRequest, tmp_path: Path, model: str, values: dict[str, object], message: str
) -> None:
    shutil.copytree(request.getfixturevalue(model), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(ConfigError, match=message):
        OnnxLanguageModel.from_folder(tmp_path)


def test_onnxruntime_computes_in_float32_only(four_bits: Path) -> None:
    with pytest.raises(ConfigError, match="does not compute in"):
        OnnxLanguageModel.from_folder(four_bits, dtype=torch.bfloat16)


def test_a_file_without_the_head_has_other_names_and_the_same_tensors(gpt2: Path, tmp_path: Path) -> None:
    shutil.copytree(gpt2, tmp_path, dirs_exist_ok=True)
    tensors = load_file(gpt2 / "model.safetensors")
    save_file(
        {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors"
    )
    found, expected = (OnnxLanguageModel.from_folder(folder).prefill(*prefix(4, 7)) for folder in (tmp_path, gpt2))
    assert torch.equal(found[0], expected[0])
