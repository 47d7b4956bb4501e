"""Mapping networks: shapes, masks, what is learned, and the paper's form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pengi.config import MapperConfig
from pengi.errors import ConfigError
from pengi.mapper import UNHEARD, Mapper, WordsMapper, build_mapper, masked_mean, sinusoids, when_heard

INPUT, OUTPUT = 12, 16
FORMS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": 8},
    "mlp with constants": {"kind": "mlp", "hidden": 8, "constants": 3},
    "mlp pooled": {"kind": "mlp", "hidden": 8, "input": "pooled"},
    "transformer": {"kind": "transformer", "constants": 5, "layers": 2, "heads": 4},
    "transformer narrow": {"kind": "transformer", "constants": 5, "layers": 1, "heads": 2, "width": 8},
    "transformer positions": {"kind": "transformer", "constants": 5, "layers": 1, "heads": 4, "positions": True},
    "transformer pooled": {"kind": "transformer", "tokens": 4, "constants": 6, "layers": 1, "input": "pooled"},
    "transformer default constants": {"kind": "transformer", "tokens": 4, "layers": 1, "input": "pooled"},
}
LENGTHS = {  # prefix embeddings made of 7 tokens
    "mlp": 7, "mlp with constants": 10, "mlp pooled": 1, "transformer": 5, "transformer narrow": 5,
    "transformer positions": 5, "transformer pooled": 6, "transformer default constants": 4,
}  # fmt: skip


def mapper(form: str) -> Mapper:
    torch.manual_seed(0)
    return build_mapper(MapperConfig(**FORMS[form]), INPUT, OUTPUT).eval()


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
    for place in range(4):
        changed = tokens.clone()
        changed[0, place] += torch.randn(INPUT)
        same = torch.allclose(prefix_rows(built, changed, mask)[0], before, atol=1e-6)
        assert same == (place == 2)


@pytest.mark.parametrize("form", FORMS)
def test_everything_learns(form: str) -> None:
    built = mapper(form)
    tokens = torch.randn(2, 5, INPUT, requires_grad=True)
    prefix, _ = built(tokens, torch.ones(2, 5, dtype=torch.bool))
    (prefix * torch.randn_like(prefix)).sum().backward()
    unused = [name for name, value in built.named_parameters() if value.grad is None or not value.grad.any()]
    # Three of the forms have an mlp without constants, whose empty parameter nothing can reach.
    assert unused in ([], ["constants.value_CD"])
    assert unused == [] or dict(built.named_parameters())["constants.value_CD"].numel() == 0
    assert tokens.grad is not None
    assert tokens.grad.any()


def test_constants_stand_in_front_and_do_not_depend_on_the_audio() -> None:
    built = mapper("mlp with constants")
    one, _ = built(torch.randn(2, 4, INPUT), torch.ones(2, 4, dtype=torch.bool))
    two, _ = built(torch.randn(2, 4, INPUT), torch.ones(2, 4, dtype=torch.bool))
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.allclose(one[:, 3:], two[:, 3:])


def test_identity_passes_embeddings_on_behind_its_constants() -> None:
    built = build_mapper(MapperConfig(kind="identity", constants=2), OUTPUT, OUTPUT)
    tokens, mask = torch.randn(2, 3, OUTPUT), torch.tensor([[True, True, True], [True, False, False]])
    prefix, real = built(tokens, mask)
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
    place, pair = 3, 2
    angle = torch.tensor(place / 10_000 ** (2 * pair / width))
    torch.testing.assert_close(positions[place, 4:6], torch.stack([angle.sin(), angle.cos()]))


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
        build_mapper(MapperConfig(**values), input_dim, OUTPUT)


def test_the_papers_mapper_has_the_papers_parameters() -> None:
    """One pooled vector to 40 embeddings, 40 constants, 4 layers of 8 heads, an MLP of twice the width: 50.4 M."""
    encoder, lm, tokens, layers = 1024, 768, 40, 4
    config = MapperConfig(kind="transformer", tokens=tokens, constants=40, layers=layers, heads=8, input="pooled")
    with torch.device("meta"):
        built = build_mapper(config, encoder, lm)
    linear = encoder * tokens * lm + tokens * lm
    attention = lm * lm + lm * 2 * lm + (lm * lm + lm)  # queries; keys and values; projection
    mlp = (lm * 2 * lm + 2 * lm) + (2 * lm * lm + lm)
    norms = 2 * 2 * lm
    expected = linear + 40 * lm + layers * (attention + mlp + norms)
    assert sum(value.numel() for value in built.parameters()) == expected
    assert round(expected / 1e6, 1) == 50.4


SPELLING = {" dog": [1, 2], " rain": [3], " siren": [4, 5, 6], ",": [7], " first": [8], " last": [9]}
TABLE = torch.randn(10, OUTPUT, generator=torch.Generator().manual_seed(1))


def spell(text: str) -> Tensor:
    return TABLE[SPELLING[text]]


def words_mapper(**changes: Any) -> WordsMapper:
    values = {"kind": "words", "tokens": 2, "words": {"dog": 0, "rain": 3, "siren": 0}, **changes}
    built = build_mapper(MapperConfig(**values), 4, OUTPUT, spell)
    assert isinstance(built, WordsMapper)
    return built


def test_words_spell_the_likeliest_classes() -> None:
    built = words_mapper()
    built.weigh(torch.ones(3), torch.tensor([0.0, 0.0, -1.0]))
    with torch.no_grad():
        built.share_2D[1] = 0.5
    logits = torch.tensor([[3.0, 9.0, 9.0, 1.0], [0.0, 9.0, 9.0, 2.0]])[:, None]
    prefix, mask = built(logits, torch.tensor([[True], [True]]))
    first, second = (row[kept] for row, kept in zip(prefix, mask, strict=True))
    shares = torch.tensor([3.0, 1.0, 2.0]).log_softmax(0), torch.tensor([0.0, 2.0, -1.0]).log_softmax(0)
    told = [TABLE[7] + 0.5 * shares[row][word] for row, word in ((0, 0), (0, 2), (1, 1), (1, 0))]
    torch.testing.assert_close(first, torch.cat([TABLE[[1, 2]], told[0][None], TABLE[[4, 5, 6]], told[1][None]]))
    torch.testing.assert_close(second, torch.cat([TABLE[[3]], told[2][None], TABLE[[1, 2]], told[3][None]]))


def test_words_are_told_with_when_they_are_heard() -> None:
    built = words_mapper()
    torch.testing.assert_close(built.when_2D[0], TABLE[9] - TABLE[8])
    with torch.no_grad():
        built.share_2D.zero_()
        built.when_2D.copy_(torch.eye(2, OUTPUT))  # the embedding is the middle and the spread
        built.bias_V[2] = -90.0
    loud = torch.tensor([30.0, 0.0, 0.0, 0.0])
    dog_then_rain = torch.stack([loud, loud, -loud, -loud])
    tokens = torch.stack([dog_then_rain, loud.expand(4, 4)])
    prefix, mask = built(tokens, torch.tensor([[True] * 4, [True] * 2 + [False] * 2]))
    first, second = (row[kept] for row, kept in zip(prefix, mask, strict=True))
    torch.testing.assert_close(first[2, :2], torch.tensor([-0.25, 0.125]))  # the dog in the first half
    torch.testing.assert_close(first[4, :2], torch.tensor([0.25, 0.125]))  # the rain in the second
    torch.testing.assert_close(second[2, :2], torch.tensor([0.0, 0.25]))  # of half as many tokens, in all


def test_when_a_word_is_heard_does_not_depend_on_padding_and_needs_no_token() -> None:
    shares = torch.tensor([[[-1.0], [-20.0], [-20.0]], [[-1.0], [-1.0], [0.0]], [[-1.0], [-1.0], [-1.0]]])
    mask = torch.tensor([[True, True, True], [True, True, False], [False] * 3])
    middle, spread = when_heard(shares, mask)
    torch.testing.assert_close(middle[:2], torch.tensor([[-1 / 3], [0.0]]))
    torch.testing.assert_close(spread[:2], torch.tensor([[0.0], [0.25]]), atol=1e-4, rtol=0.0)
    assert bool(torch.isfinite(torch.cat([middle, spread])).all())


def test_words_of_nothing_heard_are_none_and_of_several_tokens_near_the_highest() -> None:
    built = words_mapper()
    logits = torch.tensor([[[0.0, 0, 0, 5.0], [0.0, 0, 0, 0.0]], [[0.0, 0, 0, 5.0], [0.0, 0, 0, 0.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    scores = built.word_logits(logits, mask)
    assert 5.0 - math.log(2) < float(scores[0, 1]) < 5.0
    assert scores[1].tolist() == [0.0, 0.0, 0.0]
    assert built(logits, mask)[1].any(1).tolist() == [True, False]


def test_no_mapper_gives_no_prefix() -> None:
    prefix, mask = build_mapper(MapperConfig(kind="none"), 4, OUTPUT)(torch.ones(2, 3, 4), torch.ones(2, 3).bool())
    assert prefix.shape == (2, 0, OUTPUT)
    assert mask.shape == (2, 0)


def test_words_compete_in_deviations_from_what_is_usual_and_have_nothing_to_train() -> None:
    built = words_mapper()
    usual = torch.randn(50, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0]) + 7.0
    built.standardise(usual)
    scores = built.word_logits(usual[:, None], torch.ones(50, 1, dtype=torch.bool))
    torch.testing.assert_close(scores.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(0), torch.ones(3), atol=1e-5, rtol=0)
    built.weigh(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0.0, 5.0, 0.0]))
    weighed = built.word_logits(usual[:, None], torch.ones(50, 1, dtype=torch.bool))
    torch.testing.assert_close(weighed[:, 1], 2 * scores[:, 1] + 5.0)
    assert torch.equal(weighed[:, [0, 2]], scores[:, [0, 2]])
    assert {name for name, _ in built.named_parameters()} == {"share_2D", "when_2D"}


def test_a_class_that_never_varies_is_never_unusual() -> None:
    built = words_mapper()
    usual = torch.randn(50, 4)
    usual[:, 3] = -6.9
    built.standardise(usual)
    rain = built.word_logits(usual[:1, None], torch.tensor([[True]]))[0, 1]
    assert abs(float(rain)) < 0.01


def test_words_of_unheard_classes_are_not_told_whatever_their_weights() -> None:
    built = words_mapper()
    built.weigh(torch.tensor([1.0, -1.0, 0.0]), torch.zeros(3))
    logits, mask = torch.tensor([[[3.0, 0, 0, 9.0]], [[3.0, 0, 0, 9.0]]]), torch.ones(2, 1, dtype=torch.bool)
    logits[0, :, 3] = UNHEARD
    logits[1, :, [0, 3]] = UNHEARD
    prefix, told = built(logits, mask)
    share_BK, best_BK = built.likeliest(logits, mask)
    assert best_BK[0].tolist() == [0, 2]
    torch.testing.assert_close(share_BK[0], torch.tensor([3.0, 0.0]).log_softmax(0))
    assert told.any(1).tolist() == [True, False]
    assert prefix.isfinite().all()


def test_words_far_less_likely_than_the_first_are_not_told() -> None:
    logits, mask = torch.tensor([[[3.0, 0.0, 0.0, 1.0]]]), torch.tensor([[True]])
    both, one = (words_mapper(words={"dog": 0, "rain": 3}, least=least) for least in (0.13, 0.14))  # exp(-2) is 0.135
    assert int(both(logits, mask)[1].sum()) == 5
    assert int(one(logits, mask)[1].sum()) == 3
    assert one.likeliest(logits, mask)[0][0].tolist() == [pytest.approx(-0.127, abs=1e-3), -math.inf]


def test_shares_of_words_may_be_sharper() -> None:
    logits, mask = torch.tensor([[[3.0, 0.0, 0.0, 1.0]]]), torch.tensor([[True]])
    plain, sharp = words_mapper(words={"dog": 0, "rain": 3}), words_mapper(words={"dog": 0, "rain": 3}, sharpness=4.0)
    for built, sharpness in ((plain, 1.0), (sharp, 4.0)):
        share_BK, best_BK = built.likeliest(logits, mask)
        assert best_BK.tolist() == [[0, 1]]
        torch.testing.assert_close(share_BK[0], torch.tensor([3.0 * sharpness, sharpness]).log_softmax(0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"words": {"dog": 0}}, "takes 2 words and is given 1"),
        ({"words": {"dog": 0, "rain": 4}}, "a class beyond the 4 that the encoder has"),
    ],
)
def test_impossible_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        words_mapper(**values)
    with pytest.raises(ConfigError, match="reads the classes of an audio encoder, not a prompt"):
        build_mapper(MapperConfig(kind="words", words={"dog": 0}), 4, OUTPUT)
