"""A batch cut into parts: for several processes, and for pieces that fit into memory.

The batch of a step depends on the seed and the step alone. Each of W processes takes one share of its clips and reads
it in K pieces:

    batch            c0 c1 c2 c3 c4 c5 c6 c7
    process 0 of 2   c0 c1 | c2 c3                 K = 2
    process 1 of 2                 c4 c5 | c6 c7

The loss of a batch is a mean over targets. A part's mean counts with the share that it has in the targets of the
batch, so the parts' losses, and their gradients, add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pengi.data.loader import TrainingBatch
from pengi.errors import ConfigError
from pengi.model import Batch


def parts_of(clips: int, process: int, processes: int, pieces: int) -> list[range]:
    """The indices in a batch of each piece of a process's share, as equal as can be.

    Raises:
        ConfigError: if a piece would be empty.
    """
    count = processes * pieces
    if clips < count:
        shared = f"{processes} processes" if processes > 1 else "one process"
        raise ConfigError(f"a batch of {clips} clips cannot be cut for {shared} with accumulate: {pieces}")
    bounds = [clips * part // count for part in range(count + 1)]
    own = range(process * pieces, (process + 1) * pieces)
    return [range(bounds[part], bounds[part + 1]) for part in own]


def choose_rows(drawn: TrainingBatch, rows: Sequence[int]) -> TrainingBatch:
    """Some clips of a batch, with what is asked about them; features stay padded as they are."""
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
