"""Decoding: against Hugging Face generate, brute force and full forward passes; batches, stops, labels, samples."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.decoding import together
from pengi import decoding
from pengi.decoding import (
    Constraint,
    ContinuousBatch,
    DecodeOptions,
    Hypothesis,
    LabelTrie,
    SearchGroup,
    finish,
    generate,
    run,
    score_labels,
)
from pengi.errors import InputError
from pengi.language_model import LanguageModel

LM = LanguageModel.tiny()
STOPS = tuple(range(3, 300, 6))
"""A sixth of the vocabulary, so that texts of a random model end early, each at its own time."""


class Markov:
    """A model whose next token depends on the last one and on the clip, by tables of logits; token 0 ends."""

    end_id = 0

    def __init__(self, table_BVV: Tensor) -> None:
        self.table_BVV = table_BVV
        self.rows: list[int] = []
        """Rows of each step taken."""

    def prefill(self, embeds_BPD: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix holds the first logits; the state is the clip of each row."""
        return embeds_BPD[:, -1], torch.arange(len(embeds_BPD))

    def advance(self, ids_NT: Tensor, clip_N: Tensor) -> tuple[Tensor, Tensor]:
        self.rows.append(len(ids_NT))
        return self.table_BVV[clip_N[:, None], ids_NT], clip_N

    def logits(self, hidden_MD: Tensor) -> Tensor:
        return hidden_MD

    step = advance

    def select(self, clip_N: Tensor, index_N: Tensor) -> Tensor:
        return clip_N[index_N]

    def concat(self, states: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(states))


def markov(clips: int, vocabulary: int, seed: int) -> tuple[Markov, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first_B1V = torch.randn(clips, 1, vocabulary, generator=generator)
    table_BVV = torch.randn(clips, vocabulary, vocabulary, generator=generator)
    return Markov(table_BVV), first_B1V, torch.ones(clips, 1)


def prefixes(lengths: tuple[int, ...] = (6, 3, 5, 1), seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random prefixes of these lengths, padded on the left with random numbers, and the mask."""
    embeds_BPD = torch.randn(len(lengths), max(lengths), LM.dim, generator=torch.Generator().manual_seed(seed))
    mask_BP = torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]
    return embeds_BPD, mask_BP


def alone(embeds_BPD: Tensor, mask_BP: Tensor, clip: int) -> tuple[Tensor, Tensor]:
    """One clip of a batch without its padding."""
    real_P = mask_BP[clip].bool()
    return embeds_BPD[clip : clip + 1, real_P], mask_BP[clip : clip + 1, real_P]


def texts(hypotheses: list[Hypothesis]) -> list[tuple[int, ...]]:
    return [hypothesis.tokens for hypothesis in hypotheses]


def hugging_face(lm: LanguageModel, embeds_BPD: Tensor, mask_BP: Tensor, **options: Any) -> Any:
    """Generate with the reference."""
    return lm.model.generate(
        inputs_embeds=embeds_BPD,
        attention_mask=mask_BP.long(),
        do_sample=False,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def until_stop(row: list[int], stops: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.takewhile(lambda token: token not in stops, row))


def test_greedy_search_is_that_of_hugging_face() -> None:
    prefix = prefixes()
    ours = generate(LM, *prefix, DecodeOptions(beams=1, max_tokens=20), stop_ids=STOPS)
    theirs = hugging_face(LM, *prefix, max_new_tokens=20, eos_token_id=list(STOPS))
    assert [texts(clip) for clip in ours] == [[until_stop(row, STOPS)] for row in theirs.sequences.tolist()]
    assert len({len(clip[0].tokens) for clip in ours}) > 1


def test_beam_search_is_that_of_hugging_face_where_all_texts_finish() -> None:
    """The rules differ for texts cut at the limit only: there they compete with finished ones, here they come last."""
    prefix = prefixes(seed=2)  # none of whose texts comes near the limit
    ours = generate(LM, *prefix, DecodeOptions(4, 60), stop_ids=STOPS)
    theirs = hugging_face(
        LM,
        *prefix,
        max_new_tokens=90,
        eos_token_id=list(STOPS),
        num_beams=4,
        num_return_sequences=4,
    )
    assert all(hypothesis.finished for clip in ours for hypothesis in clip)
    flat = [hypothesis for clip in ours for hypothesis in clip]
    assert texts(flat) == [until_stop(row, STOPS) for row in theirs.sequences.tolist()]
    torch.testing.assert_close(
        torch.tensor([found.score for found in flat]), theirs.sequences_scores, rtol=1e-4, atol=1e-4
    )


def test_beam_search_without_a_stop_token_is_that_of_hugging_face() -> None:
    prefix = prefixes()
    ours = generate(LM, *prefix, DecodeOptions(beams=4, max_tokens=12), stop_ids=[])
    theirs = hugging_face(LM, *prefix, max_new_tokens=12, eos_token_id=None, num_beams=4, num_return_sequences=4)
    flat = [hypothesis for clip in ours for hypothesis in clip]
    assert texts(flat) == [tuple(row) for row in theirs.sequences.tolist()]
    assert not any(hypothesis.finished for hypothesis in flat)


def all_texts(lm: Markov, first_V: Tensor, limit: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every text that ends within ``limit`` tokens, the end token included in both."""
    found = {}
    vocabulary = len(first_V)
    for length in range(limit):
        for tokens in itertools.product(range(1, vocabulary), repeat=length):
            logits = [first_V, *(lm.table_BVV[0, token] for token in tokens)]
            steps = zip(logits, (*tokens, 0), strict=True)
            found[tokens] = sum(float(row.log_softmax(-1)[token]) for row, token in steps)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_beams_wide_enough_for_everything_find_the_best_text(seed: int) -> None:
    lm, first_B1V, mask_BP = markov(clips=1, vocabulary=4, seed=seed)
    [found] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=200, max_tokens=4))
    expected = all_texts(lm, first_B1V[0, 0], limit=4)
    ranked = sorted(expected, key=lambda tokens: expected[tokens] / (len(tokens) + 1), reverse=True)
    assert [hypothesis.tokens for hypothesis in found if hypothesis.finished] == ranked
    assert sum(found[0].log_probs) == pytest.approx(expected[ranked[0]], abs=1e-4)


def test_finished_texts_come_before_those_cut_at_the_limit() -> None:
    lm, first_B1V, mask_BP = markov(clips=1, vocabulary=6, seed=0)
    lm.table_BVV[:, :, 0] -= 3
    [found] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=6, max_tokens=3))
    finished = [hypothesis.finished for hypothesis in found]
    assert len(found) == 6
    assert finished == sorted(finished, reverse=True)
    assert set(finished) == {True, False}
    assert all(len(hypothesis.tokens) == 3 for hypothesis in found if not hypothesis.finished)


def test_a_beam_that_cannot_win_any_more_ends_the_search() -> None:
    """Two texts finish at once with a far better mean than any other beam has, so no further step is taken."""
    first_V = torch.tensor([-1.0, 0.0, -20.0, -20.0])
    table_VV = torch.full((4, 4), -20.0)
    table_VV[1, 0] = 5.0
    lm = Markov(table_VV[None])
    [found] = generate(lm, first_V[None, None], torch.ones(1, 1), DecodeOptions(beams=2, max_tokens=30))
    assert texts(found) == [(1,), ()]
    assert lm.rows == [2]


def test_clips_that_have_ended_are_no_longer_computed() -> None:
    """Clip 0 ends after one token, clip 1 after four: 1 -> 2 -> 3 -> 4 -> end."""
    table_BVV = torch.full((2, 5, 5), -10.0)
    table_BVV[0, 1, 0] = table_BVV[1, 1, 2] = table_BVV[1, 2, 3] = table_BVV[1, 3, 4] = table_BVV[1, 4, 0] = 10.0
    lm = Markov(table_BVV)
    first_B1V = torch.full((2, 1, 5), -10.0)
    first_B1V[:, :, 1] = 10.0
    found = generate(lm, first_B1V, torch.ones(2, 1), DecodeOptions(beams=1, max_tokens=9))
    assert [texts(clip) for clip in found] == [[(1,)], [(1, 2, 3, 4)]]
    assert lm.rows == [2, 1, 1, 1]


def test_nothing_is_computed_behind_the_last_token() -> None:
    lm, first_B1V, mask_BP = markov(clips=1, vocabulary=5, seed=3)
    lm.table_BVV[:, :, 0] = first_B1V[:, :, 0] = -30
    [[found]] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=1, max_tokens=4))
    assert len(found.tokens) == len(found.log_probs) == 4
    assert not found.finished
    assert len(lm.rows) == 3


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(beams=1, max_tokens=15),
        DecodeOptions(beams=4, max_tokens=15),
        DecodeOptions(beams=3, max_tokens=15, temperature=0.8, top_p=0.9, seed=7),
    ],
    ids=["greedy", "beams", "samples"],
)
def test_a_clip_gives_the_same_texts_alone_and_in_a_batch(options: DecodeOptions) -> None:
    embeds_BPD, mask_BP = prefixes((6, 3, 5, 1, 9, 2, 7, 4))
    batch = generate(LM, embeds_BPD, mask_BP, options, stop_ids=STOPS)
    for clip, expected in enumerate(batch):
        [single] = generate(LM, *alone(embeds_BPD, mask_BP, clip), options, stop_ids=STOPS)
        assert texts(single) == texts(expected)
        assert [found.finished for found in single] == [found.finished for found in expected]
        assert single[0].score == pytest.approx(expected[0].score, abs=1e-4)


def test_the_models_end_token_is_the_stop_token_unless_others_are_given() -> None:
    lm, first_B1V, mask_BP = markov(clips=1, vocabulary=4, seed=1)
    lm.table_BVV[:, :, 0] += 20
    lm.table_BVV[:, :, 3] += 10
    first_B1V[:, :, 1] += 20
    [[by_end]] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=1))
    [[by_three]] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=1), stop_ids=[0, 1])
    [[by_none]] = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=1, max_tokens=4), stop_ids=[3])
    assert (by_end.tokens, by_end.finished, len(by_end.log_probs)) == ((1,), True, 2)
    assert (by_three.tokens, by_three.finished, len(by_three.log_probs)) == ((), True, 1)
    assert (by_none.tokens, by_none.finished) == ((1, 0, 0, 0), False)


def test_log_probabilities_are_the_models_own() -> None:
    """Temperature does not change them."""
    embeds_BPD, mask_BP = prefixes((4,))
    for options in (
        DecodeOptions(beams=2, max_tokens=8),
        DecodeOptions(beams=2, max_tokens=8, temperature=2.0, top_p=0.7, seed=1),
    ):
        for found in generate(LM, embeds_BPD, mask_BP, options, stop_ids=[])[0]:
            scores = score_labels(LM, *LM.prefill(embeds_BPD, mask_BP), [found.tokens])
            assert sum(found.log_probs) == pytest.approx(float(scores.total_BL), abs=1e-3)
            assert found.score == pytest.approx(float(scores.mean_BL), abs=1e-4)


def test_samples_depend_on_the_seed_alone() -> None:
    prefix = prefixes()

    def draw(seed: int | None) -> list[list[tuple[int, ...]]]:
        options = DecodeOptions(beams=3, max_tokens=10, temperature=1.0, seed=seed)
        return [texts(clip) for clip in generate(LM, *prefix, options, stop_ids=[])]

    first = draw(1)
    torch.manual_seed(99)
    assert draw(1) == first
    assert draw(2) != first
    assert draw(None) != draw(None)
    assert all(len(set(clip)) == 3 for clip in first)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_samples_follow_the_distribution(temperature: float, top_p: float) -> None:
    probs = [0.4, 0.35, 0.2, 0.05]
    lm = Markov(torch.zeros(1, 4, 4))
    draws = 4000
    options = DecodeOptions(beams=draws, max_tokens=1, temperature=temperature, top_p=top_p, seed=0)
    [found] = generate(lm, torch.tensor(probs).log()[None, None], torch.ones(1, 1), options, stop_ids=[])
    counts = Counter(hypothesis.tokens[0] for hypothesis in found)

    kept = [prob ** (1 / temperature) if sum(probs[:rank]) < top_p else 0.0 for rank, prob in enumerate(probs)]
    for token, prob in enumerate(kept):
        expected = prob / sum(kept)
        # Four standard deviations of a binomial count.
        assert abs(counts[token] / draws - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws)


def test_a_vanishing_temperature_or_nucleus_is_greedy() -> None:
    prefix = prefixes()
    greedy = generate(LM, *prefix, DecodeOptions(beams=1, max_tokens=10), stop_ids=STOPS)
    for options in (DecodeOptions(1, 10, temperature=1e-4, seed=3), DecodeOptions(1, 10, 1.0, top_p=1e-6, seed=3)):
        drawn = generate(LM, *prefix, options, stop_ids=STOPS)
        assert [texts(clip) for clip in drawn] == [texts(clip) for clip in greedy]


LABELS = {
    "ragged": [[40], [41, 42, 43], [40, 44], [45, 46], [47, 48, 49, 50, 51]],
    "one beginning": [[40, 41, 42], [40, 41, 43, 44], [40, 41, 45, 46, 47]],
    "one beginning of the other": [[40, 41], [40, 41, 42]],
    "single": [[40, 41, 42]],
    "single tokens": [[40], [41], [42]],
    "twice the same": [[40, 41], [40, 41]],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("end_id", [None, 0])
@pytest.mark.parametrize("max_rows", [1, 5, 64])
def test_label_scores_are_those_of_a_full_pass_for_each(
    monkeypatch: pytest.MonkeyPatch, labels: list[list[int]], end_id: int | None, max_rows: int
) -> None:
    monkeypatch.setattr(decoding, "LABEL_ROWS", max_rows)
    embeds_BPD, mask_BP = prefixes((6, 3, 1))
    scores = score_labels(LM, *LM.prefill(embeds_BPD, mask_BP), labels, end_id=end_id)
    for (clip, label), total in zip(
        itertools.product(range(3), range(len(labels))), scores.total_BL.flatten().tolist(), strict=True
    ):
        ids = [*labels[label], *([] if end_id is None else [end_id])]
        real_1PD, _ = alone(embeds_BPD, mask_BP, clip)
        joined_1TD = torch.cat([real_1PD, LM.embed(torch.tensor([ids]))], dim=1)
        log_probs_TV = LM.model(inputs_embeds=joined_1TD).logits[0].float().log_softmax(-1)[-len(ids) - 1 : -1]
        assert total == pytest.approx(float(log_probs_TV[range(len(ids)), ids].sum()), abs=1e-3)
        assert int(scores.tokens_L[label]) == len(ids)
        assert float(scores.mean_BL[clip, label]) == pytest.approx(total / len(ids), abs=1e-4)


def test_labels_of_many_clips_are_read_in_bounded_rows_and_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven clips and ten labels: the shared beginning is one step of seven rows, the rest comes in full chunks."""
    monkeypatch.setattr(decoding, "LABEL_ROWS", 32)
    lm, first_B1V, mask_BP = markov(clips=7, vocabulary=20, seed=0)
    labels = [[1, 2, token, token] for token in range(3, 13)]
    score_labels(lm, *lm.prefill(first_B1V, mask_BP), labels)
    assert lm.rows == [7, 32, 32, 6]


def test_the_end_token_keeps_a_label_from_winning_as_the_beginning_of_another() -> None:
    """After token 1 comes token 2, never the end: 'guitar solo', not 'guitar'."""
    table_VV = torch.full((3, 3), -5.0)
    table_VV[1, 2] = 0.0
    table_VV[2, 0] = 1.0
    lm = Markov(table_VV[None])
    first = torch.tensor([[[-5.0, 0, -5]]]), torch.ones(1, 1)
    labels = [[1], [1, 2]]
    open_ended = score_labels(lm, *lm.prefill(*first), labels)
    ended = score_labels(lm, *lm.prefill(*first), labels, end_id=0)
    assert open_ended.total_BL.argmax() == 0
    assert ended.total_BL.argmax() == 1
    assert ended.mean_BL.argmax() == 1


token_lists = st.lists(st.integers(1, 5), min_size=1, max_size=4)
label_lists = st.lists(token_lists, min_size=1, max_size=8, unique_by=tuple)


@settings(deadline=None)
@given(label_lists)
def test_a_trie_spells_its_labels_and_nothing_else(labels: list[list[int]]) -> None:
    trie = LabelTrie(labels, end_id=0)
    spelled = []
    open_beginnings: list[tuple[int, ...]] = [()]
    while open_beginnings:
        beginning = open_beginnings.pop()
        for token in trie.allowed(beginning):
            if token == 0:
                spelled.append(beginning)
            else:
                open_beginnings.append((*beginning, token))
    assert sorted(spelled) == sorted(map(tuple, labels))
    assert [trie.index(tuple(label)) for label in labels] == list(range(len(labels)))
    assert trie.longest == max(map(len, labels))


@settings(max_examples=40, deadline=None)
@given(label_lists, st.integers(0, 10**6), st.integers(1, 4))
def test_constrained_search_returns_whole_labels_only(labels: list[list[int]], seed: int, beams: int) -> None:
    lm, first_B1V, mask_BP = markov(clips=2, vocabulary=6, seed=seed)
    trie = LabelTrie(labels, end_id=0)
    options = DecodeOptions(beams=beams, max_tokens=1)  # a tight limit cuts no label
    for clip in generate(lm, first_B1V, mask_BP, options, constraint=trie):
        assert clip
        assert all(hypothesis.finished for hypothesis in clip)
        indices = [trie.index(hypothesis.tokens) for hypothesis in clip]
        assert len(set(indices)) == len(indices) <= beams


@settings(max_examples=40, deadline=None)
@given(label_lists, st.integers(0, 10**6))
def test_constrained_search_with_a_beam_per_label_ranks_as_label_scores_do(labels: list[list[int]], seed: int) -> None:
    lm, first_B1V, mask_BP = markov(clips=2, vocabulary=6, seed=seed)
    trie = LabelTrie(labels, end_id=0)
    found = generate(lm, first_B1V, mask_BP, DecodeOptions(beams=len(labels)), constraint=trie)
    scores = score_labels(lm, *lm.prefill(first_B1V, mask_BP), labels, end_id=0)
    ranking_BL = scores.mean_BL
    ordered_BL = ranking_BL.sort(descending=True).values
    assume(len(labels) == 1 or float((ordered_BL[:, :-1] - ordered_BL[:, 1:]).min()) > 1e-4)
    assert [[trie.index(tokens) for tokens in texts(clip)] for clip in found] == ranking_BL.argsort(
        descending=True
    ).tolist()
    best = found[0][0]
    assert sum(best.log_probs) == pytest.approx(float(scores.total_BL[0, trie.index(best.tokens)]), abs=1e-4)


def test_samples_can_be_constrained_to_labels() -> None:
    trie = LabelTrie([[40, 41], [42], [43, 44, 45]], LM.end_id)
    found = generate(LM, *prefixes(), DecodeOptions(beams=20, temperature=1.5, seed=0), constraint=trie)
    drawn = {trie.index(hypothesis.tokens) for clip in found for hypothesis in clip}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "empty"),
        ([[1], []], "label 1 has no tokens"),
        ([[1], [2, 0]], "label 1 holds the end token"),
        ([[1, 2], [3], [1, 2]], "labels 0 and 2 are the same"),
    ],
)
def test_impossible_labels_are_named(labels: list[list[int]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LabelTrie(labels, end_id=0)


def test_a_beginning_of_a_label_has_no_index() -> None:
    trie = LabelTrie([[1, 2]], end_id=0)
    with pytest.raises(InputError, match="not a label"):
        trie.index((1,))
    assert trie.allowed((2,)) == ()


def test_scores_of_no_labels_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        score_labels(LM, *LM.prefill(*prefixes()), [])
    with pytest.raises(InputError, match="label 0 has no tokens"):
        score_labels(LM, *LM.prefill(*prefixes()), [[]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beams", 0),
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        DecodeOptions(**{name: value})


def embedded(lm: LanguageModel, texts_: list[str]) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(lm.encode(text)) for text in texts_]
    width = max(map(len, rows))
    ids_BP = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows])
    return lm.embed(ids_BP), torch.arange(width) >= width - torch.tensor([len(row) for row in rows])[:, None]


def test_smollm2_writes_what_hugging_face_lets_it_write(smollm2: LanguageModel) -> None:
    prefix = embedded(smollm2, ["The capital of France is", "A guitar is a musical instrument that"])
    [[short], [long]] = generate(smollm2, *prefix, DecodeOptions(beams=1, max_tokens=10))
    theirs = hugging_face(smollm2, *prefix, max_new_tokens=10, eos_token_id=smollm2.end_id)
    assert [short.tokens, long.tokens] == [until_stop(row, (smollm2.end_id,)) for row in theirs.sequences.tolist()]
    assert smollm2.decode(short.tokens).startswith(" Paris")


def test_smollm2_beams_are_the_same_alone_and_in_a_batch(smollm2: LanguageModel) -> None:
    prefix = embedded(smollm2, ["The capital of France is", "A guitar is a musical instrument that"])
    options = DecodeOptions(beams=3, max_tokens=8)
    batch = generate(smollm2, *prefix, options)
    single = [generate(smollm2, *alone(*prefix, clip), options)[0] for clip in range(2)]
    assert [texts(clip) for clip in single] == [texts(clip) for clip in batch]


def test_smollm2_scores_the_true_answer_highest(smollm2: LanguageModel) -> None:
    labels = [" Berlin", " Paris", " a church bell", " cold", " very hot"]
    prefix = embedded(smollm2, ["The capital of France is", "The opposite of hot is"])
    ids = [smollm2.encode(label) for label in labels]
    scores = score_labels(smollm2, *smollm2.prefill(*prefix), ids)
    assert [labels[int(best)] for best in scores.mean_BL.argmax(dim=1)] == [" Paris", " cold"]
    trie = LabelTrie(ids, smollm2.end_id)
    found = generate(smollm2, *prefix, DecodeOptions(beams=len(labels)), constraint=trie)
    assert {trie.index(hypothesis.tokens) for hypothesis in found[0]} == set(range(len(labels)))


def test_searches_that_join_a_batch_give_what_they_give_alone() -> None:
    """Prefixes of other lengths, joined at other steps, searched in other ways."""
    trie = LabelTrie([LM.encode(label) for label in ("dog", "dog barking", "rain", "a church bell")], LM.end_id)
    searches: list[tuple[int, tuple[int, ...], DecodeOptions, Constraint | None]] = [
        (0, (6, 3), DecodeOptions(beams=1, max_tokens=20), None),
        (2, (9,), DecodeOptions(beams=4, max_tokens=15), None),
        (3, (1,), DecodeOptions(beams=1, max_tokens=12), None),
        (3, (4, 12), DecodeOptions(beams=3, max_tokens=12, temperature=1.2, seed=3), None),
        (5, (7,), DecodeOptions(beams=3), trie),
        (30, (5,), DecodeOptions(beams=2, max_tokens=9), None),
    ]

    def group(lengths: tuple[int, ...], options: DecodeOptions, constraint: Constraint | None) -> SearchGroup[Any]:
        read = LM.prefill(*prefixes(lengths, seed=len(lengths)))
        return SearchGroup(LM, *read, options, stop_ids=STOPS, constraint=constraint)

    with torch.no_grad():
        alone = [finish(group(*search)) for _, *search in searches]
        found = together(LM, [(at, partial(group, *search)) for at, *search in searches])
    assert [[texts(clip) for clip in clips] for clips in found] == [[texts(clip) for clip in clips] for clips in alone]
    assert len({len(clip[0].tokens) for clips in alone for clip in clips}) > 3


def begun(lm: Markov, clip: int, first_B1V: Tensor, max_tokens: int, **more: Any) -> SearchGroup[Tensor]:
    """A greedy search that no stop token ends."""
    options = DecodeOptions(beams=1, max_tokens=max_tokens)
    return SearchGroup(lm, first_B1V[clip], torch.tensor([clip]), options, stop_ids=[], **more)


def test_a_late_search_shares_the_steps_that_are_left_and_a_finished_one_leaves() -> None:
    lm, first_B1V, _ = markov(2, 5, 0)
    found = together(lm, [(0, lambda: begun(lm, 0, first_B1V, 7)), (3, lambda: begun(lm, 1, first_B1V, 3))])
    assert lm.rows == [1, 1, 1, 2, 2, 1]
    assert [len(texts(clip)[0]) for [clip] in found] == [7, 3]


def test_a_search_that_is_given_up_leaves_the_others_as_they_are() -> None:
    lm, first_B1V, _ = markov(3, 5, 0)
    alone = [finish(begun(lm, clip, first_B1V, 6)) for clip in range(3)]
    lm.rows.clear()
    groups = [begun(lm, clip, first_B1V, 6) for clip in range(3)]
    batch = ContinuousBatch(lm)
    for group in groups:
        batch.add(group)
    for step in range(5):
        if step == 2:
            batch.remove(groups[0])
        batch.step()
    assert lm.rows == [3, 3, 2, 2, 2]
    assert [group.hypotheses() for group in groups[1:]] == alone[1:]
    assert not len(batch)


class Refusing(Constraint):
    """Everything may follow, until it breaks."""

    end_id = 0

    def allowed(self, tokens: tuple[int, ...]) -> Sequence[int]:
        if len(tokens) == 2:
            raise RuntimeError("broken by a text")
        return [1, 2, 3]


def test_a_constraint_that_fails_ends_its_own_search_alone() -> None:
    lm, first_B1V, _ = markov(2, 5, 0)
    alone = finish(begun(lm, 1, first_B1V, 6))
    lm.rows.clear()
    good, bad = begun(lm, 1, first_B1V, 6), begun(lm, 0, first_B1V, 6, constraint=Refusing())
    batch = ContinuousBatch(lm)
    for group in (bad, good):
        batch.add(group)
    while len(batch):
        batch.step()
    assert good.hypotheses() == alone
    assert lm.rows == [2, 2, 1, 1, 1]
    with pytest.raises(RuntimeError, match="broken by a text"):
        bad.hypotheses()


class Broken(Markov):
    """Cannot read a row of the first clip after the third step."""

    def step(self, ids_NT: Tensor, clip_N: Tensor) -> tuple[Tensor, Tensor]:
        if 0 in clip_N and len(self.rows) > 2:
            raise RuntimeError("broken by a row")
        return self.advance(ids_NT, clip_N)


def test_a_step_that_fails_is_made_by_each_search_alone_and_ends_those_that_cause_it() -> None:
    working, first_B1V, _ = markov(3, 5, 0)
    lm = Broken(working.table_BVV)
    alone = [finish(begun(working, clip, first_B1V, 7)) for clip in (1, 2)]
    groups = [begun(lm, clip, first_B1V, 7) for clip in range(3)]
    batch = ContinuousBatch(lm)
    for group in groups:
        batch.add(group)
    while len(batch):
        batch.step()
    assert lm.rows == [3, 3, 3, 1, 1, 2, 2]
    assert [group.hypotheses() for group in groups[1:]] == alone
    with pytest.raises(RuntimeError, match="broken by a row"):
        groups[0].hypotheses()


def test_a_coroutine_gets_the_hypotheses_of_each_group_that_it_awaits() -> None:
    lm, first_B1V, _ = markov(2, 5, 0)

    async def both() -> list[Any]:
        return [await begun(lm, clip, first_B1V, 4) for clip in range(2)]

    assert run(both()) == [finish(begun(lm, clip, first_B1V, 4)) for clip in range(2)]


def test_the_tokens_of_a_search_are_given_one_by_one() -> None:
    lm, first_B1V, _ = markov(1, 5, 0)
    given: list[tuple[int, ...]] = []
    [[found]] = finish(begun(lm, 0, first_B1V, 4, on_tokens=given.append))
    assert given == [found.tokens[:length] for length in (1, 2, 3, 4)]
