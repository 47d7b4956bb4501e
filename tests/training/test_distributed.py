"""Batches shared by processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pengi.errors import ConfigError
from pengi.training.distributed import choose_rows, share_of
from pengi.training.recipe import read_recipe
from pengi.training.setup import prepare


@given(st.integers(1, 16), st.integers(0, 30))
def test_shares_cover_the_batch_in_order_and_are_about_equal(processes: int, more: int) -> None:
    clips = processes + more
    shares = [share_of(clips, process, processes) for process in range(processes)]
    assert [row for share in shares for row in share] == list(range(clips))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_no_share_is_empty() -> None:
    with pytest.raises(ConfigError, match="4 processes cannot share a batch of 3 clips"):
        share_of(3, 0, 4)


def test_chosen_clips_keep_their_features_and_examples(recipe: Path) -> None:
    drawn = prepare(read_recipe(recipe)).loader.batch(0)
    assert choose_rows(drawn, range(4)) is drawn
    chosen = choose_rows(drawn, [1, 3])
    assert chosen.clips == (drawn.clips[1], drawn.clips[3])
    for (values, mask), (before, real) in zip(chosen.batch.features, drawn.batch.features, strict=True):
        assert torch.equal(values, before[[1, 3]])
        assert torch.equal(mask, real[[1, 3]])
    expected = [
        (drawn.clips[row].id, prompt, target)
        for row, prompt, target in zip(
            drawn.batch.clip_E.tolist(), drawn.batch.prompts, drawn.batch.targets, strict=True
        )
        if row in (1, 3)
    ]
    found = [
        (chosen.clips[row].id, prompt, target)
        for row, prompt, target in zip(
            chosen.batch.clip_E.tolist(), chosen.batch.prompts, chosen.batch.targets, strict=True
        )
    ]
    assert found == expected != []
    assert [pair.target for pair in chosen.pairs] == list(chosen.batch.targets)
