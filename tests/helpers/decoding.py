"""Searches that share a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pengi.decoding import ContinuousBatch, Hypothesis, SearchGroup

Begin = tuple[int, Callable[[], SearchGroup[Any]]]
"""The step before which a group joins, and what makes the group."""


def together(lm: Any, begins: Sequence[Begin]) -> list[list[list[Hypothesis]]]:
    """The hypotheses of groups that share a batch."""
    batch: ContinuousBatch[Any] = ContinuousBatch(lm)
    groups: dict[int, SearchGroup[Any]] = {}
    for step in range(1000):
        for index, (at, begin) in enumerate(begins):
            if at == step:
                groups[index] = begin()
                if not groups[index].done:
                    batch.add(groups[index])
        if len(groups) == len(begins) and not len(batch):
            return [groups[index].hypotheses() for index in range(len(begins))]
        batch.step()
    raise AssertionError("the searches never end")
