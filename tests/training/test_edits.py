"""Token edits: dropout that leaves something, one branch for each kind of sound, and moved embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pengi.data.manifest import Clip
from pengi.data.pseudo import ClassDirections
from pengi.encoders.yamnet import YamnetEncoder, YamnetTagger
from pengi.mapper import UNHEARD
from pengi.model import Masked
from pengi.training.edits import TokenEdits, leave_to_words

CLIPS = [Clip(id=domain, audio="x", split="train", domain=domain) for domain in ("animal", "digit", "animal")]
COUNTS = (8, 3, 1)


ROLES = ("sound", "speech", "words")


def edits(branches: int = 1, **changes: Any) -> TokenEdits:
    plain = {
        "clips": CLIPS, "moved_to": (None, None, None), "directions": None,
        "token_dropout": 0.0, "branch_dropout": 0.0, "sound_dropout": 0.0, "seed": 0,
        "roles": ROLES[:branches],
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
    for (values, mask), (before, real) in zip(edits(2)(given), given, strict=True):
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


def test_hidden_classes_are_unheard_by_the_branch_that_tells_words() -> None:
    given = tokens(3)
    hidden = (frozenset({2, 5}), frozenset[int](), frozenset({7}))
    edited = edits(3, hidden=hidden, tells=2)(given)
    for branch in range(2):
        assert torch.equal(edited[branch][0], given[branch][0])
    for row, classes in enumerate(hidden):
        unheard = (edited[2][0][row] == UNHEARD).all(0).nonzero().flatten().tolist()
        assert unheard == sorted(classes)
        assert torch.equal(edited[2][0][row][:, 8:], given[2][0][row][:, 8:])
    some = edits(3, hidden=hidden, tells=2, rows=[2])([(values[2:], mask[2:]) for values, mask in given])
    assert torch.equal(some[2][0], edited[2][0][2:])
    assert given[2][0].isfinite().all()


def heard_by(edited: list[Masked]) -> list[list[bool]]:
    return [mask.any(1).tolist() for _, mask in edited]


def test_branch_dropout_leaves_speech_to_the_speech_encoder_and_the_rest_to_the_others() -> None:
    every = heard_by(edits(3, branch_dropout=1.0)(tokens(3)))
    assert every == [[True, False, True], [False, True, False], [True, False, True]]
    some = [heard_by(edits(2, branch_dropout=0.5, seed=seed)(tokens(2))) for seed in range(300)]
    for row in range(3):
        both = sum(branches[0][row] and branches[1][row] for branches in some)
        assert both / 300 == pytest.approx(0.5, abs=0.1)
        assert all(branches[0][row] or branches[1][row] for branches in some)


@pytest.mark.parametrize("role", ["sound", "speech", "words"])
def test_an_only_branch_is_never_dropped(role: str) -> None:
    dropped = edits(roles=(role,), branch_dropout=1.0, sound_dropout=1.0)
    assert heard_by(dropped(tokens())) == [[True, True, True]]


def test_sound_dropout_leaves_sound_events_to_the_words() -> None:
    assert heard_by(edits(3, sound_dropout=1.0)(tokens(3))) == [[False, True, False], [True] * 3, [True] * 3]
    assert heard_by(edits(2, sound_dropout=1.0)(tokens(2))) == [[True] * 3] * 2


def test_a_moved_row_is_heard_as_words_of_what_the_classifier_says() -> None:
    moves = directions()
    sound, speech = tokens(2)
    words = (torch.rand(3, 1, 3), torch.ones(3, 1, dtype=torch.bool))
    edited = edits(3, directions=moves, moved_to=(1, None, None))([sound, speech, words])
    assert heard_by(edited) == [[False, True, True], [False, True, True], [True, True, True]]
    assert torch.equal(edited[0][0], sound[0])
    raised = edited[2][0] - words[0]
    assert torch.equal(raised[1:], torch.zeros(2, 1, 3))
    assert float(raised[0, 0, 1]) > 0.5


def test_sound_events_teach_only_the_branch_of_words() -> None:
    prefixes = [torch.rand(3, 2, 4, requires_grad=True) for _ in range(3)]
    mask = torch.ones(3, 2, dtype=torch.bool)
    given = [(prefix, mask) for prefix in prefixes]
    for roles, expected in (
        (("sound", "speech", "words"), [[False, True, False], [True] * 3, [True] * 3]),
        (("sound", "speech", "sound"), [[True] * 3] * 3),
    ):
        left = leave_to_words(given, CLIPS, roles)
        for (prefix, _), (before, _) in zip(left, given, strict=True):
            assert torch.equal(prefix, before)
        gradients = torch.autograd.grad(sum(prefix.sum() for prefix, _ in left), prefixes)
        assert [gradient.flatten(1).any(1).tolist() for gradient in gradients] == expected


def test_moved_rows_leave_the_others_alone_and_are_heard_by_the_sound_encoder_only() -> None:
    given = tokens(2)
    moves = directions()
    first, second = edits(2, directions=moves, moved_to=(1, None, None))(given)
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
    options = {
        "branches": 2,
        "directions": directions(),
        "moved_to": (0, None, 1),
        "token_dropout": 0.3,
        "branch_dropout": 0.5,
    }
    given = tokens(2)
    for (values, mask), (again, same) in zip(edits(**options)(given), edits(**options)(given), strict=True):
        assert torch.equal(values, again)
        assert torch.equal(mask, same)
    assert not torch.equal(edits(**options, seed=1)(given)[0][0], edits(**options)(given)[0][0])


@pytest.mark.parametrize("branches", [1, 3])
def test_a_part_is_edited_as_within_the_whole(branches: int) -> None:
    """Dropout, hidden branches and moves of some clips are those that they have in the whole batch."""
    options = {
        "branches": branches, "directions": directions(), "moved_to": (0, 1, None),
        "token_dropout": 0.4, "branch_dropout": 0.5, "sound_dropout": 0.5,
    }  # fmt: skip
    given = tokens(branches)
    if branches == 3:
        given[2] = (torch.rand(3, 1, 3), torch.ones(3, 1, dtype=torch.bool))
    for seed in range(20):
        whole = edits(**options, seed=seed)(given)
        for rows in ([0], [1, 2], [2]):
            part = edits(**options, seed=seed, rows=rows)
            found = part([(values[rows], mask[rows]) for values, mask in given])
            for (values, mask), (expected, real) in zip(found, whole, strict=True):
                assert torch.equal(values, expected[rows])
                assert torch.equal(mask, real[rows])
            heard = [mask[rows].any(1).nonzero().flatten().tolist() for _, mask in whole]
            assert part.heard() == heard
