"""Facts: statistics of tokens, and how what probes hear is told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pengi.config import FactsConfig
from pengi.errors import ConfigError
from pengi.facts import NEIGHBOURS, Facts, Spotter, heard_anywhere, statistics

DIM = 4
LETTERS = {letter: torch.full((DIM,), float(place)) for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz,")}
VALUES = {"kind": ("oboe", "harp"), "word": ("no", "yes", "up")}


def spell(text: str) -> Tensor:
    """One embedding a letter, without the space in front."""
    return torch.stack([LETTERS[letter] for letter in text.strip()])


def built(told: int = 2, **changes: object) -> Facts:
    config = FactsConfig(branches=(0, 2), attributes=("kind", "word"), told=told, values=VALUES).model_copy(
        update=changes
    )
    return Facts(config, [3, 2], [True, False], spell)


def logits(kind: list[float], word: list[float]) -> Tensor:
    """Chances, "none" first."""
    return torch.tensor([[math.log(chance) for chance in (*kind, *word)]])


def said(facts: Facts, logits_BF: Tensor) -> list[str]:
    """The letters of what is told in each row; ``|`` for an embedding that tells a share."""
    places = {float(value[0]): letter for letter, value in LETTERS.items()}
    with torch.no_grad():
        facts.share_2D.copy_(torch.tensor([[-1.0] * DIM, [0.0] * DIM]))
        prefix, mask = facts(logits_BF)
    return [
        "".join("|" if float(token[0]) == -1.0 else places[float(token[0])] for token in row[kept])
        for row, kept in zip(prefix, mask, strict=True)
    ]


def test_the_likeliest_values_are_told_in_order_behind_the_name() -> None:
    row = logits([0.05, 0.25, 0.7], [0.05, 0.1, 0.5, 0.35])
    assert said(built(), row) == ["kindharp|oboe|wordyes|up|"]
    assert said(built(told=1), row) == ["kindharp|wordyes|"]


def test_what_is_more_likely_absent_is_left_out() -> None:
    rows = torch.cat(
        [logits([0.55, 0.35, 0.1], [0.05, 0.75, 0.1, 0.1]), logits([0.6, 0.3, 0.1], [0.9, 0.05, 0.03, 0.02])]
    )
    assert said(built(told=1), rows) == ["wordno|", ""]


def test_what_the_probe_is_unsure_of_is_left_out() -> None:
    rows = logits([0.1, 0.5, 0.4], [0.1, 0.35, 0.3, 0.25])
    assert said(built(told=1), rows) == ["kindoboe|wordno|"]
    assert said(built(told=1, least=0.4), rows) == ["kindoboe|"]
    assert said(built(told=1, least=0.4, within={"kind": "word"}), rows) == [""]


def test_what_belongs_to_an_attribute_is_told_only_with_it() -> None:
    word = [0.05, 0.75, 0.1, 0.1]
    rows = torch.cat([logits([0.9, 0.05, 0.05], word), logits([0.05, 0.55, 0.4], word)])
    assert said(built(told=1), rows) == ["wordno|", "kindoboe|wordno|"]
    assert said(built(told=1, within={"word": "kind"}), rows) == ["", "kindoboe|wordno|"]


def test_the_share_is_told_and_is_learned() -> None:
    facts = built(told=1)
    with torch.no_grad():
        facts.share_2D.copy_(torch.stack([torch.zeros(DIM), torch.ones(DIM)]))
    prefix, mask = facts(logits([0.05, 0.25, 0.7], [0.9, 0.05, 0.03, 0.02]))
    told = prefix[mask]
    assert told[-1].tolist() == pytest.approx([math.log(0.7)] * DIM)
    told[-1].sum().backward()
    assert facts.share_2D.grad is not None
    assert facts.share_2D.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("labels", "chances"),
    [
        (["harp", "an oboe"], [0.65, 0.35]),
        (["up", "yes", "no"], [0.35 + 0.05 / 3, 0.5 + 0.05 / 3, 0.1 + 0.05 / 3]),
        # One in three is no value: what the probe hears counts a third.
        (["up", "yes", "harp"], [(share + 0.05 / 3) ** (1 / 3) for share in (0.35, 0.5, 0.1)]),
        (["harp", "banjo"], [1.0, 1.0]),
        (["harp", "banjo", "siren"], [1.0, 1.0, 1.0]),
        (["banjo", "siren"], [1.0, 1.0]),
    ],
)
def test_labels_gain_by_what_the_probe_of_most_of_them_hears(labels: list[str], chances: list[float]) -> None:
    row = logits([0.1, 0.3, 0.6], [0.05, 0.1, 0.5, 0.35])
    found = built(labels=2.0).labels_heard(row, labels)[0]
    assert found.exp().sqrt().tolist() == pytest.approx(chances, abs=1e-5)


def test_of_attributes_that_know_as_many_labels_the_first_decides() -> None:
    values = {"kind": ("oboe", "yes"), "word": ("no", "yes", "up")}
    row = logits([0.1, 0.3, 0.6], [0.05, 0.1, 0.5, 0.35])
    found = built(labels=1.0, values=values).labels_heard(row, ["yes", "oboe", "yes"])[0]
    assert found.exp().tolist() == pytest.approx([0.6 + 0.1 / 3, 0.3 + 0.1 / 3, 0.6 + 0.1 / 3], abs=1e-5)


def test_statistics_by_hand() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [5.0], [7.0], [99.0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert statistics(tokens, mask)[0].tolist() == pytest.approx([4.0, 7.0, math.sqrt(5.0), 1.0, 3.0, 5.0, 7.0])


def test_statistics_of_a_short_row_and_of_none() -> None:
    tokens = torch.tensor([[[2.0], [0.0]], [[4.0], [0.0]]])
    mask = torch.tensor([[True, False], [False, False]])
    found = statistics(tokens, mask)
    assert found[0].tolist() == [2.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0]
    assert found[1].tolist() == [0.0] * 7


def test_padding_changes_no_statistic() -> None:
    tokens = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    assert torch.allclose(statistics(tokens, mask)[1], statistics(tokens[1:, :6], mask[1:, :6])[0], atol=1e-6)


def test_a_probe_reads_statistics_of_sequences_and_single_tokens() -> None:
    facts = built()
    assert facts.mean_N.shape == (7 * 3 + 2,)
    sequence = (torch.randn(1, 5, 3), torch.ones(1, 5, dtype=torch.bool))
    single = (torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.ones(1, 2, dtype=torch.bool))
    facts.weight_GN[1, -1] = 1.0
    assert facts.logits([sequence, single])[0].tolist() == [0, 3.0, 0, 0, 0, 0, 0]


def test_a_branch_that_only_spotters_read_has_no_statistics() -> None:
    """They would be seven numbers for each of its features and value that nothing reads."""
    facts = built(only={"kind": (2,)}, spotted={"word": 0})
    assert facts.mean_N.shape == (2,)
    assert facts.weight_GN.shape == (3, 2)
    tokens = torch.arange(12.0).view(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    single = torch.tensor([[[5.0, 6.0]]]), torch.ones(1, 1, dtype=torch.bool)
    assert facts.read([tokens, single]).tolist() == [[5.0, 6.0]]
    assert facts.logits([tokens, single]).shape == (1, 7)
    alone = built(attributes=("word",), values={"word": VALUES["word"]}, spotted={"word": 0})
    assert alone.read([tokens, single]).shape == (1, 0)
    assert alone.logits([tokens, single]).shape == (1, 4)


def test_outliers_are_cut() -> None:
    facts = built()
    assert facts.standardised(torch.full((1, 23), 1e6)).unique().tolist() == [5.0]


def test_a_probe_may_read_one_branch_only() -> None:
    facts = built(only={"word": (2,)})
    assert facts.read_by("kind").all()
    assert facts.read_by("word").nonzero().flatten().tolist() == [21, 22]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"values": {"kind": ("oboe",)}}, "'word'"),
        ({"only": {"colour": (0,)}}, "'colour'"),
        ({"only": {"word": (1,)}}, "'word'"),
        ({"within": {"colour": "kind"}}, "'colour'"),
        ({"within": {"word": "kinds"}}, "did you mean 'kind'"),
        ({"open": ("words",)}, "did you mean 'word'"),
    ],
)
def test_mistakes_have_a_name(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        built(**changes)


def test_the_places_that_tell_most_decide() -> None:
    tokens = torch.tensor([[[0.0], [3.0], [0.0], [99.0]]])
    mask = torch.tensor([[True, True, True, False]])
    weight = torch.zeros(2, NEIGHBOURS)
    weight[0, 0], weight[1] = 1.0, 1.0  # a token alone, and neighbours together
    found = heard_anywhere(tokens, mask, weight, torch.tensor([0.0, 0.5]))[0]
    alone = math.log((math.exp(0) + math.exp(3) + math.exp(0)) / 3)
    together = math.log((math.exp(3) + math.exp(3) + math.exp(0)) / 3) + 0.5
    assert found.tolist() == pytest.approx([alone, together])


def test_padding_changes_nothing_that_is_spotted() -> None:
    tokens = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    weight, bias = torch.randn(4, NEIGHBOURS * 3, generator=torch.Generator().manual_seed(1)), torch.zeros(4)
    padded = heard_anywhere(tokens, mask, weight, bias)[1]
    assert torch.allclose(padded, heard_anywhere(tokens[1:, :6], mask[1:, :6], weight, bias)[0], atol=1e-6)


def test_a_row_without_tokens_has_the_bias_and_a_gradient() -> None:
    weight, bias = torch.ones(2, NEIGHBOURS, requires_grad=True), torch.tensor([0.25, -1.0], requires_grad=True)
    found = heard_anywhere(torch.zeros(1, 3, 1), torch.zeros(1, 3, dtype=torch.bool), weight, bias)
    assert found[0].tolist() == [0.25, -1.0]
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def test_values_share_what_is_learned_of_their_words() -> None:
    spotter = Spotter(("a bit of sugar", "sugar", "a lot of milk"), width=1)
    assert len(spotter.bias_U) == 1 + len({"a", "bit", "of", "sugar", "lot", "milk"})
    spotter.bias_U.copy_(torch.tensor([7.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))  # none, a bit lot milk of sugar
    logits = spotter(torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))
    assert logits[0].tolist() == [7.0, 1 + 2 + 16 + 32, 32.0, 1 + 4 + 16 + 8]


def test_a_spotted_attribute_stands_in_its_place() -> None:
    facts = built(spotted={"kind": 0})
    assert facts.weight_GN.shape == (4, 23)
    facts.bias_G.copy_(torch.tensor([3.0, 4.0, 5.0, 6.0]))
    facts.spotters["kind"].bias_U.copy_(torch.tensor([0.0, 1.0, 2.0]))  # none, harp, oboe
    ones = torch.ones(1, 2, dtype=torch.bool)
    assert facts.logits([(torch.zeros(1, 2, 3), ones), (torch.zeros(1, 2, 2), ones)])[0].tolist() == [
        0.0, 2.0, 1.0, 3.0, 4.0, 5.0, 6.0,
    ]  # fmt: skip


def test_what_is_read_in_both_ways_is_told_as_their_mean() -> None:
    """Where they contradict each other it is less sure than either."""
    facts = built(spotted={"kind": 0}, only={"kind": (2,)})
    assert facts.weight_GN.shape == (3 + 4, 23)
    assert facts.read_by("kind").nonzero().flatten().tolist() == [21, 22]
    shares = torch.tensor([[0.02, 0.95, 0.03], [0.02, 0.03, 0.95]])
    facts.bias_G[:3] = shares[0].log() + 4.0  # logits of each way may stand anywhere
    facts.spotters["kind"].bias_U.copy_(shares[1, [0, 2, 1]].log())  # none, harp, oboe
    ones = torch.ones(1, 2, dtype=torch.bool)
    logits = facts.logits([(torch.zeros(1, 2, 3), ones), (torch.zeros(1, 2, 2), ones)])[0, :3]
    assert logits.tolist() == pytest.approx(shares.log().mean(0).tolist())
    assert logits.softmax(-1).tolist() == pytest.approx([0.056, 0.472, 0.472], abs=1e-3)


@pytest.mark.parametrize("branch", [1, 2], ids=["not read", "no sequence"])
def test_what_is_spotted_needs_a_sequence_of_tokens(branch: int) -> None:
    with pytest.raises(ConfigError, match=r"'kind' in model\.facts\.spotted needs a branch"):
        built(spotted={"kind": branch})


def test_what_is_spotted_must_be_an_attribute() -> None:
    with pytest.raises(ConfigError, match=r"attribute.*knd"):
        built(spotted={"knd": 0})
