"""The beam search of Pengi's published code, with a key-value cache and in batches.

Shape suffixes: V vocabulary, N rows of a step (one per running beam).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor

from pengi.decoding import Beam, Candidate, Constraint, DecodeOptions, Hypothesis, Search
from pengi.errors import InputError


@dataclass(frozen=True)
class ReferenceOptions(DecodeOptions):
    """The search of the official wrapper, for use in place of ``DecodeOptions``.

    Finished and running beams are ranked together by their mean log-probability. Nothing is sampled: a ``temperature``
    above 0 divides the logits before beams are ranked, and 0 means 1.

    Raises:
        InputError: if a value is out of range, or an option is given that this search does not have.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_p != DecodeOptions.top_p:
            raise InputError("the reference search has no top_p; leave it out or use DecodeOptions")

    @classmethod
    def like(cls, options: DecodeOptions) -> Self:
        """The reference search with the values of other options."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(DecodeOptions)})

    def searches(self, stop_ids: frozenset[int]) -> list[Search]:
        """One search for all beams."""
        return [ReferenceSearch(self.beams, stop_ids, None)]

    def process_scores(
        self,
        logits_NV: Tensor,
        log_probs_NV: Tensor,
        histories: Sequence[tuple[int, ...]],
        constraint: Constraint | None,
    ) -> Tensor:
        """The log-probabilities after the temperature; see :class:`pengi.decoding.DecodeOptions`.

        Raises:
            InputError: for a constraint.
        """
        if constraint is not None:
            raise InputError("the reference search cannot be constrained to labels; use DecodeOptions")
        return (logits_NV / (self.temperature or 1.0)).log_softmax(dim=-1)


class ReferenceSearch(Search):
    """The search of one text.

    In the official code a finished beam is extended by token 0 at no cost, and its length no longer grows. So its mean
    stays the same and is still ranked against the means of the running beams. Here it is ranked in the same way, but
    not computed again.
    """

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> None:
        """Keep the ``beams`` best means among the finished beams and the extensions of the running ones."""
        kept = sorted(self.finished + self.extensions(candidates), key=self.rank, reverse=True)[: self.beams]
        self.finished = [beam for beam in kept if self.has_stopped(beam)]
        self.running = [beam for beam in kept if not self.has_stopped(beam)]

    @property
    def done(self) -> bool:
        """Whether every beam is finished."""
        return not self.running

    def hypotheses(self) -> list[Hypothesis]:
        """All beams by their means, whether finished or not."""
        ranked: list[Beam] = sorted(self.finished + self.running, key=self.rank, reverse=True)
        return [self.hypothesis(beam) for beam in ranked]
