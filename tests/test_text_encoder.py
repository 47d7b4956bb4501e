"""Text encoders: pooling against a plain computation, invariances, the cache, and sense on real weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from helpers.official import write_tokenizers
from pengi import weights
from pengi.errors import WeightsError
from pengi.text_encoder import (
    BATCH,
    MAX_TOKENS,
    ClipTextEncoder,
    SentenceEncoder,
    text_encoder_from_folder,
)

MINILM = weights.cached("all-minilm-l6-v2")
TINY = SentenceEncoder.tiny()


def save(encoder: SentenceEncoder, folder: Path) -> Path:
    """In the layout of the published file, with the two keys that a sentence embedding does not use."""
    encoder.model.config.save_pretrained(folder)
    state = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    state |= {"pooler.dense.weight": torch.eye(32), "embeddings.position_ids": torch.arange(512)[None]}
    save_file(state, folder / "model.safetensors")
    encoder._tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_embedding_is_the_normalised_mean_over_tokens() -> None:
    text = "a dog barks"
    ids = TINY._tokenizer.encode(text).ids
    with torch.no_grad():
        outputs = TINY.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = outputs.mean(0) / outputs.mean(0).norm()
    torch.testing.assert_close(TINY.embed([text])[0], expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abc dz.?", max_size=60), min_size=1, max_size=5))
def test_a_text_embeds_the_same_alone_and_beside_others(texts: list[str]) -> None:
    together = SentenceEncoder.tiny().embed(texts)
    alone = torch.cat([SentenceEncoder.tiny().embed([text]) for text in texts])
    assert together.shape == (len(texts), TINY.dim)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(texts)))


def test_rows_keep_the_order_of_the_texts_over_several_batches() -> None:
    texts = [f"sound {index} {'x' * (index % 7)}" for index in range(BATCH + 10)]
    embeddings = SentenceEncoder.tiny().embed(texts)
    for index in (0, 5, BATCH - 1, BATCH, BATCH + 9):
        alone = SentenceEncoder.tiny().embed([texts[index]])[0]
        torch.testing.assert_close(embeddings[index], alone, rtol=0, atol=1e-6)


def test_each_text_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceEncoder.tiny()
    computed: list[str] = []
    forward = encoder._forward
    monkeypatch.setattr(encoder, "_forward", lambda texts: computed.extend(texts) or forward(texts))
    first = encoder.embed(["rain", "wind", "rain"])
    second = encoder.embed(["wind", "sea"])
    assert sorted(computed) == ["rain", "sea", "wind"]
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], second[0])


def test_the_oldest_embeddings_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pengi.text_encoder.MAX_CACHED_BYTES", 2 * 32 * 4)
    encoder = SentenceEncoder.tiny()
    encoder.embed(["one", "two"])
    encoder.embed(["one", "three"])
    assert [encoder._recent.get(text) is not None for text in ("one", "two", "three")] == [True, False, True]
    assert encoder.embed(["a", "b", "c", "d"]).shape == (4, 32)


def test_a_copy_gives_the_same_embeddings() -> None:
    encoder = SentenceEncoder.tiny()
    rain = encoder.embed(["rain"])
    assert torch.equal(copy.deepcopy(encoder).embed(["rain"]), rain)


def test_it_stays_frozen_and_in_evaluation_mode() -> None:
    encoder = SentenceEncoder.tiny()
    parent = torch.nn.Sequential(encoder).train()
    assert parent.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_embeddings_can_feed_something_that_is_trained() -> None:
    head = torch.nn.Linear(TINY.dim, 1)
    head(TINY.embed(["thunder"])).sum().backward()
    assert head.weight.grad is not None
    assert float(head.weight.grad.abs().sum()) > 0


def test_no_texts_and_empty_texts() -> None:
    assert TINY.embed([]).shape == (0, TINY.dim)
    assert torch.isfinite(TINY.embed([""])).all()


def test_long_texts_are_cut_at_the_models_limit() -> None:
    words = "wind " * MAX_TOKENS
    torch.testing.assert_close(TINY.embed([words])[0], TINY.embed([words + "and rain"])[0], rtol=0, atol=1e-6)


def test_tiny_is_seeded_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    same, other = SentenceEncoder.tiny(0), SentenceEncoder.tiny(1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(same.embed(["rain"]), TINY.embed(["rain"]))
    assert not torch.allclose(other.embed(["rain"]), TINY.embed(["rain"]))


def test_from_folder_reads_what_was_saved(tmp_path: Path) -> None:
    loaded = SentenceEncoder.from_folder(save(SentenceEncoder.tiny(5), tmp_path))
    texts = ["a siren", "a siren, far away, then rain"]
    torch.testing.assert_close(loaded.embed(texts), SentenceEncoder.tiny(5).embed(texts), rtol=0, atol=1e-6)


def test_from_folder_says_what_is_missing_or_wrong(tmp_path: Path) -> None:
    save(SentenceEncoder.tiny(), tmp_path)
    save_file({"embeddings.word_embeddings.weight": torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit its config\.json"):
        SentenceEncoder.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match=r"is not a sentence encoder: it has no tokenizer\.json"):
        SentenceEncoder.from_folder(tmp_path)


@pytest.mark.skipif(MINILM is None, reason="all-minilm-l6-v2 is not in the cache")
def test_real_embeddings_put_like_sounds_together() -> None:
    assert MINILM is not None
    encoder = SentenceEncoder.from_folder(MINILM)
    queries = ["dog barking", "rain on a tin roof", "an ambulance passes"]
    matches = ["a puppy barks", "heavy rainfall", "a siren wails in the street"]
    similarity = encoder.embed(queries) @ encoder.embed(matches).T
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.skipif(MINILM is None, reason="all-minilm-l6-v2 is not in the cache")
def test_real_embeddings_give_the_published_similarities() -> None:
    """The example shown with the model at the Hugging Face hub."""
    assert MINILM is not None
    source, *others = SentenceEncoder.from_folder(MINILM).embed(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    assert [float(source @ other) for other in others] == pytest.approx([0.695, 0.943, 0.257], abs=1e-3)


# --- CLIP's text tower ----------------------------------------------------------------------------------------------


def clip_folder(folder: Path, prefix: str = "") -> Path:
    """A tiny random tower with a stand-in tokenizer of 50 tokens."""
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=48,
        eos_token_id=49,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = CLIPTextModel(config).state_dict()
    tokenizers = write_tokenizers(folder / "tokenizers", gpt2=60, clip=50)
    (tokenizers / "clip-vit-base-patch16/tokenizer.json").rename(folder / "tokenizer.json")
    config.to_json_file(folder / "config.json")
    # The library starts with all zeros as biases; whatever they are, they must arrive.
    save_file(
        {f"{prefix}{name}": tensor + 0.1 if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        folder / "model.safetensors",
    )
    return folder


def test_clip_gives_its_output_at_the_end_token(tmp_path: Path) -> None:
    encoder = text_encoder_from_folder(clip_folder(tmp_path), max_tokens=40)
    assert isinstance(encoder, ClipTextEncoder)
    with torch.no_grad():
        whole = encoder.model(input_ids=torch.tensor([[48, 7, 3, 49]])).last_hidden_state
    torch.testing.assert_close(encoder.embed(["t7 t3"])[0], whole[0, 3], rtol=0, atol=1e-6)
    assert not torch.allclose(encoder.embed(["t7 t3"]).norm(), torch.ones(()))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_clip_gives_the_same_alone_and_beside_longer_texts(tmp_path: Path) -> None:
    clip_folder(tmp_path)
    texts = ["t7 t3", "t1", " ".join(f"t{index}" for index in range(1, 30))]
    together = ClipTextEncoder.from_folder(tmp_path, 40).embed(texts)
    alone = torch.cat([ClipTextEncoder.from_folder(tmp_path, 40).embed([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_clip_cuts_long_texts_before_their_end_token(tmp_path: Path) -> None:
    encoder = ClipTextEncoder.from_folder(clip_folder(tmp_path), max_tokens=6)
    long, cut = encoder.embed(["t1 t2 t3 t4 t5 t6 t7", "t1 t2 t3 t4"])
    torch.testing.assert_close(long, cut)


def test_clip_reads_the_names_of_the_hub(tmp_path: Path) -> None:
    own, hub = tmp_path / "own", tmp_path / "hub"
    own.mkdir()
    hub.mkdir()
    texts = ["t7 t3"]
    expected = text_encoder_from_folder(clip_folder(own), 40).embed(texts)
    assert torch.equal(text_encoder_from_folder(clip_folder(hub, prefix="text_model."), 40).embed(texts), expected)


def test_weights_of_another_tower_are_refused(tmp_path: Path) -> None:
    save_file({"embeddings.token_embedding.weight": torch.ones(2, 2)}, clip_folder(tmp_path) / "model.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit its config\.json"):
        text_encoder_from_folder(tmp_path, 40)


def test_the_kind_of_text_encoder_is_read_from_its_folder(tmp_path: Path) -> None:
    assert isinstance(text_encoder_from_folder(save(TINY, tmp_path), 40), SentenceEncoder)
