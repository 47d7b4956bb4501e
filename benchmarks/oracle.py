"""The official wrapper's beam search as a slow oracle: it runs on the whole sequence at every step, one clip at a time.

It is written from the description in ``docs/reference.md`` and only for tests, which compare our search with it, and
for ``official_speed.py``, which measures how much faster ours is.

Shape suffixes: P prefix positions, N beams, T positions of the whole sequence, D embedding width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

HELD_TOKEN = 0
"""The token with which a finished beam is extended, at no cost."""


@dataclass(frozen=True)
class Beam:
    """A beam with all of its tokens, including the stop token, if there is one, and the held tokens after it."""

    tokens: tuple[int, ...] = ()
    total: float = 0.0
    """Sum of natural log-probabilities."""
    length: int = 0
    """Number of tokens that count: all up to and including the stop token."""
    finished: bool = False

    @property
    def mean(self) -> float:
        return self.total / self.length

    @property
    def counted(self) -> tuple[int, ...]:
        return self.tokens[: self.length]

    def extensions(self, log_probs_V: Tensor, beams: int, stop_id: int) -> list[Beam]:
        if self.finished:
            return [Beam((*self.tokens, HELD_TOKEN), self.total, self.length, True)]
        best = log_probs_V.topk(min(beams, len(log_probs_V)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [
            Beam((*self.tokens, token), self.total + value, self.length + 1, token == stop_id) for value, token in pairs
        ]


@torch.no_grad()
def search(
    model: Any,
    prefix_PD: Tensor,
    *,
    beams: int,
    max_tokens: int,
    stop_id: int,
    temperature: float = 1.0,
) -> list[Beam]:
    """All beams, the best mean first.

    At every step all beams, finished or not, go through the model from their first position on, with logits at every
    position; then the extensions with the best means are kept. It ends when every beam is finished, or at
    ``max_tokens``.

    Args:
        model: a causal language model of the transformers library.
        prefix_PD: float32[P, D], without padding.
        beams: how many are kept.
        max_tokens: longest text, in tokens.
        stop_id: the token that finishes a beam.
        temperature: divides the logits.
    """
    embed: nn.Module = model.get_input_embeddings()
    kept = [Beam()]
    for _ in range(max_tokens):
        sequences = [
            torch.cat([prefix_PD, embed(torch.tensor(beam.tokens, dtype=torch.long))]) if beam.tokens else prefix_PD
            for beam in kept
        ]
        logits_NTV = model(inputs_embeds=torch.stack(sequences), use_cache=False).logits
        log_probs_NV = (logits_NTV[:, -1] / temperature).softmax(-1).log()
        extended = [
            extension
            for beam, log_probs_V in zip(kept, log_probs_NV, strict=True)
            for extension in beam.extensions(log_probs_V, beams, stop_id)
        ]
        kept = sorted(extended, key=lambda beam: beam.mean, reverse=True)[:beams]
        if all(beam.finished for beam in kept):
            break
    return kept
