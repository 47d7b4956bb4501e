"""The language model: cache against full passes, padding, gradients, folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import CohereConfig, CohereForCausalLM, GPT2Config, GPT2LMHeadModel

from pengi.config import LoraConfig
from pengi.errors import ConfigError, WeightsError
from pengi.language_model import LanguageModel

TEXTS = ("This is a sound of a dog barking", "rain", "A person is speaking")


def tiny_gpt2() -> LanguageModel:
    """Learned positions, dropout and tied embeddings: what Llama does not have."""
    llama = LanguageModel.tiny()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=llama.vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
    )
    return LanguageModel(GPT2LMHeadModel(config), llama.tokenizer, llama.end_id)


@pytest.fixture(scope="module", params=["llama", "llama unfused", "gpt2"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    if request.param == "gpt2":
        return tiny_gpt2()
    llama = LanguageModel.tiny()
    if request.param == "llama unfused":
        llama.attend_unfused()
    return llama


def padded(lm: LanguageModel, texts: tuple[str, ...], side: str) -> tuple[Tensor, Tensor]:
    """Embeddings of ragged texts with loud noise at padding, and the mask."""
    rows = [lm.encode(text) for text in texts]
    width = max(map(len, rows))
    embeds_BTD = 5 * torch.randn(len(rows), width, lm.dim, generator=torch.Generator().manual_seed(0))
    mask_BT = torch.zeros(len(rows), width)
    for number, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        embeds_BTD[number, start : start + len(row)] = lm.embed(torch.tensor(row))
        mask_BT[number, start : start + len(row)] = 1
    return embeds_BTD, mask_BT


def full_logits(lm: LanguageModel, ids: list[int]) -> Tensor:
    """Logits [T, V] of an ordinary forward pass of the Hugging Face model on token ids."""
    with torch.no_grad():
        logits_TV: Tensor = lm.model(input_ids=torch.tensor([ids])).logits[0].float()
    return logits_TV


@pytest.mark.parametrize("side", ["left", "right"])
def test_cached_steps_on_a_padded_batch_equal_a_full_pass_per_row(lm: LanguageModel, side: str) -> None:
    first_BV, state = lm.prefill(*padded(lm, TEXTS, side))
    one_BTV, state = lm.step(torch.full((3, 1), 40), state)
    two_BTV, _ = lm.step(torch.tensor([[41, 42]] * 3), state)

    for row, text in enumerate(TEXTS):
        expected_TV = full_logits(lm, [*lm.encode(text), 40, 41, 42])[-4:]
        actual_TV = torch.cat([first_BV[row, None], one_BTV[row], two_BTV[row]])
        torch.testing.assert_close(actual_TV, expected_TV, rtol=1e-4, atol=1e-4)


def test_hidden_states_of_a_padded_batch_equal_those_of_a_full_pass(lm: LanguageModel) -> None:
    embeds_BTD, mask_BT = padded(lm, TEXTS, "left")
    logits_BTV = lm.logits(lm.hidden(embeds_BTD, mask_BT))
    for row, text in enumerate(TEXTS):
        actual_TV = logits_BTV[row][mask_BT[row].bool()]
        torch.testing.assert_close(actual_TV, full_logits(lm, lm.encode(text)), rtol=1e-4, atol=1e-4)


def test_no_mask_means_no_padding(lm: LanguageModel) -> None:
    embeds_BTD, mask_BT = padded(lm, TEXTS[:1], "left")
    torch.testing.assert_close(lm.hidden(embeds_BTD), lm.hidden(embeds_BTD, mask_BT))
    torch.testing.assert_close(lm.prefill(embeds_BTD)[0], lm.prefill(embeds_BTD, mask_BT)[0])


def test_selecting_repeats_and_moves_rows_and_leaves_the_state_usable(lm: LanguageModel) -> None:
    _, state = lm.prefill(*padded(lm, TEXTS, "left"))
    ids_BT = torch.tensor([[40], [41], [42]])
    before_BTV, _ = lm.step(ids_BT, state)
    rows = torch.tensor([2, 0, 0, 2, 1])
    selected_NTV, _ = lm.step(ids_BT[rows], lm.select(state, rows))
    again_BTV, _ = lm.step(ids_BT, state)

    torch.testing.assert_close(selected_NTV, before_BTV[rows], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again_BTV, before_BTV, rtol=0, atol=0)


def test_states_of_other_lengths_are_put_together_and_stay_usable(lm: LanguageModel) -> None:
    _, long = lm.prefill(*padded(lm, TEXTS, "left"))
    _, short = lm.prefill(*padded(lm, TEXTS[:1], "left"))
    ids_BT = torch.tensor([[40], [41], [42], [43]])
    expected_BTV = torch.cat([lm.step(ids_BT[:1], short)[0], lm.step(ids_BT[1:], long)[0]])
    for _ in range(2):
        both_BTV, following = lm.step(ids_BT, lm.concat([short, long]))
        torch.testing.assert_close(both_BTV, expected_BTV, rtol=1e-4, atol=1e-4)
    again_BTV, _ = lm.step(ids_BT, following)
    one_BTV, _ = lm.step(ids_BT[:1], lm.step(ids_BT[:1], short)[1])
    torch.testing.assert_close(again_BTV[:1], one_BTV, rtol=1e-4, atol=1e-4)


def test_rows_that_come_and_go_leave_no_padding_behind(lm: LanguageModel) -> None:
    _, joined = lm.prefill(*padded(lm, TEXTS, "left"))
    longest = joined.mask_BK.shape[1]
    for _ in range(8):
        _, joined = lm.step(torch.tensor([[40]] * len(joined.next_B)), joined)
        _, new = lm.prefill(*padded(lm, TEXTS, "left"))
        joined = lm.concat([lm.select(joined, torch.arange(1, len(joined.next_B))), new])
        joined = lm.select(joined, torch.arange(len(joined.next_B))[-4:])
        assert joined.mask_BK.shape[1] <= longest + 3


def test_gradients_reach_embeddings_and_no_parameter_nor_padding(lm: LanguageModel) -> None:
    embeds_BTD, mask_BT = padded(lm, TEXTS, "left")
    embeds_BTD.requires_grad_()
    lm.logits(lm.hidden(embeds_BTD, mask_BT)[:, -1]).logsumexp(dim=-1).sum().backward()

    assert embeds_BTD.grad is not None
    assert bool((embeds_BTD.grad[mask_BT.bool()].abs().sum(dim=-1) > 0).all())
    assert float(embeds_BTD.grad[~mask_BT.bool()].abs().max()) == 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in lm.parameters())


def test_gradients_through_a_shared_prefix_equal_those_of_joined_sequences(lm: LanguageModel) -> None:
    """Two texts of one clip, read after one copy of its prefix, against the same texts each behind its own copy."""
    prefix_BPD, prefix_mask_BP = padded(lm, TEXTS[:2], "left")
    texts_NTD, text_mask_NT = padded(lm, ("a dog", "wind and thunder", "a bell"), "right")
    clip_N = torch.tensor([0, 0, 1])
    shared_BPD = prefix_BPD.clone().requires_grad_()
    joined_BPD = prefix_BPD.clone().requires_grad_()

    _, state = lm.prefill_hidden(shared_BPD, prefix_mask_BP)
    shared_NTD, _ = lm.extend(texts_NTD, text_mask_NT, lm.select(state, clip_N))
    whole_NTD = lm.hidden(
        torch.cat([joined_BPD[clip_N], texts_NTD], dim=1), torch.cat([prefix_mask_BP[clip_N], text_mask_NT], dim=1)
    )[:, prefix_BPD.shape[1] :]
    real_NT = text_mask_NT.bool()
    torch.testing.assert_close(shared_NTD[real_NT], whole_NTD[real_NT], rtol=1e-4, atol=1e-4)

    weights_MD = torch.randn(whole_NTD[real_NT].shape, generator=torch.Generator().manual_seed(1))
    (shared_NTD[real_NT] * weights_MD).sum().backward()
    (whole_NTD[real_NT] * weights_MD).sum().backward()
    torch.testing.assert_close(shared_BPD.grad, joined_BPD.grad, rtol=1e-3, atol=1e-3)


def test_training_mode_brings_no_dropout() -> None:
    lm = tiny_gpt2()
    embeds_BTD, mask_BT = padded(lm, TEXTS, "left")
    expected_BTD = lm.hidden(embeds_BTD, mask_BT)
    torch.nn.ModuleList([lm]).train()
    assert not any(module.training for module in lm.modules())
    torch.testing.assert_close(lm.hidden(embeds_BTD, mask_BT), expected_BTD, rtol=0, atol=0)


def test_logits_of_any_leading_shape(lm: LanguageModel) -> None:
    hidden_BTD = torch.randn(3, 5, lm.dim)
    sliced_BTV = lm.logits(hidden_BTD[:, 1:4])
    assert sliced_BTV.shape == (3, 3, lm.vocab_size)
    torch.testing.assert_close(sliced_BTV[2, 1], lm.logits(hidden_BTD[2, 2]))
    assert lm.logits(hidden_BTD[:0]).shape == (0, 5, lm.vocab_size)


def save(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    lm.tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def edit_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_folder_gives_the_same_model_back_in_the_dtype_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    original = LanguageModel.tiny(seed=3)
    folder = save(original, tmp_path)
    capfd.readouterr()
    loaded = LanguageModel.from_folder(folder)
    assert capfd.readouterr().err == ""
    half = LanguageModel.from_folder(folder, dtype=torch.bfloat16)
    embeds_BTD, mask_BT = padded(original, TEXTS, "left")
    expected_BV, _ = original.prefill(embeds_BTD, mask_BT)

    assert (loaded.end_id, loaded.dim, loaded.vocab_size) == (original.end_id, 32, 302)
    assert loaded.encode(TEXTS[0]) == original.encode(TEXTS[0])
    torch.testing.assert_close(loaded.prefill(embeds_BTD, mask_BT)[0], expected_BV)
    half_BV, _ = half.prefill(embeds_BTD, mask_BT)
    assert half.embed(torch.tensor([[1]])).dtype == torch.bfloat16
    assert half_BV.dtype == torch.float32
    torch.testing.assert_close(half_BV, expected_BV, rtol=0.1, atol=0.3)


def test_the_first_of_several_end_tokens_is_the_end(tmp_path: Path) -> None:
    folder = save(LanguageModel.tiny(), tmp_path)
    edit_config(folder, eos_token_id=[7, 0])
    assert LanguageModel.from_folder(folder).end_id == 7


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save(LanguageModel.tiny(), tmp_path)
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        LanguageModel.from_folder(folder)


def test_a_model_without_an_end_token_is_refused(tmp_path: Path) -> None:
    folder = save(LanguageModel.tiny(), tmp_path)
    edit_config(folder, eos_token_id=None)
    with pytest.raises(WeightsError, match="end token"):
        LanguageModel.from_folder(folder)


def test_a_family_that_rescales_its_logits_is_refused(tmp_path: Path) -> None:
    tiny = LanguageModel.tiny()
    config = CohereConfig(
        vocab_size=tiny.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=tiny.end_id,
        initializer_range=0.3,
    )
    folder = save(LanguageModel(CohereForCausalLM(config), tiny.tokenizer, tiny.end_id), tmp_path)
    with pytest.raises(WeightsError, match="rescales"):
        LanguageModel.from_folder(folder)


def test_the_tiny_model_depends_on_its_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = LanguageModel.tiny(1), LanguageModel.tiny(1), LanguageModel.tiny(2)
    assert torch.equal(torch.rand(1), expected)
    ids_BT = torch.tensor([[5]])
    assert torch.equal(first.embed(ids_BT), second.embed(ids_BT))
    assert not torch.equal(first.embed(ids_BT), other.embed(ids_BT))


TINY = LanguageModel.tiny()


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    if "<|endoftext|>" not in text:
        assert TINY.decode([*TINY.encode(text), TINY.end_id]) == text
        assert TINY.end_id not in TINY.encode(text)


def test_smollm2_knows_english_from_embeddings_alone(smollm2: LanguageModel) -> None:
    prefixes = ("The capital of France is", "The opposite of hot is", "One, two, three,")
    logits_BV, _ = smollm2.prefill(*padded(smollm2, prefixes, "left"))
    words = [smollm2.decode([int(token)]) for token in logits_BV.argmax(dim=-1)]
    assert words == [" Paris", " cold", " four"]


def test_smollm2_ends_at_the_end_of_a_chat_turn(smollm2: LanguageModel) -> None:
    assert smollm2.tokenizer.id_to_token(smollm2.end_id) == "<|im_end|>"


LORA = LoraConfig(rank=2, alpha=4)
QUERY = "model.model.layers.0.self_attn.q_proj"
DOWN, UP = f"{QUERY}.lora_A.default.weight", f"{QUERY}.lora_B.default.weight"


def test_merged_adapters_change_the_weight_by_their_product() -> None:
    language_model = LanguageModel.tiny()
    before = language_model.get_parameter(f"{QUERY}.weight").clone()
    down, up = torch.randn(2, before.shape[1]), torch.randn(before.shape[0], 2)
    language_model.merge_lora(LORA, {DOWN: down, UP: up})
    torch.testing.assert_close(language_model.get_parameter(f"{QUERY}.weight"), before + 2.0 * up @ down)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ({}, "adapters of the language model are missing"),
        ({DOWN: torch.zeros(2, 32)}, "adapters of the language model are missing"),
        ({DOWN: torch.zeros(3, 32), UP: torch.zeros(32, 3)}, "is not of rank 2"),
        ({DOWN: torch.zeros(2, 31), UP: torch.zeros(32, 2)}, "does not fit a layer of shape"),
        ({DOWN: torch.full((2, 32), torch.nan), UP: torch.zeros(32, 2)}, "not finite"),
        (
            {"x.lora_A.default.weight": torch.zeros(2, 32), "x.lora_B.default.weight": torch.zeros(32, 2)},
            "no layer 'x'",
        ),
    ],
)
def test_adapters_that_do_not_fit(adapters: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LanguageModel.tiny().merge_lora(LORA, adapters)


def adapted(lora: LoraConfig) -> set[str]:
    """The linear layers of the tiny model that get adapters."""
    pytest.importorskip("peft", reason="LoRA needs peft (the extra 'train')")
    language_model = LanguageModel.tiny()
    language_model.add_lora(lora)
    names = {name for name, _ in language_model.model.named_parameters() if ".lora_A." in name}
    return {name.removeprefix("model.layers.").partition(".lora_A.")[0] for name in names}


def test_adapters_stand_in_the_top_layers_only_if_asked_for() -> None:
    every = adapted(LoraConfig())
    assert len(every) == 2 * 7
    assert adapted(LoraConfig(top_layers=2)) == every
    assert adapted(LoraConfig(top_layers=1)) == {name for name in every if name.startswith("1.")}
    with pytest.raises(ConfigError, match=r"lora\.top_layers is 3, and the language model has 2 layers"):
        adapted(LoraConfig(top_layers=3))


def test_an_end_token_that_a_tokenizer_lacks_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="the language model has no token '<fin>'"):
        LanguageModel.tiny().set_end("<fin>")
