"""Token edits: dropout that leaves something, one branch for each kind of sound, and moved embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pengi.data.manifest import Clip
from pengi.data.pseudo import ClassDirections
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.model import Masked
from pengi.training.edits import TokenEdits

CLIPS = [Clip(id=domain, audio="x", split="train", domain=domain) for domain in ("animal", "digit", "animal")]
COUNTS = (8, 3, 1)


def edits(**changes: Any) -> TokenEdits:
    plain = {
        "clips": CLIPS, "moved_to": (None, None, None), "directions": None,
        "token_dropout": 0.0, "branch_dropout": 0.0, "seed": 0,
    }  # fmt: skip
    return TokenEdits(**{**plain, **changes})


def tokens(branches: int = 1) -> list[Masked]:
    mask = torch.arange(8) < torch.tensor(COUNTS)[:, None]
    return [(torch.rand(3, 8, 16) * mask[..., None], mask.clone()) for _ in range(branches)]


def directions() -> ClassDirections:
    torch.manual_seed(0)
    tagger = YamnetTagger(YamnetEncoder.tiny(), tuple("abc"))
    with torch.no_grad():
        tagger.head.bias.fill_(-9.0)  # no class is heard as it is
    return ClassDirections(tagger)


def test_nothing_asked_for_changes_nothing() -> None:
    given = tokens(2)
    for (values, mask), (before, real) in zip(edits()(given), given, strict=True):
        assert torch.equal(values, before)
        assert torch.equal(mask, real)


def test_dropped_tokens_are_real_ones_and_every_row_keeps_some() -> None:
    given = tokens()
    kept = torch.zeros(3, 8)
    for seed in range(300):
        ((values, mask),) = edits(token_dropout=0.6, seed=seed)(given)
        assert torch.equal(values, given[0][0])
        assert mask.any(1).all()
        assert not (mask & ~given[0][1]).any()
        kept += mask
    assert kept[2, 0] == 300
    assert torch.allclose(kept[0] / 300, torch.full((8,), 0.4), atol=0.1)
    assert given[0][1].sum(1).tolist() == list(COUNTS)


def heard_by(edited: list[Masked]) -> list[list[bool]]:
    return [mask.any(1).tolist() for _, mask in edited]


def test_branch_dropout_leaves_sounds_to_the_first_branch_and_speech_to_the_others() -> None:
    every = heard_by(edits(branch_dropout=1.0)(tokens(3)))
    assert every == [[True, False, True], [False, True, False], [False, True, False]]
    some = [heard_by(edits(branch_dropout=0.5, seed=seed)(tokens(2))) for seed in range(300)]
    for row in range(3):
        both = sum(branches[0][row] and branches[1][row] for branches in some)
        assert both / 300 == pytest.approx(0.5, abs=0.1)
        assert all(branches[0][row] or branches[1][row] for branches in some)


def test_an_only_branch_is_never_dropped() -> None:
    assert heard_by(edits(branch_dropout=0.99)(tokens())) == [[True, True, True]]


def test_moved_rows_leave_the_others_alone_and_are_heard_by_the_first_branch_only() -> None:
    given = tokens(2)
    moves = directions()
    first, second = edits(directions=moves, moved_to=(1, None, None))(given)
    assert torch.equal(first[0][1:], given[0][0][1:])
    assert not torch.equal(first[0][0], given[0][0][0])
    assert torch.equal(second[0], given[1][0])
    assert heard_by([first, second]) == [[True, True, True], [False, True, True]]
    logits = first[0][0] @ moves.weight_CD[1] + moves.bias_C[1]
    assert logits.max() > (given[0][0][0] @ moves.weight_CD[1] + moves.bias_C[1]).max()
    assert given[1][1].any(1).all()  # what was given stays as it was


def test_padding_of_a_moved_row_stays_padding() -> None:
    given = tokens()
    ((values, mask),) = edits(directions=directions(), moved_to=(None, 2, None))(given)
    assert torch.equal(values[1, 3:], given[0][0][1, 3:])
    assert torch.equal(mask, given[0][1])


def test_gradients_pass_through_rows_that_are_not_moved() -> None:
    values = torch.rand(3, 8, 16, requires_grad=True)
    mask = torch.ones(3, 8, dtype=torch.bool)
    ((edited, _),) = edits(directions=directions(), moved_to=(0, None, None))([(values, mask)])
    edited.sum().backward()
    assert isinstance(values.grad, Tensor)
    assert values.grad.flatten(1).any(1).tolist() == [False, True, True]


def test_edits_repeat_for_a_seed() -> None:
    options = {"directions": directions(), "moved_to": (0, None, 1), "token_dropout": 0.3, "branch_dropout": 0.5}
    given = tokens(2)
    for (values, mask), (again, same) in zip(edits(**options)(given), edits(**options)(given), strict=True):
        assert torch.equal(values, again)
        assert torch.equal(mask, same)
    assert not torch.equal(edits(**options, seed=1)(given)[0][0], edits(**options)(given)[0][0])
