"""Divides a batch among several processes.

The batch of a step depends only on the seed and the step, and each process takes one share of its clips. The loss of a
batch is a mean over targets. The mean of each share is weighted by its number of targets, so that the losses and
gradients of the shares add up to those of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pengi.data.loader import TrainingBatch
from pengi.errors import ConfigError
from pengi.model import Batch


def share_of(clips: int, process: int, processes: int) -> range:
    """Indices, within the batch, of the clips of one process; the shares are as equal as possible.

    Raises:
        ConfigError: if a share would be empty.
    """
    if clips < processes:
        raise ConfigError(f"{processes} processes cannot share a batch of {clips} clips; raise training.batch_size")
    return range(clips * process // processes, clips * (process + 1) // processes)


def choose_rows(drawn: TrainingBatch, rows: Sequence[int]) -> TrainingBatch:
    """Some clips of a batch, with their examples; the padding of features stays as it is."""
    if list(rows) == list(range(len(drawn.clips))):
        return drawn
    index_of = {row: index for index, row in enumerate(rows)}
    clip_E = drawn.batch.clip_E.tolist()
    kept = [example for example, row in enumerate(clip_E) if row in index_of]
    chosen = list(rows)
    evidence = drawn.batch.evidence
    batch = Batch(
        features=tuple((values[chosen], mask[chosen]) for values, mask in drawn.batch.features),
        clip_E=torch.tensor([index_of[clip_E[example]] for example in kept]),
        prompts=tuple(drawn.batch.prompts[example] for example in kept),
        targets=tuple(drawn.batch.targets[example] for example in kept),
        evidence=None if evidence is None else tuple(evidence[row] for row in rows),
    )
    return TrainingBatch(
        batch=batch,
        clips=tuple(drawn.clips[row] for row in rows),
        pairs=tuple(drawn.pairs[example] for example in kept),
    )


def batch_on(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    features = tuple((values.to(device), mask.to(device)) for values, mask in batch.features)
    return replace(batch, features=features, clip_E=batch.clip_E.to(device))
