"""The reference beam search: against a slow uncached one, in batches, and against the official code's own results."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import official
from pengi.decoding import Hypothesis, LabelTrie, generate
from pengi.errors import InputError
from pengi.language_model import LanguageModel
from pengi.official import ReferenceOptions

oracle_search = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks/oracle.py"))["search"]

LM = LanguageModel.tiny()
GPT2_END = 50256


def prefixes(lengths: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Random prefixes of these lengths, padded on the left, and the mask."""
    embeds_BPD = torch.randn(len(lengths), max(lengths), LM.dim, generator=torch.Generator().manual_seed(seed))
    return embeds_BPD, torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]


def likely_stop(lm: Any, prefix_PD: Tensor) -> int:
    """A token that beams come to write early: the second one of the best text."""
    return int(oracle_search(lm, prefix_PD, beams=1, max_tokens=2, stop_id=-1)[0].tokens[1])


def whole(hypothesis: Hypothesis, stop_id: int) -> tuple[int, ...]:
    """The tokens as the official code returns them: with the stop token."""
    return (*hypothesis.tokens, stop_id) if hypothesis.finished else hypothesis.tokens


def assert_same_beams(found: list[Hypothesis], expected: list[Any], stop_id: int) -> None:
    assert [whole(hypothesis, stop_id) for hypothesis in found] == [beam.counted for beam in expected]
    assert [hypothesis.finished for hypothesis in found] == [beam.finished for beam in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([beam.mean for beam in expected], abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_a_batch_with_a_cache_finds_what_the_slow_search_finds(seed: int, beams: int, early: bool) -> None:
    lengths = (5, 2, 7)
    embeds_BPD, mask_BP = prefixes(lengths, seed)
    stop_id = likely_stop(LM.model, embeds_BPD[0, -5:]) if early else LM.end_id
    options = ReferenceOptions(beams, 10)
    batch = generate(LM, embeds_BPD, mask_BP, options, stop_ids=[stop_id])
    for found, row_PD, length in zip(batch, embeds_BPD, lengths, strict=True):
        expected = oracle_search(LM.model, row_PD[-length:], beams=beams, max_tokens=10, stop_id=stop_id)
        assert_same_beams(found, expected, stop_id)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits_and_draws_nothing(temperature: float) -> None:
    embeds_BPD, mask_BP = prefixes((4,), seed=3)
    options = ReferenceOptions(4, 8, temperature=temperature)
    [found] = generate(LM, embeds_BPD, mask_BP, options)
    arguments = {"beams": 4, "max_tokens": 8, "stop_id": LM.end_id}
    expected = oracle_search(LM.model, embeds_BPD[0], temperature=temperature, **arguments)
    assert [hypothesis.tokens for hypothesis in found] == [beam.counted for beam in expected]
    assert generate(LM, embeds_BPD, mask_BP, options) == [found]
    # 0 means 1, and so the mean the beams compete by is the model's own.
    [unscaled] = generate(LM, embeds_BPD, mask_BP, ReferenceOptions(4, 8))
    assert_same_beams(unscaled, oracle_search(LM.model, embeds_BPD[0], **arguments), LM.end_id)


class Fork:
    """After token 1 always 1; tokens 2 and 3 end. Rows of each step are counted."""

    end_id = 3

    def __init__(self, first_V: list[float], next_V: list[float]) -> None:
        self.first_V, self.next_V = torch.tensor(first_V).log(), torch.tensor(next_V).log()
        self.rows: list[int] = []

    def prefill(self, embeds_BPD: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
        return self.first_V.expand(len(embeds_BPD), -1), torch.arange(len(embeds_BPD))

    def step(self, ids_NT: Tensor, rows_N: Tensor) -> tuple[Tensor, Tensor]:
        self.rows.append(len(ids_NT))
        return self.next_V.expand(*ids_NT.shape, -1), rows_N

    def select(self, rows_N: Tensor, index_N: Tensor) -> Tensor:
        return rows_N[index_N]


def searched(lm: Any, **options: Any) -> list[Hypothesis]:
    prefix_BPD = torch.zeros(1, 1, 1)
    [found] = generate(lm, prefix_BPD, torch.ones(1, 1), ReferenceOptions(**options))
    return found


def test_a_finished_beam_is_pushed_out_by_better_means_and_never_computed() -> None:
    """Token 3 ends at once with probability 0.4; the longer text, 0.5 * 0.9 * 0.9, has by then the better mean."""
    lm = Fork([0.05, 0.5, 0.05, 0.4], [0.04, 0.9, 0.05, 0.01])
    found = searched(lm, beams=2, max_tokens=3)
    assert [(text.tokens, text.finished) for text in found] == [((1, 1, 1), False), ((), True)]
    assert lm.rows == [1, 1]
    pushed = searched(Fork([0.05, 0.5, 0.05, 0.4], [0.45, 0.5, 0.04, 0.01]), beams=2, max_tokens=2)
    assert [text.tokens for text in pushed] == [(1, 1), (1, 0)]


def test_a_finished_beam_that_nothing_can_beat_does_not_end_the_search() -> None:
    lm = Fork([0.05, 0.1, 0.05, 0.8], [0.04, 0.9, 0.05, 0.01])
    found = searched(lm, beams=2, max_tokens=6)
    assert len(lm.rows) == 5
    assert [text.tokens for text in found] == [(), (1, 1, 1, 1, 1, 1)]


def test_it_ends_when_all_beams_are_finished() -> None:
    lm = Fork([0.02, 0.49, 0.01, 0.48], [0.001, 0.001, 0.001, 0.997])
    found = searched(lm, beams=2, max_tokens=30)
    assert [text.tokens for text in found] == [(1,), ()]
    assert lm.rows == [1]


def test_the_reference_search_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="the reference search has no top_p"):
        ReferenceOptions(top_p=0.9)
    with pytest.raises(InputError, match="cannot be constrained to labels"):
        generate(LM, *prefixes((2,), 0), ReferenceOptions(), constraint=LabelTrie([[5]], LM.end_id))


# ---- the official code's own results ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=official.VARIANTS)
def gpt2(request: pytest.FixtureRequest) -> tuple[LanguageModel, dict[str, Tensor]]:
    """GPT-2 with weights by the rule, and the golden values of a variant."""
    part = "caption_decoder.gpt."
    golden = official.golden(request.param)
    rows = [row for row in official.listing(request.param) if row[0].startswith(part)]
    state = {name.removeprefix(part): tensor for name, tensor in official.state_dict_from(rows).items()}
    model = GPT2LMHeadModel(GPT2Config())
    model.load_state_dict(state)
    model.set_attn_implementation("sdpa")
    return LanguageModel(model, LM.tokenizer, GPT2_END), golden


def test_golden_beams(gpt2: tuple[LanguageModel, dict[str, Tensor]]) -> None:
    """Every beam of every golden search, both clips in one batch where the search is the same."""
    lm, golden = gpt2
    searches = sorted(
        {(beams, stop) for beams in (3, 5) for stop in (GPT2_END, 17493, 14006) if _names(golden, beams, stop)}
    )
    assert len(searches) in (2, 4)
    for beams, stop in searches:
        names = _names(golden, beams, stop)
        prefix_BPD = golden["prefix_model"][: len(names)]
        options = ReferenceOptions(beams, 20)
        found = generate(lm, prefix_BPD, torch.ones(prefix_BPD.shape[:2]), options, stop_ids=[stop])
        for hypotheses, name in zip(found, names, strict=True):
            expected = [tuple(token for token in row if token >= 0) for row in golden[f"{name}tokens_sorted"].tolist()]
            assert [whole(hypothesis, stop) for hypothesis in hypotheses] == expected, name
            scores = torch.tensor([hypothesis.score for hypothesis in hypotheses])
            torch.testing.assert_close(scores, golden[f"{name}scores_unsorted"], atol=1e-4, rtol=0)


def _names(golden: dict[str, Tensor], beams: int, stop: int) -> list[str]:
    """Names of the golden searches with so many beams and this stop token, clip by clip."""
    suffix = "" if stop == GPT2_END else f"stop{stop}_"
    names = [f"beam{beams}_{clip}_{suffix}" for clip in range(2)]
    return [name for name in names if f"{name}tokens_sorted" in golden]
