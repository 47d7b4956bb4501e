"""From a prefix of embeddings to text: greedy and beam search, sampling, label scoring and label-constrained search.

This module works on token ids and a :class:`StepModel`, and does not depend on the model or the meaning of the prefix.
Clips of a batch are searched independently: each has its own beams and random numbers, and leaves the batch when it is
done. So a clip gives the same text alone and in a batch. The searches of several calls share the steps of the language
model in a :class:`ContinuousBatch`, which a call may join at any step.

Beam search ranks running beams by the sum of their log-probabilities. Finished beams are kept apart and ranked by their
mean. A subclass of :class:`DecodeOptions` may define another search.

Shape suffixes: B clips, P prefix positions, D embedding width, V vocabulary, L labels, N rows of a step (one per
running beam), T tokens of one call, R rows of a chunk of labels, S tokens shared by all labels, M tokens to score.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pengi.errors import InputError

HEAD_ROWS = 256
"""Number of positions whose logits are in memory at once while labels are scored: 50 MB for a vocabulary of 49,152."""
LABEL_ROWS = 64
"""Number of rows (a clip and a label each) that are scored in one step."""

State = TypeVar("State")
Result = TypeVar("Result")


class StepModel(Protocol[State]):
    """A causal language model that reads embeddings once and then continues token by token.

    Calls do not change the states that they are given, so a state can be used any number of times.
    """

    @property
    def end_id(self) -> int:
        """The token that ends a text."""

    def prefill(self, embeds_BPD: Tensor, mask_BP: Tensor, /) -> tuple[Tensor, State]:
        """Read a prefix: logits float32[B, V] of the next token, and the state after the prefix."""

    def step(self, ids_NT: Tensor, state: State, /) -> tuple[Tensor, State]:
        """Read further tokens: logits float32[N, T, V] after each, and the state that follows."""

    def advance(self, ids_NT: Tensor, state: State, /) -> tuple[Tensor, State]:
        """As :meth:`step`, with hidden states [N, T, D] in place of logits; :meth:`logits` converts selected ones."""

    def logits(self, hidden_MD: Tensor, /) -> Tensor:
        """Logits float32[M, V] of hidden states."""

    def select(self, state: State, index_N: Tensor, /) -> State:
        """The state of the given rows, which may repeat."""


class BatchModel(StepModel[State], Protocol[State]):
    """A language model whose states can be concatenated, even after different numbers of tokens."""

    def concat(self, states: Sequence[State], /) -> State:
        """The state of the rows of several states, one state after the other."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to search.

    With ``temperature`` 0, ``beams`` = 1 is greedy search and more is beam search. With ``temperature`` above 0,
    ``beams`` texts are drawn independently.

    Raises:
        InputError: if a value is out of range.
    """

    beams: int = 5
    max_tokens: int = 40
    temperature: float = 0.0
    top_p: float = 1.0
    """Nucleus sampling: only the most probable tokens are drawn whose probabilities add up to at least ``top_p``."""
    seed: int | None = None
    """The same seed gives the same samples; None uses a random one."""

    def __post_init__(self) -> None:
        for name in ("beams", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("temperature", "top_p"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be a finite number, not {getattr(self, name)}")
        if self.temperature < 0:
            raise InputError(f"temperature must not be negative, not {self.temperature}; 0 takes the most likely text")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, not {self.top_p}")

    def searches(self, stop_ids: frozenset[int]) -> list[Search]:
        """The searches of one clip: one for all beams, or one per sample.

        Sample i of every clip draws the same random numbers, whatever else is in the batch.
        """
        if self.temperature == 0:
            return [Search(self.beams, stop_ids, None)]
        rngs = [
            random.Random() if self.seed is None else random.Random(f"{self.seed}:{sample}")
            for sample in range(self.beams)
        ]
        return [Search(1, stop_ids, rng) for rng in rngs]

    def process_scores(
        self,
        logits_NV: Tensor,
        log_probs_NV: Tensor,
        histories: Sequence[tuple[int, ...]],
        constraint: Constraint | None,
    ) -> Tensor:
        """The log-probabilities ``float32[N, V]`` by which tokens are chosen.

        Args:
            logits_NV: the model's logits.
            log_probs_NV: their log-softmax.
            histories: the tokens that the text of each row already has.
            constraint: the texts that may be written; None for any.
        """
        if constraint is not None:
            return torch.stack([constraint.process_scores(*row) for row in zip(log_probs_NV, histories, strict=True)])
        return log_probs_NV


@dataclass(frozen=True)
class Hypothesis:
    """A text that a search has found."""

    tokens: tuple[int, ...]
    """Token ids without the stop token."""
    log_probs: tuple[float, ...]
    """The model's own natural log-probability of each token and, if finished, of the stop token: temperature
    does not change it, and a label constraint does not renormalise it."""
    finished: bool
    """Whether the text ends with a stop token; otherwise it was cut at ``max_tokens``."""

    @property
    def score(self) -> float:
        """Mean log-probability per token, the stop token included."""
        return sum(self.log_probs) / len(self.log_probs)


@dataclass(frozen=True)
class LabelScores:
    """How likely each label is as the continuation of each prefix."""

    total_BL: Tensor
    """float32[B, L]: natural log-probability of the whole label, the end token included where one was given."""
    tokens_L: Tensor
    """int64[L]: tokens per label, the end token included."""

    @property
    def mean_BL(self) -> Tensor:
        """float32[B, L]: log-probability per token, which compares labels of different lengths."""
        return self.total_BL / self.tokens_L


class Constraint:
    """The texts that may be written.

    Attributes:
        end_id: the token that ends a text.
        longest: tokens of the longest text; None if only the options of a search bound it.
    """

    end_id: int
    longest: int | None = None

    def allowed(self, tokens: tuple[int, ...]) -> Sequence[int] | NDArray[np.int64]:
        """Tokens that may follow ``tokens``, including the end token if ``tokens`` are a complete text."""
        raise NotImplementedError(f"{type(self).__name__} does not implement allowed")

    def process_scores(self, log_probs_V: Tensor, tokens: tuple[int, ...]) -> Tensor:
        """The log-probabilities of the next token, -inf for tokens that are not allowed."""
        allowed = torch.as_tensor(self.allowed(tokens), dtype=torch.long, device=log_probs_V.device)
        score_V = torch.full_like(log_probs_V, -math.inf)
        score_V[allowed] = log_probs_V[allowed]
        return score_V


class LabelTrie(Constraint):
    """Restricts texts to labels: a prefix tree over their token ids."""

    def __init__(self, labels: Sequence[Sequence[int]], end_id: int) -> None:
        """Build the tree.

        Raises:
            InputError: if there are no labels, or one is empty, holds the end token or equals another.
        """
        _check_labels(labels)
        self.end_id = end_id
        self.longest = max(len(label) for label in labels)
        self._index: dict[tuple[int, ...], int] = {}
        following: dict[tuple[int, ...], set[int]] = {}
        for position, label in enumerate(map(tuple, labels)):
            if end_id in label:
                raise InputError(f"label {position} holds the end token, which may only follow a label")
            if label in self._index:
                raise InputError(f"labels {self._index[label]} and {position} are the same")
            self._index[label] = position
            for length, token in enumerate((*label, end_id)):
                following.setdefault(label[:length], set()).add(token)
        self._following = {beginning: tuple(sorted(tokens)) for beginning, tokens in following.items()}

    def allowed(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """See :class:`Constraint`; empty if no label begins with ``tokens``."""
        return self._following.get(tokens, ())

    def index(self, tokens: tuple[int, ...]) -> int:
        """Index of a label in the list that the tree was built from.

        Raises:
            InputError: if the tokens are not a complete label.
        """
        if tokens not in self._index:
            raise InputError(f"the tokens {list(tokens)} are not a label")
        return self._index[tokens]


@dataclass(frozen=True)
class Candidate:
    """One way to extend one running beam."""

    row: int
    token: int
    score: float
    """Log-probability that ranks beams; see :meth:`DecodeOptions.process_scores`."""
    log_prob: float
    """The model's own log-probability."""


@dataclass(frozen=True)
class Beam:
    """A text that is being written."""

    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    total: float = 0.0
    """Sum of scores."""
    row: int = 0
    """Row of the last step that the beam extends."""

    def extended(self, candidate: Candidate) -> Beam:
        return Beam(
            (*self.tokens, candidate.token),
            (*self.log_probs, candidate.log_prob),
            self.total + candidate.score,
            candidate.row,
        )


@dataclass
class Search:
    """The beams of one text: the running ones, and the best of those that ended with a stop token."""

    beams: int
    stop_ids: frozenset[int]
    rng: random.Random | None
    running: list[Beam] = field(default_factory=lambda: [Beam()])
    finished: list[Beam] = field(default_factory=list)

    def rank(self, beam: Beam) -> float:
        """The score by which finished beams are ranked."""
        return beam.total / len(beam.tokens)

    def has_stopped(self, beam: Beam) -> bool:
        """Whether the last token of a beam is a stop token."""
        return beam.tokens[-1] in self.stop_ids

    def extensions(self, candidates: Sequence[Sequence[Candidate]]) -> list[Beam]:
        """Every running beam, extended by each of its candidates."""
        return [
            beam.extended(candidate)
            for beam, row_candidates in zip(self.running, candidates, strict=True)
            for candidate in row_candidates
        ]

    def advance(self, candidates: Sequence[Sequence[Candidate]]) -> None:
        """Keep the best extensions, given the most probable candidates of each running beam.

        A beam finishes only if it is among the ``beams`` best extensions. Further extensions are used only to keep
        ``beams`` beams running.
        """
        extended = sorted(self.extensions(candidates), key=lambda beam: beam.total, reverse=True)
        ended = [beam for beam in extended[: self.beams] if self.has_stopped(beam)]
        self.finished = sorted(self.finished + ended, key=self.rank, reverse=True)[: self.beams]
        self.running = [beam for beam in extended if not self.has_stopped(beam)][: self.beams]

    @property
    def done(self) -> bool:
        """Whether ``beams`` beams have finished and no running one, at its present length, ranks above the worst.

        Greedy search and sampling have one beam; they end at its first stop token.
        """
        if not self.running or len(self.finished) < self.beams:
            return not self.running
        return self.beams == 1 or self.rank(self.running[0]) <= self.rank(self.finished[-1])

    def hypotheses(self) -> list[Hypothesis]:
        """Finished texts, best first, then as many unfinished ones as are missing."""
        missing = self.beams - len(self.finished)
        return [self.hypothesis(beam) for beam in self.finished + self.running[:missing]]

    def hypothesis(self, beam: Beam) -> Hypothesis:
        """The text of a beam."""
        finished = self.has_stopped(beam)
        return Hypothesis(beam.tokens[:-1] if finished else beam.tokens, beam.log_probs, finished)


@torch.no_grad()
def generate(
    lm: StepModel[State],
    prefix_BPD: Tensor,
    mask_BP: Tensor,
    options: DecodeOptions,
    *,
    stop_ids: Sequence[int] | None = None,
    constraint: Constraint | None = None,
) -> list[list[Hypothesis]]:
    """Continue each prefix: ``options.beams`` hypotheses per clip, best first.

    Finished texts come before unfinished ones, and are ranked by their mean log-probability.

    Args:
        lm: the language model.
        prefix_BPD: float[B, P, D] embeddings.
        mask_BP: [B, P], zero at padding.
        options: how to search.
        stop_ids: tokens that end a text; None means the model's end token.
        constraint: only these texts may be written, each ended by the constraint's end token, so there may be fewer
            than ``options.beams``. ``stop_ids`` is ignored. If the constraint has a longest text, ``max_tokens`` is
            ignored, too, and all hypotheses are complete texts.
    """
    logits_BV, state = lm.prefill(prefix_BPD, mask_BP)
    return finish(SearchGroup(lm, logits_BV, state, options, stop_ids=stop_ids, constraint=constraint))


@dataclass(frozen=True)
class _Rows(Generic[State]):
    """Selected rows of a state, in any order; a row may be repeated. The selection is made when it is needed."""

    state: State
    index: list[int]
    count: int
    """Rows that the state has."""
    device: torch.device

    def selected(self, lm: StepModel[State]) -> State:
        """The state of the selected rows."""
        if self.index == list(range(self.count)):
            return self.state
        return lm.select(self.state, torch.tensor(self.index, device=self.device))


class SearchGroup(Generic[State]):
    """The searches of one call.

    A coroutine that awaits a group gets its hypotheses. The runner of the coroutine (:func:`run`, or the owner of a
    :class:`ContinuousBatch`) receives the group, and resumes the coroutine when the group is done.

    Args:
        lm: the language model.
        logits_BV: float32[B, V] of the next token of each clip, B at least 1.
        state: the model's state that gave the logits.
        options: how to search.
        stop_ids: see :func:`generate`.
        constraint: see :func:`generate`.
        on_tokens: called with all tokens of the first text after each new one; for greedy search or a sample.

    Attributes:
        rows: the state of each running beam; None once the group is done, or while it is in a batch.
    """

    def __init__(
        self,
        lm: StepModel[State],
        logits_BV: Tensor,
        state: State,
        options: DecodeOptions,
        *,
        stop_ids: Sequence[int] | None = None,
        constraint: Constraint | None = None,
        on_tokens: Callable[[tuple[int, ...]], None] | None = None,
    ) -> None:
        self.lm = lm
        self._options, self._constraint, self._on_tokens = options, constraint, on_tokens
        stops = frozenset(stop_ids if stop_ids is not None else [lm.end_id])
        self._left = options.max_tokens
        if constraint is not None:
            stops = frozenset([constraint.end_id])
            self._left = self._left if constraint.longest is None else constraint.longest + 1
        self._texts = [options.searches(stops) for _ in range(len(logits_BV))]
        self._active = list(itertools.chain.from_iterable(self._texts))
        self._error: Exception | None = None
        clips = [clip for clip, searches in enumerate(self._texts) for _ in searches]
        index = [clips[row] for row in self._extended(logits_BV[clips])]
        self.rows = _Rows(state, index, len(logits_BV), logits_BV.device) if index else None

    def __await__(self) -> Generator[SearchGroup[State], None, list[list[Hypothesis]]]:
        yield self
        return self.hypotheses()

    @property
    def beams(self) -> list[Beam]:
        """The running beams of all searches; each is a row of a step."""
        return [beam for search in self._active for beam in search.running]

    @property
    def done(self) -> bool:
        """Whether all searches have ended."""
        return not self._active

    def advance(self, logits_NV: Tensor) -> list[int]:
        """Add a token to every running beam, given the logits of each; returns the rows of the beams that stay running.

        An error ends only this group.
        """
        try:
            return self._extended(logits_NV)
        except Exception as error:  # noqa: BLE001 - `hypotheses` raises it
            self.fail(error)
            return []

    def fail(self, error: Exception) -> None:
        """End all searches with an error."""
        self._error, self._active = error, []

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The texts of each clip, the best first; the group must be done.

        Raises:
            Exception: the error that ended the group, if one did.
        """
        assert self.done, "the searches are not done"
        if self._error is not None:
            raise self._error
        return [_best_first(searches) for searches in self._texts]

    def _extended(self, logits_NV: Tensor) -> list[int]:
        _extend(self._active, logits_NV, self._options, self._constraint)
        self._left -= 1
        if self._on_tokens is not None:
            self._on_tokens(self._texts[0][0].hypotheses()[0].tokens)
        self._active = [search for search in self._active if self._left and not search.done]
        return [beam.row for beam in self.beams]


class ContinuousBatch(Generic[State]):
    """Groups of searches that advance together: a step of the language model reads one token of every running beam.

    A group may join or leave between any two steps. It has the same hypotheses as alone.
    """

    def __init__(self, lm: BatchModel[State]) -> None:
        self._lm = lm
        self._groups: list[SearchGroup[State]] = []
        self._rows: _Rows[State] | None = None
        """The states of the running beams, group by group."""

    def __len__(self) -> int:
        """Rows of the next step."""
        return sum(len(group.beams) for group in self._groups)

    @torch.no_grad()
    def add(self, group: SearchGroup[State]) -> None:
        """Let a group take part from the next step on; an error does not affect the other groups."""
        assert group.rows is not None, "the group is done, or in a batch already"
        rows = group.rows
        if self._rows is not None:
            states = [self._rows.selected(self._lm), rows.selected(self._lm)]
            count = len(self) + len(group.beams)
            rows = _Rows(self._lm.concat(states), list(range(count)), count, rows.device)
        self._groups.append(group)
        self._rows, group.rows = rows, None

    def remove(self, group: SearchGroup[State]) -> None:
        """Remove a group that is not done."""
        parts = self._parts()
        self._groups = [other for other in self._groups if other is not group]
        index = [row for other, rows in parts if other is not group for row in rows.index]
        self._rows = replace(parts[0][1], index=index) if index else None

    @torch.no_grad()
    def step(self) -> None:
        """Add a token to every running beam; groups that are done leave.

        If the common step fails, every group makes it by itself, so that an error ends only the groups that cause it.
        """
        if self._rows is None:
            return
        try:
            self._rows = _stepped(self._lm, self._groups, self._rows)
        except Exception as error:  # noqa: BLE001 - `hypotheses` of the group raises it
            if len(self._groups) == 1:
                self._groups[0].fail(error)
                self._rows = None
            else:
                self._step_apart()
        self._groups = [group for group in self._groups if not group.done]

    def _step_apart(self) -> None:
        parts = self._parts()
        self._groups, self._rows = [], None
        for group, rows in parts:
            group.rows = rows
            alone = ContinuousBatch(self._lm)
            alone.add(group)
            alone.step()
            group.rows = alone._rows
            try:
                if group.rows is not None:
                    self.add(group)
            except Exception as error:  # noqa: BLE001 - `hypotheses` of the group raises it
                group.fail(error)

    def _parts(self) -> list[tuple[SearchGroup[State], _Rows[State]]]:
        """Each group and its rows."""
        if self._rows is None:
            return []
        index = iter(self._rows.index)
        return [
            (group, replace(self._rows, index=list(itertools.islice(index, len(group.beams)))))
            for group in self._groups
        ]


@torch.no_grad()
def finish(group: SearchGroup[State]) -> list[list[Hypothesis]]:
    """Run a group by itself to its end, and return its hypotheses."""
    while group.rows is not None:
        group.rows = _stepped(group.lm, [group], group.rows)
    return group.hypotheses()


def run(work: Coroutine[SearchGroup[Any], None, Result]) -> Result:
    """Run a coroutine that awaits groups of searches, each group by itself, and return its result."""
    with torch.inference_mode():
        try:
            while True:
                finish(work.send(None))
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            work.close()


def _stepped(lm: StepModel[State], groups: Sequence[SearchGroup[State]], rows: _Rows[State]) -> _Rows[State] | None:
    """Make a step of all groups; returns the states of the beams that stay running, or None if none does."""
    counts = [len(group.beams) for group in groups]
    ids_NT = torch.tensor([[beam.tokens[-1]] for group in groups for beam in group.beams], device=rows.device)
    logits_NTV, state = lm.step(ids_NT, rows.selected(lm))
    index: list[int] = []
    first = 0
    for group, logits_MV in zip(groups, torch.split(logits_NTV[:, -1], counts), strict=True):
        index += [first + row for row in group.advance(logits_MV)]
        first += len(logits_MV)
    return _Rows(state, index, first, rows.device) if index else None


def _best_first(searches: list[Search]) -> list[Hypothesis]:
    if len(searches) == 1:
        return searches[0].hypotheses()
    samples = [hypothesis for search in searches for hypothesis in search.hypotheses()]
    return sorted(samples, key=lambda sample: (sample.finished, sample.score), reverse=True)


def _extend(active: Sequence[Search], logits_NV: Tensor, options: DecodeOptions, constraint: Constraint | None) -> None:
    """Advance every search by one token; row n of the logits belongs to the n-th running beam of all searches."""
    histories = [beam.tokens for search in active for beam in search.running]
    log_probs_NV = logits_NV.log_softmax(dim=-1)
    score_NV = options.process_scores(logits_NV, log_probs_NV, histories, constraint)
    rngs = [search.rng for search in active if search.rng is not None]
    if rngs:
        tokens_NK = _draw(score_NV, rngs, options)
    else:
        stops = len(active[0].stop_ids)
        tokens_NK = score_NV.topk(min(options.beams * (1 + stops), score_NV.shape[1])).indices
    columns = (tokens_NK, score_NV.gather(1, tokens_NK), log_probs_NV.gather(1, tokens_NK))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    candidates = (
        [Candidate(row, *values) for values in zip(*likeliest, strict=True) if values[1] > -math.inf]
        for row, likeliest in enumerate(rows)
    )
    for search in active:
        search.advance(list(itertools.islice(candidates, len(search.running))))


def _draw(score_NV: Tensor, rngs: Sequence[random.Random], options: DecodeOptions) -> Tensor:
    """One token per row, int64[N, 1], by inverting the cumulative distribution at each row's own random number.

    Double precision on the CPU, tokens from likely to unlikely: rounding differences between batch sizes move the
    boundaries between tokens by far less than any token's share.
    """
    score_NV = score_NV.double()
    # The highest becomes 0, so that dividing by a very low temperature keeps it finite.
    below_NV = score_NV - score_NV.amax(dim=-1, keepdim=True)
    probs_NV = (below_NV.cpu() / options.temperature).softmax(dim=-1)
    probs_NV, tokens_NV = probs_NV.sort(dim=-1, descending=True, stable=True)
    reached_NV = probs_NV.cumsum(dim=-1)
    last_N1 = (reached_NV - probs_NV < options.top_p).sum(dim=-1, keepdim=True) - 1
    chance_N1 = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64)
    drawn_N1 = (reached_NV <= chance_N1 * reached_NV.gather(1, last_N1)).sum(dim=-1, keepdim=True)
    return tokens_NV.gather(1, drawn_N1.minimum(last_N1)).to(score_NV.device)


@torch.no_grad()
def score_labels(
    lm: StepModel[State],
    logits_BV: Tensor,
    state: State,
    labels: Sequence[Sequence[int]],
    *,
    end_id: int | None = None,
) -> LabelScores:
    """Log-likelihood of every label after what the language model has read of each clip.

    Tokens that all labels begin with are read once for each clip; the rest of each label is read from there.

    Args:
        lm: the language model.
        logits_BV: float32[B, V] of the next token of each clip.
        state: the model's state that gave the logits.
        labels: token ids of each label.
        end_id: scored after each label if given, so that a label has no advantage if another one begins with it.

    Raises:
        InputError: if there are no labels, or one is empty.
    """
    _check_labels(labels)
    ending = () if end_id is None else (end_id,)
    sequences = [(*label, *ending) for label in labels]
    # Every label keeps at least one token of its own, the first of which is scored from the shared state.
    shared = min(_shared_length(sequences), min(map(len, sequences)) - 1)
    base_B = logits_BV.new_zeros(len(logits_BV))
    if shared:
        base_B, logits_BV, state = _read_shared(lm, logits_BV, state, sequences[0][:shared])
    rests = [sequence[shared:] for sequence in sequences]
    first_BL = logits_BV.log_softmax(dim=-1)[:, [rest[0] for rest in rests]]
    total_BL = base_B[:, None] + first_BL
    _add_rests(lm, state, rests, total_BL)
    return LabelScores(total_BL, torch.tensor([len(sequence) for sequence in sequences], device=total_BL.device))


def _check_labels(labels: Sequence[Sequence[int]]) -> None:
    if not labels:
        raise InputError("the list of labels is empty; give at least one label")
    for position, label in enumerate(labels):
        if not label:
            raise InputError(f"label {position} has no tokens; give every label a text")


def _shared_length(sequences: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens with which all sequences begin."""
    same = (len(set(tokens)) == 1 for tokens in zip(*sequences, strict=False))
    return sum(itertools.takewhile(bool, same))


def _read_shared(
    lm: StepModel[State], logits_BV: Tensor, state: State, tokens: tuple[int, ...]
) -> tuple[Tensor, Tensor, State]:
    """Read the same tokens after every prefix: their log-probability [B], the next logits [B, V] and the state."""
    ids_BS = torch.tensor(tokens, device=logits_BV.device).repeat(len(logits_BV), 1)
    hidden_BSD, state = lm.advance(ids_BS, state)
    total_B = logits_BV.log_softmax(dim=-1)[:, tokens[0]]
    for position, token in enumerate(tokens[1:]):
        total_B = total_B + lm.logits(hidden_BSD[:, position]).log_softmax(dim=-1)[:, token]
    return total_B, lm.logits(hidden_BSD[:, -1]), state


def _add_rests(lm: StepModel[State], state: State, rests: Sequence[tuple[int, ...]], total_BL: Tensor) -> None:
    """Add the log-probability of the tokens of each rest, except the first."""
    device = total_BL.device
    # Labels of similar length share a chunk, which keeps padding small.
    longer = sorted((label for label, rest in enumerate(rests) if len(rest) > 1), key=lambda label: len(rests[label]))
    pairs = [(clip, label) for label in longer for clip in range(len(total_BL))]
    for start in range(0, len(pairs), LABEL_ROWS):
        chunk = pairs[start : start + LABEL_ROWS]
        clip_R, label_R = torch.tensor(chunk, device=device).T
        tokens = [torch.tensor(rests[label], device=device) for _, label in chunk]
        ids_RT = pad_sequence(tokens, batch_first=True)
        scored_RT = pad_sequence([torch.ones_like(ids_T, dtype=torch.bool) for ids_T in tokens], batch_first=True)[
            :, 1:
        ]
        hidden_RTD, _ = lm.advance(ids_RT[:, :-1], lm.select(state, clip_R))
        gain_RT = total_BL.new_zeros(scored_RT.shape)
        gain_RT[scored_RT] = _score_tokens(lm, hidden_RTD[scored_RT], ids_RT[:, 1:][scored_RT])
        total_BL[clip_R, label_R] += gain_RT.sum(dim=1)


def _score_tokens(lm: StepModel[State], hidden_MD: Tensor, ids_M: Tensor) -> Tensor:
    """Log-probability float32[M] of the token that follows each hidden state."""
    scores = []
    for part_MD, part_M in zip(torch.split(hidden_MD, HEAD_ROWS), torch.split(ids_M, HEAD_ROWS), strict=True):
        logits_MV = lm.logits(part_MD)
        scores.append(logits_MV.gather(1, part_M[:, None])[:, 0] - logits_MV.logsumexp(dim=-1))
    return torch.cat(scores)
