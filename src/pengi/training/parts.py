"""A batch cut into parts: for several processes, and for pieces that fit into memory.

The batch of a step depends on the seed and the step alone. Each of W processes takes one share of its clips and reads
it in K pieces:

    batch            c0 c1 c2 c3 c4 c5 c6 c7
    process 0 of 2   c0 c1 | c2 c3                 K = 2
    process 1 of 2                 c4 c5 | c6 c7

The loss of a batch is a mean over target tokens, that of the warm start a mean over clips. A part's means count with
the share it has in the tokens and clips of the batch, so the parts' losses, and their gradients, add up to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pengi.data.loader import TrainingBatch
from pengi.data.manifest import Clip
from pengi.encoders.base import Augment
from pengi.errors import ConfigError
from pengi.model import Batch, Masked, PengiModel
from pengi.training.align import Goals, alignment_loss, alignment_weights
from pengi.training.edits import TokenEdits, leave_to_words


def parts_of(clips: int, process: int, processes: int, pieces: int) -> list[range]:
    """The places in a batch of each piece of a process's share, as equal as can be.

    Raises:
        ConfigError: if a piece would be empty.
    """
    count = processes * pieces
    if clips < count:
        shared = f"{processes} processes" if processes > 1 else "one process"
        raise ConfigError(f"a batch of {clips} clips cannot be cut for {shared} with accumulate: {pieces}")
    bounds = [clips * place // count for place in range(count + 1)]
    own = range(process * pieces, (process + 1) * pieces)
    return [range(bounds[place], bounds[place + 1]) for place in own]


def choose_rows(drawn: TrainingBatch, rows: Sequence[int]) -> TrainingBatch:
    """Some clips of a batch, with what is asked about them; features stay padded as they are."""
    if list(rows) == list(range(len(drawn.clips))):
        return drawn
    place_of = {row: place for place, row in enumerate(rows)}
    clip_E = drawn.batch.clip_E.tolist()
    kept = [example for example, row in enumerate(clip_E) if row in place_of]
    chosen = list(rows)
    batch = Batch(
        features=tuple((values[chosen], mask[chosen]) for values, mask in drawn.batch.features),
        clip_E=torch.tensor([place_of[clip_E[example]] for example in kept]),
        prompts=tuple(drawn.batch.prompts[example] for example in kept),
        targets=tuple(drawn.batch.targets[example] for example in kept),
        facts_AF=drawn.batch.facts_AF[chosen] if drawn.batch.facts_AF is not None else None,
    )
    return replace(
        drawn,
        batch=batch,
        clips=tuple(drawn.clips[row] for row in rows),
        pairs=tuple(drawn.pairs[example] for example in kept),
        moved_to=tuple(drawn.moved_to[row] for row in rows),
        hidden=tuple(drawn.hidden[row] for row in rows),
    )


def batch_on(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device."""
    features = tuple((values.to(device), mask.to(device)) for values, mask in batch.features)
    facts_AF = batch.facts_AF.to(device) if batch.facts_AF is not None else None
    return replace(batch, features=features, clip_E=batch.clip_E.to(device), facts_AF=facts_AF)


@dataclass(frozen=True)
class Part:
    """Some clips of a batch, on the device, and how they are changed on their way."""

    batch: Batch
    clips: tuple[Clip, ...]
    asked: Sequence[Clip]
    """As which each clip is asked about."""
    edits: TokenEdits
    augment: Augment | None = None


def heard_prefixes(model: PengiModel, part: Part, whole: list[Masked], mapped: Sequence[Masked]) -> list[Masked]:
    """The parts of the audio prefix in training: what branches make of the edited tokens, and what clips are told.

    Args:
        model: that is trained.
        part: of the batch.
        whole: audio tokens before they were edited.
        mapped: what the mappers made of them afterwards.
    """
    facts = [part.edits.hide_facts(told) for told in model.tell_facts(whole, part.batch.facts_AF)]
    return [*leave_to_words(mapped, part.clips, part.edits.roles), *facts]


class Objective(nn.Module):
    """What a step minimises. One module, because gradients of several processes are joined behind a module's call.

    Args:
        model: that is trained.
        goals: of the warm start, on the model's device; none without one.
        weight: of the warm start's loss in the training proper.
    """

    def __init__(self, model: PengiModel, goals: Sequence[Goals], weight: float) -> None:
        super().__init__()
        self.model = model
        self.goals = goals
        self.weight = weight

    def weights(self, part: Part, *, aligning: bool) -> Tensor:
        """What the means in a part's loss are over, ``float32[1 + G]``: target tokens, and clips for each goal."""
        tokens = 0 if aligning else sum(len(self.model.target_ids(target)) for target in part.batch.targets)
        asked = aligning or self.weight
        goals = alignment_weights(self.goals, part.asked, part.edits.heard()) if asked else []
        return torch.tensor([tokens, *goals])

    def forward(self, part: Part, shares: Sequence[float], *, aligning: bool) -> tuple[Tensor, Tensor]:
        """The loss of a part of a batch, and that part of it which is logged (without gradient).

        Args:
            part: of the batch.
            shares: its weights relative to those of the whole batch.
            aligning: whether this is the warm start, without the language model.
        """
        whole = self.model.audio_tokens(part.batch.features, part.augment)
        tokens = part.edits(whole)
        mapped = self.model.map_audio(tokens)
        if aligning:
            loss = alignment_loss(self.goals, part.asked, tokens, mapped, shares[1:])
            if not loss.requires_grad:  # no branch that is trained hears any of these clips
                loss = loss + 0.0 * sum(prefix.sum() for prefix, _ in mapped)
            return loss, loss.detach()
        prefixes = heard_prefixes(self.model, part, whole, mapped)
        heard = self.model.listen(whole)
        heard = heard.without(part.edits.told()) if heard else None
        answered = shares[0] * self.model.target_loss(prefixes, part.batch, heard).mean
        loss = answered
        if self.goals and self.weight:
            loss = loss + self.weight * alignment_loss(self.goals, part.asked, tokens, mapped, shares[1:])
        return loss, answered.detach()
