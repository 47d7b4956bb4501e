"""Mapping networks: shapes, masks, what is learned, and the paper's form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from pengi.conditioning.mapper import Mapper, build_mapper, sinusoids
from pengi.conditioning.pooling import log_mean_exp, masked_mean
from pengi.config import IdentityMapperConfig, MapperConfig, TransformerMapperConfig
from pengi.errors import ConfigError

INPUT, OUTPUT = 12, 16
FORMS: dict[str, dict[str, Any]] = {
    "transformer": {"kind": "transformer", "constants": 5, "layers": 2, "heads": 4},
    "transformer narrow": {"kind": "transformer", "constants": 5, "layers": 1, "heads": 2, "width": 8},
    "transformer positions": {"kind": "transformer", "constants": 5, "layers": 1, "heads": 4, "positions": True},
    "transformer pooled": {"kind": "transformer", "tokens": 4, "constants": 6, "layers": 1, "input": "pooled"},
    "transformer default constants": {"kind": "transformer", "tokens": 4, "layers": 1, "input": "pooled"},
}
LENGTHS = {  # prefix embeddings made of 7 tokens
    "transformer": 5, "transformer narrow": 5, "transformer positions": 5, "transformer pooled": 6,
    "transformer default constants": 4,
}  # fmt: skip


def mapper(form: str) -> Mapper:
    torch.manual_seed(0)
    return build_mapper(TransformerMapperConfig(**FORMS[form]), INPUT, OUTPUT).eval()


def prefix_rows(built: Mapper, tokens: Tensor, mask: Tensor) -> list[Tensor]:
    """Each row's real prefix embeddings."""
    prefix, real = built(tokens, mask)
    return [row[kept] for row, kept in zip(prefix, real, strict=True)]


@pytest.mark.parametrize("form", FORMS)
def test_shapes(form: str) -> None:
    prefix, mask = mapper(form)(torch.randn(3, 7, INPUT), torch.ones(3, 7, dtype=torch.bool))
    assert prefix.shape == (3, LENGTHS[form], OUTPUT)
    assert mask.shape == prefix.shape[:2]
    assert mask.dtype == torch.bool
    assert mask.all()


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(FORMS)), st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_padding_never_changes_what_a_row_gives(form: str, lengths: list[int], extra: int) -> None:
    """Neither what stands at padded places nor how many there are."""
    built = mapper(form)
    width = max(lengths) + extra
    tokens = torch.randn(len(lengths), width, INPUT)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    together = prefix_rows(built, tokens, mask)
    other = prefix_rows(built, torch.where(mask[..., None], tokens, torch.tensor(1e4)), mask)
    for row, length in enumerate(lengths):
        alone = prefix_rows(built, tokens[row : row + 1, :length], mask[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(other[row], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_real_tokens_matter_and_hidden_ones_do_not(form: str) -> None:
    built = mapper(form)
    tokens = torch.randn(1, 4, INPUT)
    mask = torch.tensor([[True, True, False, True]])
    before = prefix_rows(built, tokens, mask)[0]
    for index in range(4):
        changed = tokens.clone()
        changed[0, index] += torch.randn(INPUT)
        same = torch.allclose(prefix_rows(built, changed, mask)[0], before, atol=1e-6)
        assert same == (index == 2)


@pytest.mark.parametrize("form", FORMS)
def test_everything_learns(form: str) -> None:
    built = mapper(form)
    tokens = torch.randn(2, 5, INPUT, requires_grad=True)
    prefix, _ = built(tokens, torch.ones(2, 5, dtype=torch.bool))
    (prefix * torch.randn_like(prefix)).sum().backward()
    learned = {name: value for name, value in built.named_parameters() if value.requires_grad}
    assert [name for name, value in learned.items() if value.grad is None or not value.grad.any()] == []
    assert all(value.requires_grad for value in built.parameters())
    assert tokens.grad is not None
    assert tokens.grad.any()


def test_identity_passes_embeddings_on_behind_its_constants() -> None:
    built = build_mapper(IdentityMapperConfig(kind="identity", constants=2), OUTPUT, OUTPUT)
    tokens, mask = torch.randn(2, 3, OUTPUT), torch.tensor([[True, True, True], [True, False, False]])
    prefix, real = built(tokens, mask)
    assert torch.equal(prefix[0, :2], prefix[1, :2])
    assert torch.equal(prefix[:, 2:], tokens)
    assert real.tolist() == [[True] * 5, [True, True, True, False, False]]


def test_only_positions_tell_the_order_of_tokens() -> None:
    tokens, mask = torch.randn(1, 5, INPUT), torch.ones(1, 5, dtype=torch.bool)
    for form, ordered in (("transformer", False), ("transformer positions", True), ("transformer pooled", False)):
        built = mapper(form)
        same = torch.allclose(built(tokens, mask)[0], built(tokens.flip(1), mask)[0], atol=1e-5)
        assert same != ordered


def test_pooling_is_the_mean_of_real_tokens() -> None:
    tokens = torch.randn(2, 3, INPUT)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    torch.testing.assert_close(masked_mean(tokens, mask)[0], (tokens[0, 0] + tokens[0, 2]) / 2)
    assert not masked_mean(tokens, mask)[1].any()
    built = mapper("transformer pooled")
    every = torch.ones(1, 1, dtype=torch.bool)
    expected, _ = built(masked_mean(tokens, mask)[:1, None], every)
    torch.testing.assert_close(built(tokens, mask)[0][:1], expected)


@pytest.mark.parametrize("width", [7, 8])
def test_sinusoids(width: int) -> None:
    positions = sinusoids(5, width)
    assert positions.shape == (5, width)
    assert positions[0].tolist() == [0.0, 1.0] * (width // 2) + [0.0] * (width % 2)
    index, pair = 3, 2
    angle = torch.tensor(index / 10_000 ** (2 * pair / width))
    torch.testing.assert_close(positions[index, 4:6], torch.stack([angle.sin(), angle.cos()]))


@pytest.mark.parametrize(
    ("values", "input_dim", "message"),
    [
        ({"kind": "transformer", "heads": 3}, INPUT, "3 attention heads do not divide the mapper's width 16"),
        ({"kind": "transformer", "heads": 8, "width": 12}, INPUT, "8 attention heads do not divide .* width 12"),
        ({"kind": "identity"}, INPUT, "an identity mapper cannot turn width 12 into 16"),
    ],
)
def test_impossible_combinations(values: dict[str, Any], input_dim: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_mapper(TypeAdapter(MapperConfig).validate_python(values), input_dim, OUTPUT)


def test_the_papers_mapper_has_the_papers_parameters() -> None:
    """One pooled vector to 40 embeddings, 40 constants, 4 layers of 8 heads, an MLP of twice the width: 50.4 M."""
    encoder, lm, tokens, layers = 1024, 768, 40, 4
    config = TransformerMapperConfig(
        kind="transformer", tokens=tokens, constants=40, layers=layers, heads=8, input="pooled"
    )
    with torch.device("meta"):
        built = build_mapper(config, encoder, lm)
    linear = encoder * tokens * lm + tokens * lm
    attention = lm * lm + lm * 2 * lm + (lm * lm + lm)  # queries; keys and values; projection
    mlp = (lm * 2 * lm + 2 * lm) + (2 * lm * lm + lm)
    norms = 2 * 2 * lm
    expected = linear + 40 * lm + layers * (attention + mlp + norms)
    assert sum(value.numel() for value in built.parameters()) == expected
    assert round(expected / 1e6, 1) == 50.4


def test_identity_without_constants_asks_for_no_gradient() -> None:
    """So a language model with adapters in its upper layers keeps nothing of its lower ones."""
    built = build_mapper(IdentityMapperConfig(kind="identity"), OUTPUT, OUTPUT)
    tokens, mask = torch.randn(2, 3, OUTPUT), torch.ones(2, 3, dtype=torch.bool)
    prefix, real = built(tokens, mask)
    assert torch.equal(prefix, tokens)
    assert torch.equal(real, mask)
    assert not prefix.requires_grad


def test_pooled_logits_are_near_their_maximum_and_do_not_depend_on_the_length() -> None:
    logits = torch.full((3, 4, 2), -9.0)
    logits[0, 1, 0] = 5.0
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    pooled = log_mean_exp(logits, mask)
    assert pooled[0].tolist() == pytest.approx([5.0 - math.log(4), -9.0], abs=1e-4)
    assert pooled[1].tolist() == pytest.approx([-9.0, -9.0], abs=1e-4)
    assert pooled[2].tolist() == [0.0, 0.0]
