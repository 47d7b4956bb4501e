"""What prompts mention: how words are found, what is told of them, and what labels gain by it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import tiny_model
from pengi.config import MapperConfig, MentionsConfig
from pengi.errors import ConfigError
from pengi.mapper import LOWEST_SHARE, WordsMapper, build_mapper
from pengi.mentions import HOW_MUCH, SHARE_UNIT, WHEN, Mentions

DIM = 8
WORDS = {"dog": 0, "dog barking": 0, "rain": 1, "siren": 2, "snoring": 3}
SPELLING = {" dog": [1], " dog barking": [1, 2], " rain": [3], " siren": [4], " snoring": [5], ",": [7]}
SPELLING |= {" first": [8], " last": [9], " quieter": [10], " louder": [11]}
TABLE = torch.randn(12, DIM, generator=torch.Generator().manual_seed(1))


def spell(text: str) -> Tensor:
    return TABLE[SPELLING[text]]


def mapper(**changes: Any) -> WordsMapper:
    config = MapperConfig(**{"kind": "words", "tokens": 2, "words": WORDS, **changes})
    built = build_mapper(config, 4, DIM, spell)
    assert isinstance(built, WordsMapper)
    return built


def mentions(built: WordsMapper, **changes: Any) -> Mentions:
    return Mentions(MentionsConfig(branch=0, **{"phrases": {"someone asleep": "snoring"}, **changes}), built, spell)


def logits(*rows: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Rows of tokens, padded, and their mask."""
    mask = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True), mask


EARLY_RAIN = [[0.0, 6.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 6.0, 0.0]]
"""Rain, then nothing, then a siren."""


def measuring(model: Mentions) -> None:
    """Let the embeddings behind a word hold what is measured, one measurement a place."""
    with torch.no_grad():
        for rows_FD in (model.much_FD, model.when_FD):
            rows_FD.zero_()
            rows_FD[1:].copy_(torch.eye(len(rows_FD) - 1, DIM))


def test_words_are_told_in_the_prompts_order_with_how_they_compare() -> None:
    built = mapper()
    model = mentions(built)
    measuring(model)
    louder_siren = [*EARLY_RAIN[:2], [0.0, 0.0, 9.0, 0.0]]
    heard = model.listen(built, logits(louder_siren), logits(louder_siren))
    compared = {}
    for prompt, words in (("a siren before rain?", [4, 3]), ("rain before a siren?", [3, 4]), ("a siren?", [4])):
        told, mask = model(built, heard, [prompt])
        kept = told[mask]
        torch.testing.assert_close(kept[::3], TABLE[words])
        compared[prompt] = torch.stack([kept[1::3, HOW_MUCH.index("more")], kept[2::3, WHEN.index("later")]], 1)
    siren, rain = compared["a siren before rain?"]
    assert siren[0] > 0.2
    assert siren[1] > 0.9
    torch.testing.assert_close(siren, -rain)
    torch.testing.assert_close(compared["rain before a siren?"], torch.stack([rain, siren]))
    assert compared["a siren?"].tolist() == [[0.0, 0.0]]


def test_each_word_is_followed_by_what_is_measured_of_it() -> None:
    built = mapper(sharpness=2.0)
    model = mentions(built)
    measuring(model)
    tokens = logits(EARLY_RAIN, [[0.0, 1.0, 0.0, 0.0]])
    told, mask = model(built, model.listen(built, tokens, tokens), ["is there rain?"] * 2)
    assert mask.sum(1).tolist() == [3, 3]  # the one token of "rain", how much and when
    _, much, when = told[0][mask[0]].tolist()
    scores = 2.0 * torch.tensor(EARLY_RAIN)[:, list(WORDS.values())]
    shares = scores.log_softmax(-1)[:, 2]
    near = torch.tensor(EARLY_RAIN).exp().mean(0).log()[list(WORDS.values())]
    whole = (2.0 * near).log_softmax(0)[2]
    expected = [float(value) / SHARE_UNIT for value in (whole, shares.max(), shares.mean())]
    assert much == pytest.approx([*expected, 0.0, *[0.0] * 4])  # none is more: it is the only word
    places = torch.tensor([-1 / 3, 0.0, 1 / 3])
    middle = float(shares.softmax(0) @ places)
    spread = float(shares.softmax(0) @ (places - middle).square()) ** 0.5
    assert when == pytest.approx([middle, spread, 0.0, *[0.0] * 5])
    # Of a single token all is heard in the middle.
    assert told[1][mask[1]][2].tolist() == [0.0] * DIM


def test_when_is_told_between_first_and_last_before_any_training() -> None:
    built = mapper()
    model = mentions(built)
    far = [[0.0, 20.0, 0.0, 0.0], *[[0.0] * 4] * 3, [0.0, 0.0, 20.0, 0.0]]
    told, mask = model(built, model.listen(built, logits(far), logits(far)), ["rain, a siren"])
    torch.testing.assert_close(told[mask][2::3], TABLE[[8, 9]], atol=0.05, rtol=0)
    alone, alone_mask = model(built, model.listen(built, logits(far), logits(far)), ["rain"])
    torch.testing.assert_close(alone[alone_mask][2], TABLE[[8, 9]].mean(0))


def test_of_several_words_it_is_told_which_is_louder() -> None:
    """Between "quieter" and "louder" before any training, by the level where each is heard."""
    built = mapper()
    model = mentions(built, levels=1)
    far = logits([[0.0, 20.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 20.0, 0.0]])
    levels = torch.tensor([[-40.0, 0.0, -20.0]])
    heard = model.listen(built, far, far, levels)
    told, mask = model(built, heard, ["rain, a siren"])
    torch.testing.assert_close(told[mask][::4], TABLE[[3, 4]])
    torch.testing.assert_close(told[mask][3::4], TABLE[[10, 11]], atol=0.02, rtol=0)
    turned, turned_mask = model(built, heard, ["a siren and rain"])
    torch.testing.assert_close(turned[turned_mask][3], told[mask][7])
    assert model(built, heard, ["rain"])[1].sum() == 3  # of one word there is nothing to compare
    assert model(built, model.listen(built, far, far), ["rain, a siren"])[1].sum() == 6  # levels are not known
    assert not model(built, heard.without(torch.tensor([False])), ["rain, a siren"])[1].any()


def test_levels_of_padding_count_nothing() -> None:
    built = mapper()
    model = mentions(built, levels=1)
    tokens, mask = logits([[0.0, 20.0, 0.0, 0.0], [0.0, 0.0, 20.0, 0.0]], [[0.0] * 4] * 3)
    levels = torch.tensor([[-40.0, -20.0, 0.0], [0.0, 0.0, 0.0]])
    both = model(built, model.listen(built, (tokens, mask), (tokens, mask), levels), ["rain, a siren"] * 2)[0][0]
    short = (tokens[:1, :2], mask[:1, :2])
    alone = model(built, model.listen(built, short, short, levels[:1, :2]), ["rain, a siren"])[0][0]
    torch.testing.assert_close(both, alone)


def test_a_recording_gives_the_same_alone_and_beside_longer_ones() -> None:
    built = mapper()
    model = mentions(built)
    short = [[1.0, 0.0, 3.0, 0.0]]
    both = logits(EARLY_RAIN, short)
    told, mask = model(built, model.listen(built, both, both), ["a siren, a dog, rain and snoring", "rain, siren"])
    alone, alone_mask = model(built, model.listen(built, logits(short), logits(short)), ["rain, siren"])
    torch.testing.assert_close(told[1][mask[1]], alone[0][alone_mask[0]])


def test_nothing_is_told_of_prompts_without_words_and_of_recordings_without_tokens() -> None:
    built = mapper()
    model = mentions(built)
    tokens, mask = logits(EARLY_RAIN, EARLY_RAIN)
    mask[1] = False
    heard = model.listen(built, (tokens, mask), (tokens, mask))
    assert model(built, heard, ["is there rain?", "is there rain?"])[1].any(1).tolist() == [True, False]
    assert model(built, heard, ["what is this?", "and this?"])[0].shape == (2, 0, DIM)
    silenced = heard.without(torch.tensor([False, True]))
    assert not model(built, silenced, ["is there rain?"] * 2)[1].any()


def test_what_is_told_learns() -> None:
    built = mapper()
    model = mentions(built)
    told, mask = model(built, model.listen(built, logits(EARLY_RAIN), logits(EARLY_RAIN)), ["is there rain?"])
    told[mask].sum().backward()
    for rows_FD in (model.much_FD, model.when_FD):
        assert rows_FD.grad is not None
        assert rows_FD.grad[:2].abs().sum(1).all()


@pytest.mark.parametrize("labels", [["rain", "a siren"], ["rain", "thunder", "sirens"], ["seven", "eleven"]])
def test_labels_gain_by_what_is_heard_of_them(labels: list[str]) -> None:
    built = mapper(sharpness=4.0)
    model = mentions(built, labels=0.5)
    heard = model.listen(built, logits([[0.0, 0.5, 0.3, 0.0]]), logits([[0.0, 0.5, 0.3, 0.0]]))
    share = dict(zip(WORDS, heard.whole_AV[0].exp().tolist(), strict=True))
    # Thunder is no word and counts as the others do on average, which keeps out of their order.
    shares = {"rain": share["rain"], "siren": share["siren"], "thunder": math.sqrt(share["rain"] * share["siren"])}
    word = {"a siren": "siren", "sirens": "siren"}
    gains = [0.5 * math.log(shares.get(word.get(label, label), 1.0)) for label in labels]
    assert model.labels_heard(heard, labels)[0].tolist() == pytest.approx(gains, abs=1e-5)


def test_what_is_not_heard_at_all_is_told_as_the_lowest_share() -> None:
    built = mapper(sharpness=100.0)
    model = mentions(built)
    heard = model.listen(built, logits(EARLY_RAIN), logits(EARLY_RAIN))
    assert heard.whole_AV[0, list(WORDS).index("snoring")] == LOWEST_SHARE
    assert heard.tokens_ATV.isfinite().all()


WORDS_BRANCH = {
    "encoder": "yamnet-tiny-random",
    "trained": False,
    "frozen_layers": 99,
    "mapper": {"kind": "words", "tokens": 2, "words": {"hum": 0, "hiss": 1}},
}


def test_a_model_needs_a_branch_of_words_for_mentions() -> None:
    with pytest.raises(ConfigError, match="no branch of words"):
        tiny_model(mentions={"branch": 0})
    with pytest.raises(ConfigError, match="no branch of words"):
        tiny_model(audio=[WORDS_BRANCH], mentions={"branch": 1})
    assert tiny_model(audio=[WORDS_BRANCH], mentions={"branch": 0}).mentions is not None


def test_levels_stand_beside_the_words() -> None:
    level = {"encoder": "level", "trained": False, "mapper": {"kind": "none"}}
    model = tiny_model(audio=[WORDS_BRANCH, level], mentions={"branch": 0, "levels": 1})
    heard = model.listen(model.hear(torch.rand(1, 40_000), torch.tensor([40_000])))
    assert heard is not None
    assert heard.level_AT is not None
    assert heard.level_AT.shape == heard.mask_AT.shape
    for audio in ([WORDS_BRANCH], [WORDS_BRANCH, WORDS_BRANCH], [WORDS_BRANCH, {**level, "max_tokens": 7}]):
        with pytest.raises(ConfigError, match="no branch of the encoder 'level'"):
            tiny_model(audio=audio, mentions={"branch": 0, "levels": 1})
