"""onnxruntime against torch: the same numbers from the same weights, whatever the padding and the company."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.decoding import together
from pengi import weights
from pengi.config import LoraConfig
from pengi.decoding import DecodeOptions, SearchGroup, finish, generate, score_labels
from pengi.errors import ConfigError
from pengi.language_model import DecoderState, LanguageModel
from pengi.runtime import DEFAULT_RUNTIME, chosen_runtime
from pengi.runtime.decoder import OnnxLanguageModel
from pengi.runtime.llama import HEAD_FILE

FLOAT = 1e-4
"""Of hidden states where the inputs of products are not rounded."""
INT8 = 0.25
"""Of logits, which reach 7: with one block a row in the tiny model, inputs rounded to 8 bits show as in no other."""
LORA = LoraConfig(rank=2, alpha=4)


@pytest.fixture(scope="module")
def torch_model(four_bits: Path) -> LanguageModel:
    return LanguageModel.from_folder(four_bits)


@pytest.fixture
def onnx_model(four_bits: Path) -> OnnxLanguageModel:
    return OnnxLanguageModel.from_folder(four_bits)


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
    torch_model: LanguageModel, onnx_model: OnnxLanguageModel, side: str
) -> None:
    embeds_BTD, mask_BT = prefix(4, 7, 5, side=side)
    expected_BTD, expected = torch_model.prefill_hidden(embeds_BTD, mask_BT)
    hidden_BTD, state = onnx_model.prefill_hidden(embeds_BTD, mask_BT)
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=FLOAT)
    assert float(hidden_BTD[~mask_BT].abs().max()) == 0
    assert torch.equal(state.next_B, expected.next_B)
    logits_BV, _ = onnx_model.prefill(embeds_BTD, mask_BT)
    torch.testing.assert_close(logits_BV, torch_model.prefill(embeds_BTD, mask_BT)[0], rtol=0, atol=INT8)


@pytest.mark.parametrize("side", ["left", "right"])
def test_several_tokens_behind_a_cache_give_the_hidden_states_of_torch(
    torch_model: LanguageModel, onnx_model: OnnxLanguageModel, side: str
) -> None:
    _, expected = torch_model.prefill_hidden(*prefix(4, 7, 5))
    _, state = onnx_model.prefill_hidden(*prefix(4, 7, 5))
    for lengths in ((3, 5, 2), (30, 1, 40)):
        more_BTD, mask_BT = prefix(*lengths, side=side)
        expected_BTD, expected = torch_model.extend(more_BTD, mask_BT, expected)
        hidden_BTD, state = onnx_model.extend(more_BTD, mask_BT, state)
        torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=FLOAT)


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
    options = DecodeOptions(beams=2, max_tokens=6)
    expected = generate(torch_model, embeds_BTD, mask_BT, options)
    found = generate(onnx_model, embeds_BTD, mask_BT, options)
    assert [text[0].tokens for text in found] == [text[0].tokens for text in expected]
    labels = [torch_model.encode(text) for text in ("a dog", "a bell", "rain on a roof")]
    scores_BL = score_labels(onnx_model, *onnx_model.prefill(embeds_BTD, mask_BT), labels).total_BL
    expected_BL = score_labels(torch_model, *torch_model.prefill(embeds_BTD, mask_BT), labels).total_BL
    torch.testing.assert_close(scores_BL, expected_BL, rtol=0, atol=0.5)


def adapters() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "self_attn.q_proj": (32, 32),
        "self_attn.v_proj": (16, 32),
        "mlp.up_proj": (64, 32),
        "mlp.down_proj": (32, 64),
    }
    found = {}
    for name, (outputs, inputs) in sizes.items():
        path = f"model.model.layers.1.{name}"
        found[f"{path}.lora_A.default.weight"] = torch.randn(2, inputs, generator=generator)
        found[f"{path}.lora_B.default.weight"] = 0.1 * torch.randn(outputs, 2, generator=generator)
    return found


def test_adapters_change_what_they_change_in_torch_and_the_blocks_stay_exact(four_bits: Path) -> None:
    expected = LanguageModel.from_folder(four_bits)
    plain_BTD, _ = expected.prefill_hidden(*prefix(4, 7, 5))
    expected.merge_lora(LORA, adapters())
    model = OnnxLanguageModel.from_folder(four_bits, lora=LORA, adapters=adapters())
    embeds_BTD, mask_BT = prefix(4, 7, 5)
    expected_BTD, _ = expected.prefill_hidden(embeds_BTD, mask_BT)
    hidden_BTD, _ = model.prefill_hidden(embeds_BTD, mask_BT)
    assert float((expected_BTD - plain_BTD)[mask_BT].abs().max()) > 0.1
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=FLOAT)
    assert model.merged


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
    torch.testing.assert_close(hidden_BTD[mask_BT], expected_BTD[mask_BT], rtol=0, atol=0.1)


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


def test_another_family_is_refused_with_the_reason(four_bits: Path, tmp_path: Path) -> None:
    for file in four_bits.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "llama"', '"model_type": "gpt2"'))
    with pytest.raises(ConfigError, match="it is a 'gpt2', not a Llama"):
        OnnxLanguageModel.from_folder(tmp_path)
    with pytest.raises(ConfigError, match="does not compute in"):
        OnnxLanguageModel.from_folder(four_bits, dtype=torch.bfloat16)
