"""The warm start of the mappers, without the language model.

A frozen language model can only be told about a sound in its own embedding space, and finding that space through
thirty layers takes most of a training run. But the space is known: it is spanned by the model's input embeddings. So
some places of the audio prefix are each given an aspect of the clip (its event, the word spoken, the instrument, ...)
and learn to lie near the embedding of the words for it: cross-entropy over the cosine with every value of that aspect,
plus the squared distance to the right one. Then training through the language model starts from prefixes it can read.

Shape suffixes: A clips, V values of an aspect, P prefix embeddings, D language-model embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor
from torch.nn import functional

from pengi.data.loader import Loader, TrainingBatch
from pengi.data.manifest import Clip
from pengi.data.tasks import kind_of
from pengi.errors import ConfigError
from pengi.language_model import LanguageModel
from pengi.mapper import TransformerMapper, WordsMapper
from pengi.model import AudioBranch, Masked, PengiModel
from pengi.training.recipe import AlignmentConfig

NONE = "none"
NONE_WEIGHT = 0.1  # of a clip that has no value for an aspect, relative to one that has
SHARPNESS = 20.0  # cosine to logit
DISTANCE_WEIGHT = 0.5
LABEL_SMOOTHING = 0.05
WARMUP_STEPS = 50


def aspect_value(aspect: str, clip: Clip) -> str:
    """The words for one aspect of a clip: its first event, its kind, the word spoken, or an attribute."""
    if aspect == "event":
        return clip.events[0] if clip.events else NONE
    if aspect == "kind":
        return kind_of(clip)
    attributes = clip.attributes
    if aspect == "word":
        return str(attributes.get("keyword", attributes.get("digit", NONE)))
    return str(attributes.get(aspect, NONE))


@dataclass(frozen=True)
class Aspect:
    """One aspect: its values, where the language model has their words, and which place of the prefix tells it."""

    name: str
    place: int
    """Counted from the end if below zero."""
    place_of: Mapping[str, int]
    target_VD: Tensor
    """Mean input embedding of each value's tokens, at the length of a typical token's embedding."""

    def to(self, device: torch.device) -> Aspect:
        """The same on a device."""
        return replace(self, target_VD=self.target_VD.to(device))

    def weights(self, clips: Sequence[Clip]) -> list[float]:
        """How much each clip counts in the loss."""
        return [NONE_WEIGHT if aspect_value(self.name, clip) == NONE else 1.0 for clip in clips]


def values_of(name: str, clips: Sequence[Clip], more: Sequence[str] = ()) -> list[str]:
    """Every value of an aspect that the clips (and ``more``) have."""
    return sorted({aspect_value(name, clip) for clip in clips} | set(more) | {NONE})


def build_aspect(name: str, place: int, clips: Sequence[Clip], more: Sequence[str], lm: LanguageModel) -> Aspect:
    """An aspect with every value that the clips (and ``more``) have."""
    values = values_of(name, clips, more)
    if values == [NONE]:
        raise ConfigError(f"no training clip has anything for the aspect '{name}'")
    rows = [lm.embed(torch.tensor(lm.encode(" " + value))).float().mean(0) for value in values]
    typical = lm.embed(torch.arange(0, lm.vocab_size, max(1, lm.vocab_size // 1000))).float().norm(dim=-1).median()
    target_VD = functional.normalize(torch.stack(rows), dim=-1) * typical
    return Aspect(name, place, {value: index for index, value in enumerate(values)}, target_VD)


def aspect_loss(aspect: Aspect, values: Sequence[str], prefix_AD: Tensor) -> Tensor:
    """Loss of one place of the prefix, ``float32[A, D]``, against the right value of each clip."""
    device = prefix_AD.device
    expected_A = torch.tensor([aspect.place_of[value] for value in values], device=device)
    weight_A = torch.tensor([NONE_WEIGHT if value == NONE else 1.0 for value in values], device=device)
    cosine_AV = functional.normalize(prefix_AD, dim=-1) @ functional.normalize(aspect.target_VD, dim=-1).T
    entropy_A = functional.cross_entropy(
        SHARPNESS * cosine_AV, expected_A, reduction="none", label_smoothing=LABEL_SMOOTHING
    )
    distance_A = (prefix_AD - aspect.target_VD[expected_A]).square().sum(-1) / aspect.target_VD[0].square().sum()
    return ((entropy_A + DISTANCE_WEIGHT * distance_A) * weight_A).sum() / weight_A.sum()


def asked_clips(drawn: TrainingBatch, loader: Loader) -> list[Clip]:
    """The clips of a batch, those that are moved to a class as that class."""
    return [
        clip if index is None else loader.as_class(clip, index)
        for clip, index in zip(drawn.clips, drawn.moved_to, strict=True)
    ]


Goals = Sequence[Aspect]
"""What a branch is to say."""


def alignment_weights(goals: Sequence[Goals], clips: Sequence[Clip], heard: Sequence[Sequence[int]]) -> list[float]:
    """By how much each term of :func:`alignment_loss` is divided: the weights of the clips it is a mean over.

    With them the losses of parts of a batch add up to that of the whole.

    Args:
        goals: of each branch.
        clips: the clip that each row stands for.
        heard: for each branch the rows that it hears.
    """
    found: list[float] = []
    for goal, rows in zip(goals, heard, strict=True):
        own = [clips[row] for row in rows]
        found += [sum(aspect.weights(own)) for aspect in goal]
    return found


def alignment_loss(
    goals: Sequence[Goals],
    clips: Sequence[Clip],
    tokens: Sequence[Masked],
    mapped: Sequence[Masked],
    shares: Sequence[float] | None = None,
) -> Tensor:
    """Sum of the losses of all aspects of all branches; a branch is not asked about clips it does not hear.

    Args:
        goals: of each branch.
        clips: the clip that each row stands for.
        tokens: audio tokens of each branch; a row without any is not heard by it.
        mapped: what the branch's mapper made of them.
        shares: of each term, that these clips have in the whole batch (see :func:`alignment_weights`); 1 if not given.

    Raises:
        ConfigError: if a branch has more aspects than its prefix has places.
    """
    total = torch.zeros((), device=mapped[0][0].device)
    share = repeat(1.0) if shares is None else iter(shares)
    for goal, branch_tokens, (prefix_APD, _) in zip(goals, tokens, mapped, strict=True):
        if len(goal) > prefix_APD.shape[1]:
            raise ConfigError(f"alignment names {len(goal)} aspects for a prefix of {prefix_APD.shape[1]} places")
        heard = branch_tokens[1].any(1).nonzero().flatten().tolist()
        for aspect in goal:
            part = next(share)
            values = [aspect_value(aspect.name, clips[row]) for row in heard]
            if values:
                total = total + part * aspect_loss(aspect, values, prefix_APD[heard, aspect.place])
    return total


def build_goals(config: AlignmentConfig, model: PengiModel, loader: Loader) -> list[Goals]:
    """The goals of every branch; of ``config.last`` those that the clips have anything for, so there may be none.

    Raises:
        ConfigError: if they do not fit the model or the data.
    """
    if not config.aspects and not config.last:
        raise ConfigError("alignment needs aspects, or last")
    if config.aspects and len(config.aspects) != len(model.branches):
        raise ConfigError(f"alignment.aspects needs one list for each of the {len(model.branches)} audio branches")
    goals: list[Goals] = []
    for place, branch in enumerate(model.branches):
        first = _first_goals(branch, config.aspects[place], model, loader) if config.aspects else []
        goals.append([*first, *_last_goals(branch, config, model, loader)])
    return goals


def _first_goals(branch: AudioBranch, names: Sequence[str], model: PengiModel, loader: Loader) -> list[Aspect]:
    if names and isinstance(branch.mapper, WordsMapper):
        raise ConfigError("alignment.aspects must be empty for a branch that tells its classes in words")
    moved = [label.label for label in loader.directions.labels] if loader.directions else []
    return [
        build_aspect(name, place, loader.clips, moved if name == "event" else [], model.language_model)
        for place, name in enumerate(names)
    ]


def _last_goals(branch: AudioBranch, config: AlignmentConfig, model: PengiModel, loader: Loader) -> list[Aspect]:
    """Only a transformer's prefix has a last place: it is of one length, whatever the clip's."""
    if not isinstance(branch.mapper, TransformerMapper):
        return []
    names = [name for name in config.last if values_of(name, loader.clips) != [NONE]]
    return [
        build_aspect(name, place - len(names), loader.clips, [], model.language_model)
        for place, name in enumerate(names)
    ]


def alignment_rate(step: int, steps: int) -> float:
    """Of the warm start, relative to its highest: a short linear rise into a cosine to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
