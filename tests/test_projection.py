"""The paper's projection: its formula, its length, and where a model puts it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from helpers import MAPPER, SENTENCE_TEXT, TRANSFORMER, model_values, noise, ragged, tiny_model
from pengi import checkpoint
from pengi.conditioning.pooling import masked_mean
from pengi.config import ModelConfig, ProjectionConfig
from pengi.errors import ConfigError
from pengi.projection import Projection

POOLED = {**TRANSFORMER, "input": "pooled"}
PROJECTION = {"width": 12}


def branch(**changes: object) -> dict[str, object]:
    return {"encoder": "yamnet-tiny-random", "projection": PROJECTION, "mapper": POOLED, **changes}


def test_formula() -> None:
    projection = Projection(ProjectionConfig(width=5), 3).eval()
    x = torch.randn(2, 3)
    first, second = projection.linear1.weight, projection.linear2.weight
    straight = x @ first.T
    expected = functional.layer_norm(straight + functional.gelu(straight) @ second.T, (5,))
    torch.testing.assert_close(projection.project(x), expected)
    torch.testing.assert_close(projection(x), expected / expected.norm(dim=-1, keepdim=True))
    assert not any(name.endswith("bias") and "norm" not in name for name, _ in projection.named_parameters())


def test_dropout_acts_in_training_only() -> None:
    projection = Projection(ProjectionConfig(width=64), 64)
    x = torch.randn(1, 64)
    assert not torch.equal(projection.train()(x), projection(x))
    assert torch.equal(projection.eval()(x), projection(x))


@torch.inference_mode()
def test_a_pooled_mapper_reads_the_projected_mean() -> None:
    model = tiny_model(audio={"yamnet": branch()})
    only = model.branches["yamnet"]
    tokens = only.tokens(only.encoder.features(*ragged([noise(2.0), noise(1.0)])))
    assert only.projection is not None
    expected = only.projection(masked_mean(*tokens))
    values, mask = only.embeddings(tokens)
    assert torch.equal(values[:, 0], expected)
    assert mask.tolist() == [[True], [True]]
    prefix, _ = only.prefix(tokens)
    assert torch.equal(prefix, only.mapper(expected[:, None], mask)[0])


@torch.inference_mode()
def test_a_sequence_mapper_reads_every_projected_token() -> None:
    model = tiny_model(audio={"yamnet": branch(mapper=MAPPER)})
    only = model.branches["yamnet"]
    tokens = only.tokens(only.encoder.features(*ragged([noise(2.0)])))
    values, mask = only.embeddings(tokens)
    assert values.shape == (*tokens[0].shape[:2], 12)
    torch.testing.assert_close(values.norm(dim=-1), torch.ones_like(values[..., 0]))
    assert torch.equal(mask, tokens[1])


@torch.inference_mode()
def test_a_projected_prompt_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    text = {**SENTENCE_TEXT, "projection": {"width": 12, "inner": 7}}
    model = tiny_model(audio={"yamnet": branch()}, text=text)
    prompts = ["this is a sound of", "rain?"]
    embeddings, mask = model.prompt_embeddings(prompts)
    assert embeddings.shape == (2, 1, 12)
    assert mask.all()
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2, 1))
    checkpoint.save(model, tmp_path, card="")
    assert torch.equal(checkpoint.load(tmp_path).text_prefix(prompts)[0], model.text_prefix(prompts)[0])


def test_a_text_projection_needs_a_text_encoder() -> None:
    text = {"projection": PROJECTION, "mapper": {"kind": "identity"}}
    with pytest.raises(ConfigError, match="needs a text encoder"):
        checkpoint.create(ModelConfig.parse(model_values(text=text), "test"))


def test_a_padded_prompt_is_read_whole() -> None:
    text = {"max_tokens": 9, "suffix": "!", "pad_token": 0, "mapper": {"kind": "identity"}}
    model = tiny_model(text=text)
    lm = model.language_model
    ids = lm.encode("dog!")
    assert model.prompt_ids("dog") == ids + [0] * (9 - len(ids))
    embeddings, mask = model.prompt_embeddings(["dog", "rain falling on the street, and a dog is barking"])
    assert mask.shape == (2, 9)
    assert mask.all()
    assert torch.equal(embeddings[0], lm.embed(torch.tensor(model.prompt_ids("dog"))))
